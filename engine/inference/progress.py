"""The messages of a detection run: a line per frame, a progress bar, a summary."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from engine.inference.outputs.result import DetectedFrame
from engine.inference.pipeline import StageTimes
from utils.log import RESULT, counted

LOG = logging.getLogger(__name__)


class Progress:
    """Logs while frames come, and counts them.

    Args:
        total: frames that will come, None where nobody knows.
    """

    def __init__(self, total: int | None):
        self.frames = self.objects = 0
        self.stages = StageTimes()
        self.start = time.perf_counter()
        # a bar only on a terminal; it shows how many, frames per second and the time left
        self.bar = tqdm(total=total, unit="frame", dynamic_ncols=True, smoothing=0.05, disable=None)

    def add(self, result: DetectedFrame) -> None:
        """Count a frame, once it was written."""
        self.frames += 1
        self.objects += len(result.detections)
        self.stages.pre += result.stages.pre
        self.stages.inference += result.stages.inference
        self.stages.post += result.stages.post
        if LOG.isEnabledFor(logging.INFO):
            LOG.info("%s", _line(result))
        self.bar.update()

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()

    def summarize(self, folder: Path | None, unique: dict[str, int] | None, problems: Sequence[str]) -> None:
        """Say how many objects there are, how fast it was, where results are, and what could not be read."""
        if self.frames:
            seconds = time.perf_counter() - self.start
            mean = StageTimes(*(value / self.frames for value in vars(self.stages).values()))
            objects = f"{counted(self.objects, 'object')} in {counted(self.frames, 'image')}"
            speed = f"{self.frames / seconds:.1f} per second; mean per image: {_times(mean)}"
            LOG.log(RESULT, f"{objects}, {speed}")
        if unique is not None:
            counts = ", ".join(f"{count} {name}" for name, count in unique.items())
            LOG.log(RESULT, f"different objects: {counts or 'none'}")
        if folder is not None:
            LOG.log(RESULT, f"saved in {folder}")
        if problems:
            what = f"{counted(len(problems), 'source')} could not be read, wholly or in part"
            LOG.warning("%s:\n  %s", what, "\n  ".join(problems))


def _line(result: DetectedFrame) -> str:
    """Return 'image 1/4 a.jpg: 416x320, 12 trees, pre 1.2 ms, inference 20.1 ms, NMS 0.5 ms'."""
    frame = result.frame
    kind = "stream" if frame.address else "video" if frame.is_video else "image"
    place = f" (frame {frame.number}/{frame.total or '?'})" if frame.is_video else ""
    counts = sorted(Counter(result.detections.class_ids.tolist()).items())
    objects = ", ".join(counted(count, result.names[index]) for index, count in counts)
    size = f"{result.shape[0]}x{result.shape[1]}"
    size = f"{result.tiles} tiles at {size}" if result.tiles > 1 else size
    head = f"{kind} {frame.index}/{frame.files}{place} {frame.where}"
    return f"{head}: {size}, {objects or 'nothing'}, {_times(result.stages)}"


def _times(stages: StageTimes) -> str:
    times = (("pre", stages.pre), ("inference", stages.inference), ("NMS", stages.post))
    return ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in times)
