from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
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


def unlike(anchors: np.ndarray) -> bool:
    """Whether every two anchors differ by about 5% in a side."""
    ratio = anchors[:, None] / anchors[None]
    worst = np.maximum(ratio, 1 / ratio).max(2) + 9 * np.eye(len(anchors))
    return bool((worst > 1.049).all())


@pytest.mark.parametrize("size", [2.0, 2.2, 8.0, 300.0])
@pytest.mark.parametrize("count", [9, 12])
def test_equal_boxes_still_get_different_anchors_that_fit(size: float, count: int) -> None:
    sizes = np.full((50, 2), size)
    anchors = fit_anchors(sizes, count, generations=20)
    assert anchors is not None and anchors.shape == (count, 2)
    assert unlike(anchors)
    assert best_possible_recall(sizes, anchors) == 1
    assert best_possible_recall(anchors, sizes[:1]) == 1


@pytest.mark.parametrize(
    ("seed", "size"), [(4, 283.03071946056554), (11, 40.31392042522148), (24, 100.420113327456)]
)
def test_boxes_of_one_size_but_for_rounding_end(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    sizes = size * (1 + rng.integers(-4, 5, (60, 2)) * np.finfo(float).eps)
    anchors = fit_anchors(sizes, 12, generations=5, strides=(4, 8, 16, 32))
    assert anchors is not None and unlike(anchors)
    assert best_possible_recall(sizes, anchors) == 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(2, 300), spread=st.floats(0, 1.2))
def test_anchors_ascend_differ_and_stay_within_the_reach_of_their_level(
    seed: int, scale: float, spread: float
) -> None:
    sizes = np.random.default_rng(seed).lognormal(np.log(scale), spread, (60, 2)).clip(1, 1280)
    strides = (4, 8, 16, 32)
    anchors = fit_anchors(sizes, 12, generations=20, strides=strides)
    if anchors is None:
        assert not (sizes >= 2).all(1).any()
        return
    assert unlike(anchors)
    assert (np.diff(anchors.prod(1)) >= 0).all()
    assert anchors.min() >= 2
    assert (anchors.max(1) <= 16 * np.repeat(strides, 3) + 1e-9).all()


def test_no_anchor_is_larger_than_the_largest_box() -> None:
    sizes = np.random.default_rng(0).uniform(4, 30, (500, 2))
    anchors = fit_anchors(sizes, 9)
    assert anchors is not None and (anchors.max(0) <= sizes.max(0)).all()


def test_boxes_thinner_than_two_pixels_give_no_anchors() -> None:
    assert fit_anchors(np.array([[1.5, 40.0], [1.0, 1.0]]), 9) is None
    assert fit_anchors(np.zeros((0, 2)), 9) is None


def test_a_sample_of_many_boxes_gives_anchors_that_fit_all() -> None:
    sizes = np.random.default_rng(0).lognormal(np.log(12), 0.6, (100_000, 2)).clip(2, 200)
    anchors = fit_anchors(sizes, 9, generations=50)
    assert anchors is not None and best_possible_recall(sizes, anchors) > 0.98


def test_the_same_seed_gives_the_same_anchors() -> None:
    sizes = np.random.default_rng(1).uniform(4, 80, (300, 2))
    first, second = (fit_anchors(sizes, 9, generations=100, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)
