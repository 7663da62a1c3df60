"""Objects cut by the side of a tile: which boxes are fragments, which to drop, and which belong together.

Boxes are corners in pixels of the image, (n, 4) xyxy; so are tiles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.inference.merging.neighbors import meeting_pairs
from utils.overlap import areas

CUT_MARGIN = 0.01  # a box this close to an inner side of its tile, as a share of the side, may be cut by it
COVERED = 0.6  # a fragment is dropped when this share of it lies in a whole box,
TRUSTED = 0.5  # unless the whole box is less than this share as confident
ALIKE = 0.5  # two fragments of an object have at least this IoU along the seam


def cut_sides(boxes_xyxy: NDArray[Any], sides: NDArray[Any], tile: NDArray[Any]) -> NDArray[np.bool_]:
    """(n, 4) whether left, top, right and bottom of a box reach a side of its tile that is not the image's.

    Args:
        boxes_xyxy: (n, 4).
        sides: (T, 4) left, top, right, bottom of each tile.
        tile: (n,) the tile of each box.
    """
    if not len(boxes_xyxy):
        return np.zeros((0, 4), bool)
    low, high = sides[:, :2], sides[:, 2:]
    margin = _margin(sides)[:, None]
    low_limit = np.where(low > low.min(0), low + margin, -np.inf)
    high_limit = np.where(high < high.max(0), high - margin, np.inf)
    return np.concatenate((boxes_xyxy[:, :2] < low_limit[tile], boxes_xyxy[:, 2:] > high_limit[tile]), 1)


def covered(
    boxes_xyxy: NDArray[Any],
    scores: NDArray[Any],
    whole_xyxy: NDArray[Any],
    whole_scores: NDArray[Any],
    larger: bool = False,
) -> NDArray[np.bool_]:
    """(n,) whether most of a box lies in a whole one that is confident enough, and `larger` if asked for."""
    is_covered = np.zeros(len(boxes_xyxy), bool)
    own, whole = areas(boxes_xyxy), areas(whole_xyxy)
    for i, j, shared in meeting_pairs(boxes_xyxy, whole_xyxy):
        explains = (shared / own[i] >= COVERED) & (whole_scores[j] >= TRUSTED * scores[i])
        if larger:
            explains &= whole[j] > own[i]
        is_covered[i[explains]] = True
    return is_covered


def group_fragments(
    boxes_xyxy: NDArray[Any], cut: NDArray[Any], sides: NDArray[Any], tile: NDArray[Any], groups: NDArray[Any]
) -> NDArray[np.int64]:
    """(n,) the number of the object to which each box belongs, equal for the fragments of one object.

    Two boxes are fragments of one object when one is cut by its tile's right (bottom) side, the other by its
    tile's left (top) side, both reach across what the two tiles share, and their extents along the
    seam agree. An object larger than a tile is a chain of fragments.

    Args:
        boxes_xyxy: (n, 4).
        cut: (n, 4) from `cut_sides`.
        sides: (T, 4) of the tiles.
        tile: (n,) the tile of each box.
        groups: (n,) only boxes of equal group, their class, belong together.
    """
    pairs = [np.zeros((2, 0), np.int64)]
    for axis in (0, 1):
        before = np.flatnonzero(cut[:, axis + 2])
        after = np.flatnonzero(cut[:, axis])
        for one in np.unique(tile[before]):
            a = before[tile[before] == one]
            b = after[_meets(sides[one], sides, axis)[tile[after]]]
            if len(b):
                i, j = np.nonzero(
                    _continue(boxes_xyxy, a, b, sides, tile, axis) & (groups[a, None] == groups[b])
                )
                pairs.append(np.stack((a[i], b[j])))
    return _connected(len(boxes_xyxy), *np.concatenate(pairs, 1))


def _connected(n: int, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.int64]:
    """(n,) the number, from 0, of each item's component; the pairs of linked items are (m,) and (m,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(first):
        return np.arange(n)
    graph = coo_array((np.ones(len(first), bool), (first, second)), (n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def cut_enclosing_boxes(
    boxes_xyxy: NDArray[Any],
    cut: NDArray[Any],
    enclosing_xyxy: NDArray[Any],
    labels: NDArray[Any],
    sides: NDArray[Any],
) -> NDArray[np.bool_]:
    """(m,) whether an enclosing box still ends where one of its fragments is cut.

    Args:
        boxes_xyxy: (n, 4) the fragments.
        cut: (n, 4) from `cut_sides`.
        enclosing_xyxy: (m, 4) the enclosing boxes.
        labels: (n,) the enclosing box of each fragment.
        sides: (T, 4) of the tiles.
    """
    still_cut = np.zeros(len(enclosing_xyxy), bool)
    if len(boxes_xyxy):
        outermost = np.abs(boxes_xyxy - enclosing_xyxy[labels]) <= _margin(sides).min()
        np.logical_or.at(still_cut, labels, (cut & outermost).any(1))
    return still_cut


def _margin(sides: NDArray[Any]) -> NDArray[Any]:
    """(T,) pixels within which a box counts as reaching a side."""
    return CUT_MARGIN * (sides[:, 2:] - sides[:, :2]).max(1)


def _meets(one: NDArray[Any], sides: NDArray[Any], axis: int) -> NDArray[np.bool_]:
    """(T,) whether a tile begins inside `one`, or where it ends, along the axis, and extends further."""
    low, high = sides[:, axis], sides[:, axis + 2]
    return (low > one[axis]) & (low <= one[axis + 2]) & (high > one[axis + 2])


def _continue(
    boxes: NDArray[Any], a: NDArray[Any], b: NDArray[Any], sides: NDArray[Any], tile: NDArray[Any], axis: int
) -> NDArray[np.bool_]:
    """(A, B) whether fragment b continues where fragment a, of one tile, is cut."""
    margin = _margin(sides)
    strip_low = sides[tile[b], axis] + margin[tile[b]]
    strip_high = sides[tile[a], axis + 2] - margin[tile[a]]
    across = (boxes[a, axis, None] <= strip_low) & (boxes[b, axis + 2] >= strip_high[:, None])
    low, high = boxes[:, 1 - axis], boxes[:, 3 - axis]
    shared = np.minimum(high[a, None], high[b]) - np.maximum(low[a, None], low[b])
    spanned = np.maximum(high[a, None], high[b]) - np.minimum(low[a, None], low[b])
    return across & (shared >= ALIKE * spanned)
