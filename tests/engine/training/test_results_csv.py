"""results.csv: YOLOv5's names and order for what means the same, and the files of older runs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from engine.training import command as train
from engine.training.results_csv import append_row, rename_columns
from engine.training.tasks import ClassificationTask, DetectionTask
from tests.training_cases import before_step, config, interrupt, results_of, resumed

OF_YOLOV5 = [  # as its train.py writes them, without the blanks before them
    "epoch", "train/box_loss", "train/obj_loss", "train/cls_loss", "metrics/precision", "metrics/recall",
    "metrics/mAP_0.5", "metrics/mAP_0.5:0.95", "val/box_loss", "val/obj_loss", "val/cls_loss",
    "x/lr0", "x/lr1", "x/lr2",
]  # fmt: skip


def test_the_columns_of_yolov5_come_first_and_in_its_order(squares: Path, tmp_path: Path) -> None:
    train.main(config(squares, tmp_path, epochs=2, noval=True))
    results = results_of(tmp_path / "exp")
    header = list(results[0])
    assert header[: len(OF_YOLOV5)] == OF_YOLOV5
    assert header[len(OF_YOLOV5) :] == ["fitness", "AP75", "AP_S", "AP_M", "AP_L", "AR100"]
    assert (
        results[0]["val/box_loss"] == results[0]["metrics/precision"] == ""
    )  # --noval: nothing was measured
    assert all(float(results[1][column]) >= 0 for column in OF_YOLOV5)


def test_a_run_with_the_former_columns_resumes_and_loses_nothing(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 3, "batch_size": 4}
    train.main(config(squares, tmp_path, name="whole", **options))
    before_step(3, interrupt, monkeypatch)
    train.main(config(squares, tmp_path, name="old", **options))
    monkeypatch.undo()
    file = tmp_path / "old/results.csv"
    rows = list(csv.DictReader(file.open(newline="")))
    former = {new: old for new, old in DetectionTask.columns.former.items()}
    header = [
        former.get(column, column) for column in rows[0] if column.startswith("epoch") or column in former
    ]
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*header, "mine"])
        named = {old: new for new, old in former.items()}
        writer.writerows([*(row[named.get(name, name)] for name in header), "kept"] for row in rows)

    assert train.main(resumed(tmp_path / "old")) == 0
    old, whole = results_of(tmp_path / "old"), results_of(tmp_path / "whole")
    assert list(old[0]) == [*whole[0], "mine"]
    assert [row["mine"] for row in old] == ["kept", "kept", ""]
    for column in ("epoch", *former):
        assert [row[column] for row in old] == [row[column] for row in whole]
    assert old[2] | {"mine": ""} == whole[2] | {"mine": ""}
    assert old[0]["val/box_loss"] == "" and old[2]["val/box_loss"] != ""


@pytest.mark.parametrize("task", [DetectionTask, ClassificationTask])
def test_each_former_name_is_of_a_present_column(task: type) -> None:
    losses = dict.fromkeys(("box_loss", "obj_loss", "cls_loss", "loss", "complexity", "images_per_s"), 1.0)
    row = task.columns.row(0, losses, {}, (0.1, 0.2, 0.3), None)  # type: ignore[attr-defined]
    assert set(task.columns.former) <= set(row)  # type: ignore[attr-defined]


def test_validation_losses_have_the_columns_of_the_heads_own_terms() -> None:
    terms = ("box_loss", "cls_loss", "dfl_loss")  # of an anchor-free head
    losses = dict.fromkeys((*terms, "images_per_s"), 1.0)
    row = DetectionTask.columns.row(0, losses, {f"val/{name}": 2.0 for name in terms}, (0.1, 0.2, 0.3), None)
    assert [column for column in row if column.endswith("_loss")] == [
        *(f"train/{name}" for name in terms),
        *(f"val/{name}" for name in terms),
    ]
    assert list(row).index("val/dfl_loss") < list(row).index("x/lr0")


def test_renaming_leaves_other_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    rename_columns(path, {"new": "old"})
    assert not path.exists()
    append_row(path, {"epoch": 0, "new": 1, "old": 2})
    before = path.read_bytes()
    rename_columns(path, {"new": "old"})
    assert path.read_bytes() == before
