"""--resume after something has changed: data, classes, places, the hyp file, or a report that was cut off."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from data.detection import image_store
from data.media.image_files import ImageReadError, read_image
from engine.training import command as train
from engine.training.config import TrainConfig
from engine.training.resume import interrupted_run
from engine.training.tasks import DetectionTask
from models import build_model
from models.checkpoint import read_checkpoint, save_checkpoint
from models.load import to_checkpoint
from tests.training_cases import (
    ROOT,
    assert_same_end,
    before_step,
    config,
    interrupt,
    resumed,
    sigterm,
    weights_of,
)
from utils.cli import run
from utils.errors import UserError


@pytest.fixture
def movable(squares: Path, tmp_path: Path) -> Path:
    """A copy of the squares whose YAML lies in their folder."""
    root = tmp_path / "set"
    shutil.copytree(squares, root)
    description = yaml.safe_load((root / "squares.yaml").read_text())
    del description["path"]
    (root / "squares.yaml").write_text(yaml.safe_dump(description))
    return root


def stop_midway(cfg: TrainConfig, monkeypatch: pytest.MonkeyPatch, step: int = 2) -> None:
    with monkeypatch.context() as patch:
        before_step(step, interrupt, patch)
        assert train.main(cfg) == 130


def errors_of_resuming(file: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The errors with which resuming a file ends."""
    with pytest.raises(SystemExit) as ended:
        run(TrainConfig, train.main, ["--resume", str(file), "--device", "cpu", "--workers", "0"])
    assert ended.value.code == 2
    return [line for line in capsys.readouterr().err.splitlines() if "error:" in line]


def test_a_run_whose_data_have_moved_goes_on_where_data_says(
    movable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 2, "batch_size": 4}
    train.main(config(movable, tmp_path, name="whole", **options))
    stop_midway(config(movable, tmp_path, name="stopped", **options), monkeypatch)
    movable.rename(tmp_path / "elsewhere")
    run = tmp_path / "stopped"
    with pytest.raises(UserError, match=r"--data beside --resume says where it is \(no data-set file"):
        train.main(resumed(run))
    there = resumed(run).replace(data=tmp_path / "elsewhere/squares.yaml")
    assert train.main(there) == 0
    assert_same_end(run, tmp_path / "whole")
    assert read_checkpoint(run / "weights/last.pt")["config"]["data"] == str(there.data)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["light", "darker"], "class 1 of the run to resume is 'dark', in .* 'darker'"),
        (["dark", "light"], "class 0 of the run to resume is 'light', in .* 'dark'"),
        (["light", "dark", "new"], r"2 classes, .* has 3 \(only one of them has 'new'\)"),
        (["light"], r"2 classes, .* has 1 \(only one of them has 'dark'\)"),
    ],
)
def test_changed_classes_are_named_before_anything_is_trained(
    movable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], message: str
) -> None:
    stop_midway(config(movable, tmp_path, epochs=2, batch_size=4), monkeypatch)
    file = movable / "squares.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"names": names}))
    before = (tmp_path / "exp/results.csv").read_bytes()
    with pytest.raises(UserError, match=message):
        train.main(resumed(tmp_path / "exp"))
    assert (tmp_path / "exp/results.csv").read_bytes() == before


