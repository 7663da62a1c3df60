from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from engine.training import command as train
from engine.training.settings import resolve
from engine.training.tasks import DetectionTask
from models.checkpoint import read_checkpoint
from utils.distributed import World
from utils.errors import UserError

ROOT = Path(__file__).parents[3]


def config(squares: Path, project: Path, **changes: object) -> train.TrainConfig:
    options: dict = {
        "cfg": "yolov5n", "data": squares / "squares.yaml", "hyp": squares / "hyp.yaml", "imgsz": 64,
        "batch_size": 2, "epochs": 4, "workers": 0, "device": "cpu", "project": project, "plots": False,
    }  # fmt: skip
    return train.TrainConfig.of(**(options | changes))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "images_per_s"} for row in csv.DictReader(file)]


SMALL_NETWORK = """
nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[12, 12, 16, 16, 24, 24]]
backbone: [[-1, 1, Conv, [16, 3, 2]], [-1, 1, Conv, [32, 3, 2]], [-1, 1, Conv, [64, 3, 2]], [-1, 1, C3, [64]]]
head: [[[3], 1, Detect, [nc, anchors]]]
"""


def test_a_few_epochs_learn_four_images(squares: Path, tmp_path: Path) -> None:
    description = yaml.safe_load((squares / "squares.yaml").read_text())
    description["train"] = [description["train"]] * 10  # ten steps an epoch
    (squares / "often.yaml").write_text(yaml.safe_dump(description))
    hyp = yaml.safe_load((squares / "hyp.yaml").read_text()) | {"obj": 10.0, "hsv_s": 0.0, "hsv_v": 0.0}
    (squares / "plain.yaml").write_text(yaml.safe_dump(hyp))
    (squares / "small.yaml").write_text(SMALL_NETWORK)
    options = {
        "data": squares / "often.yaml",
        "hyp": squares / "plain.yaml",
        "cfg": str(squares / "small.yaml"),
    }
    assert train.main(config(squares, tmp_path, batch_size=4, epochs=15, noval=True, **options)) == 0
    rows = rows_of(tmp_path / "exp")
    assert len(rows) == 15
    assert float(rows[-1]["box"]) < 0.5 * float(rows[0]["box"])
    assert float(rows[-1]["AP50"]) > 0.8


def test_a_run_leaves_its_config_results_weights_and_images(squares: Path, tmp_path: Path) -> None:
    train.main(config(squares, tmp_path, epochs=1, plots=True))
    found = {str(path.relative_to(tmp_path / "exp")) for path in (tmp_path / "exp").rglob("*")}
    assert found >= {
        "config.yaml", "hyp.yaml", "results.csv", "results.png", "metrics.json", "labels.png",
        "train_batch0.png", "val_batch0_labels.png", "val_batch0_pred.png",
        "weights/best.pt", "weights/last.pt",
    }  # fmt: skip
    best = read_checkpoint(tmp_path / "exp/weights/best.pt")
    assert best["names"] == ["light", "dark"]
    assert best["config"]["imgsz"] == 64
    assert "training" not in read_checkpoint(tmp_path / "exp/weights/last.pt")


def test_an_interrupted_run_resumes_to_the_same_losses_and_weights(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import engine.training.state

    train.main(config(squares, tmp_path, name="whole"))
    original, calls = engine.training.state.TrainState.step, 0

    def interrupted(self: engine.training.state.TrainState, *args: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:  # in the third of four epochs
            raise KeyboardInterrupt
        return original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.training.state.TrainState, "step", interrupted)
    assert train.main(config(squares, tmp_path, name="stopped")) == 130
    monkeypatch.undo()
    last = tmp_path / "stopped/weights/last.pt"
    assert len(rows_of(tmp_path / "stopped")) == 2

    with pytest.raises(UserError, match="--batch-size 2, not 4"):
        train.main(train.TrainConfig.of(resume=str(last), batch_size=4))
    assert train.main(train.TrainConfig.of(resume=str(last), device="cpu", workers=0)) == 0
    assert rows_of(tmp_path / "stopped") == rows_of(tmp_path / "whole")
    whole, stopped = (
        read_checkpoint(tmp_path / name / "weights/last.pt")["weights"] for name in ("whole", "stopped")
    )
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)
    with pytest.raises(UserError, match="finished run"):
        train.main(train.TrainConfig.of(resume=str(last)))


