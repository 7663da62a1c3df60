"""Strips, single pixels, tiles larger than the image, boxes as long as it: right results, bounded memory."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from engine.evaluation import command as val
from engine.evaluation.config import ValConfig
from engine.training import command as train
from tests.rectangles import draw_image, read_video, run, save
from tests.training_cases import config
from tools import doctor

# height and width of an image, the side of its tiles, and its white boxes
SHAPES = {
    "strip": ((50, 20_000), "64", [(0, 10, 20_000, 40)]),
    "tower": ((20_000, 50), "64", [(10, 0, 40, 20_000)]),
    "squares on a strip": ((50, 20_000), "64", [(100, 10, 130, 40), (19_960, 10, 19_990, 40)]),
    "a pixel": ((1, 1), "0", [(0, 0, 1, 1)]),
    "a pixel in a larger tile": ((1, 1), "640", [(0, 0, 1, 1)]),
    "a line": ((1, 300), "0", [(0, 0, 300, 1)]),
    "a column in larger tiles": ((300, 1), "128", [(0, 0, 1, 300)]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_detect_py_returns_the_boxes_of_odd_images_and_draws_them(tmp_path, finder, shape):
    size, tile, boxes = SHAPES[shape]
    save(tmp_path / "a.png", draw_image(*boxes, size=size))
    chosen = {"save_txt": True, "save_json": True, "save_csv": True, "save_crop": True, "heatmap": True}
    code, folder = run(tmp_path / "a.png", tmp_path, tile=tile, imgsz=(64,), **chosen)
    assert code == 0
    results = json.loads((folder / "predictions.json").read_text())
    corners = sorted((x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in results))
    np.testing.assert_allclose(corners, sorted(boxes), atol=1e-3)
    assert len((folder / "labels" / "a.txt").read_text().splitlines()) == len(boxes)
    assert len(list(csv.DictReader((folder / "predictions.csv").open()))) == len(boxes)
    for drawn in (folder / "a.png", folder / "heatmaps" / "a.jpg"):
        assert cv2.imread(str(drawn)).shape[:2] == size
    assert len(list((folder / "crops" / "white").iterdir())) == len(boxes)


@pytest.mark.parametrize("size", [(1, 1), (16, 10_000), (10_000, 16), (1, 300)])
def test_videos_of_odd_frames_play(tmp_path, finder, size):
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, size[::-1])
    for _ in range(3):
        writer.write(draw_image(size=size))
    writer.release()
    code, folder = run(tmp_path / "a.avi", tmp_path, imgsz=(64,), save_frames=True)
    assert code == 0
    [video] = folder.glob("a.*")
    frames = read_video(video)[1]
    assert (len(frames), frames[0].shape[:2]) == (3, size)
    assert len(list((folder / "frames").iterdir())) == 3


@pytest.fixture
def odd_set(tmp_path: Path) -> Path:
    """A data set of one image of each shape, with its boxes; returns its YAML."""
    for split in ("train", "val"):
        for number, (size, _, boxes) in enumerate(SHAPES.values()):
            save(tmp_path / "images" / split / f"{number}.png", draw_image(*boxes, size=size))
            lines = []
            for x1, y1, x2, y2 in boxes:
                center = ((x1 + x2) / 2 / size[1], (y1 + y2) / 2 / size[0])
                lines.append(" ".join(map(str, (0, *center, (x2 - x1) / size[1], (y2 - y1) / size[0]))))
            file = tmp_path / "labels" / split / f"{number}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n")
    description = {
        "path": str(tmp_path), "train": "images/train", "val": "images/val", "names": ["white", "red"],
    }  # fmt: skip
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(description))
    return tmp_path / "odd.yaml"


def test_train_py_takes_odd_images_without_mosaic(squares, odd_set, tmp_path):
    chosen = {"data": odd_set, "epochs": 1, "noval": True}
    assert train.main(config(squares, tmp_path, batch_size=4, **chosen)) == 0


def test_train_py_evaluates_and_draws_odd_images(squares, odd_set, tmp_path):
    hyp = yaml.safe_load((squares / "hyp.yaml").read_text()) | {"mosaic": 1.0, "scale": 0.5}
    (tmp_path / "hyp.yaml").write_text(yaml.safe_dump(hyp))
    chosen = {"data": odd_set, "hyp": tmp_path / "hyp.yaml", "epochs": 1, "plots": True}
    assert train.main(config(squares, tmp_path, batch_size=4, **chosen)) == 0
    folder = tmp_path / "exp"
    for name in ("train_batch0.png", "val_batch0_labels.png", "val_batch0_pred.png", "labels.png"):
        assert max(cv2.imread(str(folder / name)).shape) <= 4200
    assert json.loads((folder / "metrics.json").read_text())["AP"] is not None


def test_val_py_scores_the_boxes_of_odd_images_as_right(odd_set, finder, tmp_path):
    options = {"weights": (Path("stub.pt"),), "data": odd_set, "project": tmp_path, "device": "cpu"}
    val.main(ValConfig.of(**options, tile="64", imgsz=64, workers=0))
    metrics = json.loads((tmp_path / "exp" / "metrics.json").read_text())
    assert (metrics["AP"], metrics["AR100"]) == (1.0, 1.0)
    assert (tmp_path / "exp" / "report.html").stat().st_size > 10_000


def test_the_doctor_examines_odd_images(odd_set, tmp_path, capsys):
    code = doctor.main(doctor.DoctorConfig.of(data=odd_set, project=tmp_path / "doctor"))
    said = "".join(capsys.readouterr())
    assert "Traceback" not in said and code in (0, 1)
    assert f"{sum(len(boxes) for _, _, boxes in SHAPES.values())} " in said
    [png] = (tmp_path / "doctor").rglob("*.png")
    assert max(cv2.imread(str(png)).shape) < 2000


MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from data.media.frame import Frame
from engine.evaluation.report.gallery import Subject, _cut_out
from engine.evaluation.report.plots import plot_batch
from engine.inference.outputs.crops import Crops
from engine.inference.outputs.heat_map import HeatMap
from engine.inference.outputs.media import Media
from engine.inference.outputs.result import DetectedFrame
from engine.inference.pipeline import StageTimes
from engine.training.plots import plot_labels
from tools.demo import _drawn
from utils.detections import Detections
from utils.ultralytics_adapter import make_results

folder = Path(sys.argv[1])
def draw(height, width):
    image = np.full((height, width, 3), 90, np.uint8)
    detections = Detections.from_array([[0, 0, width, height, 0.9, 0]])
    result = DetectedFrame(Frame(image, Path("a.png")), "a", ["tree"], detections, (64, 64), 1, StageTimes())
    for output in (Media(folder), Crops(folder / "crops"), HeatMap(folder / "heat")):
        output.add(result)
        output.close()
    box = detections.xyxy[0]
    _cut_out(image, Subject(0, box, True, ""), detections.xyxy, detections.xyxy)
    _drawn(make_results(image, "a.png", ["tree"], detections))

def batch(count, height, width):
    images = np.zeros((count, 3, height, width), np.uint8)
    plot_batch(images, np.array([[0, 0, 0.5, 0.5, 1, 1]]), ["tree"], folder / "batch.png", "title")

draw(64, 64)
batch(1, 64, 64)
plot_labels([0], [[0.5, 0.5, 1, 1]], ["tree"], 64, folder / "labels.png")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for shape in ((50, 20_000), (20_000, 50), (1, 1), (1, 60_000), (2000, 4000)):
    draw(*shape)
for shape in ((1, 1536, 32), (1, 32, 1536), (16, 1536, 32), (16, 1280, 1280)):
    batch(*shape)
plot_labels([0, 0], [[0.5, 0.5, 1, 1], [0.5, 0.5, 1e-5, 1]], ["tree"], 20_000, folder / "labels.png")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kB on Linux only")
def test_no_drawing_of_an_odd_image_takes_more_than_a_few_hundred_megabytes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 400, "MiB above what small images take"
