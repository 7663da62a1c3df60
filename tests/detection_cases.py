"""Ground truth and detections: random cases with every irregularity, and small hand-made ones."""

import numpy as np

from engine.evaluation.metrics import DetectionColumns, GroundTruthColumns

NAMES = ["a", "b", "c", "d"]


def random_case(seed: int, images: int = 12, classes: int = 4, scale: float = 1.0, regions: bool = False):
    """Return ground truth and detections with crowds, ties, empty images, missing classes and unequal sizes.

    With `regions` there are also overlapping regions to ignore, in every other image.
    """
    rng = np.random.default_rng(seed)
    ground_truth, detections = [], []
    for _ in range(images):
        n = int(rng.integers(0, 12)) * int(rng.random() > 0.2)
        corner, size = rng.uniform(0, 300, (n, 2)), rng.lognormal(3.2, 1.0, (n, 2)) * scale
        boxes = np.concatenate((corner, corner + size), 1)
        labels = rng.integers(0, classes - 1, n)  # the last class has no objects
        ground_truth.append((boxes, labels, size.prod(1) * rng.uniform(0.5, 1, n), rng.random(n) < 0.15))
        near = boxes[rng.integers(0, n, 3 * n)] if n else np.zeros((0, 4))
        near = near + rng.normal(0, 0.08, near.shape) * np.tile(near[:, 2:] - near[:, :2], 2)
        corner, size = rng.uniform(0, 300, (6, 2)), rng.lognormal(3.2, 1.0, (6, 2)) * scale
        boxes = np.concatenate((near, np.concatenate((corner, corner + size), 1)))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        scores = np.round(rng.random(len(boxes)), 1)  # many ties
        keep = rng.random() > 0.1
        detections.append(
            np.column_stack((boxes, scores, rng.integers(0, classes, len(boxes))))[: keep * 1000]
        )
    boxes, labels, areas, crowd = zip(*ground_truth, strict=True)
    corners = rng.uniform(0, 250, (images, 3, 2))
    ignored = np.concatenate((corners, corners + rng.uniform(20, 120, corners.shape)), 2)
    ignored = [part[: 3 * (i % 2)] for i, part in enumerate(ignored)] if regions else []
    return GroundTruthColumns.stack(boxes, labels, areas, crowd, ignored), DetectionColumns.stack(detections)


def box(x, y, side):
    return [x, y, x + side, y + side]


def one_image(boxes, rows, **columns):
    ground_truth = GroundTruthColumns.stack([boxes], [[0] * len(boxes)], **columns)
    return ground_truth, DetectionColumns.stack([rows])
