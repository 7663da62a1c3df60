"""Validation losses: the training loss of what the evaluation's own forward pass returns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data.detection.dataset import validation_set
from data.detection.loader import build_loader
from data.detection.split import read_split
from engine.training import command as train
from engine.training.losses.detection import DetectionLoss
from engine.training.tasks import DetectionTask
from engine.training.validation_loss import ValidationLoss
from models import load_model
from models.detection_model import DetectionModel
from tests.training_cases import config, results_of


def test_the_loss_of_a_batch_is_that_of_training_for_the_same_output_and_targets() -> None:
    torch.manual_seed(0)
    anchors = torch.tensor([[[2.0, 2.0], [3.0, 4.0]]])
    loss_fn = DetectionLoss(anchors, 3)
    raw = [torch.randn(2, 2, 8, 8, 8)]
    targets = torch.tensor([[0, 1, 0.5, 0.5, 0.3, 0.3], [1, 2, 0.2, 0.7, 0.25, 0.4]])

    class Batch:
        images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
        ground_truth = (targets, torch.zeros(0, 5))
        indices = (0, 1)

    loss = ValidationLoss(loss_fn)
    loss.add((torch.zeros(2, 128, 8), raw), Batch())
    expected = loss_fn(raw, targets, torch.zeros(0, 5))[1]
    names = ("val/box_loss", "val/obj_loss", "val/cls_loss")
    assert loss.means() == dict(zip(names, expected.tolist(), strict=True))


def test_the_mean_is_over_the_batches_of_all_processes() -> None:
    class Loss:
        names = ("loss",)

        def __call__(self, logits: torch.Tensor, _targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return logits.sum(), logits.sum().view(1)

    class Batch:
        images = torch.zeros(1, 3, 8, 8)
        ground_truth = (torch.zeros(1, 1),)
        indices = (0,)

    loss = ValidationLoss(Loss(), gather=lambda own: [own, [1.0, 9.0], []])  # the third had no batch
    loss.add(torch.full((1, 1), 1.0), Batch())
    loss.add(torch.full((1, 1), 5.0), Batch())
    assert loss.means() == {"val/loss": 5.0}
    assert ValidationLoss(Loss()).means() == {}


def test_a_run_logs_the_losses_of_its_average_on_the_validation_images(squares: Path, tmp_path: Path) -> None:
    cfg = config(squares, tmp_path, epochs=1, autoanchor=False)
    seen = []
    original = DetectionTask.evaluate

    with pytest.MonkeyPatch.context() as patch:

        def evaluate(self: DetectionTask, model: torch.nn.Module, *rest: object) -> object:
            model.register_forward_hook(lambda *_: seen.append(1))
            return original(self, model, *rest)  # type: ignore[arg-type]

        patch.setattr(DetectionTask, "evaluate", evaluate)
        assert train.main(cfg) == 0
    row = results_of(tmp_path / "exp")[-1]

    task = DetectionTask(squares / "squares.yaml")
    model = load_model(tmp_path / "exp/weights/last.pt")
    assert isinstance(model, DetectionModel)
    loader = build_loader(validation_set(read_split(task.description, "val"), 64, 8), 4, False, 0)
    assert len(seen) == len(loader), "no forward pass but the evaluation's"
    per_level = 3 / model.head.nl
    loss_fn = DetectionLoss(
        model.head.anchors, 2, box=0.05 * per_level, cls=0.5 * per_level * 2 / 80,
        obj=per_level * (64 / 640) ** 2, strides=model.head.stride,
    )  # fmt: skip
    expected = torch.zeros(3)
    with torch.no_grad():
        for batch in loader:
            expected += loss_fn(model(batch.images.float() / 255)[1], batch.targets, batch.ignores)[1]
    expected /= len(loader)
    logged = [float(row[f"val/{name}"]) for name in DetectionLoss.names]
    assert logged == pytest.approx(expected.tolist(), rel=1e-4)
    assert float(row["metrics/precision"]) >= 0 and float(row["metrics/recall"]) >= 0
