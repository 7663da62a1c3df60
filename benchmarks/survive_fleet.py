"""Kill workers, actors and the driver of detect.py --ray; is every image there exactly once?

    python -m benchmarks.survive_fleet                # 20 kills, 500 images of four tiles each
    python -m benchmarks.survive_fleet --quick

The images are cut out of the sample photo, the weights are those that ship. SIGKILL comes at random moments;
after the driver's, `--resume` goes on. At the end, every image must have exactly one row in images/, none in
errors/, and the detections of detect.py without Ray.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from os import kill
from pathlib import Path

from utils.cli import run
from utils.errors import UserError
from utils.options import Options, opt

ROOT = Path(__file__).parents[1]
SIDE, TILE = 384, 256  # of an image and of its tiles, px: four tiles
PATIENCE = 1.0  # seconds that a reader is waited for
VICTIMS = ("worker", "actor", "driver")
OPTIONS = ("--imgsz", str(TILE), "--tile", str(TILE), "--conf-thres", "0.1", "--device", "cpu", "--nosave")


@dataclass(frozen=True)
class SurviveFleetConfig(Options):
    """Kill the processes of a run on Ray, and count what is left."""

    images: int = opt(500, "images", min=1)
    kills: int = opt(20, "processes that are killed", min=1)
    actors: int = opt(2, "actors", min=1)
    seed: int = opt(0, "of the moments and the victims")
    folder: Path | None = opt(None, "where files go (default: a temporary folder)")
    quick: bool = opt(False, "24 images, 3 kills: shows that it runs")


def main(cfg: SurviveFleetConfig) -> int:
    """Print the kills and what came of them; return 1 where an image is lost, there twice or different."""
    from benchmarks.markdown import print_head, print_row

    images, kills = (24, 3) if cfg.quick else (cfg.images, cfg.kills)
    with tempfile.TemporaryDirectory(dir=cfg.folder) as name:
        place = Path(name)
        source = _cut_images(place / "images", images)
        killed, starts = _run_and_kill(place, source, images, kills, cfg)
        wrong = _compare(place / "runs" / "exp", source)
    print_head("killed", "times")
    for victim in VICTIMS:
        print_row(victim, killed[victim])
    print(f"{images} images, {starts} starts; lost, there twice or different: {len(wrong)}")
    for line in wrong[:10]:
        print(f"  {line}")
    return int(bool(wrong))


def _cut_images(folder: Path, count: int) -> Path:
    """Cut images out of the sample photo, each at a place of its own."""
    import cv2

    from data.media.image_files import read_image

    photo = read_image(next((ROOT / "data/samples/treecrowns/images/train").glob("*.jpg")))
    rng = random.Random(0)
    folder.mkdir()
    for number in range(count):
        y, x = (rng.randrange(side - SIDE) for side in photo.shape[:2])
        cv2.imwrite(str(folder / f"{number:05d}.png"), photo[y : y + SIDE, x : x + SIDE])
    return folder


def _run_and_kill(
    place: Path, source: Path, images: int, kills: int, cfg: SurviveFleetConfig
) -> tuple[Counter[str], int]:
    """Start the run, kill, resume it until it ends by itself; return the kills and the starts."""
    rng, killed, starts = random.Random(cfg.seed), Counter[str](), 0
    first = ("--source", str(source), "--weights", str(ROOT / "weights/treecrowns.pt"), *OPTIONS)
    run_folder = place / "runs" / "exp"
    while True:
        resumed = (run_folder / "run.json").exists()
        options = ("--resume", str(run_folder)) if resumed else (*first, "--project", str(place / "runs"))
        command = [sys.executable, str(ROOT / "detect.py"), *options, "--ray", "--actors", str(cfg.actors)]
        with (place / "log.txt").open("a") as log:
            driver = subprocess.Popen(command, stdout=log, stderr=log)
        starts += 1
        left = kills - killed.total()
        rate = left / max(images - _done(run_folder), 1)
        for victim in _kill_while_it_runs(driver, run_folder, left, rate, rng):
            killed[victim] += 1
            print(f"{killed.total()}: {victim}, after {_done(run_folder)} of {images} images", flush=True)
        if driver.wait() != -signal.SIGKILL:
            break
    if driver.returncode:
        end = (place / "log.txt").read_text()[-2000:]
        raise UserError(f"ended with code {driver.returncode} after {killed.total()} kills:\n{end}")
    return killed, starts


def _kill_while_it_runs(
    driver: subprocess.Popen[bytes], run_folder: Path, kills: int, rate: float, rng: random.Random
) -> Iterator[str]:
    """Kill so often while images are detected that the kills are spread over the images that are left."""
    done, debt = _done(run_folder), 0.0
    while kills and driver.poll() is None:
        time.sleep(rng.uniform(0.1, 0.5))
        if not _workers(driver.pid)["actor"]:
            continue  # nothing is at work yet
        now = _done(run_folder)
        debt += (now - done) * rate
        done = now
        if debt < rng.random():
            continue
        victim = rng.choice(VICTIMS)
        pids = [driver.pid] if victim == "driver" else _at_work(driver, victim)
        if not pids:
            continue
        with suppress(ProcessLookupError):
            kill(rng.choice(pids), signal.SIGKILL)
            kills, debt = kills - 1, debt - 1
            yield victim


def _at_work(driver: subprocess.Popen[bytes], victim: str) -> list[int]:
    """Wait for a process of a kind, since readers are at work for moments only."""
    until = time.monotonic() + PATIENCE
    while driver.poll() is None and time.monotonic() < until:
        if pids := _workers(driver.pid)[victim]:
            return pids
        time.sleep(0.01)
    return []


def _done(run_folder: Path) -> int:
    """How many images are written."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in (run_folder / "images").glob("[0-9]*.parquet"))


