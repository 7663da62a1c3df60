from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import data.detection.records
from data.dataset_yaml import DatasetConfig, read_dataset_yaml
from data.detection.records import read_records, survey_records
from data.media.image_files import read_image, read_size
from utils.errors import UserError

Make = Callable[..., DatasetConfig]
ROW = "0 0.5 0.5 0.25 0.5\n"


def test_a_missing_and_an_empty_label_are_background(yolo_set: Make) -> None:
    records, problems = read_records(yolo_set(ROW, None, ""), "train")
    assert [len(record.classes) for record in records] == [1, 0, 0]
    (problem,) = problems
    assert problem.startswith("1 of 3 images have no label file") and problem.endswith("001.jpg")
    record = records[0]
    assert (record.width, record.height, record.image_id) == (64, 48, 0)
    np.testing.assert_allclose(record.boxes_xyxy, [[24, 12, 40, 36]])
    np.testing.assert_allclose(record.areas, [16 * 24])


def test_a_data_set_without_any_label_is_noted(yolo_set: Make) -> None:
    _, problems = read_records(yolo_set(None, None), "train")
    assert "none of 2 images" in problems[0]
    assert "labels/train/000.txt" in problems[0]


def test_a_list_file_names_images_relative_to_itself(yolo_set: Make) -> None:
    description = yolo_set(ROW, ROW, ROW)
    (description.path / "some.txt").write_text("./images/train/002.jpg\n\nimages/train/000.jpg\n")
    file = description.path / "list.yaml"
    file.write_text("val: some.txt\nnames: [car]")
    records, _ = read_records(read_dataset_yaml(file), "val")
    assert [record.path.name for record in records] == ["002.jpg", "000.jpg"]
    assert all(len(record.classes) == 1 for record in records)


def test_several_sources_make_one_split_with_unique_ids(yolo_set: Make) -> None:
    description = yolo_set(ROW)
    (description.path / "images/more").mkdir()
    os.link(description.path / "images/train/000.jpg", description.path / "images/more/000.jpg")
    file = description.path / "two.yaml"
    file.write_text("val: [images/train, images/more]\nnames: [car]")
    records, _ = read_records(read_dataset_yaml(file), "val")
    assert len({record.image_id for record in records}) == 2


@pytest.mark.parametrize("damage", [b"", b"not an image", None])
def test_a_broken_image_is_reported_and_left_out(yolo_set: Make, damage: bytes | None) -> None:
    description = yolo_set(ROW, ROW)
    file = description.path / "images/train/001.jpg"
    file.write_bytes(file.read_bytes()[:-200] if damage is None else damage)
    records, problems = read_records(description, "train")
    assert [record.path.name for record in records] == ["000.jpg"]
    assert len(problems) == 1
    assert "001.jpg" in problems[0]


def test_a_truncated_png_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"a\.png: broken image"):
        read_size(file)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_rotation_is_the_same_for_size_and_pixels(tmp_path: Path, suffix: str, orientation: int) -> None:
    image = Image.new("RGB", (32, 16))
    exif = image.getexif()
    exif[0x0112] = orientation
    file = tmp_path / f"a.{suffix}"
    image.save(file, exif=exif)
    height, width = read_image(file).shape[:2]
    assert (width, height) == read_size(file)
    if suffix == "jpg":
        assert (width, height) == ((16, 32) if orientation >= 5 else (32, 16))


def test_an_empty_folder_an_empty_list_and_a_missing_split_are_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "list.txt").write_text("\n")
    file = tmp_path / "a.yaml"
    file.write_text("train: images\nval: list.txt\ntest: nowhere\nnames: [car]")
    description = read_dataset_yaml(file)
    with pytest.raises(UserError, match=r"no images in the folder .*images"):
        read_records(description, "train")
    with pytest.raises(UserError, match=r"list.txt is empty"):
        read_records(description, "val")
    with pytest.raises(UserError, match=r"'test' is not there; looked for .*nowhere"):
        read_records(description, "test")
    file.write_text("train: images\nnames: [car]")
    with pytest.raises(UserError, match="no key 'val'; it describes train"):
        read_records(read_dataset_yaml(file), "val")


