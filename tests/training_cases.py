"""A small network to train, runs of it that take a second, and ways to stop them."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.training.config import TrainConfig
from engine.training.hyperparameters import Hyperparameters
from engine.training.losses.detection import DetectionLoss
from engine.training.optimizer import Schedule
from engine.training.state import TrainState
from models import build_model
from models.checkpoint import read_checkpoint
from models.layers.sync_norm import synchronize_norms
from utils.distributed import World

ROOT = Path(__file__).parents[1]
SMALL_NETWORK = """
nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[12, 12, 16, 16, 24, 24]]
backbone: [[-1, 1, Conv, [16, 3, 2]], [-1, 1, Conv, [32, 3, 2]], [-1, 1, Conv, [64, 3, 2]], [-1, 1, C3, [64]]]
head: [[[3], 1, Detect, [nc, anchors]]]
"""


def config(squares: Path, project: Path, **changes: object) -> TrainConfig:
    """Options of a run of the small network on the squares, on the CPU and without figures."""
    small = squares / "small.yaml"
    small.write_text(SMALL_NETWORK)
    options: dict = {
        "cfg": str(small), "data": squares / "squares.yaml", "hyp": squares / "hyp.yaml", "imgsz": 64,
        "batch_size": 2, "epochs": 4, "workers": 0, "device": "cpu", "project": project, "plots": False,
    }  # fmt: skip
    return TrainConfig.of(**(options | changes))


def resumed(folder: Path) -> TrainConfig:
    """Options that continue a run, given its folder."""
    return TrainConfig.of(resume=str(folder / "weights/last.pt"), device="cpu", workers=0)


def table_of(csv_file: Path) -> list[dict[str, str]]:
    """The lines of a results.csv or strides.csv, without the speed, which differs from run to run."""
    with csv_file.open(newline="") as stream:
        return [{k: v for k, v in line.items() if k != "images_per_s"} for line in csv.DictReader(stream)]


def results_of(folder: Path) -> list[dict[str, str]]:
    """The lines of a run's results.csv."""
    return table_of(folder / "results.csv")


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """The weights in a run's last.pt."""
    return read_checkpoint(folder / "weights/last.pt")["weights"]


def assert_same_end(folder: Path, other: Path) -> None:
    """Both runs have the same results and, bit for bit, the same weights."""
    assert results_of(folder) == results_of(other)
    weights, others = weights_of(folder), weights_of(other)
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[key], others[key]) for key in weights)


def before_step(number: int, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `action` before the training step of that number, counted from 1."""
    original, calls = TrainState.step, 0

    def step(self: TrainState, *args: object) -> torch.Tensor | None:
        nonlocal calls
        calls += 1
        if calls == number:
            action()
        return original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainState, "step", step)


def interrupt() -> None:
    """What Ctrl-C does."""
    raise KeyboardInterrupt


def sigterm() -> None:
    """What a scheduler does before it kills a job."""
    os.kill(os.getpid(), signal.SIGTERM)


def weights_after_three_steps(world: World, architecture: Path) -> dict[str, torch.Tensor]:
    """Train the network for three steps on four images, of which each process has an equal share."""
    torch.manual_seed(0)
    model = build_model(architecture)
    if world.size > 1:
        synchronize_norms(model)
    hyp = Hyperparameters(optimizer="SGD", lr0=0.01, nominal_batch=4, warmup_epochs=0, warmup_iterations=0)
    state = TrainState(model, hyp, Schedule(1, 3, 4, 4, warmup_epochs=0.0), world=world)
    loss_fn = DetectionLoss(model.head.anchors, 2, world=world)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator)
    targets = torch.tensor(
        [
            [0, 0, 0.5, 0.5, 0.3, 0.3],
            [0, 1, 0.2, 0.3, 0.2, 0.2],
            [1, 1, 0.7, 0.7, 0.25, 0.3],
            [3, 0, 0.4, 0.6, 0.2, 0.3],
            [3, 1, 0.8, 0.2, 0.3, 0.3],
            [3, 0, 0.3, 0.2, 0.2, 0.4],
        ]
    )
    share = list(range(4))[world.rank :: world.size]
    own = [target for target in targets if int(target[0]) in share]
    renumbered = [torch.cat((torch.tensor([float(share.index(int(t[0])))]), t[1:])) for t in own]
    for iteration in range(3):
        state.step(images[share], [torch.stack(renumbered)], loss_fn, iteration)
    return model.state_dict()
