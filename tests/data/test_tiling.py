from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset_yaml import read_dataset_yaml
from data.detection.records import read_records
from data.image_record import ImageRecord, ground_truth_arrays
from data.tiling import Tiling, crop_record, tile_boxes, tile_records

sides = st.integers(1, 400)
overlaps = st.floats(0, 0.9)


def record_of(
    boxes: np.ndarray, width: int = 300, height: int = 200, **annotations: np.ndarray
) -> ImageRecord:
    classes = np.arange(len(boxes))
    return ImageRecord(Path("a.jpg"), 7, width, height, *ground_truth_arrays(boxes, classes, **annotations))


@settings(deadline=None)
@given(sides, sides, st.integers(1, 200), overlaps)
def test_tiles_cover_the_image_and_stay_inside(width: int, height: int, size: int, overlap: float) -> None:
    size = max(size, 20)
    covered = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in tile_boxes(width, height, size, overlap):
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert (x1 - x0, y1 - y0) == (min(size, width), min(size, height))
        covered[y0:y1, x0:x1] = True
    assert covered.all()


@settings(deadline=None)
@given(st.integers(20, 2000), st.integers(20, 200), overlaps, st.data())
def test_a_box_no_larger_than_the_overlap_lies_whole_in_some_tile(
    width: int, size: int, overlap: float, data: st.DataObject
) -> None:
    side = data.draw(st.floats(0.5, max(size * overlap - 1, 0.5)))  # tiles start at whole pixels: 1 px less
    if size * overlap - 1 < side:
        return
    x = data.draw(st.floats(0, max(width - side, 0)))
    tiles = tile_boxes(width, size, size, overlap)
    assert ((tiles[:, 0] <= x) & (x + side <= tiles[:, 2] + 1e-9)).any() or width < side


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 299), st.floats(0, 199)), max_size=20))
def test_every_box_whose_center_is_in_the_image_belongs_to_some_tile(centers: list) -> None:
    points = np.array(centers).reshape(-1, 2)
    boxes = np.concatenate([points, points + 1], axis=1)
    tiles = tile_records([record_of(boxes)], Tiling(64, 0.25, min_area=0.25))
    assert set(range(len(boxes))) <= {int(number) for tile in tiles for number in tile.classes}


def test_a_box_belongs_to_a_tile_from_the_least_share_of_its_area_on() -> None:
    boxes = np.array([[0, 90, 10, 100], [0, 94, 10, 104], [0, 95, 10, 105], [20, 90, 30, 100]])
    tile = crop_record(record_of(boxes), (0, 0, 25, 100), 0.6)
    assert tile.classes.tolist() == [0, 1]
    np.testing.assert_allclose(tile.boxes_xyxy, [[0, 90, 10, 100], [0, 94, 10, 100]])
    np.testing.assert_allclose(tile.areas, [100, 60])
    assert crop_record(record_of(boxes), (0, 0, 25, 100), 0.5).classes.tolist() == [0, 1, 2, 3]


def test_boxes_are_clipped_and_shifted_to_the_tile() -> None:
    tile = crop_record(record_of(np.array([[40, 30, 80, 90]])), (50, 60, 114, 124), 0.1)
    np.testing.assert_allclose(tile.boxes_xyxy, [[0, 0, 30, 30]])
    assert tile.tile == (50, 60, 114, 124)
    assert (tile.width, tile.height, tile.image_id) == (64, 64, 7)


def test_a_crowd_is_kept_wherever_it_reaches_and_given_areas_shrink_in_proportion() -> None:
    annotations = {"areas": np.array([40.0, 1000.0]), "crowd": np.array([False, True])}
    record = record_of(np.array([[0, 0, 10, 10], [5, 0, 305, 200]]), **annotations)
    tile = crop_record(record, (0, 0, 6, 10), 0.4)
    assert tile.crowd.tolist() == [False, True]
    np.testing.assert_allclose(tile.areas, [24.0, 1000 * 10 / 60000], rtol=1e-6)


def test_an_image_that_fits_one_tile_stays_whole() -> None:
    record = record_of(np.zeros((0, 4)))
    assert tile_records([record], Tiling(300, 0.2)) == [record]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(17, 90), st.floats(0, 0.9), st.floats(0, 1))
def test_tiles_hold_what_each_of_them_cut_alone_would_hold(
    seed: int, count: int, size: int, overlap: float, min_area: float
) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(-20, 200, (2, count, 2))  # some outside, some of no size
    boxes, regions = (np.concatenate((each, each + rng.integers(0, 80, each.shape)), 1) for each in low)
    record = record_of(boxes.astype(float), crowd=rng.random(count) < 0.2)
    record = replace(record, ignore=regions.astype(np.float32))
    cut = tile_records([record], Tiling(size, overlap, min_area))
    grid = tile_boxes(record.width, record.height, size, overlap).tolist()
    alone = [crop_record(record, tuple(tile), min_area) for tile in grid]
    assert [tile.tile for tile in cut] == [tile.tile for tile in alone]
    for ours, theirs in zip(cut, alone, strict=True):
        assert ours.parent is record
        for name in ("boxes_xywh", "classes", "areas", "crowd", "ignore"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), strict=True)


@pytest.mark.parametrize(("split", "tiles", "crowns"), [("train", 56, 574), ("val", 12, 279)])
def test_treecrowns_ship_exact_and_tiled(split: str, tiles: int, crowns: int) -> None:
    description = read_dataset_yaml("data/treecrowns.yaml")
    records, problems = read_records(description, split, cache=False)
    assert problems == []
    boxes = records[0].boxes_xyxy
    assert len(boxes) == crowns
    np.testing.assert_array_equal(boxes, boxes.round())  # drawn at whole pixels
    assert description.tile is not None
    cut = tile_records(records, description.tile)
    assert len(cut) == tiles
    whole = {tuple(box) for tile in cut for box in tile.boxes_xyxy + np.tile(tile.tile[:2], 2)}
    assert (
        len({tuple(box) for box in boxes} - whole) <= 0.005 * crowns
    )  # all but the largest lie whole in a tile


def test_regions_to_ignore_are_cut_to_the_tile_however_little_is_inside() -> None:
    record = record_of(np.zeros((0, 4)))
    regions = np.array([[90, 0, 110, 10], [0, 0, 100, 5], [200, 0, 300, 200]], np.float32)
    tile = crop_record(replace(record, ignore=regions), (100, 0, 200, 100), min_area=0.9)
    assert tile.ignore.tolist() == [[0, 0, 10, 10]]
    assert tile.ignore.dtype == np.float32
