"""COCO's precision and recall arrays, from hotcoco (fast) or pycocotools (the reference)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics.columns import DetectionColumns, GroundTruthColumns
from engine.evaluation.metrics.protocols import ALL_AREAS, Protocol

Evaluator = Literal["hotcoco", "pycocotools"]
# Image and annotation numbers are shifted by one: pycocotools takes the id 0 for "not matched".
FIRST_ID = 1


@dataclass(frozen=True)
class Accumulated:
    """T IoU thresholds, R = 101 recall points, K classes, A areas (all, then the sizes), M detection limits.

    -1 stands where a class has no objects of that size.
    """

    precision: NDArray[np.float64]  # (T, R, K, A, M) at recall 0, .01, ... 1
    recall: NDArray[np.float64]  # (T, K, A, M) the largest recall reached


def accumulate(
    ground_truth: GroundTruthColumns,
    detections: DetectionColumns,
    num_classes: int,
    protocol: Protocol,
    evaluator: Evaluator = "hotcoco",
) -> Accumulated:
    """Match detections to the ground truth and accumulate precision and recall, without printing.

    Raises:
        ValueError: different numbers of images, a class out of range or an unknown evaluator.
    """
    if ground_truth.num_images != detections.num_images:
        raise ValueError(
            f"ground truth of {ground_truth.num_images} images, detections of {detections.num_images}"
        )
    for what, classes in (("ground truth", ground_truth.classes), ("detections", detections.classes)):
        if len(classes) and not 0 <= classes.min() <= classes.max() < num_classes:
            raise ValueError(f"{what}: classes must lie in 0..{num_classes - 1}")
    if evaluator not in _FEEDERS:
        raise ValueError(f"no evaluator '{evaluator}'. Choose from: {', '.join(_FEEDERS)}")
    areas = [list(ALL_AREAS), *([size.low, size.high] for size in protocol.sizes)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval = _FEEDERS[evaluator](ground_truth, detections, num_classes)
        params = coco_eval.params
        params.imgIds = list(range(FIRST_ID, ground_truth.num_images + FIRST_ID))
        params.catIds = list(range(num_classes))
        params.iouThrs = list(protocol.ious) if evaluator == "hotcoco" else np.array(protocol.ious)
        params.areaRng = areas
        params.areaRngLbl = ["all", *(size.name for size in protocol.sizes)]
        params.maxDets = list(protocol.max_dets)
        coco_eval.evaluate()
        coco_eval.accumulate()
        result = coco_eval.eval
    return Accumulated(np.asarray(result["precision"]), np.asarray(result["recall"]))


def error_gains(
    ground_truth: GroundTruthColumns, detections: DetectionColumns, num_classes: int
) -> dict[str, float]:
    """Return by how much AP50 would rise if the errors of one kind were corrected, as TIDE defines it.

    Keys are hotcoco's: Cls, Loc, Both, Dupe, Bkg, Miss, and FP and FN for everything false or missed.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval = _feed_hotcoco(ground_truth, detections, num_classes)
        coco_eval.params.iouThrs = [0.5]
        coco_eval.params.areaRng, coco_eval.params.areaRngLbl = [list(ALL_AREAS)], ["all"]
        coco_eval.params.maxDets = [len(detections.image) + 1]
        coco_eval.evaluate()
        return coco_eval.tide_errors()["delta_ap"]


def _header(
    ground_truth: GroundTruthColumns, num_classes: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return COCO's `images` and `categories`."""
    images = [{"id": i + FIRST_ID, "width": 1, "height": 1} for i in range(ground_truth.num_images)]
    return images, [{"id": k, "name": str(k)} for k in range(num_classes)]


def _feed_hotcoco(ground_truth: GroundTruthColumns, detections: DetectionColumns, num_classes: int) -> Any:
    from hotcoco import COCO, COCOeval

    images, categories = _header(ground_truth, num_classes)
    coco_ground_truth = COCO.from_arrays(
        images,
        categories,
        ground_truth.image + FIRST_ID,
        ground_truth.classes,
        ground_truth.boxes_xywh,
        ids=np.arange(len(ground_truth.image)) + FIRST_ID,
        area=ground_truth.areas,
        iscrowd=ground_truth.crowd.astype(np.int64),
    )
    rows = np.empty((len(detections.image), 7))
    rows[:, 0] = detections.image + FIRST_ID
    rows[:, 1:5] = detections.boxes_xywh
    rows[:, 5] = detections.scores
    rows[:, 6] = detections.classes
    return COCOeval(coco_ground_truth, coco_ground_truth.load_res(rows), "bbox")


def _feed_pycocotools(
    ground_truth: GroundTruthColumns, detections: DetectionColumns, num_classes: int
) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def dataset(annotations: list[dict[str, Any]]) -> Any:
        coco = COCO()
        images, categories = _header(ground_truth, num_classes)
        coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
        coco.createIndex()
        return coco

    def annotations(columns: dict[str, Sequence[Any]]) -> list[dict[str, Any]]:
        rows = zip(*columns.values(), strict=True)
        return [dict(zip(columns, row, strict=True), id=i) for i, row in enumerate(rows, FIRST_ID)]

    objects = annotations(
        {
            "image_id": (ground_truth.image + FIRST_ID).tolist(),
            "category_id": ground_truth.classes.tolist(),
            "bbox": ground_truth.boxes_xywh.tolist(),
            "area": ground_truth.areas.tolist(),
            "iscrowd": ground_truth.crowd.astype(int).tolist(),
        }
    )
    detected = annotations(
        {
            "image_id": (detections.image + FIRST_ID).tolist(),
            "category_id": detections.classes.tolist(),
            "bbox": detections.boxes_xywh.tolist(),
            "area": detections.boxes_xywh[:, 2:].prod(1).tolist(),
            "score": detections.scores.tolist(),
        }
    )
    return COCOeval(dataset(objects), dataset(detected), "bbox")


_FEEDERS = {"hotcoco": _feed_hotcoco, "pycocotools": _feed_pycocotools}
