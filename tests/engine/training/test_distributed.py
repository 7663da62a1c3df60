"""Two processes on the CPU against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.training import command
from models.checkpoint import read_checkpoint
from tests.training_cases import ROOT, SMALL_NETWORK, config, results_of, weights_after_three_steps
from utils.distributed import World
from utils.errors import UserError

WORKER = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import torch
from tests.training_cases import weights_after_three_steps
from utils.distributed import joined_world

architecture, folder = sys.argv[1:]
with joined_world() as world:
    torch.save(weights_after_three_steps(world, architecture), f"{{folder}}/{{world.rank}}.pt")
threads = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in threads if "gloo" in name], f"the process group lives on: {{threads}}"
"""


def launch(processes: int, *script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as torchrun does, in that many processes."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    return subprocess.run(
        [sys.executable, *torchrun, *script],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_two_processes_take_the_steps_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL_NETWORK)
    (tmp_path / "worker.py").write_text(WORKER)
    done = launch(2, str(tmp_path / "worker.py"), str(tmp_path / "small.yaml"), str(tmp_path))
    assert done.returncode == 0, done.stderr
    alone = weights_after_three_steps(World(), tmp_path / "small.yaml")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for key, value in first.items():
        assert torch.equal(value, second[key]), f"{key} differs between the processes"
        torch.testing.assert_close(value, alone[key], rtol=1e-4, atol=2e-6, msg=key)


def test_two_processes_train_and_only_the_first_prints_and_writes(squares: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL_NETWORK)
    options = {
        "cfg": tmp_path / "small.yaml", "data": squares / "squares.yaml", "hyp": squares / "hyp.yaml",
        "imgsz": 64, "batch-size": 2, "epochs": 2, "workers": 0, "device": "cpu", "project": tmp_path,
    }  # fmt: skip
    flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    done = launch(2, "train.py", *flags, "--no-plots", "--no-autoanchor", "--name", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("everything is in") == 1
    results = results_of(tmp_path / "two")
    assert len(results) == 2 and float(results[-1]["metrics/mAP_0.5"]) >= 0
    assert "training" not in read_checkpoint(tmp_path / "two/weights/last.pt")


def test_a_batch_that_cannot_be_shared_equally_is_refused(squares: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--batch-size 3 cannot be shared equally by 2 processes"):
        command.train(config(squares, tmp_path, batch_size=3), World(0, 2, 0))


@pytest.mark.parametrize(("asked", "size", "device"), [("cpu", 4, "cpu"), ("", 1, ""), ("0", 1, "0")])
def test_the_device_is_as_asked_for_one_process_or_the_cpu(asked: str, size: int, device: str) -> None:
    assert World(0, size, 0).device(asked) == device


def test_one_device_for_several_processes_is_refused() -> None:
    with pytest.raises(UserError, match="--device 0 is one device for 4 processes"):
        World(0, 4, 0).device("0")
