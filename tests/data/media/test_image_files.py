from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.media.image_files import ImageReadError, is_image, read_image, read_size

ORIENTATION = 0x0112
QUARTERS = ((200, 30, 30), (30, 30, 200), (30, 200, 30), (220, 220, 220))  # RGB, row by row
TURNED = {  # the quarters of the upright image, row by row, for each EXIF orientation
    1: (0, 1, 2, 3),
    2: (1, 0, 3, 2),
    3: (3, 2, 1, 0),
    4: (2, 3, 0, 1),
    5: (0, 2, 1, 3),
    6: (2, 0, 3, 1),
    7: (3, 1, 2, 0),
    8: (1, 3, 0, 2),
}
MODES = {
    "jpg": ("RGB", "L", "CMYK"),
    "png": ("RGB", "L", "1", "P", "RGBA", "LA", "I;16"),
    "tif": ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16"),
    "webp": ("RGB", "L", "RGBA"),
}


def quartered(mode: str) -> Image.Image:
    """Four quarters of other colors, 64 x 40 px."""
    pixels = np.zeros((40, 64, 3), np.uint8)
    for number, color in enumerate(QUARTERS):
        y, x = divmod(number, 2)
        pixels[y * 20 : y * 20 + 20, x * 32 : x * 32 + 32] = color
    image = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def save(image: Image.Image, file: Path, orientation: int) -> None:
    if file.suffix == ".tif":
        image.save(file, tiffinfo={ORIENTATION: orientation})
        return
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    image.save(file, exif=exif)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix in MODES for mode in MODES[suffix]])
def test_header_size_is_decoded_size_and_the_pixels_stand_upright(
    tmp_path: Path, suffix: str, mode: str, orientation: int
) -> None:
    file = tmp_path / f"a.{suffix}"
    save(quartered(mode), file, orientation)
    pixels = read_image(file)
    height, width = pixels.shape[:2]
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    assert read_size(file) == (width, height) == ((40, 64) if orientation >= 5 else (64, 40))
    if mode != "1":
        middles = [pixels[y * height // 4, x * width // 4, ::-1].astype(int) for y in (1, 3) for x in (1, 3)]
        for middle, number in zip(middles, TURNED[orientation], strict=True):
            color = np.array(QUARTERS[number])
            if mode in ("L", "LA", "I;16"):
                color = np.full(3, round(float(color @ (0.299, 0.587, 0.114))))
            assert abs(middle - color).max() <= (60 if mode == "P" else 8)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_alpha_is_dropped_and_darkens_nothing(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    Image.new("RGBA", (50, 40), (200, 100, 60, 64)).save(file, lossless=True, exact=True)
    assert (read_image(file) == (60, 100, 200)).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_tiff_that_ends_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    quartered("RGBA").save(file)
    whole = file.read_bytes()
    lengths = [*range(4, 300), *range(300, len(whole), 997)]
    for data in [whole[:length] for length in lengths] + [whole[:4] + b"\xff" * 4 + whole[8:]]:
        file.write_bytes(data)
        try:
            assert read_image(file).shape == (40, 64, 3)
        except ImageReadError as error:
            assert "broken image" in str(error)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_a_tiff_whose_range_of_values_is_unknown_is_refused_by_its_header(tmp_path: Path, kind: type) -> None:
    file = tmp_path / "height.tif"
    Image.fromarray(np.ones((4, 6), kind)).save(file)
    with pytest.raises(ImageReadError, match=r"height\.tif: holds 32-bit .* 8 or 16 bits"):
        read_size(file)


@pytest.mark.parametrize("suffix", ["tif", "webp"])
def test_of_several_pages_or_frames_the_first_is_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    first, second = (Image.new("RGB", (24, 16), color) for color in ("white", "black"))
    first.save(file, save_all=True, append_images=[second])
    assert read_size(file) == (24, 16)
    assert read_image(file).shape == (16, 24, 3)
    assert read_image(file).min() > 240


@pytest.mark.parametrize("name", ["a.JPG", "a.Jpeg", "a.jfif", "a.PPM", "a.TIFF"])
def test_endings_in_capitals_and_rare_ones_are_images(name: str) -> None:
    assert is_image(Path(name))


@pytest.mark.parametrize("name", ["a.bmp", "a.jpg", "a.png", "a.ppm", "a.tif", "a.webp"])
def test_an_image_of_one_pixel_is_read(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (1, 1), "white").save(tmp_path / name)
    assert read_size(tmp_path / name) == (1, 1)
    assert read_image(tmp_path / name).shape == (1, 1, 3)
