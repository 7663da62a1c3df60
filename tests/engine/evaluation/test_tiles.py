"""val.py --tile: the detections that are scored are those of detect.py."""

import json

import numpy as np
import pytest

from data.dataset_yaml import read_dataset_yaml
from data.detection.split import read_split
from engine.evaluation import command as val
from engine.evaluation import evaluator
from engine.evaluation.config import ValConfig
from engine.evaluation.predictions import predict_full_images
from engine.inference.detector import Detector
from engine.inference.settings import DetectSettings
from tests.rectangles import NAMES, draw_image, save
from utils.errors import UserError


@pytest.fixture
def boxes() -> list[tuple[int, int, int, int]]:
    """Squares on a grid, which the seams of tiles cut."""
    return [(x, y, x + 24, y + 24) for x in range(20, 600, 60) for y in range(20, 420, 60)]


@pytest.fixture
def data_yaml(tmp_path, boxes):
    """One full image of 640 x 480 pixels, whose data set cuts it into tiles of its own."""
    save(tmp_path / "images" / "a.png", draw_image(*boxes, size=(480, 640)))
    rows = [f"0 {(x + 12) / 640} {(y + 12) / 480} {24 / 640} {24 / 480}" for x, y, _, _ in boxes]
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("\n".join(rows))
    file = tmp_path / "data.yaml"
    file.write_text(f"path: {tmp_path}\nval: images\nnames: {NAMES}\ntile: {{size: 320}}\n")
    return file


def evaluate(data_yaml, tmp_path, **options):
    defaults = {"workers": 0, "device": "cpu", "plots": False, "project": tmp_path / "runs"}
    val.main(ValConfig.of(weights=("stub.pt",), data=data_yaml, save_json=True, **(defaults | options)))
    folder = tmp_path / "runs" / "exp"
    rows = [
        [x, y, x + w, y + h, entry["score"], entry["category_id"]]
        for entry in json.loads((folder / "predictions.json").read_text())
        for x, y, w, h in [entry["bbox"]]
    ]
    return np.array(rows), json.loads((folder / "metrics.json").read_text())


def in_order(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize(
    "tile, options", [("160", {}), ("auto", {}), ("0", {}), ("160", {"tile_whole": True})]
)
def test_detections_that_are_scored_equal_those_of_the_detector(data_yaml, tmp_path, finder, tile, options):
    finder.config |= {"imgsz": 160}
    detections, metrics = evaluate(data_yaml, tmp_path, tile=tile, **options)
    how = {"conf": 0.001, "iou": 0.6, "tile": tile if tile == "auto" else int(tile)} | options
    [result] = Detector("stub.pt", device="cpu")(tmp_path / "images" / "a.png", **how)
    assert len(detections) == len(result)
    np.testing.assert_allclose(in_order(detections), in_order(result.boxes.data.numpy()), atol=0.01)
    assert "whole" not in metrics, "the full image is all there is to score"
    if tile != "0":
        assert metrics["AP"] == pytest.approx(1) and metrics["objects"] == 70


def test_file_of_a_fixed_oblong_size_is_evaluated_like_detection(data_yaml, tmp_path, finder, capsys):
    finder.imgsz = (160, 320)
    detections, metrics = evaluate(data_yaml, tmp_path)
    assert {shape[2:] for shape in finder.shapes} == {(160, 320)}
    assert len(detections) == 70 and metrics["AP50"] == pytest.approx(1)
    assert "160x320 px, tiles of 320 px" in "".join(capsys.readouterr())


def test_classes_may_be_treated_as_one(data_yaml, tmp_path, finder):
    _, metrics = evaluate(data_yaml, tmp_path, tile="160", single_cls=True)
    assert list(metrics["classes"]) == ["object"] and metrics["AP"] == pytest.approx(1)


def test_full_image_that_broke_since_it_was_listed_is_left_out(data_yaml, tmp_path, finder, capsys):
    save(tmp_path / "images" / "b.png", draw_image(size=(100, 100)))
    records = read_split(read_dataset_yaml(data_yaml), "val", whole=True)
    (tmp_path / "images" / "a.png").write_bytes(b"")
    predictions = predict_full_images(finder, records, DetectSettings((160, 160)), progress=False)
    evaluation = evaluator.evaluate(predictions, NAMES)
    assert [record.path.name for record in evaluation.full_images.records] == ["b.png"]
    assert "left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tile": "8"}, "pixels from 32"),
        ({"tile": "large"}, "or auto, got large"),
        ({"tile": "0", "tile_whole": True}, "--tile 0 makes none"),
        ({"overlap": 0.3}, "--overlap belongs to --tile"),
        ({"tile_whole": True}, "--tile-whole belongs to --tile"),
        ({"tile_merge": "nmm"}, "--tile-merge belongs to --tile"),
        ({"tile": "64", "predictions": "a.json", "annotations": "b.json"}, "detections already"),
    ],
)
def test_options_that_cannot_go_together_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ValConfig.of(**options)
