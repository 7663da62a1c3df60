"""An image with its annotations in memory: what augmentation takes and returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data.image_record import no_boxes


class LoadedImage(NamedTuple):
    """Pixels (H, W, 3) uint8 BGR, boxes (n, 4) in pixels of it, classes (n,), regions to ignore (k, 4)."""

    pixels: np.ndarray
    boxes_xyxy: np.ndarray
    classes: np.ndarray
    ignore_xyxy: np.ndarray = no_boxes()
