"""Do two runtimes of one network agree?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.runtime import Predictor

PIXELS, RELATIVE, SCORES = 1e-2, 1e-4, 1e-4  # boxes may differ by PIXELS + RELATIVE * value, scores by SCORES


@dataclass(frozen=True)
class Difference:
    """The largest absolute differences found.

    Attributes:
        pixels: of box centres and sides.
        scores: of objectness and class scores.
        agree: whether every number is within the tolerance.
        inputs: how many batches were compared.
    """

    pixels: float
    scores: float
    agree: bool
    inputs: int


def compare(reference: Predictor, other: Predictor, shapes: Iterable[tuple[int, int, int]]) -> Difference:
    """Run both on noise and on picture-like input of each shape (batch, height, width)."""
    generator = torch.Generator().manual_seed(0)
    pixels, scores, agree, inputs = 0.0, 0.0, True, 0
    for batch, height, width in shapes:
        for make in (_noise, _scenery):
            images = make(batch, height, width, generator)
            expected, found = reference(images).cpu(), other(images).cpu()
            if expected.shape != found.shape:
                raise ValueError(f"outputs of shape {tuple(expected.shape)} and {tuple(found.shape)}")
            gap = (expected - found).abs()
            allowed = torch.full_like(gap, SCORES)
            allowed[..., :4] = PIXELS + RELATIVE * expected[..., :4].abs()
            agree = agree and bool((gap <= allowed).all())  # false for NaN
            pixels, scores = max(pixels, gap[..., :4].max().item()), max(scores, gap[..., 4:].max().item())
            inputs += 1
    return Difference(pixels, scores, agree, inputs)


def _noise(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=generator)


def _scenery(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Smooth areas, edges and a little grain: statistics nearer to a photograph's than noise has."""
    coarse = torch.rand(batch, 3, max(height // 16, 2), max(width // 16, 2), generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    edges = (smooth[:, :1] > 0.5) * 0.3
    grain = 0.03 * torch.randn(batch, 3, height, width, generator=generator)
    return (smooth * 0.7 + edges + grain).clamp(0, 1)
