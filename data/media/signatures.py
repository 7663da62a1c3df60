"""Which formats are opened at all: a file's first bytes, whatever its name says.

Decoders are programs in C that read strangers' files; one of Pillow's starts another program (EPS starts
Ghostscript), some of FFmpeg's open further files and addresses (playlists). Only what the documentation names
reaches a decoder.
"""

from __future__ import annotations

import re
from pathlib import Path

PILLOW_FORMATS = ("BMP", "DIB", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_IMAGE = re.compile(
    rb"BM|\xff\xd8\xff|\x89PNG\r\n\x1a\n|P[1-6]\s|II\*\0|MM\0\*|II\+\0|MM\0\+|RIFF.{4}WEBP"
    rb"|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    re.DOTALL,
)
_VIDEO = re.compile(
    rb"GIF8[79]a|\x1a\x45\xdf\xa3|RIFF.{4}AVI |\0\0\x01[\xb3\xba\xbb\xe0-\xef]|\x30\x26\xb2\x75\x8e\x66\xcf\x11"
    rb"|.{4}(ftyp|moov|mdat|wide|free|skip|pnot|uuid)|.{0,1023}?\x47.{187}\x47.{187}\x47",
    re.DOTALL,
)
HEAD = 2048  # bytes; a transport stream may begin in the middle of a packet


def is_image_data(head: bytes) -> bool:
    """Whether a file begins like an image of one of the formats that are read."""
    return _IMAGE.match(head) is not None


def is_video_file(path: Path) -> bool:
    """Whether a file begins like a video of one of the formats that are read: no playlist, no script."""
    with path.open("rb") as file:
        return _VIDEO.match(file.read(HEAD)) is not None
