"""Image files: which suffixes they have, their size from the header, their pixels."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from data.media.signatures import HEAD, PILLOW_FORMATS, is_image_data, size_in_header
from data.media.tiff_alpha import keep_colors
from utils.limits import IMAGE_PIXELS, IMAGE_RATIO
from utils.reading import check_regular, reason

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".dib", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
_EXIF_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
PLAUSIBLE = 64_000_000  # pixels of an image that may be in a file of any size: flat areas pack well
_UNBOUNDED = "whose range is not known; save it with 8 or 16 bits per channel"
_REFUSED = {  # by Pillow's format and mode
    ("TIFF", "F"): f"holds 32-bit floating-point pixels, {_UNBOUNDED}",
    ("TIFF", "I"): f"holds 32-bit whole-number pixels, {_UNBOUNDED}",
    ("PPM", "F"): f"holds 32-bit floating-point pixels, {_UNBOUNDED}",
    ("JPEG2000", "CMYK"): "holds CMYK in JPEG 2000, which cannot be decoded; save it as RGB",
}
_NO_HEADER = "is a bitmap without a file header, which cannot be decoded; save it as BMP or PNG"
_COMPLETE_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class ImageReadError(ValueError):
    """An image that cannot be read; the message names the file and the reason."""


def is_image(path: Path) -> bool:
    """Whether the file's suffix is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def read_size(path: Path) -> tuple[int, int]:
    """Return width and height, pixels, after EXIF rotation, from the file's header.

    A file without a proper end, such as a truncated one, is decoded once to find out whether it is broken.

    Raises:
        ImageReadError: missing, unreadable or truncated.
    """
    check_regular(path, "an image", ImageReadError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=PILLOW_FORMATS) as image:
                reason_not = _REFUSED.get((image.format or "", image.mode))
                if reason_not or image.format == "DIB":
                    raise ImageReadError(f"{path}: {reason_not or _NO_HEADER}")
                width, height = _stored_size(image)
                check_pixels(path, width, height)
                turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
                if not _ends_well(path, image.format):
                    image.load()
    except Image.DecompressionBombError:  # larger than Pillow likes; read_image has a limit of its own
        height, width = read_image(path).shape[:2]
        return width, height
    except UnidentifiedImageError as error:
        raise ImageReadError(f"{path}: cannot be read as an image") from error
    except ImageReadError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        raise ImageReadError(f"{path}: broken image ({reason(error)})") from error
    return (height, width) if turned else (width, height)


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as stored: some releases of Pillow give a TIFF's after rotation."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(image.tag_v2[_TIFF_WIDTH]), int(image.tag_v2[_TIFF_HEIGHT])
    return image.size


def _ends_well(path: Path, kind: str | None) -> bool:
    end = _COMPLETE_ENDS.get(kind or "")
    if end is None:
        return False
    with path.open("rb") as file:
        file.seek(-min(64, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return file.read().rstrip(b"\0\r\n").endswith(end)


def check_pixels(path: Path, width: int, height: int) -> None:
    """Refuse an image that is too large, or that a file of its size cannot hold.

    Raises:
        ImageReadError: as above.
    """
    pixels = width * height
    if pixels > IMAGE_PIXELS.most:
        raise ImageReadError(IMAGE_PIXELS.refusal(pixels, path))
    if pixels > PLAUSIBLE and pixels > path.stat().st_size * IMAGE_RATIO.most:
        size = f"{path}: broken image: its header says {width}x{height}"
        raise ImageReadError(IMAGE_RATIO.refusal(pixels // max(path.stat().st_size, 1), size))


def read_image(path: Path) -> np.ndarray:
    """Return the pixels (H, W, 3) uint8 BGR, rotated as EXIF says; alpha, or a fourth band, is dropped.

    Raises:
        ImageReadError: missing or unreadable.
    """
    check_regular(path, "an image", ImageReadError)
    try:
        encoded = np.fromfile(path, np.uint8)
        known = is_image_data(encoded[:HEAD].tobytes())
        if known:
            check_pixels(path, *(size_in_header(encoded) or (0, 0)))
            keep_colors(encoded)
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if known else None
    except (OSError, MemoryError, cv2.error) as error:
        raise ImageReadError(f"{path}: broken image ({reason(error)})") from error
    if image is None:
        raise ImageReadError(f"{path}: broken image (cannot be decoded)")
    if image.ndim != 3:
        raise ImageReadError(f"{path}: its pixels have another form than 8 or 16 bits per channel")
    return image
