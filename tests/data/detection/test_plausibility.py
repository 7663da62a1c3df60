from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data.converters import FORMATS
from data.converters.writing import write_data_set
from data.dataset_yaml import DatasetConfig, read_dataset_yaml
from data.detection.coco_checks import check_coco
from data.detection.plausibility import Form, check_form
from data.detection.records import survey_records

SIZES = {
    "tiny": (0.002, 0.03),
    "small": (0.01, 0.15),
    "any": (0.01, 1.0),
    "large": (0.6, 1.0),
    "full": (1.0, 1.0),
}
CONFUSED = [("corners", "center"), ("corners", "corner"), ("center", "corner"), ("corner", "center")]
real_set = pytest.mark.skipif("YOLOV5_SPD_DATA" not in os.environ, reason="YOLOV5_SPD_DATA is not set")


def valid_boxes(seed: int, count: int, sizes: str, cluster: float) -> np.ndarray:
    """(count, 4) corners inside 0..1; the lower, the more they crowd in the upper left corner."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(*SIZES[sizes], (count, 2))
    low = rng.random((count, 2)) ** cluster * (1 - size)
    return np.concatenate([low, low + size], axis=1)


def written(boxes: np.ndarray, form: Form) -> np.ndarray:
    low, high = boxes[:, :2], boxes[:, 2:]
    first = {"center": (low + high) / 2, "corner": low, "corners": low}[form]
    return np.concatenate([first, high if form == "corners" else high - low], axis=1).round(6)


def place(index: int) -> str:
    return f"a.txt:{index}"


boxes_of_a_set = st.builds(
    valid_boxes,
    st.integers(0, 2**32 - 1),
    st.integers(1, 200),
    st.sampled_from(sorted(SIZES)),
    st.sampled_from([0.3, 1.0, 4.0]),
)


@settings(max_examples=300, deadline=None)
@given(boxes_of_a_set, st.sampled_from(["center", "corner"]))
def test_a_correct_set_raises_no_alarm_and_no_note(boxes: np.ndarray, form: Form) -> None:
    assert check_form(written(boxes, form), form, place) == ([], [])


@settings(max_examples=200, deadline=None)
@given(boxes_of_a_set, st.sampled_from(["center", "corner"]))
def test_boxes_that_were_not_clipped_raise_no_alarm(boxes: np.ndarray, form: Form) -> None:
    """A camera's image is a part of the scene: 0.15..0.85 of it here, whose boxes go on beyond the edge."""
    inner = (boxes - 0.15) / 0.7
    centers = (inner[:, :2] + inner[:, 2:]) / 2
    inner = inner[((centers > 0) & (centers < 1)).all(axis=1)]
    assert check_form(written(inner, form), form, place)[0] == []


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(100, 200),
    st.sampled_from(["tiny", "small"]),
    st.sampled_from(
        [("corners", "center"), ("corners", "corner"), ("center", "corner"), ("corner", "center")]
    ),
)
def test_boxes_in_another_form_are_recognized(
    seed: int, count: int, sizes: str, forms: tuple[Form, Form]
) -> None:
    form, read_as = forms
    if form != "corners":  # half a size to one side: more and larger boxes are needed to tell
        sizes, count = "any", 4 * count
    wrong, notes = check_form(written(valid_boxes(seed, count, sizes, 1.0), form), read_as, place)
    assert len(wrong) == 1 and notes == []
    assert wrong[0].count("a.txt:") == 3


def test_a_few_boxes_tell_nothing_and_those_that_are_cut_are_counted() -> None:
    numbers = np.array([[0.9, 0.5, 0.4, 0.2]] * 2 + [[0.5, 0.5, 0.2, 0.2]])
    wrong, (note,) = check_form(numbers, "center", place)
    assert wrong == [] and note.startswith("2 of 3 boxes reach out") and "a.txt:0, a.txt:1" in note


def coco_content(boxes: np.ndarray, side: int = 160) -> dict:
    """A COCO file of one image for each ten boxes; they are written as given."""
    count = -(-len(boxes) // 10)
    images = [{"id": n, "file_name": f"{n}.jpg", "width": side, "height": side} for n in range(count)]
    entries = [
        {"id": n, "image_id": n // 10, "category_id": 1, "bbox": box.tolist(), "area": 9.0}
        for n, box in enumerate(boxes)
    ]
    return {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "red"}]}


@settings(max_examples=100, deadline=None)
@given(boxes_of_a_set, st.sampled_from([8, 160, 20_000]))
def test_a_correct_coco_file_raises_no_alarm(boxes: np.ndarray, side: int) -> None:
    assert check_coco(Path("a.json"), coco_content(written(boxes, "corner") * side, side)) == ([], [])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 100), st.sampled_from(["center", "corner", "corners"]))
def test_a_coco_file_of_fractions_is_recognized(seed: int, count: int, form: Form) -> None:
    boxes = written(valid_boxes(seed, count, "any", 1.0), form)
    wrong, _ = check_coco(Path("a.json"), coco_content(boxes))
    assert len(wrong) == 1 and "written as fractions" in wrong[0] and "annotation 0, annotation 1" in wrong[0]


def test_area_0_and_images_listed_twice_are_told_with_examples() -> None:
    content = coco_content(np.array([[1.0, 2, 30, 40]] * 20))
    for entry in content["annotations"][:5]:
        entry["area"] = 0
    content["images"].append({**content["images"][0], "id": 99})
    wrong, notes = check_coco(Path("a.json"), content)
    assert notes == []
    assert "5 of 20 annotations have an area of 0" in wrong[0] and "annotation 0, annotation 1" in wrong[0]
    assert "1 image(s) are listed several times with different ids, such as 0.jpg" in wrong[1]


