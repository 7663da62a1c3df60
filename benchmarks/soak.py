"""Do memory, open files, threads and speed stay as they are over hours of work?

    python -m benchmarks.soak                                  # 20,000 frames, 5,000 images, 200 epochs
    python -m benchmarks.soak --parts video --frames 100000

Each part is a command as its user starts it, on data made here: a long video, a folder of images, and a
training with worker processes. Once a second its processes are looked at in /proc, so this needs Linux.
Speed is counted by processor time, which what else runs on the machine changes less than the clock's. Writes
soak.csv, and soak.png with a curve for each number.
"""

from __future__ import annotations

import csv
import functools
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from utils.cli import run
from utils.errors import UserError
from utils.options import Options, opt

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = {
    "rss_mb": "resident memory of the command, MB",
    "workers_mb": "memory of its workers, their share, MB",
    "files": "open files",
    "threads": "threads",
    "rate": "speed, per second of the processor",
}
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
SETTLED = 0.2  # of a part, after which its numbers should not grow
KEPT = 60  # samples of each part in the CSV


@dataclass(frozen=True)
class SoakConfig(Options):
    """Run commands for long and record their memory, open files, threads and speed."""

    folder: Path = opt("runs/soak", "where soak.csv and soak.png go")
    parts: tuple[Literal["video", "images", "train"], ...] = opt(("video", "images", "train"), "what to run")
    frames: int = opt(20_000, "frames of the video", min=100)
    images: int = opt(5_000, "images in the folder", min=100)
    epochs: int = opt(200, "epochs of the training", min=10)
    imgsz: int = opt(128, "input side of detections, px", "--img", min=32)


@dataclass(frozen=True)
class Sample:
    """What a command's processes take at one moment; see `NUMBERS`."""

    part: str
    seconds: float
    processor_s: float
    done: int
    rss_mb: float
    workers_mb: float
    files: int
    threads: int
    rate: float = 0.0


def main(cfg: SoakConfig) -> int:
    """Run every part; return 1 where one failed."""
    cfg.folder.mkdir(parents=True, exist_ok=True)
    samples: list[Sample] = []
    failed = False
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        weights = write_network(folder / "network.pt")
        detect = ["detect.py", "--weights", str(weights), "--imgsz", str(cfg.imgsz), "--device", "cpu"]
        detect += ["--conf-thres", "0.001", "--max-det", "20", "--save-csv", "--project", place]
        for part in cfg.parts:
            log = folder / f"{part}.log"
            done = functools.partial(lines, log)
            if part == "video":
                command = [*detect, "--source", str(write_video(folder / "long.avi", cfg.frames))]
            elif part == "images":
                command = [*detect, "--source", str(write_images(folder / "many", cfg.images))]
            else:
                command = training(folder, cfg.epochs)
                rows = folder / "soak" / "results.csv"
                done = functools.partial(lines, rows, heading=1)
            code, of_part = watched(part, command, log, done)
            failed |= bool(code)
            if code:
                print(f"{part}: exit code {code}: {log.read_text().strip().splitlines()[-1]}")
            samples += summarized(of_part)
            write_csv(cfg.folder / "soak.csv", samples)
            draw(cfg.folder / "soak.png", samples)
    return int(failed)


def lines(path: Path, heading: int = 0) -> int:
    """How many lines a file has after its heading, 0 where it is not there yet."""
    return path.read_bytes().count(b"\n") - heading if path.exists() else 0


def write_network(path: Path) -> Path:
    """Write an untrained yolov5n-spd: its detections mean nothing, and cost what others do."""
    from models import build_model
    from models.checkpoint import save_checkpoint
    from models.load import to_checkpoint

    save_checkpoint(path, to_checkpoint(build_model("yolov5n-spd", 2)))
    return path


