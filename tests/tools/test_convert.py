from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data.converters import FORMATS
from data.converters.ground_truth import AnnotatedImage, hold_out
from data.dataset_yaml import read_dataset_yaml
from data.detection.records import ImageRecord, coco_category_ids, read_records
from tests import published_sets
from tools import convert
from tools.convert import ConvertConfig, main, with_flags
from utils.cli import parse
from utils.errors import UserError


@pytest.fixture
def convert_set(tmp_path: Path) -> Callable[..., Path]:
    """Writes the miniature of a format, converts it, and returns the converted folder."""

    def make(kind: str, edit: Callable[[Path], Any] = lambda source: None, **options: Any) -> Path:
        source = tmp_path / "source"
        if not source.exists():
            getattr(published_sets, kind)(source)
        edit(source)
        main(ConvertConfig(kind, source, tmp_path / "target", **options))
        return tmp_path / "target"

    return make


def records(target: Path, split: str = "train") -> list[ImageRecord]:
    images, problems = read_records(read_dataset_yaml(target / "data.yaml"), split)
    assert not problems
    return images


def boxes(record: ImageRecord, crowd: bool = False) -> list[list[float]]:
    """Class and corners of the targets, or of the crowds."""
    chosen = record.crowd == crowd
    return np.column_stack([record.classes[chosen], record.boxes_xyxy[chosen]]).tolist()


def test_visdrone_keeps_what_is_to_be_ignored_and_drops_others(
    convert_set: Callable, capsys: pytest.CaptureFixture
) -> None:
    (record,) = records(convert_set("visdrone"))
    assert boxes(record) == [[3, 5, 6, 15, 14], [0, 30, 20, 34, 26], [9, 60, 40, 64, 48]]
    assert boxes(record, crowd=True) == [[3, 50, 30, 56, 36]]
    assert record.ignore.tolist() == [[0, 0, 20, 10]]
    said = "".join(capsys.readouterr())
    assert "train: images 1, objects 3, to ignore 2" in said
    for note in ("'others' dropped: 2", "of no size dropped: 2", "clipped to their image: 2"):
        assert note in said


def test_uavdt_splits_by_video_and_keeps_its_ignored_regions(convert_set: Callable) -> None:
    target = convert_set("uavdt")
    first, second = records(target)
    assert first.path == target / "images/train/M0101/img000001.jpg"
    assert boxes(first) == [[0, 5, 6, 15, 14], [1, 40, 6, 45, 11]]
    assert boxes(second) == [[2, 7, 6, 17, 14]]
    assert first.ignore.tolist() == []
    assert second.ignore.tolist() == [[0, 0, 64, 20]]
    assert records(target, "test")[0].path.parent.name == "M0203"


def test_dota_corners_become_horizontal_boxes_and_difficult_ones_are_ignored(convert_set: Callable) -> None:
    record, empty = records(convert_set("dota"), "val")
    assert boxes(record) == [[4, 5, 5, 20, 20]]
    assert boxes(record, crowd=True) == [[0, 30, 5, 40, 15]]
    assert len(empty.classes) == 0


def test_xview_drops_types_without_a_class_and_holds_images_out(
    convert_set: Callable, capsys: pytest.CaptureFixture
) -> None:
    target = convert_set("xview", val=0.2)
    train, val = records(target), records(target, "val")
    assert (len(train), len(val)) == (8, 2)
    (record,) = [record for record in train + val if record.path.name == "0.tif"]
    assert boxes(record) == [[5, 5, 6, 15, 14], [59, 0, 0, 10, 10]]
    assert coco_category_ids(read_dataset_yaml(target / "data.yaml"), "train")[:2] == (11, 12)
    said = "".join(capsys.readouterr())
    assert "boxes of type 75 dropped, which has no class: 1" in said
    assert "boxes of 1395.tif dropped, an image that is missing: 1" in said


def test_sku110k_takes_sizes_from_its_rows(convert_set: Callable) -> None:
    (record,) = records(convert_set("sku110k"), "test")
    assert boxes(record) == [[0, 5, 6, 15, 14], [0, 50, 30, 64, 48]]


def test_voc_boxes_count_from_one_and_include_their_last_pixel(convert_set: Callable) -> None:
    (record,) = records(convert_set("voc"))
    assert boxes(record) == [[14, 0, 0, 64, 48]]
    assert boxes(record, crowd=True) == [[6, 10, 20, 20.5, 30]]


def test_xml_files_of_ones_own_bring_their_own_classes(convert_set: Callable, tmp_path: Path) -> None:
    source = tmp_path / "source"
    published_sets.write_image(source / "a.png")
    text = "<annotation><size><width>64</width><height>48</height></size>{}</annotation>"
    published_sets.write(source / "a.xml", text.format(published_sets.voc_object("drone", "2 3 10 9", 0)))
    target = convert_set("voc")
    assert read_dataset_yaml(target / "data.yaml").names == ("drone",)
    assert boxes(records(target)[0]) == [[0, 1, 2, 10, 9]]


