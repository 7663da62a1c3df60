from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.dataset_yaml import DatasetConfig, read_dataset_yaml
from data.detection.coco_json import read_coco
from data.detection.records import coco_category_ids, read_records, survey_records
from utils.errors import UserError


def coco(root: Path) -> DatasetConfig:
    """data/coco.yaml, its `path` pointing at the miniature."""
    text = Path("data/coco.yaml").read_text().replace("path: ../datasets/coco", f"path: {root}")
    (root / "coco.yaml").write_text(text)
    return read_dataset_yaml(root / "coco.yaml")


def test_coco_is_read_straight_from_its_instances_file(coco_root: Path) -> None:
    records, problems = read_records(coco(coco_root), "val")
    assert problems == []
    assert [record.image_id for record in records] == [397133, 37777, 252219]
    assert records[0].path.name == "000000397133.jpg"
    first = records[0]
    np.testing.assert_allclose(first.boxes_xyxy, [[10, 12, 30, 40.5], [0, 0, 50, 25]])
    assert first.classes.tolist() == [79, 0]
    assert first.areas.tolist() == [285.25, 500.0]
    assert first.crowd.tolist() == [False, True]
    assert records[1].classes.tolist() == [11]
    assert len(records[2].classes) == 0
    assert coco_category_ids(coco(coco_root), "val")[79] == 90


@pytest.mark.parametrize("cache", [False, True])
def test_boxes_and_areas_keep_all_their_digits(coco_root: Path, cache: bool) -> None:
    file = coco_root / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    box, area = [0.1, 1 / 3, 20.7, 10.123456789012345], 1024.0000000000002
    content["annotations"][0].update(bbox=box, area=area)
    file.write_text(json.dumps(content))
    read_records(coco(coco_root), "val")
    record = next(record for record in read_records(coco(coco_root), "val", cache)[0] if len(record.areas))
    assert box in record.boxes_xywh.tolist()
    assert area in record.areas.tolist()
    assert record.boxes_xyxy.dtype == np.float32


@pytest.mark.parametrize("place", ["val2017", "images/val2017", "images"])
def test_images_are_looked_for_in_the_usual_places(coco_root: Path, place: str) -> None:
    if place != "val2017":
        (coco_root / place).parent.mkdir(exist_ok=True)
        shutil.move(coco_root / "val2017", coco_root / place)
    assert len(read_records(coco(coco_root), "val")[0]) == 3


def test_coco_is_read_in_yolov5s_layout(coco_root: Path) -> None:
    shutil.rmtree(coco_root / "annotations")
    (coco_root / "images").mkdir()
    shutil.move(coco_root / "val2017", coco_root / "images/val2017")
    (coco_root / "labels/val2017").mkdir(parents=True)
    (coco_root / "labels/val2017/000000397133.txt").write_text("79 0.3125 0.546875 0.3125 0.59375\n")
    (coco_root / "val2017.txt").write_text(
        "./images/val2017/000000397133.jpg\n./images/val2017/000000252219.jpg\n"
    )
    records, _ = read_records(coco(coco_root), "val")
    assert [record.image_id for record in records] == [397133, 252219]
    np.testing.assert_allclose(records[0].boxes_xyxy, [[10, 12, 30, 40.5]])
    assert records[0].classes.tolist() == [79]


