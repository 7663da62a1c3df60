"""What a detection run prints: a line for each frame, a progress bar, a summary."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from data.media.frame import Frame
from engine.inference.outputs.result import FrameResult
from engine.inference.pipeline import DetectionResult, StageTimes


class Report:
    """Prints while frames come, and counts them.

    Args:
        total: frames that will come, None where nobody knows.
        names: the classes.
        lines: print a line for each frame.
    """

    def __init__(self, total: int | None, names: Sequence[str], lines: bool):
        self.names, self.lines = names, lines
        self.frames = self.objects = 0
        self.stages = StageTimes()
        self.start = time.perf_counter()
        # a bar only where somebody watches it; shows how many, frames a second and the time left
        self.bar = tqdm(total=total, unit="frame", dynamic_ncols=True, smoothing=0.05, disable=None)

    def add(self, found: DetectionResult[Frame], result: FrameResult) -> None:
        """Count a frame, once it was written."""
        self.frames += 1
        self.objects += len(result.detections)
        self.stages.pre += found.stages.pre
        self.stages.inference += found.stages.inference
        self.stages.post += found.stages.post
        if self.lines:
            self.say(_line(found, result, self.names))
        self.bar.update()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def warn(self, line: str) -> None:
        """Print a line on stderr, above the bar."""
        tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()

    def summarize(self, folder: Path | None, unique: dict[str, int] | None, problems: Sequence[str]) -> None:
        """Print what was found, how fast, where it is, and what could not be read."""
        if self.frames:
            seconds = time.perf_counter() - self.start
            mean = StageTimes(*(value / self.frames for value in vars(self.stages).values()))
            counted = f"{number(self.objects, 'object')} in {number(self.frames, 'image')}"
            print(f"{counted}, {self.frames / seconds:.1f} a second; mean of an image: {_times(mean)}")
        if unique is not None:
            counts = ", ".join(f"{count} {name}" for name, count in unique.items())
            print(f"different objects: {counts or 'none'}")
        if folder is not None:
            print(f"saved in {folder}")
        if problems:
            print(f"{number(len(problems), 'source')} could not be read, wholly or in part:", file=sys.stderr)
            print("\n".join(f"  {problem}" for problem in problems), file=sys.stderr)


def number(count: int, what: str) -> str:
    """1, 'file' -> '1 file'; 2, 'file' -> '2 files'."""
    return f"{count} {what}{'s' * (count != 1)}"


def _line(found: DetectionResult[Frame], result: FrameResult, names: Sequence[str]) -> str:
    """Return 'image 1/4 a.jpg: 416x320 12 trees, pre 1.2 ms, inference 20.1 ms, NMS 0.5 ms'."""
    frame = result.frame
    kind = "stream" if frame.address else "video" if frame.is_video else "image"
    place = f" (frame {frame.number}/{frame.total or '?'})" if frame.is_video else ""
    tiles = f" x {found.tiles} tiles" if found.tiles > 1 else ""
    counts = sorted(Counter(result.detections.class_ids.tolist()).items())
    objects = ", ".join(number(count, names[index]) for index, count in counts)
    size = f"{found.shape[0]}x{found.shape[1]}{tiles}"
    head = f"{kind} {frame.index}/{frame.files}{place} {frame.where}"
    return f"{head}: {size} {objects or 'nothing'}, {_times(found.stages)}"


def _times(stages: StageTimes) -> str:
    parts = (("pre", stages.pre), ("inference", stages.inference), ("NMS", stages.post))
    return ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in parts)
