"""Errors in mid-training: workers end with the process, and lack of memory is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from engine.training import command as train
from tests.training_cases import ROOT, before_step, config, weights_of
from utils.errors import UserError

CRASH = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import multiprocessing
import pytest
from engine.training import command as train
from tests.training_cases import before_step, config
patch = pytest.MonkeyPatch()

def crash():
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    raise LookupError("a bug")

before_step(3, crash, patch)
kept = None
try:
    train.main(config(Path({squares!r}), Path({project!r}), workers=2, batch_size=1))
except LookupError as error:
    kept = error  # as an interactive session keeps the traceback, and with it the loader's frames
print("workers left:", len(multiprocessing.active_children()), flush=True)
raise kept
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_crash_ends_the_workers_and_the_process(squares: Path, tmp_path: Path) -> None:
    code = CRASH.format(root=str(ROOT), squares=str(squares), project=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "LookupError: a bug" in done.stderr
    pids, left = done.stdout.splitlines()[-2:]
    assert len(pids.split()) >= 2
    assert left == "workers left: 0"
    assert not any(is_alive(int(pid)) for pid in pids.split())


LOADER = """
import sys
sys.path.insert(0, {root!r})
from data.detection.dataset import DetectionDataset
from data.detection.loader import build_loader
from data.detection.split import read_split
from data.dataset_yaml import read_dataset_yaml
records = read_split(read_dataset_yaml({yaml!r}), "train")
batches = iter(build_loader(DetectionDataset(records, 64), 1, True, 2))
next(batches)
sys.batches = batches  # is alive until the very end
raise LookupError("a bug")
"""


def test_python_does_not_wait_at_its_exit_for_the_workers_of_an_open_loader(squares: Path) -> None:
    code = LOADER.format(root=str(ROOT), yaml=str(squares / "squares.yaml"))
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90)
    assert done.returncode == 1, done.stderr
    assert time.perf_counter() - started < 60


def no_memory() -> None:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory")


def no_memory_on_the_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


@pytest.mark.parametrize("lack", [no_memory, no_memory_on_the_gpu])
def test_lack_of_memory_says_what_to_lower(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: object
) -> None:
    before_step(3, lack, monkeypatch)  # type: ignore[arg-type]
    line = r"out of memory on cpu: lower --batch-size, now 2, or --imgsz, now 64, or leave --cache out"
    with pytest.raises(UserError, match=line):
        train.main(config(squares, tmp_path, cache="ram"))
    assert weights_of(tmp_path / "exp")  # of the first epoch


def test_other_errors_keep_their_traceback(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    before_step(1, bug, monkeypatch)
    with pytest.raises(RuntimeError, match="mat1"):
        train.main(config(squares, tmp_path))


def test_weights_that_are_not_finite_are_never_kept(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.training.state import TrainState

    original, calls = TrainState.step, 0

    def step(self: TrainState, *args: object) -> torch.Tensor | None:
        nonlocal calls
        calls += 1
        terms = original(self, *args)  # type: ignore[arg-type]
        if calls == 4:  # the last one of the second epoch: no later loss tells
            next(self.model.parameters()).data.fill_(float("nan"))
        return terms

    monkeypatch.setattr(TrainState, "step", step)
    assert train.main(config(squares, tmp_path, epochs=3)) == 1
    assert (
        "the weights are no longer finite in epoch 2; the last good weights are in" in capsys.readouterr().err
    )
    for file in ("last", "best"):
        weights = torch.load(tmp_path / f"exp/weights/{file}.pt", weights_only=True)["weights"]
        assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_gradient_that_is_not_finite_is_left_out(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.training.losses.detection import DetectionLoss

    original, calls = DetectionLoss.__call__, 0

    def loss(
        self: DetectionLoss, raw: list[torch.Tensor], *rest: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raw[0].register_hook(lambda gradient: gradient * float("nan"))
        return original(self, raw, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(DetectionLoss, "__call__", loss)
    assert train.main(config(squares, tmp_path, epochs=1, batch_size=1, nbs=1)) == 0
    assert "loss or gradient is not finite, the step is left out" in capsys.readouterr().err
    assert all(torch.isfinite(value).all() for value in weights_of(tmp_path / "exp").values())


def test_a_worker_that_the_system_kills_is_reported_as_lack_of_memory(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing

    def kill() -> None:
        for process in multiprocessing.active_children():
            os.kill(process.pid or 0, signal.SIGKILL)
        time.sleep(1)

    before_step(1, kill, monkeypatch)
    with pytest.raises(UserError, match="out of memory on cpu"):
        train.main(config(squares, tmp_path, workers=1, batch_size=1))