def test_weights_that_fit_are_copied_and_counted(
    squares: Path, tmp_path: Path, golden: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main(config(squares, tmp_path, epochs=1, cfg=None, weights=golden / "yolov5n.pt"))
    assert "342 of 349 tensors copied" in "".join(
        capsys.readouterr()
    )  # not the head of 5 classes, nor its anchors
    assert read_checkpoint(tmp_path / "exp/weights/best.pt")["model"]["nc"] == 2


def test_the_downsampler_is_kept_in_the_checkpoint(squares: Path, tmp_path: Path) -> None:
    from models import load_model

    train.main(config(squares, tmp_path, epochs=1, downsample="spd"))
    model = load_model(tmp_path / "exp/weights/best.pt")
    assert any(type(module).__name__.startswith("SPD") for module in model.modules())


def test_patience_stops_a_run_that_no_longer_improves(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = squares / "frozen.yaml"
    frozen.write_text("lr0: 0.0\nwarmup_epochs: 0\nwarmup_iterations: 0\nema_decay: 1.0\nema_tau: 1e-9\n")
    train.main(config(squares, tmp_path, epochs=20, patience=2, hyp=frozen))
    assert len(rows_of(tmp_path / "exp")) < 20
    assert "no better fitness in 2 epochs" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--imgsz", "100"], "--imgsz must be a multiple of 32"),
        (["--cfg", "yolov5q"], "unknown model"),
        (["--cfg", "resnet18", "--data", "data/treecrowns.yaml"], "resnet18 is a classifier, but"),
        (["--cfg", "yolov5n", "--data", "data/mnist5k.yaml"], "yolov5n is a detector, but"),
        (["--data", "data/mnist5k.yaml", "--no-autoanchor"], "--autoanchor is for detectors"),
        (["--cfg", "yolov5n", "--downsample", "spdd"], "Did you mean 'spd'"),
        (["--data", "nothing.yaml"], "nothing.yaml"),
        (["--hyp", "nothing.yaml"], "no hyperparameter file nothing.yaml"),
        (["--weights", "nothing.pt"], "github.com/ultralytics/yolov5/releases"),
        (["--resume", "nothing.pt"], "no weights file nothing.pt"),
        (["--epoch", "3"], "Did you mean '--epochs'"),
        (["--device", "cuda:77"], "no device 'cuda:77'"),
        (["--project", "/proc/nothing"], "/proc/nothing"),
    ],
)
def test_bad_input_is_one_line_before_any_work(options: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "train.py", "--project", str(tmp_path / "runs"), "--imgsz", "32", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if "error:" in line]) == 1
    assert not (tmp_path / "runs").exists()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, train\n"
        "from utils.cli import parse\n"
        "try: parse(train.TrainConfig, ['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'cv2', 'ultralytics', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_the_recipe_fills_only_what_was_left_out() -> None:
    recipe = {"imgsz": 320, "epochs": 7, "hyp": "data/hyps/small-data.yaml"}
    task = DetectionTask(Path("data/treecrowns.yaml"))
    task.recipe = recipe
    given = train.TrainConfig.of(imgsz=128)
    settings = resolve(given, task, Path("data/treecrowns.yaml"), torch.device("cpu"), World())
    assert (settings.imgsz, settings.epochs, settings.batch_size) == (128, 7, 16)
    assert settings.hyp.optimizer == "AdamW"
    assert settings.config().epochs == 7 and given.epochs is None, "what was given stays as it was"
