"""Autoanchor: new anchors for a detector whose own fit too few of the training boxes."""

from __future__ import annotations

import numpy as np
import torch

from models.detection_model import DetectionModel
from utils.anchors import best_possible_recall, fit_anchors


def suit_anchors(
    model: DetectionModel, sizes: np.ndarray, anchor_t: float = 4.0, enough: float = 0.98, seed: int = 0
) -> str:
    """Give `model` anchors that fit the boxes, unless its own fit enough of them or better than new ones.

    Args:
        model: a detector; its anchors and architecture are changed.
        sizes: (N, 2) width and height of the training boxes in pixels, after resizing.
        anchor_t: largest ratio of sides between a box and an anchor that fits it.
        enough: best possible recall at which the anchors stay as they are.
        seed: of the search.

    Returns:
        How well the anchors fit and what was done, one line.
    """
    if not len(sizes):
        return "the anchors stay as they are: there are no boxes to fit them to"
    head = model.anchor_head
    if head is None:
        return "the head needs no anchors"
    anchors = (head.anchors * head.stride.view(-1, 1, 1)).flatten(0, 1).cpu().numpy()
    recall = best_possible_recall(sizes, anchors, anchor_t)
    if recall >= enough:
        return f"anchors fit {recall:.1%} of the training boxes"
    fitted = fit_anchors(sizes, len(anchors), anchor_t, seed=seed, strides=head.stride.tolist())
    after = 0.0 if fitted is None else best_possible_recall(sizes, fitted, anchor_t)
    if fitted is None or after < recall:
        return f"anchors fit {recall:.1%} of the training boxes; the search brought none that fit more"
    model.set_anchors(torch.from_numpy(fitted).float().view(head.nl, head.na, 2))
    return f"new anchors fit {after:.1%} of the training boxes; the model's own fitted {recall:.1%}"
