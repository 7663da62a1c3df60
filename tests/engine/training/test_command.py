"""train.py on a detector: what a run learns, leaves behind, resumes and refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from engine.runtimes import load_predictor
from engine.training import command as train
from engine.training.config import TrainConfig
from engine.training.hyperparameters import Hyperparameters, read_hyp
from engine.training.resolve import resolve
from engine.training.tasks import DetectionTask
from models.checkpoint import read_checkpoint
from tests.training_cases import (
    ROOT,
    SMALL_NETWORK,
    assert_same_end,
    before_step,
    config,
    interrupt,
    results_of,
    resumed,
)
from utils.cli import run
from utils.distributed import World
from utils.errors import UserError


def test_a_few_epochs_learn_four_images(squares: Path, tmp_path: Path) -> None:
    description = yaml.safe_load((squares / "squares.yaml").read_text())
    description["train"] = [description["train"]] * 10  # ten steps an epoch
    (squares / "often.yaml").write_text(yaml.safe_dump(description))
    hyp = yaml.safe_load((squares / "hyp.yaml").read_text()) | {"obj": 10.0, "hsv_s": 0.0, "hsv_v": 0.0}
    (squares / "plain.yaml").write_text(yaml.safe_dump(hyp))
    options = {"data": squares / "often.yaml", "hyp": squares / "plain.yaml"}
    assert train.main(config(squares, tmp_path, batch_size=4, epochs=15, noval=True, **options)) == 0
    results = results_of(tmp_path / "exp")
    assert len(results) == 15
    assert float(results[-1]["train/box_loss"]) < 0.5 * float(results[0]["train/box_loss"])
    assert float(results[-1]["metrics/mAP_0.5"]) > 0.8


def test_a_run_leaves_its_config_results_weights_and_images(squares: Path, tmp_path: Path) -> None:
    train.main(config(squares, tmp_path, epochs=1, plots=True))
    files = {str(path.relative_to(tmp_path / "exp")) for path in (tmp_path / "exp").rglob("*")}
    assert files >= {
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
    train.main(config(squares, tmp_path, name="whole"))
    before_step(6, interrupt, monkeypatch)  # in the third of four epochs
    assert train.main(config(squares, tmp_path, name="stopped")) == 130
    monkeypatch.undo()
    stopped = tmp_path / "stopped"
    assert len(results_of(stopped)) == 2

    last = str(stopped / "weights/last.pt")
    with pytest.raises(UserError, match="--batch-size 2, not 4"):
        train.main(TrainConfig.of(resume=last, batch_size=4))
    assert train.main(resumed(stopped)) == 0
    assert_same_end(stopped, tmp_path / "whole")
    with pytest.raises(UserError, match="finished run"):
        train.main(TrainConfig.of(resume=last))


# As YOLOv5's models/hub/yolov5s-ghost.yaml and yolov5n6.yaml build their networks, with fewer layers.
GHOST = """
nc: 80
depth_multiple: 0.33
width_multiple: 0.125
anchors: [[10,13, 16,30, 33,23], [30,61, 62,45, 59,119]]
backbone: [[-1, 1, Conv, [64, 6, 2, 2]], [-1, 1, GhostConv, [128, 3, 2]], [-1, 3, C3Ghost, [128]],
  [-1, 1, GhostConv, [256, 3, 2]], [-1, 1, SPPF, [256, 5]]]
head: [[-1, 1, GhostConv, [128, 1, 1]], [-1, 1, nn.Upsample, [None, 2, 'nearest']], [[-1, 2], 1, Concat, [1]],
  [-1, 3, C3Ghost, [128, False]], [[8, 5], 1, Detect, [nc, anchors]]]
"""
P6 = """
nc: 80
depth_multiple: 0.33
width_multiple: 0.0625
anchors: [[19,27, 44,40, 38,94], [436,615, 739,380, 925,792]]
backbone: [[-1, 1, Conv, [64, 6, 2, 2]], [-1, 1, Conv, [128, 3, 2]], [-1, 1, Conv, [256, 3, 2]],
  [-1, 1, Conv, [256, 3, 2]], [-1, 1, Conv, [256, 3, 2]], [-1, 1, Conv, [256, 3, 2]], [-1, 3, C3, [256]]]
