"""Two processes on the CPU against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.checkpoint import read_checkpoint
from tests.engine.training.test_command import ROOT, SMALL_NETWORK, config, rows_of
from utils.distributed import World
from utils.errors import UserError

WORKER = """
import sys, torch
from models import build_model
from models.layers.sync_norm import synchronize_norms
from utils.distributed import joined_world
from engine.training.hyperparameters import Hyperparameters
from engine.training.losses.detection import DetectionLoss
from engine.training.optimizer import Schedule
from engine.training.state import TrainState

architecture, out = sys.argv[1:]
torch.manual_seed(0)
with joined_world() as world:
    model = build_model(architecture)
    if world.size > 1:
        synchronize_norms(model)
    hyp = Hyperparameters(optimizer="SGD", lr0=0.01, nominal_batch=4, warmup_epochs=0, warmup_iterations=0)
    state = TrainState(model, hyp, Schedule(1, 3, 4, 4, warmup_epochs=0.0), world=world)
    loss_fn = DetectionLoss(model.head.anchors, 2, world=world)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator)
    rows = [[0, 0, .5, .5, .3, .3], [0, 1, .2, .3, .2, .2], [1, 1, .7, .7, .25, .3], [3, 0, .4, .6, .2, .3],
            [3, 1, .8, .2, .3, .3], [3, 0, .3, .2, .2, .4]]
    targets = torch.tensor(rows)
    share = list(range(4))[world.rank :: world.size]
    mine = [torch.cat((torch.tensor([float(share.index(int(row[0])))]), row[1:])) for row in targets
            if int(row[0]) in share]
    for iteration in range(3):
        state.step(images[share], [torch.stack(mine)], loss_fn, iteration)
    torch.save({"rank": world.rank, "weights": model.state_dict()}, f"{out}.{world.size}.{world.rank}")
"""


def launch(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a script as torchrun does, in that many processes."""
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*torchrun, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )


def test_two_processes_take_the_steps_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL_NETWORK)
    script = tmp_path / "worker.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WORKER}")
    for processes in (1, 2):
        done = launch(processes, str(script), str(tmp_path / "small.yaml"), str(tmp_path / "out"))
        assert done.returncode == 0, done.stderr
    alone, first, second = (torch.load(tmp_path / f"out.{end}")["weights"] for end in ("1.0", "2.0", "2.1"))
    for key, value in first.items():
        assert torch.equal(value, second[key]), f"{key} differs between the processes"
        torch.testing.assert_close(value, alone[key], rtol=1e-4, atol=2e-6, msg=key)


def test_two_processes_train_and_only_the_first_prints_and_writes(squares: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL_NETWORK)
    options = {
        "cfg": tmp_path / "small.yaml", "data": squares / "squares.yaml", "hyp": squares / "hyp.yaml",
        "imgsz": 64, "batch-size": 2, "epochs": 2, "workers": 0, "device": "cpu", "project": tmp_path,
    }  # fmt: skip
    flags = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
    done = launch(2, "train.py", *flags, "--no-plots", "--no-autoanchor", "--name", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("everything is in") == 1
    rows = rows_of(tmp_path / "two")
    assert len(rows) == 2 and float(rows[-1]["AP50"]) >= 0
    assert "training" not in read_checkpoint(tmp_path / "two/weights/last.pt")


def test_a_batch_that_cannot_be_shared_equally_is_refused(squares: Path, tmp_path: Path) -> None:
    from engine.training import command as train

    with pytest.raises(UserError, match="--batch-size 3 cannot be shared equally by 2 processes"):
        train.train(config(squares, tmp_path, batch_size=3), World(0, 2, 0))


@pytest.mark.parametrize(("asked", "size", "device"), [("cpu", 4, "cpu"), ("", 1, ""), ("0", 1, "0")])
def test_the_device_is_as_asked_for_one_process_or_the_cpu(asked: str, size: int, device: str) -> None:
    assert World(0, size, 0).device(asked) == device


def test_one_device_for_several_processes_is_refused() -> None:
    with pytest.raises(UserError, match="--device 0 is one device for 4 processes"):
        World(0, 4, 0).device("0")