def write_video(path: Path, frames: int) -> Path:
    """Write bright squares that move over a textured background, 160 x 120 px."""
    import cv2
    import numpy as np

    background = np.random.default_rng(0).integers(0, 120, (120, 160, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    for number in range(frames):
        image = background.copy()
        for square in range(5):
            x, y = (number * (square + 1)) % 150, (number // 3 + 23 * square) % 110
            image[y : y + 10, x : x + 10] = 60 * square + 15
        writer.write(image)
    writer.release()
    return path


def write_images(folder: Path, count: int) -> Path:
    """Write images of 160 x 120 px."""
    import cv2
    import numpy as np

    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (120, 160 + count % 97 + 97, 3), np.uint8)
    for number in range(count):
        start = number % 97
        cv2.imwrite(str(folder / f"{number:06}.jpg"), noise[:, start : start + 160])
    return folder


def training(folder: Path, epochs: int) -> list[str]:
    """Return the command that trains on 16 images of 64 px with two workers, and evaluates every epoch."""
    import yaml

    data = folder / "data"
    for split in ("train", "val"):
        labels = data / "labels" / split
        labels.mkdir(parents=True)
        for image in write_images(data / "images" / split, 16).iterdir():
            (labels / f"{image.stem}.txt").write_text("0 .3 .3 .2 .2\n1 .6 .6 .1 .1\n")
    content = {"path": str(data), "train": "images/train", "val": "images/val", "names": ["a", "b"]}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    options = {"--cfg": "yolov5n-spd", "--data": folder / "data.yaml", "--epochs": epochs, "--imgsz": 64}
    options |= {"--batch-size": 8, "--workers": 2, "--device": "cpu", "--project": folder, "--name": "soak"}
    return ["train.py", "--patience", str(epochs), *(str(word) for pair in options.items() for word in pair)]


def watched(
    part: str, command: Sequence[str], log: Path, done: Callable[[], int]
) -> tuple[int, list[Sample]]:
    """Run a command of this project and look at it once a second; return its exit code and the samples."""
    samples: list[Sample] = []
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=output, stderr=output)
        start = time.perf_counter()
        try:
            while process.poll() is None:
                count = done()
                look = looked_at(part, process.pid, time.perf_counter() - start, count)
                if look and count:
                    samples.append(look)
                time.sleep(1)
        finally:
            process.kill()
            process.wait()
    final = max(sample.done for sample in samples) if samples else 0
    end = next((number for number, sample in enumerate(samples, 1) if sample.done == final), 0)
    return process.returncode, samples[:end]  # without the reports at the end


def looked_at(part: str, pid: int, seconds: float, done: int) -> Sample | None:
    """Return what /proc says of a process and its workers, or None where it has just ended."""
    try:
        rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6
        files = len(os.listdir(f"/proc/{pid}/fd"))
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (OSError, IndexError):
        return None
    children = children_of(pid)
    used = processor_time(pid) + sum(map(processor_time, children))
    workers = sum(map(proportional_mb, children))
    return Sample(part, round(seconds, 1), used, done, round(rss, 1), round(workers, 1), files, threads)


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, from any of its threads."""
    pids: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids += map(int, task.read_text().split())
        except OSError:
            continue
    return pids


def processor_time(pid: int) -> float:
    """Seconds that a process, and its children that have ended, have computed."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


def proportional_mb(pid: int) -> float:
    """Memory of a process, MB; of what several share, its part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def summarized(samples: Sequence[Sample]) -> list[Sample]:
    """Return about KEPT of a part's samples with the speed between them, and print how steady they are."""
    step = max(1, len(samples) // KEPT)
    kept = samples[::step]
    rated = [
        replace(now, rate=round((now.done - before.done) / (now.processor_s - before.processor_s), 2))
        for before, now in itertools.pairwise(kept)
        if now.processor_s > before.processor_s
    ]
    settled = rated[int(len(rated) * SETTLED) :]
    third = max(1, len(settled) // 3)
    print(f"\n{samples[0].part}: {samples[-1].done} done in {samples[-1].seconds:.0f} s")
    print(f"{'':52} {'at first':>9} {'at last':>9} {'most':>9}   (medians of thirds, after {SETTLED:.0%})")
    for name, what in NUMBERS.items():
        values = [getattr(sample, name) for sample in settled]
        first, last = statistics.median(values[:third]), statistics.median(values[-third:])
        print(f"{what:52} {first:9.1f} {last:9.1f} {max(values):9.1f}", flush=True)
    return rated


def write_csv(path: Path, samples: Sequence[Sample]) -> None:
    """Write a row for each sample."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Sample.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, samples))


def draw(path: Path, samples: Sequence[Sample]) -> None:
    """Draw each number of each part over what was done."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    parts = list(dict.fromkeys(sample.part for sample in samples))
    units = {"video": "frames", "images": "images", "train": "epochs"}
    figure, axes = plt.subplots(
        len(NUMBERS), len(parts), figsize=(3.4 * len(parts), 1.5 * len(NUMBERS)), squeeze=False, sharex="col"
    )
    for column, part in enumerate(parts):
        own = [sample for sample in samples if sample.part == part]
        for row, (name, what) in enumerate(NUMBERS.items()):
            axis = axes[row, column]
            axis.plot([sample.done for sample in own], [getattr(sample, name) for sample in own], linewidth=1)
            axis.set_ylim(0, 1.2 * max(1.0, *(getattr(sample, name) for sample in own)))
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=7)
            axis.locator_params(axis="x", nbins=4)
            if column == 0:
                shown = what.replace(", ", ",\n").replace("of the command", "of\nthe command")
                axis.set_ylabel(shown, fontsize=7)
        axes[0, column].set_title(part, fontsize=9)
        axes[-1, column].set_xlabel(units[part], fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    if not Path("/proc/self/statm").exists():
        raise UserError("this needs Linux: it reads /proc")
    run(SoakConfig, main)
