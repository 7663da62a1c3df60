"""Boxes as tensors: formats, IoU, CIoU and NWD, all differentiable.

`xyxy` is left, top, right, bottom; `xywh` is center x, center y, width, height; any unit of length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = 1e-7


def xywh_to_xyxy(boxes_xywh: Tensor) -> Tensor:
    """(..., 4) center and size -> (..., 4) corners."""
    center, half = boxes_xywh[..., :2], boxes_xywh[..., 2:4] / 2
    return torch.cat((center - half, center + half), -1)


def xyxy_to_xywh(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) corners -> (..., 4) center and size."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:4]
    return torch.cat(((low + high) / 2, high - low), -1)


def box_area(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) corners -> (...) area; 0 for a box whose corners are swapped."""
    width, height = (boxes_xyxy[..., 2:4] - boxes_xyxy[..., :2]).clamp(min=0).unbind(-1)
    return width * height


def box_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """IoU of every pair: (..., N, 4) and (..., M, 4) -> (..., N, M); 0 where both boxes are empty."""
    a_xyxy, b_xyxy = a_xyxy[..., :, None, :], b_xyxy[..., None, :, :]
    low = torch.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = torch.minimum(a_xyxy[..., 2:4], b_xyxy[..., 2:4])
    inter = (high - low).clamp(min=0).prod(-1)  # (..., N, M)
    union = box_area(a_xyxy) + box_area(b_xyxy) - inter
    return inter / union.clamp(min=torch.finfo(union.dtype).tiny)


def ciou(a_xywh: Tensor, b_xywh: Tensor, eps: float = EPS) -> Tensor:
    """Complete IoU of pairs of boxes: (n, 4) and (n, 4) -> (n,), at most 1.

    CIoU = IoU - d²/c² - alpha·v, where d is the distance of the centers, c the diagonal of the enclosing box
    and v = 4/pi² (atan(w/h) - atan(w'/h'))². The weight alpha is constant for the gradient, and
    `eps` is added to the union, to c² and to alpha's denominator, as in YOLOv5.

    Zheng et al., AAAI 2020, arXiv:1911.08287.
    """
    a_low, a_high = xywh_to_xyxy(a_xywh).split(2, -1)
    b_low, b_high = xywh_to_xyxy(b_xywh).split(2, -1)
    a_w, a_h = a_xywh[..., 2], a_xywh[..., 3]
    b_w, b_h = b_xywh[..., 2], b_xywh[..., 3]

    inter = (torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp(min=0).prod(-1)
    iou = inter / (a_w * a_h + b_w * b_h - inter + eps)

    diagonal = (torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low)).square().sum(-1) + eps
    distance = (a_xywh[..., :2] - b_xywh[..., :2]).square().sum(-1)
    # torch 2.6 has no gradient of atan2 at 0, 0
    a_angle, b_angle = torch.atan2(a_w, a_h.clamp(min=eps)), torch.atan2(b_w, b_h.clamp(min=eps))
    shape = 4 / math.pi**2 * (b_angle - a_angle).square()
    with torch.no_grad():
        alpha = shape / (shape - iou + (1 + eps))
    return iou - distance / diagonal - alpha * shape


def nwd(a_xywh: Tensor, b_xywh: Tensor, constant: float, eps: float = EPS) -> Tensor:
    """Normalized Wasserstein distance of pairs of boxes: (n, 4) and (n, 4), pixels -> (n,) in 0..1.

    A box is a Gaussian whose standard deviations are half its sides; the value is exp(-W / constant), W the
    2-Wasserstein distance of the two. Unlike an IoU it changes with every pixel that one of two tiny boxes is
    moved, even where they do not overlap, and it depends on the unit. `eps` keeps the gradient of the root
    finite for equal boxes.

    Wang et al., arXiv:2110.13389.
    """
    halves = a_xywh.new_tensor([1.0, 1.0, 0.5, 0.5])
    squared = ((a_xywh - b_xywh) * halves).square().sum(-1)
    return torch.exp(-torch.sqrt(squared + eps) / constant)
