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


# An object that the seam of two tiles without overlap cuts in half, and another beside it.
CUT, OTHER = (130, 40, 190, 80), (200, 40, 230, 80)
HALVES = [(130, 40, 160, 80), (160, 40, 190, 80)]


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"tile_merge": "seams"}, [CUT, OTHER]),
        ({"tile_merge": "nms"}, [*HALVES, OTHER]),
        ({"tile_merge": "nms", "tile_whole": True, "tile_thres": 0.6}, [*HALVES, CUT, OTHER]),
        ({"tile_merge": "nms", "tile_whole": True, "tile_thres": 0.4}, [*HALVES, OTHER]),
        (
            {"tile_merge": "nms", "tile_whole": True, "tile_thres": 0.6, "tile_metric": "ios"},
            [*HALVES, OTHER],
        ),
    ],
)
def test_tiles_are_merged_as_the_options_say(detector, options, expected):
    image = draw_image(CUT, OTHER, size=(160, 320))
    [result] = detector(image, tile=160, overlap=0.0, imgsz=160, **options)
    merged = sorted(np.asarray(result.boxes.xyxy).round().tolist())
    assert merged == sorted(list(map(float, box)) for box in expected)


def test_boxes_that_overlap_merge_into_the_box_around_them(detector):
    [result] = detector(
        draw_image(CUT, OTHER, size=(160, 320)),
        tile=160, overlap=0.0, imgsz=160, tile_whole=True, tile_merge="nmm", tile_thres=0.4,
    )  # fmt: skip
    merged = sorted(np.asarray(result.boxes.xyxy).round().tolist())
    assert list(map(float, CUT)) in merged and list(map(float, OTHER)) in merged


def test_every_option_of_detection_is_taken_by_its_name_on_the_command_line(detector):
    image = draw_image(BOX)
    chosen = {
        "conf_thres": 0.3, "iou_thres": 0.5, "max_det": 5, "classes": (0,), "agnostic_nms": True,
        "imgsz": 320, "tile": 160, "overlap": 0.25, "tile_whole": True, "tile_merge": "seams",
        "tile_metric": "ios", "tile_thres": 0.5, "interpolation": "linear", "augment": False,
        "batch_size": 2, "vid_stride": 1,
    }  # fmt: skip
    assert boxes(detector(image, **chosen)) == [list(map(float, BOX))]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"conf_thresh": 0.3}, "unknown option 'conf_thresh'. Did you mean 'conf_thres'?"),
        ({"tile_merg": "nms"}, "unknown option 'tile_merg'. Did you mean 'tile_merge'?"),
        ({"save_txt": True}, "unknown option 'save_txt'"),
        ({"weights": "a.pt"}, "unknown option 'weights'"),
        ({"tile_merge": "seam"}, "--tile-merge has no choice 'seam'. Did you mean 'seams'?"),
        ({"tile_metric": "giou"}, "--tile-metric has no choice 'giou'"),
        ({"tile_thres": 1.5}, "--tile-thres must be at most 1, got 1.5"),
    ],
)
def test_wrong_options_name_the_right_ones(detector, options, message):
    with pytest.raises(UserError) as caught:
        detector(draw_image(BOX), **options)
    assert message in str(caught.value)


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