def _workers(driver: int) -> dict[str, list[int]]:
    """Return the processes of Ray below a driver: readers, and actors."""
    processes = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            title = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            processes[int(stat.parent.name)] = (parent, title)

    def is_below(pid: int) -> bool:
        while pid in processes and pid != driver:
            pid = processes[pid][0]
        return pid == driver

    found: dict[str, list[int]] = {"worker": [], "actor": []}
    for pid, (_, title) in processes.items():
        if title.startswith("ray::") and is_below(pid):
            if "MapWorker" in title:
                found["actor"].append(pid)
            elif "read" in title.lower():
                found["worker"].append(pid)
    return found


def _compare(run_folder: Path, source: Path) -> list[str]:
    """Return what is wrong: images that are lost or there twice, and other detections than detect.py's."""
    import numpy as np
    import pandas as pd

    from engine.inference import Detector

    images = Counter(pd.read_parquet(run_folder / "images")["image"])
    wrong = [f"{name}: an error" for name in pd.read_parquet(run_folder / "errors")["image"]]
    detections = dict(list(pd.read_parquet(run_folder / "detections").groupby("image")))
    detector = Detector(ROOT / "weights/treecrowns.pt", device="cpu")
    for path in sorted(source.iterdir()):
        if images[str(path)] != 1:
            wrong.append(f"{path}: {images[str(path)]} rows")
            continue
        (result,) = detector(path, imgsz=TILE, tile=TILE, conf_thres=0.1)
        boxes = result.boxes
        assert boxes is not None
        expected = np.asarray(boxes.data)[:, :5]
        rows = detections.get(str(path))
        columns = ["x1", "y1", "x2", "y2", "score"]
        actual = np.zeros((0, 5)) if rows is None else rows[columns].to_numpy()
        if actual.shape != expected.shape or not np.allclose(actual, expected, atol=1e-2, rtol=0):
            wrong.append(f"{path}: {len(actual)} detections, not the {len(expected)} of detect.py")
    return wrong


if __name__ == "__main__":
    run(SurviveFleetConfig, main)
