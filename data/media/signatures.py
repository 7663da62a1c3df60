"""Which formats are opened at all: a file's first bytes, whatever its name says.

Decoders are programs in C that read strangers' files; one of Pillow's starts another program (EPS starts
Ghostscript), some of FFmpeg's open further files and addresses (playlists). Only what the documentation names
reaches a decoder.
"""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import numpy as np
from PIL import Image

PILLOW_FORMATS = ("BMP", "DIB", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # JPEG reads MPO, too
_IMAGE = re.compile(
    rb"BM|\xff\xd8\xff|\x89PNG\r\n\x1a\n|P[1-6]\s|II\*\0|MM\0\*|II\+\0|MM\0\+|RIFF.{4}WEBP"
    rb"|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    re.DOTALL,
)
_VIDEO = re.compile(
    rb"GIF8[79]a|\x1a\x45\xdf\xa3|RIFF.{4}AVI |\0\0\x01[\xb3\xba\xbb\xe0-\xef]"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|.{4}(ftyp|moov|mdat|wide|free|skip|pnot|uuid)|.{0,1023}?\x47.{187}\x47.{187}\x47",
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


def size_in_header(encoded: np.ndarray) -> tuple[int, int] | None:
    """Return width and height that the header of an image file's bytes (n,) uint8 says; None if unknown.

    JPEG and PNG are looked at here, in microseconds; Pillow knows the others.
    """
    head = encoded[:32].tobytes()
    if head.startswith(b"\x89PNG") and len(head) >= 24:
        width, height = struct.unpack(">II", head[16:24])
        return width, height
    if head.startswith(b"\xff\xd8"):
        return _jpeg_size(encoded)
    try:
        with Image.open(io.BytesIO(encoded.data), formats=PILLOW_FORMATS) as image:
            return image.size
    except Image.DecompressionBombError:
        return 2**31, 2**31
    except Exception:  # broken, which the decoder will say
        return None


def _jpeg_size(encoded: np.ndarray) -> tuple[int, int] | None:
    """Walk the segments of a JPEG file to its frame header."""
    data, place = encoded.data, 2
    while place + 9 < len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:  # filling, or a segment without length
            place += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[place + 7] << 8 | data[place + 8], data[place + 5] << 8 | data[place + 6]
        else:
            place += 2 + (data[place + 2] << 8 | data[place + 3])
    return None
