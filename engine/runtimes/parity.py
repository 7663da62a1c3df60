"""Do two runtimes of one network agree?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.runtimes import Predictor
from engine.runtimes.onnx_nms import NmsSettings
from utils.boxes import box_iou
from utils.nms import non_max_suppression


@dataclass(frozen=True)
class Tolerance:
    """Boxes may differ by `pixels` + `relative` · value, scores by `scores`.

    A share of `outliers` of the numbers may differ by up to `FAR` times as much. In 16 bits there are some:
    wide boxes of low confidence, whose width is steep where its raw value is large. Of the official YOLOv5n's
    18 million numbers on the inputs below at 640 px, 79 were out, by up to 2.7 times, with confidences
    below .01.
    After NMS a share of at least `objects` is to be the same.
    """

    pixels: float
    relative: float
    scores: float
    objects: float
    outliers: float = 0.0

    def __str__(self) -> str:
        return f"{self.pixels:g} + {self.relative:g} of the value, and {self.scores:g}"


FP32 = Tolerance(1e-2, 1e-4, 1e-4, 0.99)
FP16 = Tolerance(0.5, 2e-2, 2e-2, 0.95, outliers=1e-4)
FAR = 5.0
TOLERANCES = {"fp32": FP32, "fp16": FP16}


@dataclass(frozen=True)
class Difference:
    """The largest absolute differences.

    Attributes:
        pixels: of box centers and sides.
        scores: of objectness and class scores.
        agree: whether the numbers are within the tolerance.
        inputs: how many batches were compared.
    """

    pixels: float
    scores: float
    agree: bool
    inputs: int


def compare(
    reference: Predictor,
    other: Predictor,
    shapes: Iterable[tuple[int, int, int]],
    tolerance: Tolerance = FP32,
) -> Difference:
    """Run both on noise and on image-like input of each shape (batch, height, width)."""
    pixels, scores, agree, inputs = 0.0, 0.0, True, 0
    for images in _inputs(shapes):
        expected, actual = reference(images).cpu(), other(images).cpu()
        if expected.shape != actual.shape:
            raise ValueError(f"outputs of shape {tuple(expected.shape)} and {tuple(actual.shape)}")
        gap = (expected - actual).abs()
        allowed = torch.full_like(gap, tolerance.scores)
        allowed[..., :4] = tolerance.pixels + tolerance.relative * expected[..., :4].abs()
        within = gap <= allowed  # false for NaN
        few = (~within).float().mean().item() <= tolerance.outliers
        agree = agree and few and bool((gap <= FAR * allowed)[~within].all())
        pixels, scores = max(pixels, gap[..., :4].max().item()), max(scores, gap[..., 4:].max().item())
        inputs += 1
    return Difference(pixels, scores, agree, inputs)


def compare_logits(
    reference: Predictor,
    other: Predictor,
    shapes: Iterable[tuple[int, int, int]],
    tolerance: Tolerance = FP32,
) -> Difference:
    """Run two classifiers likewise; each logit may differ by `scores`, and as much of its own size."""
    scores, agree, inputs = 0.0, True, 0
    for images in _inputs(shapes):
        expected, actual = reference(images).cpu(), other(images).cpu()
        gap = (expected - actual).abs()
        agree = agree and bool((gap <= tolerance.scores * (1 + expected.abs())).all())  # false for NaN
        scores = max(scores, gap.max().item())
        inputs += 1
    return Difference(0.0, scores, agree, inputs)


@dataclass(frozen=True)
class Agreement:
    """How many objects each of two runtimes detects, and how many both do."""

    first: int
    second: int
    both: int

    def agree(self, tolerance: Tolerance) -> bool:
        """Whether all but a few are the same: at a threshold the smallest difference tips one over."""
        return self.both >= tolerance.objects * max(self.first, self.second)


def compare_detections(
    reference: Predictor, other: Predictor, shapes: Iterable[tuple[int, int, int]], settings: NmsSettings
) -> Agreement:
    """Compare what is left after NMS: the same class, the box (IoU .9 or more) and the confidence (.02).

    Args:
        reference: gives decoded boxes.
        other: has been through NMS with `settings`.
        shapes: batch, height and width of the inputs.
        settings: of the NMS.
    """
    first = second = both = 0
    options = (settings.conf_thres, settings.iou_thres)
    for images in _inputs(shapes):
        lists = [
            non_max_suppression(predictor(images).cpu(), *options, max_det=settings.max_det)
            for predictor in (reference, other)
        ]
        for a, b in zip(*lists, strict=True):
            same = (box_iou(a[:, :4], b[:, :4]) >= 0.9) & (a[:, None, 5] == b[:, 5])
            same &= (a[:, None, 4] - b[:, 4]).abs() <= 0.02
            first, second, both = first + len(a), second + len(b), both + int(same.any(1).sum())
    return Agreement(first, second, both)


def _inputs(shapes: Iterable[tuple[int, int, int]]) -> Iterable[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in shapes:
        yield _noise(batch, height, width, generator)
        yield _scenery(batch, height, width, generator)


def _noise(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=generator)


def _scenery(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Smooth areas, edges and a little grain: statistics nearer to a full image's than noise has."""
    coarse = torch.rand(batch, 3, max(height // 16, 2), max(width // 16, 2), generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    edges = (smooth[:, :1] > 0.5) * 0.3
    grain = 0.03 * torch.randn(batch, 3, height, width, generator=generator)
    return (smooth * 0.7 + edges + grain).clamp(0, 1)
