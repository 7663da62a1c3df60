"""Non-maximum suppression of a detector's decoded output.

It needs no torchvision and has no time limit: the result depends on the input alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from utils.boxes import xywh_to_xyxy
from utils.overlap import spread_classes, suppress

MAX_CANDIDATES = 30_000  # the most (box, class) pairs per image that are considered, as in YOLOv5


@torch.no_grad()
def non_max_suppression(
    pred: Tensor,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    classes: Sequence[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    max_det: int = 300,
) -> list[Tensor]:
    """Keep the best of overlapping boxes in each image.

    Args:
        pred: (B, N, 5 + nc) decoded output: cx, cy, w, h in pixels, objectness, class scores; any float type
            and device. Of NaN and infinities, those in a box or an objectness drop the prediction, those in a
            class score only its class.
        conf_thres: objectness · class score must exceed this.
        iou_thres: the largest IoU that two kept boxes (of one class) may have.
        classes: keep only these classes; None is all.
        agnostic: boxes of different classes suppress each other, too.
        multi_label: a box counts for each class above the threshold (for evaluation), not only for its best.
        max_det: the most boxes kept per image.

    Returns:
        For each image (n, 6) float32 on the device of `pred`: x1, y1, x2, y2, confidence, class; best first.

    Raises:
        ValueError: a threshold outside 0..1, or `pred` of another shape.
    """
    if pred.ndim != 3 or pred.shape[2] < 6:
        raise ValueError(f"predictions must be (B, N, 5 + classes), got {tuple(pred.shape)}")
    if not 0 <= conf_thres <= 1 or not 0 <= iou_thres <= 1:
        raise ValueError(f"thresholds must lie in 0..1, got conf {conf_thres} and iou {iou_thres}")
    return [
        _suppress_image(candidates_of(image, conf_thres, classes, multi_label), iou_thres, agnostic, max_det)
        for image in pred
    ]


def candidates_of(
    image: Tensor, conf_thres: float, classes: Sequence[int] | None, multi_label: bool
) -> Tensor:
    """(N, 5 + nc) of an image -> (n, 6) x1, y1, x2, y2, confidence, class; at most 30,000, best first."""
    predictions = image[image[:, 4] > conf_thres].float()  # false for NaN
    predictions = predictions[predictions[:, :5].isfinite().all(1)]
    scores = predictions[:, 5:] * predictions[:, 4:5]  # (n, nc)
    if multi_label and scores.shape[1] > 1:
        index, label = (scores > conf_thres).nonzero(as_tuple=True)
        finite = scores[index, label].isfinite()
        index, label = index[finite], label[finite]
        score = scores[index, label]
    else:
        score, label = scores.nan_to_num(nan=-1.0, posinf=-1.0).max(1)
        index = (score > conf_thres).nonzero()[:, 0]
        score, label = score[index], label[index]
    if classes is not None:
        chosen = torch.isin(label, torch.as_tensor(list(classes), dtype=label.dtype, device=label.device))
        index, score, label = index[chosen], score[chosen], label[chosen]
    if len(score) > MAX_CANDIDATES:
        score, best = score.topk(MAX_CANDIDATES)
        index, label = index[best], label[best]
    score, order = score.sort(descending=True, stable=True)
    boxes = xywh_to_xyxy(predictions[index[order], :4])
    return torch.cat((boxes, score[:, None], label[order, None].float()), 1)


def _suppress_image(candidates: Tensor, iou_thres: float, agnostic: bool, max_det: int) -> Tensor:
    """(n, 6) best first -> (k, 6); the greedy search is sequential, so it runs on the CPU."""
    columns = candidates.cpu().numpy()
    boxes = columns[:, :4] if agnostic else spread_classes(columns[:, :4], columns[:, 5])
    kept = suppress(boxes, iou_thres, max_det)
    return candidates[torch.from_numpy(kept).to(candidates.device)]
