"""How often each training image is drawn, if rare and badly found classes shall come more often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.detection.image_record import ImageRecord


def image_weights(
    records: Sequence[ImageRecord], num_classes: int, class_ap: Sequence[float | None] | None = None
) -> np.ndarray:
    """Return (n,) weights for `BatchLoader.set_weights`, as YOLOv5's --image-weights has them.

    An image weighs the sum over its objects of its class's weight: 1 over the number of objects of the class
    in the data set, times (1 - AP)².

    Args:
        records: the training views.
        num_classes: number of classes.
        class_ap: AP of each class, 0..1, from the last evaluation; None, of all or of one, counts as 0.

    Raises:
        ValueError: no view holds an object.
    """
    counts = np.stack(
        [np.bincount(record.classes[~record.crowd], minlength=num_classes) for record in records]
    )  # (n, classes)
    total = counts.sum(axis=0)
    if not total.any():
        raise ValueError("images without objects cannot be weighed by their objects")
    found = np.array([ap or 0.0 for ap in class_ap or [None] * num_classes])
    weights = (counts * ((1 - found) ** 2 / np.maximum(total, 1))).sum(axis=1)
    return weights if weights.any() else (counts.sum(axis=1) > 0).astype(float)
