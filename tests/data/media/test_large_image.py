"""Images read crop by crop equal images read whole."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from data.media import large_image
from data.media.image_files import ImageReadError, read_image
from data.media.large_image import LargeImage, open_large
from data.tiling import Tiling
from engine.inference.pipeline import detect_image
from engine.inference.settings import DetectSettings
from tests.rectangles import RectangleFinder, draw_image, run, save

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    monkeypatch.setattr(large_image, "LARGE", 20_000)


def random_image(shape, dtype=np.uint8, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (shape[0] // 8, shape[1] // 8, *shape[2:]), np.uint8)
    image = cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return image.astype(dtype) * (257 if dtype == np.uint16 else 1)


@pytest.mark.parametrize("suffix", [".tif", ".jp2"])
@pytest.mark.parametrize("kind", ["rgb", "gray", "rgba", "16-bit"])
def test_crops_equal_the_decoded_image(tmp_path, suffix, kind):
    if suffix == ".jp2" and kind == "rgba":
        pytest.skip("OpenCV writes none")
    shape = {"gray": (160, 240), "rgba": (160, 240, 4)}.get(kind, (160, 240, 3))
    path = save(tmp_path / f"a{suffix}", random_image(shape, np.uint16 if kind == "16-bit" else np.uint8))
    large, whole = open_large(path), read_image(path)
    assert isinstance(large, LargeImage) and large.shape == whole.shape
    gap = np.abs(large[30:130, 50:300].astype(int) - whole[30:130, 50:300])
    assert gap.max() <= (1 if suffix == ".jp2" else 0)
    small = large.overview(120)
    assert small.shape == (80, 120, 3)
    np.testing.assert_allclose(small.mean(), whole.mean(), atol=2)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")  # on big BigTIFF
@pytest.mark.parametrize("alpha", ["YES", "NO", "PREMULTIPLIED"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"interleave": "band", "compress": "deflate"},
        {"tiled": True, "compress": "lzw"},
        {"endianness": "big"},
        {"bigtiff": "YES"},
        {"bigtiff": "YES", "endianness": "big"},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_a_fourth_band_of_any_tiff_is_dropped_and_changes_no_color(tmp_path, alpha, kind, layout):
    image, path = random_image((160, 240, 4), kind), tmp_path / "a.tif"
    with rasterio.open(
        path, "w", "GTiff", 240, 160, 4, dtype=kind, photometric="RGB", alpha=alpha, **layout
    ) as file:
        file.write(image.transpose(2, 0, 1))
    colors = (image // (257 if kind == np.uint16 else 1))[..., 2::-1]
    np.testing.assert_array_equal(read_image(path), colors)
    np.testing.assert_array_equal(LargeImage(path)[0:160, 0:240], colors)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_whose_zero_is_white_is_no_negative(tmp_path, kind):
    image, path = random_image((160, 240), kind), tmp_path / "a.tif"
    with rasterio.open(path, "w", "GTiff", 240, 160, 1, dtype=kind, photometric="MINISWHITE") as file:
        file.write(image, 1)
    large, whole = open_large(path), read_image(path)
    np.testing.assert_array_equal(whole[..., 0], 255 - image // (257 if kind == np.uint16 else 1))
    np.testing.assert_array_equal(large[0:160, 0:240], whole)
    np.testing.assert_array_equal(large.overview(240), whole)


def test_small_turned_broken_and_other_images_are_read_whole(tmp_path):
    assert open_large(save(tmp_path / "small.tif", random_image((80, 80, 3)))) is None
    assert open_large(save(tmp_path / "a.png", random_image((160, 240, 3)))) is None
    Image.fromarray(random_image((160, 240, 3))).convert("P").save(tmp_path / "palette.tif")
    assert open_large(tmp_path / "palette.tif") is None
    Image.fromarray(random_image((160, 240, 3))).save(tmp_path / "turned.tif", tiffinfo={0x0112: 6})
    assert open_large(tmp_path / "turned.tif") is None
    (tmp_path / "broken.tif").write_bytes(b"II*\0broken")
    assert open_large(tmp_path / "broken.tif") is None


def test_detection_crop_by_crop_gives_the_same(tmp_path):
    boxes = [(x, y, x + 24, y + 24) for x in range(20, 560, 70) for y in range(20, 360, 70)]
    image = draw_image(*boxes, size=(400, 600))
    large = open_large(save(tmp_path / "a.tif", image))
    settings = DetectSettings((320, 320), tiling=Tiling(160), whole=True)
    whole, crops = (
        detect_image(RectangleFinder(), source, settings).detections.to_array() for source in (image, large)
    )
    np.testing.assert_allclose(crops[np.lexsort(crops.T)], whole[np.lexsort(whole.T)], atol=0.6)
    assert len(crops) == len(boxes)
    unscaled = detect_image(RectangleFinder(), large, DetectSettings((320, 320)))
    assert unscaled.shape == (224, 320) and len(unscaled.detections) == len(boxes)


def test_part_that_cannot_be_read_leaves_the_image_out(tmp_path, finder, capsys):
    save(tmp_path / "in" / "b.tif", draw_image((10, 10, 40, 40)))
    path, noise = tmp_path / "in" / "a.tif", random_image((320, 320, 3)).transpose(2, 0, 1)
    with rasterio.open(
        path, "w", "GTiff", 320, 320, 3, dtype="uint8", tiled=True, compress="deflate"
    ) as file:
        file.write(noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageReadError, match=r"a\.tif"):
        LargeImage(path)[0:320, 0:320]
    code, folder = run(tmp_path / "in", tmp_path, tile="160", save_crop=True)
    assert code == 1 and [file.name for file in folder.glob("*.*")] == ["b.jpg"]
    assert "a.tif" in capsys.readouterr().err
