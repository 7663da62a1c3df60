"""`Detector`: Ultralytics' Results from paths, arrays and videos, in threads."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.inference.detector import Detector
from tests.rectangles import NAMES, draw_image, save, save_video
from utils.errors import UserError

BOX = (40, 60, 70, 90)


@pytest.fixture
def detector(finder) -> Detector:
    return Detector("stub.pt", device="cpu")


def boxes(results) -> list[list[float]]:
    return [np.asarray(result.boxes.xyxy).round().ravel().tolist() for result in results]


def test_importing_it_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'cv2'}"
    code = f"import sys, engine.inference; sys.exit(bool({heavy} & set(sys.modules)))"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_every_kind_of_image_gives_the_same_boxes(tmp_path, detector):
    image = draw_image(BOX)
    gray, deep = image[..., 0], image.astype(np.uint16) * 257
    alpha = np.dstack((image, np.full(image.shape[:2], 9, np.uint8)))
    pillow = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    sources = [str(save(tmp_path / "a.png", image)), image, gray, deep, alpha, pillow, pillow.convert("RGBA")]
    sources.append(Image.fromarray(deep[..., 0]))
    for source in sources:
        assert boxes(detector(source)) == [list(map(float, BOX))]
    assert boxes(detector([image, pillow])) == [list(map(float, BOX))] * 2


def test_an_image_that_exif_rotates_is_rotated_back(tmp_path, detector):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn to the right
    Image.fromarray(draw_image((0, 0, 50, 20))).save(tmp_path / "a.jpg", exif=exif, quality=95)
    [from_file] = detector(str(tmp_path / "a.jpg"))
    [from_pillow] = detector(Image.open(tmp_path / "a.jpg"))
    assert from_file.orig_shape == from_pillow.orig_shape == (320, 240)
    np.testing.assert_allclose(from_pillow.boxes.xyxy, from_file.boxes.xyxy, atol=1)


def test_results_are_ultralytics_own(detector, tmp_path):
    [result] = detector(draw_image(BOX), conf=0.5)
    assert result.names == dict(enumerate(NAMES)) and result.boxes.conf.tolist() == pytest.approx([0.9])
    assert result.plot().shape == (240, 320, 3)
    assert json.loads(result.to_json())[0]["name"] == "white"
    result.save(str(tmp_path / "drawn.jpg"))
    assert (tmp_path / "drawn.jpg").exists()
    assert set(result.speed) == {"preprocess", "inference", "postprocess"}
    [nothing] = detector(draw_image(BOX), conf=0.95)
    assert len(nothing) == 0


def test_a_video_streams_frame_by_frame_and_is_tracked(tmp_path, detector):
    pytest.importorskip("lap", reason="tracking needs the package lap: pip install lap")
    video = save_video(tmp_path / "walk.avi", frames=9)
    frames = detector.stream(video, track="bytetrack")
    first = next(frames)
    assert first.boxes.id.tolist() == [1.0]
    assert {tuple(frame.boxes.id.tolist()) for frame in frames} == {(1.0,)}


def test_tiles_give_the_same_boxes_and_threads_do_not_disturb_each_other(detector):
    images = [draw_image((x, 50, x + 30, 80), size=(240, 640)) for x in range(20, 580, 40)]
    expected = boxes(detector(images))
    with ThreadPoolExecutor(4) as pool:
        tiled = list(pool.map(lambda image: boxes(detector(image, tile=160)), images))
    assert [one[0] for one in tiled] == expected


@pytest.mark.parametrize(
    "source, options, message",
    [
        (np.zeros((4, 4), np.float32), {}, "8 or 16 bits"),
        (np.zeros((4, 4, 2), np.uint8), {}, r"not \(4, 4, 2\)"),
        (np.zeros((40, 40, 3), np.uint8), {"imgsz": 100}, "multiple of the stride"),
        (np.zeros((40, 40, 3), np.uint8), {"tile": "big"}, "0 for none, or auto"),
        ("nowhere.jpg", {}, "no such source"),
        ([], {}, "no source given"),
        (np.zeros((40, 40, 3), np.uint8), {"track": "bytetrack"}, "not images"),
    ],
)
def test_wrong_input_is_one_clear_line(detector, source, options, message):
    with pytest.raises(UserError, match=message):
        detector(source, **options)
