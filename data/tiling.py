"""Large images as overlapping tiles: where the tiles lie, and which boxes belong to them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data.image_record import ImageRecord, TileBox, ground_truth_arrays
from utils.errors import UserError, quoted
from utils.limits import TILES
from utils.overlap import xyxy_of


@dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Attributes:
        size: side of a tile, pixels of the file.
        overlap: share of its side that a tile has in common with its neighbor at least, 0 to below 1.
        min_area: a box belongs to a tile when at least this share of its area is inside.
    """

    size: int
    overlap: float = 0.2
    min_area: float = 0.4

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise UserError(f"tile size must be a whole number of pixels, got {quoted(self.size)}")
        for name, below in (("overlap", True), ("min_area", False)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not (0 <= value < 1 or (value == 1 and not below)):
                range_text = "from 0 to below 1" if below else "from 0 to 1"
                raise UserError(f"tile {name} must be a share {range_text}, got {quoted(value)}")


def tiles_pay_from(imgsz: int) -> int:
    """Return the longer side of an image, pixels, from which tiles of the input's size are worth their time.

    Smaller images are shrunk to no less than half their size, and a larger input is the simpler remedy.
    """
    return 2 * imgsz


def tile_boxes(width: int, height: int, size: int, overlap: float) -> np.ndarray:
    """Return tiles x0, y0, x1, y1 (T, 4) int64 that cover an image, row by row, evenly spread.

    Neighbors have at least `overlap` of a side in common (up to one pixel of rounding). A tile is never
    larger than the image and never reaches beyond it.
    """
    x0, y0 = _starts(width, size, overlap), _starts(height, size, overlap)
    TILES.check(len(x0) * len(y0), f"an image of {width}x{height} in tiles of {size} pixels")
    grid_y, grid_x = np.meshgrid(y0, x0, indexing="ij")
    corners = np.stack([grid_x.ravel(), grid_y.ravel()], axis=1)
    side = np.minimum(size, [width, height])
    return np.concatenate([corners, corners + side], axis=1)


def count_tiles(width: int, height: int, size: int, overlap: float) -> int:
    """Return how many tiles `tile_boxes` makes, without making them."""
    return _count(width, size, overlap) * _count(height, size, overlap)


def _count(length: int, size: int, overlap: float) -> int:
    """Tiles along one side."""
    if length <= size:
        return 1
    step = max(size * (1 - overlap), 1.0)
    return math.ceil((length - size) / step - 1e-9) + 1


def _starts(length: int, size: int, overlap: float) -> np.ndarray:
    """First pixel of each tile along one side."""
    if length <= size:
        return np.zeros(1, np.int64)
    return np.floor(np.linspace(0, length - size, _count(length, size, overlap)) + 0.5).astype(np.int64)


def crop_record(record: ImageRecord, tile: TileBox, min_area: float) -> ImageRecord:
    """Return the record of one tile of a full image.

    Boxes with at least `min_area` of their area inside are kept and clipped to the tile; crowds and regions
    to ignore are kept wherever they overlap it. COCO's `area` shrinks in proportion to the box.

    Args:
        record: of a full image.
        tile: x0, y0, x1, y1 in the image's pixels.
        min_area: share of a box's area, 0 to 1.
    """
    return _crop(record, tile, min_area, np.arange(len(record.classes)), np.arange(len(record.ignore)))


def _crop(
    record: ImageRecord, tile: TileBox, min_area: float, near: np.ndarray, regions_near: np.ndarray
) -> ImageRecord:
    """`crop_record`, given the indices of all boxes and regions that may overlap the tile, in their order."""
    boxes = xyxy_of(record.boxes_xywh[near])
    clipped, inside = _clipped(boxes, tile)
    regions, area = _clipped(record.ignore[regions_near], tile)
    shift = np.tile(tile[:2], 2)
    share = inside / np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-9)
    crowd = record.crowd[near]
    keep = (inside > 0) & (crowd | (share >= min_area - 1e-9))
    annotations = ground_truth_arrays(
        clipped[keep] - shift,
        record.classes[near][keep],
        record.areas[near][keep] * share[keep],
        crowd[keep],
    )
    x0, y0, x1, y1 = tile
    return ImageRecord(
        record.path,
        record.image_id,
        x1 - x0,
        y1 - y0,
        *annotations,
        tile=tile,
        parent=record,
        min_area=min_area,
        ignore=(regions[area > 0] - shift).astype(np.float32),
    )


def _clipped(boxes_xyxy: np.ndarray, tile: TileBox) -> tuple[np.ndarray, np.ndarray]:
    """Boxes clipped to a tile (n, 4), in the image's pixels, and their areas (n,)."""
    low, high = np.tile(tile[:2], 2), np.tile(tile[2:], 2)
    clipped = np.clip(boxes_xyxy, low, high)
    return clipped, np.prod(clipped[:, 2:] - clipped[:, :2], axis=1)


def tile_records(records: Iterable[ImageRecord], tiling: Tiling) -> list[ImageRecord]:
    """Return the tiles of full images, image by image; an image that fits one tile stays whole."""
    tiles: list[ImageRecord] = []
    for record in records:
        boxes_xyxy = tile_boxes(record.width, record.height, tiling.size, tiling.overlap)
        if len(boxes_xyxy) == 1:
            tiles.append(record)
            continue
        near = _overlapping(xyxy_of(record.boxes_xywh), boxes_xyxy)
        regions_near = _overlapping(record.ignore, boxes_xyxy)
        tiles += [
            _crop(record, (x0, y0, x1, y1), tiling.min_area, boxes, regions)
            for (x0, y0, x1, y1), boxes, regions in zip(boxes_xyxy.tolist(), near, regions_near, strict=True)
        ]
    return tiles


def _overlapping(boxes_xyxy: np.ndarray, tiles_xyxy: np.ndarray) -> list[np.ndarray]:
    """Return, for each tile of a grid, the ascending indices of the boxes (n, 4) that overlap it.

    Along each axis the tiles that a box overlaps are neighbors, so two searches find them, whatever the
    number of tiles: comparing each box with each tile took minutes for 50,000 boxes in 10,000 tiles.
    """
    first, last = np.zeros((2, len(boxes_xyxy)), int), np.zeros((2, len(boxes_xyxy)), int)
    for axis in (0, 1):
        starts, ends = np.unique(tiles_xyxy[:, axis]), np.unique(tiles_xyxy[:, 2 + axis])
        first[axis] = np.searchsorted(ends, boxes_xyxy[:, axis], side="right")
        last[axis] = np.searchsorted(starts, boxes_xyxy[:, 2 + axis], side="left")
    columns, rows = np.maximum(last - first, 0)
    count = columns * rows
    box = np.repeat(np.arange(len(boxes_xyxy)), count)
    place = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)  # among the tiles of its box
    row, column = first[1][box] + place // columns[box], first[0][box] + place % columns[box]
    tile = row * len(np.unique(tiles_xyxy[:, 0])) + column
    order = np.argsort(tile, kind="stable")
    return np.split(box[order], np.searchsorted(tile[order], np.arange(1, len(tiles_xyxy))))
