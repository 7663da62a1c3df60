"""Kill a training again and again with SIGKILL, resume it, and compare with a run that was left alone.

    python -m benchmarks.survive               # at least 20 kills, some minutes
    python -m benchmarks.survive --kills 3

Both runs train the default detector on the data that ships, at 64 px. Rows of results.csv and final weights
must be equal, bit by bit, whenever the kills came.
"""

from __future__ import annotations

import csv
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from utils.cli import run
from utils.errors import UserError
from utils.options import Options, opt

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class SurviveConfig(Options):
    """Kill and resume a training run."""

    kills: int = opt(20, "how often", min=1)
    epochs: int = opt(60, "epochs of both runs", min=2)
    seed: int = opt(0, "of the moments", min=0)


def main(cfg: SurviveConfig) -> int:
    """Train twice, once with kills; return 1 where the runs differ."""
    moments = random.Random(cfg.seed)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        options = ["--imgsz", "64", "--batch-size", "8", "--epochs", str(cfg.epochs), "--workers", "0"]
        options += ["--no-plots", "--noval", "--device", "cpu", "--project", folder]
        started = time.perf_counter()
        finished(train(*options, "--name", "whole"))
        alone = time.perf_counter() - started
        print(f"left alone: {alone:.0f} s", flush=True)
        last = project / "killed/weights/last.pt"
        kills = 0
        while kills < cfg.kills:
            process = train(*(["--resume", str(last)] if last.exists() else [*options, "--name", "killed"]))
            wait_for_start(process, project / "killed")
            time.sleep(moments.uniform(0, 1.5 * alone / cfg.kills))
            if process.poll() is not None:
                break
            process.kill()
            process.wait()
            kills += 1
            print(f"kill {kills}: {len(rows(project / 'killed'))} epochs done", flush=True)
        if last.exists() and len(rows(project / "killed")) < cfg.epochs:
            finished(train("--resume", str(last)))
        return compare(project, kills)


def train(*options: str) -> subprocess.Popen[str]:
    """Start train.py."""
    return subprocess.Popen(
        [sys.executable, "train.py", *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a run.

    Raises:
        UserError: it failed; with its last line.
    """
    _, errors = process.communicate()
    if process.returncode:
        raise UserError(f"train.py failed: {errors.strip().splitlines()[-1]}")


def wait_for_start(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until a run has begun to train, as its config file tells."""
    config = folder / "config.yaml"
    before = config.stat().st_mtime_ns if config.exists() else 0
    while process.poll() is None and not (config.exists() and config.stat().st_mtime_ns > before):
        time.sleep(0.01)


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of results.csv without their speed."""
    path = folder / "results.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            {key: value for key, value in row.items() if key != "images_per_s"}
            for row in csv.DictReader(file)
        ]


def compare(project: Path, kills: int) -> int:
    """Print whether both runs left the same; return 0 if so."""
    import torch

    from models.checkpoint import read_checkpoint

    whole, killed = (read_checkpoint(project / name / "weights/last.pt") for name in ("whole", "killed"))
    same_rows = rows(project / "whole") == rows(project / "killed")
    same_weights = all(torch.equal(value, killed["weights"][key]) for key, value in whole["weights"].items())
    left = sorted(path.name for path in (project / "killed/weights").iterdir())
    print(f"{kills} kills; rows equal: {same_rows}; weights equal: {same_weights}; files: {', '.join(left)}")
    return 0 if same_rows and same_weights else 1


if __name__ == "__main__":
    run(SurviveConfig, main)
