"""Boxes of a large image that meet, found by sorting instead of by comparing all with all.

Boxes are corners, (n, 4) xyxy. `utils.overlap` compares all with all, which is faster where most boxes meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from utils.overlap import areas

Metric = Literal["iou", "ios"]  # intersection over union, or over the smaller of the two boxes
PORTION = 1 << 20  # pairs that are looked at in one go: a few dozen megabytes
CHUNK = 2048  # candidates a step of `suppress_scattered`

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]


def meeting_pairs(a_xyxy: NDArray[Any], b_xyxy: NDArray[Any]) -> Iterator[Pairs]:
    """Yield the pairs of boxes that share area: (m,) index in a, (m,) index in b, (m,) area shared.

    The boxes of `b` are sorted by their left side, and those a box of `a` may meet are then neighbors. This
    is done for each power of two of the width on its own: among boxes as wide as the image all would be
    neighbors.
    """
    left, width = b_xyxy[:, 0].astype(np.float64), (b_xyxy[:, 2] - b_xyxy[:, 0].astype(np.float64))
    level = np.frexp(width)[1]
    for one in np.unique(level):
        members = np.flatnonzero(level == one)
        members = members[np.argsort(left[members], kind="stable")]
        first = np.searchsorted(left[members], a_xyxy[:, 0] - width[members].max())
        last = np.searchsorted(left[members], a_xyxy[:, 2].astype(np.float64))
        for i, place in _ranges(first, last):
            j = members[place]
            meet = (a_xyxy[i, 1] < b_xyxy[j, 3]) & (b_xyxy[j, 1] < a_xyxy[i, 3])
            i, j = i[meet], j[meet]
            shared = _shared(a_xyxy[i], b_xyxy[j])
            meet = shared > 0
            yield i[meet], j[meet], shared[meet]


def _ranges(first: NDArray[Any], last: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield (i, place) for every place from first[i] to before last[i], in portions of whole i."""
    counts = np.maximum(last - first, 0)
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + PORTION, "right")), start + 1)
        few = counts[start:stop]
        i = np.repeat(np.arange(start, stop), few)
        offset = np.repeat(first[start:stop] - (np.cumsum(few) - few), few)
        yield i, np.arange(len(i)) + offset
        start = stop


def _shared(a_xyxy: NDArray[Any], b_xyxy: NDArray[Any]) -> NDArray[Any]:
    """Area shared by each box with its partner: (m, 4) and (m, 4) -> (m,)."""
    size = np.minimum(a_xyxy[:, 2:], b_xyxy[:, 2:]) - np.maximum(a_xyxy[:, :2], b_xyxy[:, :2])
    np.maximum(size, 0, out=size)
    return size[:, 0] * size[:, 1]


def overlapping_pairs(
    a_xyxy: NDArray[Any], b_xyxy: NDArray[Any], threshold: float, metric: Metric = "iou"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs with an overlap above the threshold: (m,) index in a and (m,) index in b."""
    a_area, b_area = areas(a_xyxy), areas(b_xyxy)
    pairs = [np.zeros((2, 0), np.int64)]
    for i, j, shared in meeting_pairs(a_xyxy, b_xyxy):
        base = np.minimum(a_area[i], b_area[j]) if metric == "ios" else a_area[i] + b_area[j] - shared
        above = shared > threshold * base
        pairs.append(np.stack((i[above], j[above])))
    first, second = np.concatenate(pairs, 1)
    return first, second


def later_neighbors(
    boxes_xyxy: NDArray[Any], threshold: float, metric: Metric = "iou"
) -> dict[int, NDArray[Any]]:
    """Return, for each box that overlaps boxes after it, the indices of these."""
    i, j = overlapping_pairs(boxes_xyxy, boxes_xyxy, threshold, metric)
    i, j = i[i < j], j[i < j]
    order = np.argsort(i, kind="stable")
    owners, starts = np.unique(i[order], return_index=True)
    return dict(zip(owners.tolist(), np.split(j[order], starts[1:]), strict=False))


def suppress_scattered(
    boxes_xyxy: NDArray[Any], threshold: float, max_keep: int | None = None, metric: Metric = "iou"
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression like `utils.overlap.suppress`, for boxes all over a large image.

    Args:
        boxes_xyxy: (n, 4), best score first.
        threshold: the largest overlap two survivors may have.
        max_keep: how many to keep at most; None is all.
        metric: what overlap is.

    Returns:
        (k,) indices of the survivors, ascending.
    """
    kept = np.zeros(0, np.int64)
    for start in range(0, len(boxes_xyxy), CHUNK):
        if max_keep is not None and len(kept) >= max_keep:
            break
        candidates = np.arange(start, min(start + CHUNK, len(boxes_xyxy)))
        hit, _ = overlapping_pairs(boxes_xyxy[candidates], boxes_xyxy[kept], threshold, metric)
        candidates = np.delete(candidates, np.unique(hit))
        alive = np.ones(len(candidates), bool)
        for i, later in later_neighbors(boxes_xyxy[candidates], threshold, metric).items():
            if alive[i]:
                alive[later] = False
        kept = np.concatenate((kept, candidates[alive]))
    return kept[:max_keep]
