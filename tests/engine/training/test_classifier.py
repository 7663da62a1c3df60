"""train.py on a classifier: what a run learns, leaves behind and resumes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from engine.evaluation.classification.report import plot_strides
from engine.training import command as train
from engine.training.classifier_hyperparameters import ClassifierHyperparameters
from engine.training.config import TrainConfig
from engine.training.hyperparameters import HYPS, read_hyp
from engine.training.losses.classification import ClassificationLoss
from engine.training.optimizer import Schedule
from engine.training.tasks import choose_task, default_data
from models.checkpoint import read_checkpoint
from models.downsample.diffstride import DiffStride2d, stride_complexity
from models.load import load_model
from tests.classification_cases import SMALL_NETWORK, stripes
from tests.training_cases import assert_same_end, before_step, interrupt, results_of, resumed, table_of
from utils.errors import UserError


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stripes(tmp_path_factory.mktemp("stripes"))


def config(data: Path, project: Path, **changes: object) -> TrainConfig:
    options: dict = {"cfg": str(data.parent / "small.yaml"), "data": data, "device": "cpu", "plots": False}
    return TrainConfig.of(**(options | {"project": project} | changes))


def with_diffstride(data: Path) -> str:
    network = yaml.safe_load(SMALL_NETWORK) | {"downsample": ["diffstride", "none", "diffstride"]}
    network |= {"strides": [1, 1, 2], "fixed_grid": False, "preactivation": True}
    (data.parent / "diffstride.yaml").write_text(yaml.safe_dump(network))
    return str(data.parent / "diffstride.yaml")


def test_a_classifier_learns_and_leaves_everything_behind(data: Path, tmp_path: Path) -> None:
    assert train.main(config(data, tmp_path, epochs=12, plots=True)) == 0
    results = results_of(tmp_path / "exp")
    of_yolov5 = ["train/loss", "val/loss", "metrics/accuracy_top1", "metrics/accuracy_top5", "lr/0"]
    assert list(results[0])[:6] == ["epoch", *of_yolov5]
    assert float(results[-1]["metrics/accuracy_top1"]) > 0.9
    files = {str(path.relative_to(tmp_path / "exp")) for path in (tmp_path / "exp").rglob("*")}
    assert files >= {
        "config.yaml", "hyp.yaml", "results.csv", "results.png", "metrics.json", "predictions.csv",
        "train_batch0.png", "confusion_matrix.png", "mistakes.png", "weights/best.pt", "weights/last.pt",
    }  # fmt: skip
    metrics = json.loads((tmp_path / "exp/metrics.json").read_text())
    best = max(float(epoch["metrics/accuracy_top1"]) for epoch in results)
    assert metrics["top1"] == pytest.approx(best)
    checkpoint = read_checkpoint(tmp_path / "exp/weights/best.pt")
    assert (checkpoint["task"], checkpoint["resize"]) == ("classify", 10)
    assert len(load_model(tmp_path / "exp/weights/best.pt").names) == 10


def test_an_interrupted_classifier_resumes_to_the_same_numbers_and_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"cfg": with_diffstride(data), "epochs": 3}
    train.main(config(data, tmp_path, name="whole", **options))
    before_step(5, interrupt, monkeypatch)  # of three an epoch
    train.main(config(data, tmp_path, name="stopped", **options))
    monkeypatch.undo()
    assert train.main(resumed(tmp_path / "stopped")) == 0
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")
    assert table_of(tmp_path / "stopped/strides.csv") == table_of(tmp_path / "whole/strides.csv")


def test_strides_are_noted_each_epoch_and_drawn(data: Path, tmp_path: Path) -> None:
    hyp = yaml.safe_load((data.parent / "hyp.yaml").read_text()) | {"stride_penalty": 1.0}
    (tmp_path / "hyp.yaml").write_text(yaml.safe_dump(hyp))
    train.main(config(data, tmp_path, cfg=with_diffstride(data), hyp=tmp_path / "hyp.yaml"))
    strides = table_of(tmp_path / "exp/strides.csv")
    assert [epoch["epoch"] for epoch in strides] == ["0", "1", "2"]
    assert len(strides[0]) == 1 + 2 * 2  # rows and columns of two layers
    with (tmp_path / "exp/strides.csv").open(newline="") as file:
        plot_strides(list(csv.DictReader(file)), tmp_path / "strides.png")
    assert (tmp_path / "strides.png").exists()
    assert "train/complexity" in results_of(tmp_path / "exp")[0]
    with pytest.raises(UserError, match=r"stride_penalty in .* is for networks with DiffStride"):
        train.main(config(data, tmp_path, hyp=tmp_path / "hyp.yaml"))


def test_the_loss_is_smoothed_cross_entropy_plus_the_weighted_penalty() -> None:
    layers = [DiffStride2d((2.0, 1.5)), DiffStride2d((3.0, 2.0))]
    logits, targets = torch.randn(4, 3), torch.eye(3)[[0, 1, 2, 0]]
    loss, terms = ClassificationLoss(0.1, lambda: stride_complexity(layers), 0.5)(logits, targets)
    smoothed = targets * 0.9 + 0.1 / 3
    plain = -(smoothed * logits.log_softmax(1)).sum(1).mean()
    expected = 1 / 3 + 1 / 3 / 6
    assert terms.tolist() == pytest.approx([plain.item(), expected])
    assert loss.item() == pytest.approx(plain.item() + 0.5 * expected)


def schedule(name: str, batches: int) -> Schedule:
    hyp = read_hyp(HYPS / f"{name}.yaml", ClassifierHyperparameters)
    steps = {"milestones": hyp.milestones, "factors": hyp.factors, "milestone_unit": hyp.milestone_unit}
    return Schedule(400, batches, 128, nominal_batch=128, lr0=hyp.lr0, warmup_epochs=0, momentum=0.9, **steps)


def rate(schedule: Schedule, iteration: int) -> float:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    schedule.apply(optimizer, iteration)
    return optimizer.param_groups[0]["lr"]


def test_milestones_change_the_rate_at_epochs_and_at_steps() -> None:
    epochs = schedule("resnet-spd-cifar10", 390)
    assert [rate(epochs, 390 * epoch) for epoch in (0, 59, 60, 120, 160, 399)] == pytest.approx(
        [0.1, 0.1, 0.02, 0.004, 0.0008, 0.0008]
    )
    steps = schedule("diffstride-cifar", 390)
    assert [rate(steps, step) for step in (0, 399, 400, 17999, 18000, 32000)] == pytest.approx(
        [0.01, 0.01, 0.1, 0.1, 0.01, 0.001]
    )


def test_the_task_follows_from_network_and_data() -> None:
    assert choose_task(Path("data/mnist5k.yaml"), None).kind == "classify"
    assert choose_task(Path("data/treecrowns.yaml"), None).kind == "detect"
    assert default_data("resnet18-spd") == Path("data/mnist5k.yaml")
    assert default_data(None) == default_data("yolov5n") == Path("data/treecrowns.yaml")
