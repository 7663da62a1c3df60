"""Crops of full images, drawn anew each time they are trained on."""

from __future__ import annotations

import numpy as np

from data.image_record import ImageRecord, TileBox

ON_OBJECT = 0.75  # share of crops that are placed around an object rather than anywhere


def shifted_tile(record: ImageRecord, jitter: float, rng: np.random.Generator) -> TileBox:
    """Return the place of a tile, moved by up to `jitter` of its sides but kept inside its full image."""
    assert record.tile is not None and record.parent is not None
    width, height = record.width, record.height
    x, y = record.tile[:2] + rng.uniform(-jitter, jitter, 2) * (width, height)
    x0 = int(np.clip(round(x), 0, record.parent.width - width))
    y0 = int(np.clip(round(y), 0, record.parent.height - height))
    return x0, y0, x0 + width, y0 + height


def random_crop(record: ImageRecord, shape: tuple[int, int], rng: np.random.Generator) -> TileBox:
    """Return a random crop of a full image, of the given height and width as far as the image has them.

    Three of four hold the center of a random object, so that large, mostly empty scenes teach something too.
    """
    height, width = min(shape[0], record.height), min(shape[1], record.width)
    room = np.array([record.width - width, record.height - height])
    corner = rng.uniform(0, room + 1)
    objects = record.boxes_xyxy[~record.crowd]
    if len(objects) and rng.random() < ON_OBJECT:
        box = objects[int(rng.integers(len(objects)))]
        corner = (box[:2] + box[2:]) / 2 - rng.uniform(0, 1, 2) * (width, height)
    x0, y0 = np.clip(np.floor(corner), 0, room).astype(int).tolist()
    return x0, y0, x0 + width, y0 + height
