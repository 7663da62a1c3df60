"""Sorting yields the very pairs that comparing all with all does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.inference.merging import neighbors
from engine.inference.merging.neighbors import (
    later_neighbors,
    meeting_pairs,
    overlapping_pairs,
    suppress_scattered,
)
from utils.overlap import areas, intersections, suppress


def scattered(n: int, seed: int, side: float = 300, whole: bool = True) -> np.ndarray:
    """Boxes of every size, among them empty ones, duplicates, and one as large as the image."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, side, (n, 2)), rng.lognormal(2.5, 1.2, (n, 2)) * (rng.random((n, 1)) > 0.05)
    boxes = np.concatenate((corner, corner + size), 1)
    boxes[rng.integers(0, n, n // 5)] = boxes[rng.integers(0, n, n // 5)]
    if whole:
        boxes[n // 2] = (0, 0, side, side)
    return boxes.astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 10**6), st.sampled_from([1, 50, 1 << 20]))
def test_meeting_pairs_are_those_that_share_area(n, m, seed, portion):
    a, b = scattered(n, seed), scattered(m, seed + 1)
    shared = intersections(a, b)
    expected = {(i, j): shared[i, j] for i, j in zip(*np.nonzero(shared > 0), strict=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "PORTION", portion)
        pairs = [pair for portion in meeting_pairs(a, b) for pair in zip(*portion, strict=True)]
    assert len(pairs) == len(expected)
    assert {(i, j): area for i, j, area in pairs} == expected


@pytest.mark.parametrize("max_keep", [None, 5, 60])
@pytest.mark.parametrize("chunk", [1, 16, 4096])
def test_scattered_suppression_equals_the_dense_one(monkeypatch, chunk, max_keep):
    monkeypatch.setattr(neighbors, "CHUNK", chunk)
    for seed in range(5):
        boxes = scattered(150, seed)
        expected = suppress(boxes, 0.3, max_keep).tolist()
        assert suppress_scattered(boxes, 0.3, max_keep).tolist() == expected


def test_overlap_may_be_measured_against_the_smaller_box():
    boxes = scattered(80, 3)
    smaller = np.minimum(areas(boxes)[:, None], areas(boxes)[None])
    expected = set(zip(*np.nonzero(intersections(boxes, boxes) > 0.6 * smaller), strict=True))
    assert set(zip(*overlapping_pairs(boxes, boxes, 0.6, "ios"), strict=True)) == expected
    later = {(i, int(j)) for i, js in later_neighbors(boxes, 0.6, "ios").items() for j in js}
    assert later == {(i, j) for i, j in expected if i < j}


def test_no_boxes_have_no_neighbors():
    none = np.zeros((0, 4), np.float32)
    assert suppress_scattered(none, 0.5).tolist() == [] and later_neighbors(none, 0.5) == {}
    assert overlapping_pairs(none, scattered(4, 0), 0.1)[0].tolist() == []
