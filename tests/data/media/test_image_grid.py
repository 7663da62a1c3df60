"""What a file's header promises is what decoding gives, over everything that Pillow and OpenCV write."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.media.image_files import IMAGE_SUFFIXES, ImageReadError, read_image, read_size

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B", "I", "F")
DEPTHS = ("u1", "u2", "i2", "i4", "f4", "f8")
RGB = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8))


def by_pillow(folder: Path, suffix: str) -> Iterator[Path]:
    """Every mode, orientation and (for TIFF) compression that Pillow writes."""
    packed = (None, "tiff_lzw", "jpeg", "group4") if suffix == ".tif" else (None,)
    for mode, orientation, compression in itertools.product(MODES, range(1, 9), packed):
        file = folder / f"{mode.replace(';', '')}-{orientation}-{compression}{suffix}"
        exif = Image.Exif()
        exif[0x0112] = orientation
        about = {"tiffinfo": {0x0112: orientation}} if suffix == ".tif" else {"exif": exif}
        try:
            base = RGB.convert("L") if mode[0] in "IF" else RGB.convert("RGBA" if mode == "PA" else "RGB")
            base.convert(mode).save(file, **about, **({"compression": compression} if compression else {}))
        except (OSError, ValueError, KeyError, SystemError):
            file.unlink(missing_ok=True)
        else:
            yield file


def by_opencv(folder: Path, suffix: str) -> Iterator[Path]:
    """Every depth and number of channels that OpenCV writes."""
    for depth, channels in itertools.product(DEPTHS, (1, 2, 3, 4)):
        pixels = (np.random.default_rng(0).random((24, 40, channels)) * 200).astype(depth)
        file = folder / f"cv-{depth}-{channels}{suffix}"
        try:
            if cv2.imwrite(str(file), pixels):
                yield file
        except cv2.error:
            file.unlink(missing_ok=True)


def special(folder: Path) -> Iterator[Path]:
    """A palette with transparency, animations, several pages."""
    RGB.convert("P").save(folder / "palette.png", transparency=3)
    for name in ("animated.webp", "animated.png", "pages.tif", "pair.mpo"):
        other = RGB.rotate(90, expand=True) if name == "pages.tif" else RGB.rotate(180)
        RGB.save(folder / name, save_all=True, append_images=[other])
    yield from sorted(folder.iterdir())


def size_or_refusal(file: Path) -> tuple[int, int] | None:
    try:
        return read_size(file)
    except ImageReadError as error:
        assert str(error).startswith(str(file)) and "\n" not in str(error)
        return None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_header_size_is_decoded_size_for_all_that_pillow_and_opencv_write(tmp_path: Path) -> None:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    files = [*special(tmp_path)]
    for suffix in sorted(IMAGE_SUFFIXES):
        files += [*by_pillow(tmp_path, suffix), *by_opencv(tmp_path, suffix)]
    read = 0
    for file in files:
        size = size_or_refusal(file)
        if size is None:
            continue
        pixels = read_image(file)
        assert (pixels.dtype, pixels.shape) == (np.uint8, (size[1], size[0], 3)), file.name
        read += 1
    assert len(files) > 900 and read > 0.8 * len(files)


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("a.pnm", "F", "32-bit floating-point pixels"),
        ("a.tif", "I", "32-bit whole-number pixels"),
        ("a.jp2", "CMYK", "save it as RGB"),
        ("a.dib", "RGB", "save it as BMP or PNG"),
    ],
)
def test_what_cannot_be_decoded_is_refused_by_its_header(
    tmp_path: Path, name: str, mode: str, reason: str
) -> None:
    base = RGB if mode in ("CMYK", "RGB") else RGB.convert("L")
    base.convert(mode).save(tmp_path / name)
    with pytest.raises(ImageReadError, match=reason):
        read_size(tmp_path / name)