@real_set
def test_the_real_sets_raise_no_alarm(tmp_path: Path) -> None:
    data = Path(os.environ["YOLOV5_SPD_DATA"])
    text = (
        Path("data/coco.yaml").read_text().replace("path: ../datasets/coco", f"path: {data / 'coco_val79'}")
    )
    (tmp_path / "coco.yaml").write_text(text)
    survey = survey_records(read_dataset_yaml(tmp_path / "coco.yaml"), "val")
    assert len(survey.records) == 79 and survey.suspects == []
    write_data_set(FORMATS["voc"].read(data / "bccd"), tmp_path / "bccd")
    for kind in ("annotations", "labels"):
        description = read_dataset_yaml(tmp_path / "bccd/data.yaml")
        if kind == "labels":
            description = read_dataset_yaml(_without_annotations(tmp_path / "bccd/data.yaml"))
        for split in ("train", "val"):
            survey = survey_records(description, split)
            assert survey.records and survey.suspects == []


def _without_annotations(file: Path) -> Path:
    content = yaml.safe_load(file.read_text())
    content.pop("annotations")
    other = file.with_name("labels.yaml")
    other.write_text(yaml.safe_dump(content))
    return other


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_tree_crowns_raise_no_alarm(split: str) -> None:
    survey = survey_records(read_dataset_yaml("data/treecrowns.yaml"), split)
    assert survey.records and (survey.suspects, survey.notes) == ([], [])


Make = Callable[..., DatasetConfig]
GOOD = "0 .5 .5 .25 .5\n"


def test_corners_and_pixels_in_label_files_are_told_with_file_and_line(yolo_set: Make) -> None:
    boxes = valid_boxes(0, 40, "small", 1.0)
    text = "".join(f"0 {a} {b} {c} {d}\n" for a, b, c, d in boxes)
    survey = survey_records(yolo_set(text), "train")
    assert len(survey.suspects) == 1 and "written as two corners" in survey.suspects[0]
    assert "000.txt:" in survey.suspects[0]
    survey = survey_records(yolo_set("0 20 30 10 12\n0 33 8 4 5\n" + GOOD), "train")
    assert "written in pixels" in survey.suspects[0] and "2 of 3" in survey.suspects[0]
    assert "000.txt:1, " in survey.suspects[0] and len(survey.bad_rows) == 2


def test_labels_and_images_without_each_other_are_counted(yolo_set: Make) -> None:
    description = yolo_set(GOOD, GOOD, None, None)
    labels = description.path / "labels/train"
    survey = survey_records(description, "train")
    assert survey.suspects == [] and "2 of 4 images have no label file" in survey.notes[0]
    (labels / "Image-2.txt").write_text(GOOD)
    (labels / "classes.txt").write_text("car\nperson\n")
    (labels / "._000.txt").write_text(GOOD)
    survey = survey_records(description, "train")
    assert survey.suspects == [f"1 label file(s) belong to no image, such as {labels / 'Image-2.txt'}"]


def test_labels_of_another_split_of_the_folder_belong_to_an_image(yolo_set: Make) -> None:
    description = yolo_set(GOOD, GOOD)
    (description.path / "train.txt").write_text("images/train/000.jpg\n")
    file = description.path / "list.yaml"
    file.write_text("train: train.txt\nnames: [car, person]\n")
    survey = survey_records(read_dataset_yaml(file), "train")
    assert (survey.suspects, survey.notes) == ([], [])


def test_images_that_share_a_label_or_are_listed_again_are_counted_once(yolo_set: Make) -> None:
    description = yolo_set(GOOD, GOOD)
    folder = description.path / "images/train"
    os.link(folder / "000.jpg", folder / "000.jpeg")
    survey = survey_records(description, "train")
    assert len(survey.notes) == 1 and "1 label file(s) are shared" in survey.notes[0]
    assert "000.jpeg and 000.jpg with " in survey.notes[0]
    (description.path / "t.txt").write_text("images/train/001.jpg\n./images/train/001.jpg\n")
    file = description.path / "list.yaml"
    file.write_text("train: t.txt\nval: [t.txt, images/train]\nnames: [car, person]\n")
    survey = survey_records(read_dataset_yaml(file), "train")
    assert len(survey.records) == 1 and "names 1 image(s) again" in survey.notes[0]
    survey = survey_records(read_dataset_yaml(file), "val")
    assert any("1 image(s) are listed by several sources" in note for note in survey.notes)


def test_ids_written_as_fractions_and_an_unused_category_are_read(coco_root: Path) -> None:
    file = coco_root / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    for entry in content["images"] + content["categories"]:
        entry["id"] = float(entry["id"])
    for entry in content["annotations"]:
        entry["image_id"], entry["category_id"] = float(entry["image_id"]), float(entry["category_id"])
    content["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
    file.write_text(json.dumps(content))
    description = coco_root / "own.yaml"
    description.write_text(
        "val: annotations/instances_val2017.json\nnames: [stop sign, toothbrush, person]\n"
    )
    survey = survey_records(read_dataset_yaml(description), "val")
    assert [record.image_id for record in survey.records] == [397133, 37777, 252219]
    assert [record.classes.tolist() for record in survey.records] == [[1, 2], [0], []]
    assert survey.suspects == []
    assert survey.notes == [
        f"{file}: category 'things' left out: no annotation has it, and no class its name"
    ]