def test_a_split_of_broken_images_only_is_an_error(yolo_set: Make) -> None:
    description = yolo_set(ROW)
    (description.path / "images/train/000.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no readable image .*1 broken: .*000\.jpg"):
        read_records(description, "train")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images whose headers were read."""
    seen: list[Path] = []

    def counted(path: Path) -> tuple[int, int]:
        seen.append(path)
        return read_size(path)

    monkeypatch.setattr(data.detection.records, "read_size", counted)
    return seen


def test_an_unchanged_data_set_is_read_from_the_cache(yolo_set: Make, reads: list[Path]) -> None:
    description = yolo_set(ROW, None, ROW + "1 0.2 0.2 0.1 0.1\n" * 2)
    first, first_problems = read_records(description, "train")
    assert len(reads) == 3
    again, problems = read_records(description, "train")
    assert len(reads) == 3
    assert problems == first_problems != []
    for left, right in zip(first, again, strict=True):
        assert (left.path, left.image_id, left.width, left.height) == (
            right.path,
            right.image_id,
            right.width,
            right.height,
        )
        for name in ("boxes_xyxy", "classes", "areas", "crowd"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
            assert getattr(left, name).dtype == getattr(right, name).dtype


def change_label(root: Path) -> None:
    (root / "labels/train/000.txt").write_text("1 0.5 0.5 0.25 0.5\n")


def touch_label(root: Path) -> None:
    os.utime(root / "labels/train/000.txt", ns=(1, 1))


def add_label(root: Path) -> None:
    (root / "labels/train/001.txt").write_text(ROW)


def remove_label(root: Path) -> None:
    (root / "labels/train/000.txt").unlink()


def change_image(root: Path) -> None:
    cv2.imwrite(str(root / "images/train/000.jpg"), np.zeros((8, 8, 3), np.uint8))


def remove_image(root: Path) -> None:
    (root / "images/train/001.jpg").unlink()


def damage_cache(root: Path) -> None:
    (root / "mine-train.cache.npz").write_bytes(b"PK\x03\x04 damaged")


@pytest.mark.parametrize(
    "change",
    [change_label, touch_label, add_label, remove_label, change_image, remove_image, damage_cache],
)
def test_any_change_makes_the_cache_invalid(
    yolo_set: Make, reads: list[Path], change: Callable[[Path], None]
) -> None:
    description = yolo_set(ROW, None)
    read_records(description, "train")
    change(description.path)
    reads.clear()
    read_records(description, "train")
    assert reads


def test_an_image_that_was_repaired_comes_back(yolo_set: Make) -> None:
    description = yolo_set(ROW, ROW)
    file = description.path / "images/train/001.jpg"
    whole = file.read_bytes()
    file.write_bytes(b"")
    assert len(read_records(description, "train")[0]) == 1
    file.write_bytes(whole)
    assert len(read_records(description, "train")[0]) == 2


def test_a_cache_that_cannot_be_written_is_only_noted(yolo_set: Make) -> None:
    description = yolo_set(ROW)
    (description.path / "mine-train.cache.npz").mkdir()
    records, problems = read_records(description, "train")
    assert len(records) == 1
    assert "cannot write" in problems[0]
    assert [path.name for path in description.path.iterdir() if path.name.startswith(".")] == []


def test_a_survey_lists_every_bad_row_and_every_broken_image(yolo_set: Make) -> None:
    description = yolo_set(ROW + "7 .5 .5 .1 .1\n", "x\n0 .5 .5 .1 0\n", ROW)
    (description.path / "images/train/002.jpg").write_bytes(b"not an image")
    survey = survey_records(description, "train")
    assert [row.split(":")[0][-7:] + row.split(":")[1] for row in survey.bad_rows] == [
        "000.txt2",
        "001.txt1",
        "001.txt2",
    ]
    assert len(survey.broken) == 1 and "002.jpg" in survey.broken[0]
    assert [len(record.classes) for record in survey.records] == [1, 0]
    with pytest.raises(UserError, match=r"2 more bad rows in the data set; python -m tools\.doctor"):
        read_records(description, "train")
