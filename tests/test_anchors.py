from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.anchors import best_possible_recall, fit_anchors

COCO = np.array(
    [[10, 13], [16, 30], [33, 23], [30, 61], [62, 45], [59, 119], [116, 90], [156, 198], [373, 326]]
)


def recall_by_loops(sizes: np.ndarray, anchors: np.ndarray, anchor_t: float) -> float:
    hits = 0
    for w, h in sizes:
        hits += any(max(w / aw, aw / w, h / ah, ah / h) < anchor_t for aw, ah in anchors)
    return hits / len(sizes)


@given(seed=st.integers(0, 1000), anchor_t=st.floats(1.1, 6))
def test_best_possible_recall_is_the_share_of_boxes_that_some_anchor_fits(seed: int, anchor_t: float) -> None:
    sizes = np.random.default_rng(seed).uniform(1, 600, (40, 2))
    assert best_possible_recall(sizes, COCO, anchor_t) == pytest.approx(
        recall_by_loops(sizes, COCO, anchor_t)
    )


def test_tiny_boxes_get_anchors_that_fit_and_differ() -> None:
    sizes = np.random.default_rng(0).lognormal(np.log(6), 0.5, (2000, 2)).clip(2, 40)
    before = best_possible_recall(sizes, COCO)
    anchors = fit_anchors(sizes, 9)
    assert anchors is not None
    assert best_possible_recall(sizes, anchors) > 0.99 > before
    assert (np.diff(anchors.prod(1)) > 0).all()
    assert len(np.unique(anchors.round(1), axis=0)) == 9
    assert anchors.min() >= 2


def test_too_few_different_boxes_give_no_anchors() -> None:
    assert fit_anchors(np.tile([[8.0, 8.0], [9.0, 12.0]], (50, 1)), 9) is None


def test_the_same_seed_finds_the_same_anchors() -> None:
    sizes = np.random.default_rng(1).uniform(4, 80, (300, 2))
    first, second = (fit_anchors(sizes, 9, generations=100, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)
