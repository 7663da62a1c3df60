"""Autoanchor: do the anchors fit the boxes, and which would fit better.

The measure and the search are YOLOv5's: an anchor fits a box when no side is more than `anchor_t` times the
other's; k-means on whitened sizes gives a start, mutation refines it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SMALLEST = 2.0  # pixels; thinner boxes are not training targets, so no anchor need be
REACH = 16  # strides; the longest side a level's anchor may have (YOLOv5's own reach 14.5)
APART = 1.05  # ratio of a side by which two anchors differ at least
SAMPLE = 20_000  # boxes that stand for all in the search


def side_ratio(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """(N, 2) boxes, (K, 2) anchors -> (N, K) worst ratio of sides, 0..1, where 1 is a perfect fit."""
    ratio = sizes[:, None] / anchors[None]  # (N, K, 2)
    return np.minimum(ratio, 1 / ratio).min(2)


def best_possible_recall(sizes: np.ndarray, anchors: np.ndarray, anchor_t: float = 4.0) -> float:
    """Return the share of boxes (N, 2; pixels after resizing) that some anchor (K, 2; pixels) fits."""
    return float((side_ratio(sizes, anchors).max(1) > 1 / anchor_t).mean())


def _fitness(sizes: np.ndarray, anchors: np.ndarray, anchor_t: float) -> float:
    """Mean fit of the best anchor, boxes without any counting 0."""
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
        anchor_t: largest ratio of sides that still fits.
        generations: mutations to try; those that do not improve the fit are dropped.
        seed: of the mutations, and of the sample that stands for more than 20,000 boxes.
        strides: of the levels, pixels, if their reach is to be kept: no side of a level's anchors is longer
            than 16 strides. The smallest anchors belong to the first level.

    Returns:
        (count, 2) anchors in pixels, by area, none like another; None when no box is at least 2 px wide
        and high.
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
    anchors = _settled(_start(sizes, count, rng), limits)
    best = _fitness(sizes, anchors, anchor_t)
    for _ in range(generations):
        change = np.where(rng.random(anchors.shape) < 0.9, rng.normal(1, 0.1, anchors.shape), 1).clip(0.3, 3)
        mutant = _settled(anchors * change, limits)
        fitness = _fitness(sizes, mutant, anchor_t)
        if fitness > best:
            anchors, best = mutant, fitness
    return _apart(anchors, reach)


def _start(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Centers of k-means, as many as there are different boxes, then boxes at random."""
    from scipy.cluster.vq import kmeans

    spread = sizes.std(0)
    spread[spread == 0] = 1.0
    centers = min(count, len(np.unique(sizes, axis=0)))
    anchors = kmeans(sizes / spread, centers, iter=30, rng=rng)[0] * spread
    return np.concatenate((anchors, rng.choice(sizes, count - len(anchors))))


def _settled(anchors: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Sort by area and cut each anchor to the limits of its place; the cut may change the order once more."""
    for _ in range(len(anchors)):
        anchors = anchors[np.argsort(anchors.prod(1), kind="stable")]
        cut = anchors.clip(SMALLEST, np.maximum(limits, SMALLEST))
        if np.array_equal(cut, anchors):
            break
        anchors = cut
    return anchors


def _apart(anchors: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Scale anchors that are like another one until each differs from every other by some 5% in a side."""
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
