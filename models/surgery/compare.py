"""Two networks compared by what they compute: their outputs, and the largest difference between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def outputs_of(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Return every floating-point tensor among the outputs of `model`, which is put in eval mode."""
    with torch.no_grad():
        return list(_tensors_in(model.eval()(images)))


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors_in(item)


def relative_difference(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the largest difference between two lists of outputs, relative to each tensor's largest value.

    NaN if either holds one.
    """
    differences = [
        ((b - a).abs().max() / a.abs().max().clamp_min(torch.finfo(a.dtype).tiny)).item()
        for a, b in zip(before, after, strict=True)
        if a.numel()
    ]
    return torch.tensor(differences).max().item()