def test_aitod_keeps_ids(convert_set: Callable) -> None:
    (record,) = records(convert_set("aitod"))
    assert record.image_id == 7
    assert boxes(record) == [[5, 5, 6, 15, 14]]


def test_sodads_category_ignore_becomes_regions(convert_set: Callable) -> None:
    (record,) = records(convert_set("sodad"))
    assert boxes(record) == [[4, 5, 6, 15, 14]]
    assert boxes(record, crowd=True) == [[0, 40, 30, 45, 35]]
    assert record.ignore.tolist() == [[0, 0, 30, 20]]


@pytest.mark.parametrize("split", ["train", "test"])
def test_tinyperson_has_one_class_and_ignores_uncertain_boxes(convert_set: Callable, split: str) -> None:
    (record,) = records(convert_set("tinyperson"), split)
    assert boxes(record) == [[0, 5, 6, 9, 11], [0, 20, 6, 24, 11]]
    assert boxes(record, crowd=True) == [[0, 0, 30, 60, 40], [0, 40, 6, 44, 11]]


def test_cocos_91_ids_become_80_classes_in_yolo_labels_without_crowds(
    convert_set: Callable, coco_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(coco_root, tmp_path / "source", ignore=shutil.ignore_patterns("source"))
    file = tmp_path / "source/annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    coco = yaml.safe_load(Path("data/coco.yaml").read_text())
    content["categories"] = [
        {"id": number, "name": name} for number, name in zip(coco["category_ids"], coco["names"], strict=True)
    ]
    file.write_text(json.dumps(content))
    target = convert_set("coco")
    assert (target / "labels/val2017/000000397133.txt").read_text() == "79 0.3125 0.546875 0.3125 0.59375\n"
    assert (target / "labels/val2017/000000252219.txt").read_text() == ""
    written = json.loads((target / "annotations/instances_val2017.json").read_text())
    assert [entry["id"] for entry in written["annotations"]] == [82445, 900100002157, 82446]
    assert [entry["area"] for entry in written["annotations"]] == [285.25, 500.0, 16.0]
    (target / "data.yaml").write_text(
        Path("data/coco.yaml").read_text().replace("../datasets/coco", str(target))
    )
    from_json = records(target, "val")
    shutil.rmtree(target / "annotations")
    for yolo, kept in zip(records(target, "val"), from_json, strict=True):
        np.testing.assert_allclose(yolo.boxes_xyxy, kept.boxes_xyxy[~kept.crowd], atol=1e-4)
        assert yolo.classes.tolist() == kept.classes[~kept.crowd].tolist()


def test_a_category_that_only_groups_others_becomes_no_class(
    convert_set: Callable, coco_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(coco_root, tmp_path / "source", ignore=shutil.ignore_patterns("source"))
    file = tmp_path / "source/annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"] = [
        {"id": 0, "name": "things", "supercategory": "none"},
        *({**entry, "supercategory": "things"} for entry in content["categories"]),
    ]
    file.write_text(json.dumps(content))
    target = convert_set("coco")
    assert yaml.safe_load((target / "data.yaml").read_text())["names"] == {
        0: "person",
        1: "stop sign",
        2: "toothbrush",
    }
    label = next((target / "labels").rglob("000000037777.txt")).read_text()
    assert label.startswith("1 ")


def test_yolo_labels_can_be_written_without_annotations(convert_set: Callable) -> None:
    target = convert_set("visdrone", labels="yolo")
    assert not (target / "annotations").exists()
    assert boxes(records(target)[0])[0] == pytest.approx([3, 5, 6, 15, 14], abs=1e-4)


@pytest.mark.parametrize("kind", sorted(set(FORMATS) - {"coco"}))
def test_the_yaml_that_ships_fits_what_the_converter_writes(convert_set: Callable, kind: str) -> None:
    target = convert_set(kind, val=0.2 if kind == "xview" else 0.0)
    shipped = yaml.safe_load(Path(f"data/{kind}.yaml").read_text())
    written = yaml.safe_load((target / "data.yaml").read_text())
    names = list(written["names"].values())
    assert names == shipped["names"]
    assert written.get("category_ids") == shipped.get("category_ids")
    for split in ("train", "val"):
        assert written[split] == shipped[split]
        assert written["annotations"][split] == shipped["annotations"][split]
    assert f"python -m tools.convert {kind} " in Path(f"data/{kind}.yaml").read_text()


def test_the_tables_of_formats_agree() -> None:
    assert tuple(FORMATS) == convert.NAMES


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(source: Path) -> None:
        path = source / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return edit


VISDRONE = "VisDrone2019-DET-train/annotations/9999945_00000_d_0000114.txt"
GT = "UAV-benchmark-MOTD_v1.0/GT/M0101_gt_whole.txt"
DOTA = "train/labelTxt-v1.0/labelTxt/P0001.txt"
XML = "VOCdevkit/VOC2007/Annotations/000012.xml"


@pytest.mark.parametrize(
    ("kind", "edit", "message"),
    [
        ("visdrone", replace(VISDRONE, "30,20,4,6,1,1,0,1", "30,20,4"), "0000114.txt:2: 3 columns"),
        ("visdrone", replace(VISDRONE, "30,20", "30,x"), "0000114.txt:2: 'x' is not a number"),
        ("visdrone", replace(VISDRONE, "1,4,0,0,\n", "1,12,0,0,\n"), "0000114.txt:1: category 12 is not"),
        ("visdrone", lambda source: (source / VISDRONE).unlink(), "no annotation file"),
        ("uavdt", replace(GT, "1,4,3", "1,4,7"), "M0101_gt_whole.txt:2: category 7"),
        ("uavdt", lambda source: shutil.rmtree(source / "UAV-benchmark-M/M0101"), "no folder M0101"),
        ("dota", replace(DOTA, "small-vehicle", "smal-vehicle"), "Did you mean 'small-vehicle'"),
        ("dota", replace(DOTA, "10.0 5.0 ", ""), "P0001.txt:3: 8 columns"),
        ("xview", replace("xView_train.geojson", '"5,6,15,14"', '"5,6,15"'), "feature 0: bounds_imcoords"),
        ("xview", replace("xView_train.geojson", '"type_id": 18', '"type_id": 95'), "feature 0: type_id 95"),
        ("xview", replace("xView_train.geojson", "{", "["), "not readable as JSON"),
        ("sku110k", replace("annotations/annotations_val.csv", "48\n", "49\n"), "annotations_val.csv:2"),
        ("sku110k", replace("annotations/annotations_val.csv", "object", "tin"), "val.csv:1: class 'tin'"),
        ("voc", replace(XML, "<xmin>11</xmin>", ""), "000012.xml: object 1: no <bndbox/xmin>"),
        ("voc", replace(XML, "</size>", ""), "not readable as XML"),
        (
            "aitod",
            replace("annotations/aitodv2_val.json", '"bbox": [5', '"bbox": ["a"'),
            "annotation 3: bbox",
        ),
        ("aitod", replace("annotations/aitodv2_val.json", "vehicle", "car"), "category 'car' is not one"),
        ("aitod", replace("annotations/aitodv2_val.json", '"image_id": 7', '"image_id": 8'), "image 8"),
        ("sodad", lambda source: shutil.rmtree(source / "Images"), "00001.jpg) are not in"),
        ("tinyperson", lambda source: shutil.rmtree(source / "annotations"), "no annotations below"),
        ("sodad", replace("Annotations/val.json", '"00001.jpg"', '"../Images/00001.jpg"'), "leads out of"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    convert_set: Callable, tmp_path: Path, kind: str, edit: Callable, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        convert_set(kind, edit)
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_existing_data_set_is_not_overwritten(convert_set: Callable) -> None:
    target = convert_set("sku110k")
    before = sorted(target.rglob("*"))
    with pytest.raises(UserError, match="already exists"):
        convert_set("sku110k")
    assert sorted(target.rglob("*")) == before


def test_missing_images_are_counted_and_left_out(
    convert_set: Callable, capsys: pytest.CaptureFixture
) -> None:
    def lose_one(source: Path) -> None:
        file = source / "annotations/annotations_train.csv"
        file.write_text(file.read_text() + "train_9.jpg,1,1,5,5,object,64,48\n")

    target = convert_set("sku110k", lose_one)
    assert len(records(target)) == 1
    said = "".join(capsys.readouterr())
    assert "images left out that are missing, such as" in said
    assert "train_9.jpg: 1\n" in said


def test_images_survive_their_source(convert_set: Callable, tmp_path: Path) -> None:
    target = convert_set("sku110k")
    shutil.rmtree(tmp_path / "source")
    assert len(records(target)) == 1


def test_a_copy_shares_nothing_with_its_source(convert_set: Callable) -> None:
    target = convert_set("sku110k", copy=True)
    assert (target / "images/train/train_0.jpg").stat().st_nlink == 1


def test_held_out_images_depend_on_names_only() -> None:
    images = [AnnotatedImage(Path(f"{n}.jpg"), f"{n}.jpg", 1, 1) for n in range(100)]
    train, val = hold_out(images, 0.25)
    assert (len(train), len(val)) == (75, 25)
    again = hold_out(images[::-1], 0.25)[1]
    assert {image.name for image in val} == {image.name for image in again}


def test_the_command_takes_three_arguments_and_names_what_is_wrong(tmp_path: Path) -> None:
    words = with_flags(["voc", "a", "b", "--labels", "yolo"])
    assert words == ["--format", "voc", "--source", "a", "--target", "b", "--labels", "yolo"]
    assert with_flags(["voc", "a", "b", "c"])[-1] == "c"
    with pytest.raises(UserError, match="Did you mean 'visdrone'"):
        parse(ConvertConfig, with_flags(["visdron", "a", "b"]))
    with pytest.raises(UserError, match="got no target"):
        parse(ConvertConfig, with_flags(["voc", "a"]))
    command = [sys.executable, "-m", "tools.convert", "voc", str(tmp_path / "none"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no folder" in done.stderr
