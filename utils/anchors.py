"""Autoanchor: do the anchors fit the boxes, and which would fit better.

The measure and the search are YOLOv5's: an anchor fits a box when no side is more than `anchor_t` times the
other's; k-means on whitened sizes gives a start, mutation refines it.
"""

from __future__ import annotations

import numpy as np

SMALLEST = 2.0  # pixels; thinner boxes are not training targets, so no anchor need be


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
    sizes: np.ndarray, count: int, anchor_t: float = 4.0, generations: int = 1000, seed: int = 0
) -> np.ndarray | None:
    """Find `count` anchors for boxes of these sizes.

    Args:
        sizes: (N, 2) width and height in pixels, after resizing to the network's input.
        count: how many anchors over all levels.
        anchor_t: largest ratio of sides that still fits.
        generations: mutations to try; those that do not improve the fit are dropped.
        seed: of the mutations.

    Returns:
        (count, 2) anchors in pixels, by area, no two alike; None when there are too few different boxes.
    """
    from scipy.cluster.vq import kmeans

    rng = np.random.default_rng(seed)
    sizes = sizes[(sizes >= SMALLEST).all(1)].astype(np.float64)
    if len(np.unique(sizes, axis=0)) < count:
        return None
    spread = sizes.std(0)
    spread[spread == 0] = 1.0
    anchors = kmeans(sizes / spread, count, iter=30, rng=rng)[0] * spread
    if len(anchors) < count:  # k-means dropped empty clusters: fill up with real boxes
        anchors = np.concatenate((anchors, rng.choice(sizes, count - len(anchors), replace=False)))
    best = _fitness(sizes, anchors, anchor_t)
    for _ in range(generations):
        change = np.where(rng.random(anchors.shape) < 0.9, rng.normal(1, 0.1, anchors.shape), 1).clip(0.3, 3)
        mutant = (anchors * change).clip(SMALLEST)
        fitness = _fitness(sizes, mutant, anchor_t)
        if fitness > best:
            anchors, best = mutant, fitness
    anchors = anchors[np.argsort(anchors.prod(1))]
    return anchors if len(np.unique(anchors.round(1), axis=0)) == count else None