head: [[[2, 6], 1, Detect, [nc, anchors]]]
"""


@pytest.mark.parametrize(("yaml_text", "stride"), [(GHOST, 8), (P6, 64)], ids=["ghost", "p6"])
def test_hub_networks_of_yolov5_train_and_evaluate(
    squares: Path, tmp_path: Path, yaml_text: str, stride: int
) -> None:
    (tmp_path / "hub.yaml").write_text(yaml_text)
    options = {"cfg": str(tmp_path / "hub.yaml"), "imgsz": 128, "epochs": 1}
    assert train.main(config(squares, tmp_path, **options)) == 0
    (results,) = results_of(tmp_path / "exp")
    assert results["metrics/mAP_0.5:0.95"] != "" and float(results["train/box_loss"]) > 0
    assert load_predictor(tmp_path / "exp/weights/best.pt").stride == stride


def test_a_size_that_is_no_multiple_of_stride_64_is_one_line(squares: Path, tmp_path: Path) -> None:
    (tmp_path / "p6.yaml").write_text(P6)
    with pytest.raises(UserError, match="--imgsz must be a multiple of 64, got 96; try 128"):
        train.main(config(squares, tmp_path, cfg=str(tmp_path / "p6.yaml"), imgsz=96))


def test_weights_that_fit_are_copied_and_counted(
    squares: Path, tmp_path: Path, golden: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main(config(squares, tmp_path, epochs=1, cfg=None, weights=golden / "yolov5n.pt"))
    # all but the head of 5 classes and its anchors
    assert "342 of 349 tensors copied" in capsys.readouterr().err
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
    assert len(results_of(tmp_path / "exp")) < 20
    assert "no better fitness in 2 epochs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--imgsz", "100"], "--imgsz must be a multiple of 16"),
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
def test_bad_input_is_one_line_before_any_work(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as exited:
        run(TrainConfig, train.main, ["--project", str(tmp_path / "runs"), "--imgsz", "32", *options])
    assert exited.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len([line for line in errors.splitlines() if "error:" in line]) == 1
    assert not (tmp_path / "runs").exists()


def test_a_network_with_an_output_at_stride_64_trains_and_evaluates(squares: Path, tmp_path: Path) -> None:
    network = yaml.safe_load(SMALL_NETWORK)
    network["backbone"] = [[-1, 1, "Conv", [16, 3, 2]]] * 6
    network["head"] = [[[4, 5], 1, "Detect", ["nc", "anchors"]]]
    network["anchors"] = [[12, 12, 16, 16, 24, 24]] * 2
    (tmp_path / "p6.yaml").write_text(yaml.safe_dump(network))
    options = {"cfg": str(tmp_path / "p6.yaml"), "epochs": 1, "autoanchor": False}
    assert train.main(config(squares, tmp_path, imgsz=128, **options)) == 0
    assert results_of(tmp_path / "exp")[0]["val/obj_loss"]
    with pytest.raises(UserError, match="--imgsz must be a multiple of 64, got 96; try 128"):
        train.main(config(squares, tmp_path, imgsz=96, **options))


def test_ones_own_folder_needs_no_path_to_the_recipes_that_ship(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(squares)
    options = {"data": Path("squares.yaml"), "hyp": None, "epochs": 1}
    assert train.main(config(squares, tmp_path, **options)) == 0
    assert read_hyp(tmp_path / "exp/hyp.yaml") == Hyperparameters(), "low is the default"


def test_a_project_that_cannot_be_written_is_refused_before_the_data_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the run folder .*file/runs"):
        train.main(TrainConfig.of(project=tmp_path / "file/runs", data=tmp_path / "nothing.yaml"))


def test_a_data_set_without_one_label_is_refused(squares: Path, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(squares / "images")
    file = tmp_path / "bare.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [light, dark]\n")
    with pytest.raises(UserError, match=r"no object is labeled in 'train'.*tools\.doctor"):
        train.main(config(squares, tmp_path / "runs", data=file))


def test_the_script_exits_with_code_2_and_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "train.py", "--project", str(tmp_path / "runs"), "--imgsz", "100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "train.py: error: --imgsz must be a multiple of 16, got 100; try 112\n"
    assert done.stdout == ""


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
    given = TrainConfig.of(imgsz=128)
    settings = resolve(given, task, Path("data/treecrowns.yaml"), torch.device("cpu"), World())
    assert (settings.imgsz, settings.epochs, settings.batch_size) == (128, 7, 16)
    assert settings.hyp.optimizer == "AdamW"
    assert settings.config().epochs == 7 and given.epochs is None, "what was given stays as it was"
