"""A run that is stopped, at whatever point, loses nothing that it has reported."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

import models.checkpoint
from engine.training import command as train
from engine.training.results_csv import append_row, drop_rows_from
from models.checkpoint import read_checkpoint
from tests.training_cases import (
    assert_same_end,
    before_step,
    config,
    results_of,
    resumed,
    sigterm,
    weights_of,
)
from utils.errors import UserError


def test_sigterm_saves_in_mid_epoch_and_the_resumed_run_ends_the_same(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 2, "batch_size": 1}
    train.main(config(squares, tmp_path, name="whole", **options))
    before = signal.getsignal(signal.SIGTERM)
    before_step(6, sigterm, monkeypatch)  # the second of four batches of the second epoch; four make a step
    assert train.main(config(squares, tmp_path, name="stopped", **options)) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    stopped = tmp_path / "stopped"
    assert read_checkpoint(stopped / "weights/last.pt")["training"]["batch"] > 1
    assert train.main(resumed(stopped)) == 0
    assert_same_end(stopped, tmp_path / "whole")


def test_sigterm_during_the_evaluation_keeps_the_trained_epoch(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.training.tasks import DetectionTask

    options = {"epochs": 2, "batch_size": 4}
    train.main(config(squares, tmp_path, name="whole", **options))
    original = DetectionTask.evaluate

    def evaluate(*args: object) -> object:
        sigterm()
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(DetectionTask, "evaluate", evaluate)
    assert train.main(config(squares, tmp_path, name="stopped", **options)) == 0
    monkeypatch.undo()
    stopped = tmp_path / "stopped"
    training = read_checkpoint(stopped / "weights/last.pt")["training"]
    assert (training["epoch"], training["batch"]) == (0, 1)
    assert train.main(resumed(stopped)) == 0
    assert_same_end(stopped, tmp_path / "whole")


def test_a_full_disk_is_one_line_and_leaves_the_last_files_whole(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, written = torch.save, 0

    def save(*args: object) -> None:
        nonlocal written
        written += 1
        if written > 3:  # the first last.pt, then best.pt and last.pt of one epoch
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(models.checkpoint.torch, "save", save)
    with pytest.raises(UserError, match=r"cannot write .*\.pt: No space left on device"):
        train.main(config(squares, tmp_path, epochs=3))
    monkeypatch.undo()
    weights = tmp_path / "exp/weights"
    assert {path.name for path in weights.iterdir()} == {"best.pt", "last.pt"}
    assert read_checkpoint(weights / "last.pt")["training"]["epoch"] == 1
    assert train.main(resumed(tmp_path / "exp")) == 0
    assert [epoch["epoch"] for epoch in results_of(tmp_path / "exp")] == ["0", "1", "2"]


def test_a_run_folder_that_vanishes_is_one_line(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(3, lambda: shutil.rmtree(tmp_path / "exp"), monkeypatch)
    with pytest.raises(UserError, match=r"cannot write .*exp/.*: No such file or directory"):
        train.main(config(squares, tmp_path))


def test_results_that_cannot_be_written_keep_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.csv"
    append_row(path, {"epoch": 0, "loss": 0.5})
    append_row(path, {"epoch": 1, "loss": None})
    before = path.read_text()
    assert before.splitlines() == ["epoch,loss", "0,0.5", "1,"]

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"results\.csv: No space left"):
        append_row(path, {"epoch": 2, "loss": 0.1})
    monkeypatch.undo()
    assert path.read_text() == before
    drop_rows_from(path, 1)
    assert path.read_text().splitlines() == ["epoch,loss", "0,0.5"]


def test_the_images_of_a_loss_that_is_not_finite_are_named(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.training.losses.detection import DetectionLoss

    original, calls = DetectionLoss.__call__, 0

    def loss(self: DetectionLoss, *args: object) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal calls
        calls += 1
        value, terms = original(self, *args)  # type: ignore[arg-type]
        return (value * float("inf") if calls == 2 else value), terms

    monkeypatch.setattr(DetectionLoss, "__call__", loss)
    assert train.main(config(squares, tmp_path, epochs=1, batch_size=1)) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "not finite" in line]
    assert len(lines) == 1 and str(squares / "images/train") in lines[0]
    assert all(torch.isfinite(value).all() for value in weights_of(tmp_path / "exp").values())


def test_a_resumed_run_refuses_data_that_has_changed(squares: Path, tmp_path: Path) -> None:
    import yaml

    description = yaml.safe_load((squares / "squares.yaml").read_text())
    files = sorted(str(path) for path in (squares / "images/train").glob("*.png"))
    (tmp_path / "list.txt").write_text("\n".join(files))
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(description | {"train": str(tmp_path / "list.txt")}))
    cfg = config(squares, tmp_path, data=tmp_path / "data.yaml", epochs=3, batch_size=1)
    with pytest.MonkeyPatch.context() as patch:
        before_step(1, sigterm, patch)
        train.main(cfg)
    (tmp_path / "list.txt").write_text("\n".join(files[:2]))
    with pytest.raises(UserError, match="the data set has changed: 2 batches an epoch, were 4"):
        train.main(resumed(tmp_path / "exp"))
