from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from data.dataset_yaml import DatasetConfig
from tests.dataset_fixtures import write_image
from tools.doctor import DoctorConfig, main
from utils.cli import parse
from utils.errors import UserError

Make = Callable[..., DatasetConfig]
ROW = "0 .5 .5 .25 .5\n"


@pytest.fixture
def examine(tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    def run(description: DatasetConfig, **options: object) -> tuple[int, str]:
        folder = tmp_path / "runs"
        code = main(DoctorConfig(description.file, project=folder, **{"plots": False} | options))
        return code, "".join(capsys.readouterr())

    return run


@pytest.fixture
def with_val(yolo_set: Make) -> DatasetConfig:
    """Two training images and another to validate on."""
    description = yolo_set(ROW, ROW, extra="val: images/val\n")
    write_image(description.path / "images/val/9.jpg", seed=9)
    (description.path / "labels/val").mkdir()
    (description.path / "labels/val/9.txt").write_text(ROW)
    return description


def test_a_sound_data_set_passes(with_val: DatasetConfig, examine: Callable) -> None:
    code, said = examine(with_val)
    assert code == 0
    assert "no broken images, bad labels or copies across splits" in said
    assert "ERROR" not in said


def test_every_bad_label_and_broken_image_is_listed(with_val: DatasetConfig, examine: Callable) -> None:
    (with_val.path / "labels/train/000.txt").write_text(ROW + "5 .5 .5 .1 .1\nx\n")
    (with_val.path / "labels/val/9.txt").write_text("0 .5 .5 0 .1\n")
    (with_val.path / "images/train/001.jpg").write_bytes(b"broken")
    code, said = examine(with_val)
    assert code == 1
    assert "ERROR: bad labels in train: 2" in said and "000.txt:2: class 5" in said and "000.txt:3:" in said
    assert "ERROR: bad labels in val: 1" in said and "9.txt:1: box of no size" in said
    assert "ERROR: broken images in train: 1" in said


def test_implausible_labels_are_errors_and_what_is_missing_is_counted(
    with_val: DatasetConfig, examine: Callable
) -> None:
    rows = "".join(f"0 {x / 20} {x / 20} {x / 20 + 0.05} {x / 20 + 0.05}\n" for x in range(1, 19))
    (with_val.path / "labels/val/9.txt").write_text(rows)
    (with_val.path / "labels/train/001.txt").unlink()
    code, said = examine(with_val)
    assert code == 1
    assert "ERROR: implausible labels in val: 1" in said and "9.txt:" in said
    assert "1 of 2 images have no label file" in said and "implausible labels in train" not in said


def test_a_data_set_without_one_label_is_broken(yolo_set: Make, examine: Callable) -> None:
    code, said = examine(yolo_set(None, None))
    assert code == 1
    assert "none of 2 images has a label file" in said
    assert "ERROR: splits without a labeled object: 1" in said and "train: none of 2 images has one" in said


def test_the_same_image_in_two_splits_is_a_leak(with_val: DatasetConfig, examine: Callable) -> None:
    shutil.copy(with_val.path / "images/train/000.jpg", with_val.path / "images/val/copy.jpg")
    code, said = examine(with_val, similar=False)
    assert code == 1
    assert "ERROR: copies of a file in train and val: 1" in said
    assert "000.jpg = " in said and "copy.jpg" in said


def test_a_re_encoded_image_in_two_splits_is_a_leak(with_val: DatasetConfig, examine: Callable) -> None:
    image = cv2.imread(str(with_val.path / "images/train/000.jpg"))
    cv2.imwrite(str(with_val.path / "images/val/again.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 40])
    code, said = examine(with_val)
    assert code == 1
    assert "encoded again or a moment later, in train and val: 1" in said
    assert examine(with_val, similar=False)[0] == 0


def test_copies_within_a_split_are_worth_a_remark(with_val: DatasetConfig, examine: Callable) -> None:
    os.link(with_val.path / "images/train/000.jpg", with_val.path / "images/train/twin.jpg")
    code, said = examine(with_val)
    assert code == 0
    assert "copies of a file within train: 1" in said


def test_validating_on_the_training_images_is_a_leak(yolo_set: Make, examine: Callable) -> None:
    code, said = examine(yolo_set(ROW, ROW, extra="val: images/train\n"))
    assert code == 1
    assert "the same file in train and val: 2" in said


def test_long_lists_are_cut_unless_all_are_asked_for(yolo_set: Make, examine: Callable) -> None:
    description = yolo_set("x\n" * 25)
    assert "... and 15 more; --list-all" in examine(description)[1]
    assert "000.txt:25:" in examine(description, list_all=True)[1]


def test_one_split_can_be_examined_alone(with_val: DatasetConfig, examine: Callable) -> None:
    (with_val.path / "labels/val/9.txt").write_text("x\n")
    assert examine(with_val, split="train")[0] == 0
    assert examine(with_val, split="val")[0] == 1


def test_treecrowns_at_a_small_input_are_advised_to_keep_their_size(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(DoctorConfig(imgsz=256, project=tmp_path / "runs")) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "1. --imgsz 416: at 256 the tiles are shrunk to 62%" in said
    assert cv2.imread(str(tmp_path / "runs/exp/sizes.png")) is not None
    assert main(DoctorConfig(imgsz=416, plots=False)) == 0
    assert "advice: none" in "".join(capsys.readouterr())


def test_bad_options_are_named(with_val: DatasetConfig, examine: Callable) -> None:
    with pytest.raises(UserError, match="no key 'test'; it has train, val"):
        examine(with_val, split="test")
    with pytest.raises(UserError, match="yolov5q"):
        examine(with_val, cfg="yolov5q")
    with pytest.raises(UserError, match="no data-set file"):
        main(DoctorConfig(Path("none.yaml")))
    with pytest.raises(UserError, match="at least 32"):
        parse(DoctorConfig, ["--imgsz", "8"])