def test_without_either_layout_both_places_are_named(coco_root: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_records(coco(coco_root), "train")
    assert "train2017.txt" in str(caught.value)
    assert "instances_train2017.json" in str(caught.value)


def test_a_json_split_finds_its_categories_by_name(coco_root: Path) -> None:
    file = coco_root / "own.yaml"
    file.write_text("val: annotations/instances_val2017.json\nnames: [stop sign, toothbrush, person]")
    description = read_dataset_yaml(file)
    records, _ = read_records(description, "val")
    assert records[0].classes.tolist() == [1, 2]
    assert coco_category_ids(description, "val") == (13, 90, 1)


def test_the_yaml_may_say_where_the_images_are(coco_root: Path) -> None:
    shutil.move(coco_root / "val2017", coco_root / "elsewhere")
    text = "val: annotations/instances_val2017.json\nnames: [stop sign, toothbrush, person]\n"
    file = coco_root / "own.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"images: \{val: folder\}"):
        read_records(read_dataset_yaml(file), "val")
    file.write_text(text + "images: {val: elsewhere}")
    assert len(read_records(read_dataset_yaml(file), "val")[0]) == 3


def test_missing_and_resized_images_are_reported_and_left_out(coco_root: Path) -> None:
    (coco_root / "val2017/000000397133.jpg").unlink()
    shutil.copy(coco_root / "val2017/000000252219.jpg", coco_root / "val2017/000000037777.jpg")
    records, problems = read_records(coco(coco_root), "val")
    assert [record.image_id for record in records] == [252219]
    assert "no image" in problems[0]
    assert "is 64x64, but its COCO entry says 40x80" in problems[1]


def test_the_cache_notices_a_changed_image_of_a_coco_file(coco_root: Path) -> None:
    read_records(coco(coco_root), "val")
    (coco_root / "val2017/000000397133.jpg").unlink()
    assert len(read_records(coco(coco_root), "val")[0]) == 2


def test_boxes_of_no_size_or_outside_are_dropped_and_counted(coco_root: Path) -> None:
    file = coco_root / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [10, 10, 0, 5]
    content["annotations"][2]["bbox"] = [100, 10, 5, 5]
    file.write_text(json.dumps(content))
    records, problems = read_records(coco(coco_root), "val")
    assert sum(len(record.classes) for record in records) == 1
    assert [problem.split(".json: ")[1] for problem in problems] == [
        "1 box(es) dropped: of no size",
        "1 box(es) dropped: outside its image",
    ]


def three_classes(root: Path) -> DatasetConfig:
    file = root / "three.yaml"
    file.write_text("val: annotations/instances_val2017.json\nnames: [person, stop sign, toothbrush]")
    return read_dataset_yaml(file)


def broken(change: Callable[[dict], Any], coco_root: Path) -> Path:
    file = coco_root / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return file


def test_regions_to_ignore_are_read_cut_to_the_image_and_kept_in_the_cache(coco_root: Path) -> None:
    regions = [[10, 10, 20, 30], [60, 40, 50, 50], [70, 0, 5, 5]]
    broken(lambda c: c["images"][0].update(ignore_regions=regions), coco_root)
    for _ in range(2):  # the second time from the cache
        records, _ = read_records(coco(coco_root), "val")
        assert records[0].ignore.tolist() == [[10, 10, 30, 40], [60, 40, 64, 48]]
        assert records[1].ignore.shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][2].update(ignore_regions=[[1, 2, 3]]), "'ignore_regions' of image 252219"),
        (lambda c: c["images"][2].update(ignore_regions={"x": 1}), "'ignore_regions' of image 252219"),
        (lambda c: c["images"][2].update(ignore_regions=[1, 2, 3, 4]), "'ignore_regions' of image 252219"),
        (lambda c: c.pop("images"), "no list 'images'"),
        (lambda c: c["images"][1].pop("width"), "entry 1 of 'images' has no usable 'width'"),
        (lambda c: c["images"].append(c["images"][0]), "same id"),
        (lambda c: c["annotations"][0].pop("bbox"), "annotation 82445 has no usable 'bbox'"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "annotation 82445: bbox"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "annotation 82445: bbox"),
        (lambda c: c["annotations"][0].update(category_id=7), "category 7 is not one of"),
        (lambda c: c["annotations"][0].update(image_id=7), "of image 7, not in 'images'"),
        (lambda c: c["categories"][0].update(name="persn"), "Did you mean 'person'"),
    ],
)
def test_a_faulty_coco_file_says_where(coco_root: Path, change: Callable[[dict], Any], message: str) -> None:
    file = broken(change, coco_root)
    with pytest.raises(UserError) as caught:
        read_records(three_classes(coco_root), "val")
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_a_survey_lists_every_faulty_annotation_and_keeps_the_rest(coco_root: Path) -> None:
    broken(lambda c: c["annotations"][0].update(bbox=[1, 2]), coco_root)
    broken(lambda c: c["annotations"][1].update(category_id=7), coco_root)
    survey = survey_records(three_classes(coco_root), "val")
    assert "annotation 82445: bbox" in survey.bad_rows[0]
    assert "annotation 900100002157: category 7" in survey.bad_rows[1]
    assert [len(record.classes) for record in survey.records] == [0, 1, 0]


def test_a_cut_off_coco_file_is_named(coco_root: Path) -> None:
    file = coco_root / "annotations/instances_val2017.json"
    file.write_text(file.read_text()[:100])
    with pytest.raises(UserError, match="not readable as JSON"):
        read_coco(file, ["person"])
