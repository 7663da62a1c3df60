"""What the guards cost: loading 5,000 labels and detecting, with and without them, in one run.

python -m benchmarks.guards
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch

import data.detection.yolo_labels as yolo_labels
import data.media.image_files as image_files
from data.detection.yolo_labels import read_labels
from engine.runtimes.exported_file import FilePredictor
from engine.runtimes.metadata import Metadata
from models import build_model
from utils.cli import run
from utils.options import Options

LABELS, IMAGES, ROUNDS = 5000, 40, 9


@dataclass(frozen=True)
class GuardsBenchmark(Options):
    """Load 5,000 labels and detect, with and without the guards of readers, in turns."""


@contextlib.contextmanager
def without_guards() -> Iterator[None]:
    """Take the guards out of the readers of labels and images, and of the runtimes of files."""

    def nothing(*arguments: Any, **options: Any) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    with (
        mock.patch.object(yolo_labels, "read_regular", lambda path, what, most: path.read_bytes()),
        mock.patch.object(yolo_labels, "guarded", nothing),
        mock.patch.object(image_files, "check_regular", nothing),
        mock.patch.object(image_files, "check_pixels", nothing),
        mock.patch.object(image_files, "size_in_header", lambda encoded: None),
        mock.patch.object(image_files, "is_image_data", lambda head: True),
        mock.patch("engine.runtimes.exported_file.guarded", nothing),
        mock.patch.object(FilePredictor, "_check", nothing),
    ):
        yield


def ratio(what: str, work: Callable[[], None]) -> None:
    """Print the time with guards relative to that without: medians of alternating rounds."""
    times: dict[bool, list[float]] = {True: [], False: []}
    work()
    for number in range(2 * ROUNDS):
        is_guarded = bool((number + number // 2) % 2)  # neither is always the first
        with contextlib.nullcontext() if is_guarded else without_guards():
            start = time.perf_counter()
            work()
            times[is_guarded].append(time.perf_counter() - start)
    with_, without = min(times[True]), min(times[False])
    middle = statistics.median(times[True]) / statistics.median(times[False])
    print(
        f"{what}: {with_:.4f} s with, {without:.4f} s without: {with_ / without:.3f} (medians {middle:.3f})"
    )


def main(cfg: GuardsBenchmark) -> None:
    """Measure loading and detecting."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.txt" for number in range(LABELS)]
        for file in files:
            rows = np.c_[rng.integers(0, 80, 7), rng.uniform(0.3, 0.6, (7, 4))]
            file.write_text(
                "\n".join(f"{int(row[0])} " + " ".join(f"{v:.6f}" for v in row[1:]) for row in rows)
            )
        names = tuple(map(str, range(80)))
        images = [Path(folder) / f"{number}.jpg" for number in range(IMAGES)]
        noise = cv2.GaussianBlur(rng.integers(0, 256, (480, 640, 3), np.uint8), (0, 0), 3)
        for image in images:
            cv2.imwrite(str(image), noise)
        model = build_model("yolov5n").eval()
        metadata = Metadata(list(names), 32)
        predictor = FilePredictor(
            Path("m"), lambda x: model(x)[0], metadata, torch.device("cpu"), None, None
        )  # as of any exported file

        def load() -> None:
            for file in files:
                read_labels(file, names)

        def detect() -> None:
            for image in images:
                pixels = cv2.resize(image_files.read_image(image), (320, 320))
                predictor(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)

        ratio(f"load {LABELS} label files", load)
        ratio(f"detect on {IMAGES} images", detect)


if __name__ == "__main__":
    run(GuardsBenchmark, main)
