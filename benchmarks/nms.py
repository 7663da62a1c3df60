"""How much faster than a plain loop is suppression in blocks that stops at max_det kept boxes?

    python benchmarks/nms.py
    python benchmarks/nms.py --boxes 102000 --classes 10

Both sides get the same output of a detector and the settings of an evaluation (confidence .001, IoU .6, every
class of a box, 300 kept), choose the candidates alike, run on one thread of the CPU and must keep the same
boxes. The plain loop takes the best box, compares it with all that are left, drops what overlaps, and goes on
until none is left.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.cli import opt, run, validate

if TYPE_CHECKING:
    from torch import Tensor

CONF, IOU, MAX_DET = 0.001, 0.6, 300


@dataclass(frozen=True)
class NmsBenchmark:
    """Compare non-max suppression with a plain loop."""

    boxes: int = opt(25_200, "boxes of an image, 25,200 at 640 px", min=1)
    classes: int = opt(80, "classes", min=1)
    repeats: int = opt(5, "times the fast side runs", min=1)

    def __post_init__(self) -> None:
        """Check every option."""
        validate(self)


def made_up_output(boxes: int, classes: int) -> Tensor:
    """(1, boxes, 5 + classes): most objectness and class scores are low, as a trained detector's are."""
    import torch

    generator = torch.Generator().manual_seed(0)
    pred = torch.rand(1, boxes, 5 + classes, generator=generator)
    pred[..., :2] *= 640
    pred[..., 2:4] = 8 + 120 * pred[..., 2:4] ** 3
    pred[..., 4:] **= 8
    return pred


def plain_loop(pred: Tensor) -> Tensor:
    """(1, N, 5 + classes) -> (n, 6): the loop of the textbooks, over the same candidates."""
    import torch

    from utils.boxes import box_iou
    from utils.nms import candidates_of

    rows = candidates_of(pred[0], CONF, None, True)
    boxes = rows[:, :4].double() + rows[:, 5:] * 10_000.0  # classes apart
    kept, left = [], torch.arange(len(rows))
    while len(left):
        kept.append(left[0])
        left = left[1:]
        left = left[box_iou(boxes[kept[-1], None], boxes[left])[0] <= IOU]
    return rows[torch.stack(kept)][:MAX_DET] if kept else rows[:0]


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the median time of `function`, after one run that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(cfg: NmsBenchmark) -> int:
    """Check that both keep the same, then print both times and their ratio."""
    import torch

    from utils.nms import candidates_of, non_max_suppression

    torch.set_num_threads(1)
    pred = made_up_output(cfg.boxes, cfg.classes)

    def ours() -> Tensor:
        return non_max_suppression(pred, CONF, IOU, multi_label=True, max_det=MAX_DET)[0]

    start = time.perf_counter()
    expected = plain_loop(pred)  # takes about a minute: once is enough
    loop = time.perf_counter() - start
    same = torch.equal(ours(), expected)
    blocked = median_seconds(ours, cfg.repeats)
    choosing = median_seconds(lambda: candidates_of(pred[0], CONF, None, True), cfg.repeats)
    count = len(candidates_of(pred[0], CONF, None, True))
    print(f"{cfg.boxes:,} boxes, {cfg.classes} classes: {count:,} candidates above {CONF}")
    print(f"plain loop         {1000 * loop:9.1f} ms")
    print(
        f"blocks, stopping   {1000 * blocked:9.1f} ms, of which {1000 * choosing:.1f} choose the candidates"
    )
    print(f"ratio              {loop / blocked:9.1f}x; without choosing candidates ", end="")
    print(
        f"{(loop - choosing) / max(blocked - choosing, 1e-9):.0f}x; the same boxes: {'yes' if same else 'NO'}"
    )
    return 0 if same else 1


if __name__ == "__main__":
    run(NmsBenchmark, main)
