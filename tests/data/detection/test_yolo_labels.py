from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.dataset_yaml import DatasetConfig
from data.detection.records import read_records
from data.detection.yolo_labels import label_path, label_text, read_labels
from utils.errors import UserError

NAMES = ("car", "person")
Make = Callable[..., DatasetConfig]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("set/images/train/a.jpg", "set/labels/train/a.txt"),
        ("images/set/images/a.b.png", "images/set/labels/a.b.txt"),
        ("photos/a.jpg", "photos/a.txt"),
        ("my_images/a.jpg", "my_images/a.txt"),
    ],
)
def test_labels_lie_where_yolov5_looks(image: str, label: str) -> None:
    assert label_path(Path(image)) == Path(label)


def test_boxes_and_polygons_may_be_mixed(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("0 0.5 0.5 0.2 0.4\n\n1 0.1 0.2 0.4 0.3 0.2 0.6\n")
    labels = read_labels(file, NAMES)
    assert labels.bad_rows == []
    assert labels.classes.tolist() == [0, 1]
    np.testing.assert_allclose(labels.boxes_xyxy_norm, [[0.4, 0.3, 0.6, 0.7], [0.1, 0.2, 0.4, 0.6]])


def test_a_box_that_overhangs_is_clipped_to_the_image(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0 0.0 0.5 0.2 0.2")
    np.testing.assert_allclose(read_labels(tmp_path / "a.txt", NAMES).boxes_xyxy_norm, [[0, 0.4, 0.1, 0.6]])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "class 2 is not one of 0..1"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5"),
        ("car 0.5 0.5 0.1 0.1", "'car' is not a number"),
        ("0 0.5 0.5 0.1", "4 columns"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 columns"),
        ("0 nan 0.5 0.1 0.1", "nan"),
        ("nan 0.5 0.5 0.1 0.1", "nan"),
        ("0 inf 0.5 0.1 0.1", "inf"),
        ("0 0.5 320 0.1 0.1", "outside the image: 320"),
        ("0 0.5 -0.5 0.1 0.1", "outside the image"),
        ("0 0.5 0.5 0 0.1", "no size"),
    ],
)
def test_a_bad_row_names_file_line_and_fault(yolo_set: Make, row: str, message: str) -> None:
    description = yolo_set("0 0.5 0.5 0.1 0.1\n", f"0 0.5 0.5 0.1 0.1\n{row}\n")
    with pytest.raises(UserError) as caught:
        read_records(description, "train")
    assert f"{description.path / 'labels/train/001.txt'}:2: " in str(caught.value)
    assert message in str(caught.value)


def test_further_bad_rows_are_counted(yolo_set: Make) -> None:
    with pytest.raises(UserError, match=r"000\.txt:1: .*2 more bad rows"):
        read_records(yolo_set("7 0.5 0.5 0.1 0.1\n0 1\n", "x\n"), "train")


def test_a_label_file_that_is_no_text_is_named(yolo_set: Make) -> None:
    description = yolo_set("")
    (description.path / "labels/train/000.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"000\.txt:1: cannot be read as text"):
        read_records(description, "train")


def test_duplicate_rows_are_reported_and_dropped(yolo_set: Make) -> None:
    records, problems = read_records(
        yolo_set("0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n0 0.50 0.5 0.1 0.1\n"), "train"
    )
    assert records[0].classes.tolist() == [0, 1]
    assert len(problems) == 1
    assert "000.txt:3: 1 duplicate row" in problems[0]


@pytest.mark.parametrize("side", [100, 1000, 30_000])
def test_written_boxes_and_scores_read_back(tmp_path: Path, side: int) -> None:
    rng = np.random.default_rng(side)
    corners = rng.uniform(0, side, (200, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    classes, scores = rng.integers(0, 2, 200), rng.random(200).astype(np.float32)
    file = tmp_path / "a.txt"
    file.write_text(label_text(classes, boxes, side, side))
    labels = read_labels(file, NAMES)
    assert (labels.bad_rows, labels.notes) == ([], [])
    assert labels.classes.tolist() == classes.tolist()
    np.testing.assert_allclose(labels.boxes_xyxy_norm * side, boxes, rtol=0, atol=1e-9 * side)
    rows = [line.split() for line in label_text(classes, boxes, side, side, scores, range(200)).splitlines()]
    assert [np.float32(row[5]) for row in rows] == scores.tolist()
    assert [row[6] for row in rows] == list(map(str, range(200)))


def test_an_image_without_objects_has_an_empty_label_file() -> None:
    assert label_text([], np.zeros((0, 4)), 10, 10, [], []) == ""
