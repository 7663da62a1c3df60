"""Is our suppression as fast as its bare algorithm, and how much faster than a plain loop?

    python -m benchmarks.nms             # the plain loop takes about a minute
    python -m benchmarks.nms --quick
    python -m benchmarks.nms --boxes 102000 --classes 10

All sides get the same output of a detector and the settings of an evaluation (confidence .001, IoU .6, every
class of a box, 300 kept), choose the candidates alike, run on one thread of the CPU and must keep the same
boxes. "bare blocks" is the algorithm of greedy suppression in blocks that stops at 300 kept boxes, without
checks, batches or other options, written here for comparison. The plain loop takes the best box, compares it
with all that are left, drops what overlaps, and goes on until none is left.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from utils.cli import run
from utils.options import Options, opt

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

CONF, IOU, MAX_DET = 0.001, 0.6, 300


@dataclass(frozen=True)
class NmsBenchmark(Options):
    """Compare non-max suppression with its bare algorithm and with a plain loop."""

    boxes: int = opt(25_200, "boxes of an image, 25,200 at 640 px", min=1)
    classes: int = opt(80, "classes", min=1)
    repeats: int = opt(5, "times the fast sides run", min=1)
    quick: bool = opt(False, "3,000 boxes of 10 classes")


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


def bare_blocks(pred: Tensor, block: int = 128) -> Tensor:
    """(1, N, 5 + classes) -> (n, 6): blocks against the boxes kept so far, then among themselves."""
    import numpy as np
    import torch

    from utils.nms import candidates_of

    rows = candidates_of(pred[0], CONF, None, True)
    boxes = rows[:, :4].double().numpy()
    boxes[:, [0, 2]] += rows[:, 5:].numpy() * 10_000.0
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)

    def overlap(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        low = np.maximum(boxes[a, None, :2], boxes[b, :2])
        high = np.minimum(boxes[a, None, 2:], boxes[b, 2:])
        inter = np.maximum(high - low, 0).prod(2)
        return inter > IOU * (area[a, None] + area[b] - inter)

    kept: list[int] = []
    for start in range(0, len(boxes), block):
        part = np.arange(start, min(start + block, len(boxes)))
        if kept:
            part = part[~overlap(part, np.array(kept)).any(1)]
        clash = overlap(part, part)
        alive = np.ones(len(part), bool)
        for i in range(len(part)):
            if alive[i]:
                alive[i + 1 :] &= ~clash[i, i + 1 :]
        kept += part[alive].tolist()
        if len(kept) >= MAX_DET:
            break
    return rows[torch.tensor(kept[:MAX_DET], dtype=torch.long)]


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
    """Check that all keep the same, then print times and ratios."""
    import torch

    from utils.nms import candidates_of, non_max_suppression

    torch.set_num_threads(1)
    boxes, classes = (3000, 10) if cfg.quick else (cfg.boxes, cfg.classes)
    pred = made_up_output(boxes, classes)

    def ours() -> Tensor:
        return non_max_suppression(pred, CONF, IOU, multi_label=True, max_det=MAX_DET)[0]

    start = time.perf_counter()
    expected = plain_loop(pred)  # slow: once is enough
    loop = time.perf_counter() - start
    same = torch.equal(ours(), expected) and torch.equal(bare_blocks(pred), expected)
    bare, blocked = (median_seconds(side, cfg.repeats) for side in (lambda: bare_blocks(pred), ours))
    choosing = median_seconds(lambda: candidates_of(pred[0], CONF, None, True), cfg.repeats)
    count = len(candidates_of(pred[0], CONF, None, True))
    print(f"{boxes:,} boxes, {classes} classes: {count:,} candidates above {CONF}")
    for name, seconds in (("plain loop", loop), ("bare blocks", bare), ("ours", blocked)):
        print(f"{name:<12} {1000 * seconds:9.1f} ms, of which {1000 * choosing:.1f} choose the candidates")
    net = max(blocked - choosing, 1e-9)
    print(
        f"ours / bare blocks   {blocked / bare:6.2f}, without choosing {net / max(bare - choosing, 1e-9):.2f}"
    )
    print(f"plain loop / ours    {loop / blocked:6.1f}, without choosing {(loop - choosing) / net:.0f}")
    print(f"the same boxes: {'yes' if same else 'NO'}")
    return 0 if same else 1


if __name__ == "__main__":
    run(NmsBenchmark, main)
