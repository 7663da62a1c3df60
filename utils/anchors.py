"""Autoanchor: how well anchors fit the boxes of a data set, and a search for better ones.

Measure and search are YOLOv5's: an anchor fits a box if none of its sides is more than `anchor_t` times as
long or as short as the box's; k-means on whitened sizes gives a start, mutations refine it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SMALLEST = 2.0  # pixels; thinner boxes are no training targets, so anchors need not be thinner
REACH = 16  # strides; the longest side of a level's anchors (up to 14.5 in YOLOv5's own)
APART = 1.05  # the least ratio of any two anchors, in at least one side
EQUAL = 1e-6  # of the mean; sides that differ by less are of one length, rounded
SAMPLE = 20_000  # the most boxes that the search looks at; of more, a random sample


def side_ratio(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """(N, 2) boxes, (K, 2) anchors -> (N, K) ratio of the sides that differ most; 1 is a perfect fit."""
    ratio = sizes[:, None] / anchors[None]  # (N, K, 2)
    return np.minimum(ratio, 1 / ratio).min(2)


def best_possible_recall(sizes: np.ndarray, anchors: np.ndarray, anchor_t: float = 4.0) -> float:
    """Return the share of boxes (N, 2; pixels after resizing) that some anchor (K, 2; pixels) fits."""
    return float((side_ratio(sizes, anchors).max(1) > 1 / anchor_t).mean())


def _fitness(sizes: np.ndarray, anchors: np.ndarray, anchor_t: float) -> float:
    """Return the mean ratio to the best anchor; a box that no anchor fits counts 0."""
    best = side_ratio(sizes, anchors).max(1)
    return float((best * (best > 1 / anchor_t)).mean())


def fit_anchors(
    sizes: np.ndarray,
    count: int,
    anchor_t: float = 4.0,
    generations: int = 1000,
    seed: int = 0,
    strides: Sequence[float] = (),
) -> np.ndarray | None:
    """Find `count` anchors for boxes of these sizes.

    Args:
        sizes: (N, 2) width and height in pixels, after resizing to the network's input.
        count: how many anchors over all levels.
        anchor_t: largest ratio of sides that counts as a fit.
        generations: mutations to try; those that do not improve the fit are dropped.
        seed: of the mutations, and of the sample that is taken of more than 20,000 boxes.
        strides: of the levels, pixels. If given, no side of a level's anchors is longer than 16 strides; the
            smallest anchors belong to the first level.

    Returns:
        (count, 2) anchors in pixels, sorted by area, no two alike; None if no box is at least 2 px wide and
        high.
    """
    rng = np.random.default_rng(seed)
    sizes = sizes[(sizes >= SMALLEST).all(1)].astype(np.float64)
    if not len(sizes):
        return None
    if len(sizes) > SAMPLE:
        sizes = rng.choice(sizes, SAMPLE, replace=False)
    reach = np.full(count, np.inf)
    if strides:
        reach = np.repeat(REACH * np.sort(np.asarray(strides, float)), count // len(strides))
    limits = np.minimum(reach[:, None], sizes.max(0))  # (count, 2)
    anchors = _sorted_and_clipped(_start(sizes, count, rng), limits)
    best = _fitness(sizes, anchors, anchor_t)
    for _ in range(generations):
        change = np.where(rng.random(anchors.shape) < 0.9, rng.normal(1, 0.1, anchors.shape), 1).clip(0.3, 3)
        mutant = _sorted_and_clipped(anchors * change, limits)
        fitness = _fitness(sizes, mutant, anchor_t)
        if fitness > best:
            anchors, best = mutant, fitness
    return _spread_apart(anchors, reach)


def _start(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return k-means centers, at most as many as there are different boxes, then boxes at random."""
    from scipy.cluster.vq import kmeans

    spread = sizes.std(0)
    spread[spread < EQUAL * sizes.mean(0)] = 1.0  # rounding alone, magnified, can keep kmeans from ending
    centers = min(count, len(np.unique(sizes, axis=0)))
    anchors = kmeans(sizes / spread, centers, iter=30, rng=rng)[0] * spread
    return np.concatenate((anchors, rng.choice(sizes, count - len(anchors))))


def _sorted_and_clipped(anchors: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Sort by area and clip each anchor to the limits of its place, until clipping keeps the order."""
    for _ in range(len(anchors)):
        anchors = anchors[np.argsort(anchors.prod(1), kind="stable")]
        clipped = anchors.clip(SMALLEST, np.maximum(limits, SMALLEST))
        if np.array_equal(clipped, anchors):
            break
        anchors = clipped
    return anchors


def _spread_apart(anchors: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Scale anchors that are like another one until every two differ by 5% in a side."""
    placed: list[np.ndarray] = []
    for anchor, longest in zip(anchors, reach, strict=True):
        for step in range(2 * len(anchors) * len(anchors)):
            factor = APART ** ((step + 1) // 2 * (1 if step % 2 else -1))  # 1, up, down, further up, ...
            moved = anchor * factor
            fits = moved.min() >= SMALLEST and moved.max() <= longest
            if fits and not any(_alike(moved, other) for other in placed):
                anchor = moved
                break
        placed.append(anchor)
    return np.array(sorted(placed, key=np.prod))


def _alike(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.maximum(first / second, second / first).max() < APART - 1e-9)
