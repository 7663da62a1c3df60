"""val.py --predictions with the Parquet of detect.py --ray: the numbers of the same detections in JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.evaluation import score
from engine.evaluation.parquet_results import _Numbers
from utils.detections import Detections
from utils.errors import UserError

pytest.importorskip("pyarrow")
pytest.importorskip("pandas")

from engine.inference.fleet.collect import DetectedFile, DetectedImage
from engine.inference.fleet.run import RunState
from engine.inference.fleet.shards import Origin, write_unit

CATEGORIES = [{"id": 3, "name": "car"}, {"id": 8, "name": "tree"}]
NAMES = ["tree", "car"]  # of the network, in another order


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """The same detections as a run folder and as a results file."""
    rng = np.random.default_rng(0)
    images, annotations, entries, files = [], [], [], []
    for number in range(6):
        images.append(
            {"id": number + 40, "file_name": f"{number % 2}/{number // 2}.jpg", "width": 300, "height": 200}
        )
        boxes = np.column_stack((rng.uniform(0, 200, (5, 2)), rng.uniform(10, 60, (5, 2)))).astype(np.float32)
        classes = rng.integers(0, 2, 5)
        for box, class_id in zip(boxes.tolist(), classes.tolist(), strict=True):
            category = {"tree": 8, "car": 3}[NAMES[class_id]]
            annotations.append({
                "id": len(annotations) + 1, "image_id": number + 40, "category_id": category, "bbox": box,
                "area": box[2] * box[3], "iscrowd": 0,
            })  # fmt: skip
        noisy = boxes + rng.normal(0, 2, boxes.shape).astype(np.float32)
        xyxy = np.hstack((noisy[:, :2], noisy[:, :2] + noisy[:, 2:]))
        detections = Detections.from_array(np.column_stack((xyxy, rng.random(5), classes)))
        files.append(DetectedFile(number, [DetectedImage(1, 300, 200, 1, detections)]))
        for corners, value, class_id in zip(
            detections.xyxy.astype(np.float64), detections.scores, classes, strict=True
        ):
            bbox = [*corners[:2].tolist(), *(corners[2:] - corners[:2]).tolist()]
            category = {"tree": 8, "car": 3}[NAMES[class_id]]
            entries.append(
                {"image_id": number + 40, "category_id": category, "bbox": bbox, "score": float(value)}
            )
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (tmp_path / "gt.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(entries))
    origin = Origin(NAMES, "a" * 16, "b" * 16)
    run = tmp_path / "run"
    run.mkdir()
    RunState.of(6, origin).save(run)
    names = [f"/archive/flights/{image['file_name']}" for image in images]
    write_unit(run, 0, files[:4], names[:4], origin)
    write_unit(run, 1, files[4:], names[4:], origin)
    return tmp_path


def values(case: Path, predictions: str) -> dict[str, float]:
    options = {"project": case / "runs", "plots": False}
    return score(case / predictions, case / "gt.json", **options).metrics.values


@pytest.mark.parametrize("where", ["run", "run/detections"])
def test_parquet_scores_as_the_results_file_with_the_same_detections(case, where):
    expected = values(case, "results.json")
    assert 0.1 < expected["AP"] < 1
    assert values(case, where) == expected


def test_images_and_classes_that_do_not_fit_are_one_line(case):
    content = json.loads((case / "gt.json").read_text())
    for image in content["images"]:
        image["file_name"] = "other-" + image["file_name"].replace("/", "-")
    (case / "gt.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="none of its images is in"):
        values(case, "run")
    content["categories"][0]["name"] = "bus"
    (case / "gt.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"class 'car' is not in .*Choose from: bus, tree"):
        values(case, "run")


def test_images_of_equal_names_are_told_apart_or_refused(case):
    content = json.loads((case / "gt.json").read_text())
    for number, image in enumerate(content["images"]):
        image["file_name"] = f"elsewhere-{number}/{Path(image['file_name']).name}"
    (case / "gt.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="may be 2 images of the annotations"):
        values(case, "run")


def test_images_detected_on_windows_are_found() -> None:
    images = _Numbers([Path("/data/images/a.jpg"), Path("/other/a.jpg")])
    assert [images.of(name) for name in ("C:\\data\\images\\a.jpg", "other/a.jpg", "b.jpg")] == [0, 1, -1]


def test_a_folder_without_parquet_is_one_line(case):
    (case / "empty").mkdir()
    with pytest.raises(UserError, match="no Parquet of detections there"):
        values(case, "empty")