def test_a_run_folder_that_has_moved_goes_on_in_its_new_place_with_its_own_hyperparameters(
    movable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text((movable / "hyp.yaml").read_text())
    options = {"epochs": 2, "batch_size": 4, "hyp": tmp_path / "mine.yaml"}
    train.main(config(movable, tmp_path / "runs", name="whole", **options))
    stop_midway(config(movable, tmp_path / "runs", name="stopped", **options), monkeypatch)
    (tmp_path / "mine.yaml").write_text("lr0: 0.5\n")  # for the next run
    (movable / "small.yaml").unlink()
    (tmp_path / "runs/stopped").rename(tmp_path / "moved")
    assert train.main(resumed(tmp_path / "moved")) == 0
    assert not (tmp_path / "runs/stopped").exists()
    assert_same_end(tmp_path / "moved", tmp_path / "runs/whole")
    assert yaml.safe_load((tmp_path / "moved/hyp.yaml").read_text())["lr0"] == 0.003


def test_a_resumed_run_keeps_its_cache_unless_another_is_given(
    movable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_midway(config(movable, tmp_path, epochs=2, cache="ram"), monkeypatch)
    assert interrupted_run(resumed(tmp_path / "exp")).config.image.cache == "ram"
    other = resumed(tmp_path / "exp").replace(cache="disk")
    assert interrupted_run(other).config.image.cache == "disk"
    assert "other pixels" not in capsys.readouterr().err
    stop_midway(config(movable, tmp_path, epochs=2, name="plain"), monkeypatch)
    interrupted_run(resumed(tmp_path / "plain").replace(cache="ram"))
    assert "the run goes on with other pixels" in capsys.readouterr().err


def test_a_run_of_a_newer_version_resumes_without_the_options_that_are_unknown(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "last.pt"
    saved = {"data": str(squares / "squares.yaml"), "epochs": 7, "not_yet_thought_of": 1}
    content = {**to_checkpoint(build_model("yolov5n", 2)), "config": saved, "training": {}}
    save_checkpoint(file, content)
    assert interrupted_run(TrainConfig.of(resume=str(file))).config.epochs == 7
    assert "options of another version are left out: 'not_yet_thought_of'" in capsys.readouterr().err
    assert len(errors_of_resuming(file, capsys)) == 1, "what it holds to go on with is not that of a run"


def test_resume_without_a_value_takes_the_newest_run_that_is_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = TrainConfig.of(resume="newest", project=tmp_path)
    with pytest.raises(UserError, match="no run to resume"):
        interrupted_run(newest)
    content = {**to_checkpoint(build_model("yolov5n", 2)), "config": {"project": str(tmp_path)}}
    for age, (name, more) in enumerate(
        {"broken": None, "finished": {}, "exp2": {"training": {}}, "exp": {"training": {}}}.items()
    ):
        last = tmp_path / name / "weights/last.pt"
        last.parent.mkdir(parents=True)
        if more is None:
            last.write_bytes(b"half a file")
        else:
            save_checkpoint(last, content | more)
        os.utime(last, (1e9 - age, 1e9 - age))
    assert interrupted_run(newest).folder == tmp_path / "exp2"
    assert "not resumed: " in capsys.readouterr().err
    for name in ("exp", "exp2"):
        shutil.rmtree(tmp_path / name)
    with pytest.raises(UserError, match="no interrupted run to resume"):
        interrupted_run(newest)


@pytest.mark.parametrize("patience", [100, 1])
def test_a_report_that_was_cut_off_is_finished_by_resuming(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    hyp = squares / "still.yaml"
    hyp.write_text("lr0: 0.0\nwarmup_epochs: 0\nwarmup_iterations: 0\nema_decay: 1.0\nema_tau: 1e-9\n")
    cfg = config(squares, tmp_path, epochs=4, batch_size=4, hyp=hyp, patience=patience)
    with monkeypatch.context() as patch:
        patch.setattr(DetectionTask, "report", lambda *_: interrupt())
        with pytest.raises(KeyboardInterrupt):
            train.main(cfg)
    run = tmp_path / "exp"
    weights, rows = weights_of(run), (run / "results.csv").read_bytes()
    assert not (run / "metrics.json").exists()
    assert train.main(resumed(run)) == 0
    assert (run / "metrics.json").exists()
    assert (run / "results.csv").read_bytes() == rows, "no epoch is trained again"
    assert all((weights[key] == value).all() for key, value in weights_of(run).items())
    with pytest.raises(UserError, match="finished run"):
        train.main(resumed(run))


def test_a_run_that_is_going_on_cannot_be_resumed_beside_it(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_midway(config(squares, tmp_path, epochs=2, batch_size=4), monkeypatch)
    run = tmp_path / "exp"
    code = "import sys; from pathlib import Path; from utils.run_folders import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True), input()"
    holder, pipe = [sys.executable, "-c", code, str(run)], subprocess.PIPE
    other = subprocess.Popen(holder, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    with other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        before = (run / "results.csv").read_bytes()
        with pytest.raises(UserError, match=f"another process is training into {run}"):
            train.main(resumed(run))
        with pytest.raises(UserError, match=f"another process is training into {run}"):
            train.main(config(squares, tmp_path, exist_ok=True))
        assert (run / "results.csv").read_bytes() == before
        other.communicate("\n")
    assert train.main(resumed(run)) == 0
    assert not (run / ".lock").exists()


def test_ctrl_c_stops_after_a_step_and_keeps_the_epoch_so_far(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 2, "batch_size": 1}
    train.main(config(squares, tmp_path, name="whole", **options))
    with monkeypatch.context() as patch:
        before_step(6, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
        assert train.main(config(squares, tmp_path, name="stopped", **options)) == 130
    assert read_checkpoint(tmp_path / "stopped/weights/last.pt")["training"]["batch"] > 1
    assert train.main(resumed(tmp_path / "stopped")) == 0
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")


def test_an_epoch_with_a_broken_batch_goes_on_without_training_a_batch_twice(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(squares, tmp_path, epochs=1, batch_size=1, nbs=1)
    first = np.random.default_rng((cfg.seed, 0)).permutation(4)[0]

    def read(path: Path) -> np.ndarray:
        if path.match(f"train/{first}.png"):  # it broke after the labels were read
            raise ImageReadError(f"{path}: broken image")
        return read_image(path)

    monkeypatch.setattr(image_store, "read_image", read)
    train.main(cfg.replace(name="whole"))
    with monkeypatch.context() as patch:
        before_step(2, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
        assert train.main(cfg.replace(name="stopped")) == 130
    assert read_checkpoint(tmp_path / "stopped/weights/last.pt")["training"]["batch"] == 3
    assert train.main(resumed(tmp_path / "stopped")) == 0
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")


def test_a_stop_asked_for_while_files_are_written_waits_for_them(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.training.run_folder import TrainRun

    original = TrainRun.end_epoch

    def end_epoch(self: TrainRun, *args: object) -> None:
        sigterm()
        original(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(TrainRun, "end_epoch", end_epoch)
        assert train.main(config(squares, tmp_path, epochs=2, batch_size=4)) == 0
    state = read_checkpoint(tmp_path / "exp/weights/last.pt")["training"]
    assert (state["epoch"], state["batch"]) == (1, 0)
    assert (tmp_path / "exp/weights/best.pt").exists()
