"""How often each training image is drawn where rare and badly detected classes are to come more often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.image_record import ImageRecord


def image_weights(
    records: Sequence[ImageRecord], num_classes: int, class_ap: Sequence[float | None] | None = None
) -> np.ndarray:
    """Return (n,) weights for `BatchLoader.set_weights`, as YOLOv5's --image-weights has them.

    The weight of an image is the sum over its objects of the weight of their class, which is (1 - AP)² over
    the number of the class's objects in the data set.

    Args:
        records: the training images or tiles.
        num_classes: number of classes.
        class_ap: AP of each class, 0..1, from the last evaluation; None, for all or for one, counts as 0.

    Raises:
        ValueError: there is no object in any image.
    """
    counts = np.stack(
        [np.bincount(record.classes[~record.crowd], minlength=num_classes) for record in records]
    )  # (n, classes)
    total = counts.sum(axis=0)
    if not total.any():
        raise ValueError("images without objects cannot be weighted by their objects")
    ap = np.array([ap or 0.0 for ap in class_ap or [None] * num_classes])
    weights = (counts * ((1 - ap) ** 2 / np.maximum(total, 1))).sum(axis=1)
    return weights if weights.any() else (counts.sum(axis=1) > 0).astype(float)
