"""Keeping a part of a map's Fourier spectrum, by transforms or by two matrix products.

Cropping and weighting a spectrum is linear and acts on rows and columns separately, so it equals Y = A X Bᵀ
with two small matrices, or the sum of two such terms where the kept rows are not symmetric and A is complex.
The matrix of an axis is `synthesis * window @ analysis`: cosines and sines of the frequencies at the output's
positions, the weight of each frequency, cosines and sines at the input's.

The matrix form is used up to `MATRIX_SIDE` pixels a side, in 16 bits on a CPU, and always while a graph is
exported (ONNX has no usable inverse real FFT); larger maps are transformed. The limits were measured on a CPU
by benchmarks/spectral.py (docs/downsampling.md), and not yet on a GPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor

Method = Literal["auto", "matrices", "fft"]
Basis = tuple[Tensor, Tensor]  # synthesis (terms, out, 2K), analysis (2K, in)
Make = TypeVar("Make", bound=Callable[..., Basis])

MATRIX_SIDE = {1: 192, 2: 80}  # pixels, by terms: up to here two products are faster than transforms
ONE_PRODUCT = 64  # pixels in a map: up to here one product with the Kronecker matrix is faster than two


def use_matrices(x: Tensor, method: Method, terms: int) -> bool:
    """Return whether `x`, (B, C, H, W), is to be resampled by matrix products of one term or two."""
    if method != "auto":
        return method == "matrices"
    if torch.compiler.is_compiling():
        return True
    if x.device.type == "cpu" and x.dtype in (torch.float16, torch.bfloat16):
        return True
    return max(x.shape[-2:]) <= MATRIX_SIDE[terms]


def _cached(make: Make) -> Make:
    """Compute a basis once for its arguments, but never keep what belongs to a graph being traced."""

    @functools.lru_cache(maxsize=128)
    def computed_once(*arguments: object) -> Basis:
        with torch.inference_mode(False), torch.no_grad():  # such a tensor may be trained through
            return make(*arguments)

    @functools.wraps(make)
    def basis(*arguments: object) -> Basis:
        return make(*arguments) if torch.compiler.is_compiling() else computed_once(*arguments)

    return basis  # type: ignore[return-value]


@_cached
def halving_basis(size: int, grid: int, device: torch.device, dtype: torch.dtype) -> Basis:
    """`size` pixels -> `grid` pixels, all frequencies the grid holds, constants kept; one real term.

    K = grid // 2 + 1. The highest frequency of an even grid counts half for each sign, so that the result
    is real whichever axis comes first.
    """
    frequency = torch.arange(grid // 2 + 1, device=device)
    alone = (frequency == 0) | (2 * frequency == grid)
    weight = torch.where(alone, 1.0, 2.0) / size
    synthesis = torch.cat(_wave(frequency, grid)).t().unsqueeze(0)  # (1, grid, 2K)
    return synthesis.to(dtype), _analysis(frequency, size, weight).to(dtype)


@_cached
def row_basis(size: int, first: int, last: int, device: torch.device, dtype: torch.dtype) -> Basis:
    """The `first` and the `last` of `size` complex frequencies become a smaller spectrum; two terms."""
    grid = first + last
    kept = torch.cat([torch.arange(first), torch.arange(size - last, size)]).to(device)
    weight = torch.full((grid,), 1 / grid, device=device)
    return _waves(size, kept, grid, torch.arange(grid, device=device), weight, dtype)


@_cached
def column_basis(size: int, kept: int, grid: int, device: torch.device, dtype: torch.dtype) -> Basis:
    """The first `kept` frequencies of a real transform become `grid` pixels; two terms."""
    frequency = torch.arange(kept, device=device)
    alone = (frequency == 0) | (2 * frequency == grid)
    return _waves(size, frequency, grid, frequency, torch.where(alone, 1.0, 2.0) / grid, dtype)


def _waves(
    size: int, frequency_in: Tensor, grid: int, frequency_out: Tensor, weight: Tensor, dtype: torch.dtype
) -> Basis:
    """Return the basis that reads `frequency_in` of `size` pixels and writes `frequency_out` of `grid`."""
    cos, sin = _wave(frequency_out, grid)  # (K, grid)
    real, imaginary = torch.cat([cos, sin]), torch.cat([sin, -cos])
    synthesis = torch.stack([real.t(), imaginary.t()])  # (2, grid, 2K)
    return synthesis.to(dtype), _analysis(frequency_in, size, weight).to(dtype)


def _analysis(frequency: Tensor, size: int, weight: Tensor) -> Tensor:
    """(K,) twice -> weighted cosines, then sines, at `size` positions, (2K, size)."""
    return torch.cat(_wave(frequency, size)) * weight.repeat(2).unsqueeze(1)


def _wave(frequency: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(K,) -> cosine and sine of each frequency, (K, size); exact phases, float64 outside of a trace."""
    position = torch.arange(size, device=frequency.device)
    period = position[-1] + 1  # a tensor: ONNX knows no remainder by a free size
    turns = frequency.unsqueeze(1) * position % period
    wide = not torch.compiler.is_compiling() and frequency.device.type != "mps"
    phase = turns.to(torch.float64 if wide else torch.float32) * (2 * math.pi) / period
    return phase.cos(), phase.sin()


def axis_matrix(basis: Basis, window: Tensor | None = None) -> Tensor:
    """Return (terms, out, in), with the frequencies weighed by `window`, (K,)."""
    synthesis, analysis = basis
    if window is not None:
        synthesis = synthesis * window.to(synthesis.dtype).repeat(2)
    return synthesis @ analysis


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply A X Bᵀ to every map, summed over the terms, the second one subtracted.

    (B, C, H, W), (terms, h, H), (terms, w, W) -> (B, C, h, w), in x's memory format.
    """
    if rows.shape[0] == 2:
        rows = torch.stack([rows[0], -rows[1]])
    rows, columns = rows.to(x.dtype), columns.to(x.dtype)
    traced = torch.compiler.is_compiling()  # sizes may be symbols then: no choice by size
    batch, channels, height, width = x.shape
    if not traced and height * width <= ONE_PRODUCT and x.is_contiguous():
        one = torch.einsum("tih,tjw->ijhw", rows, columns).reshape(-1, height * width)
        return (x.reshape(-1, height * width) @ one.t()).view(batch, channels, rows.shape[1], -1)
    terms, grid = rows.shape[:2]
    left = rows.transpose(0, 1).reshape(grid * terms, height)  # terms side by side for each output row
    right = columns.transpose(0, 1).reshape(-1, terms * width)
    if not traced and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        pixels = x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
        y = (left @ pixels).view(batch * grid, terms * width, channels)
        return (right @ y).view(batch, grid, -1, channels).permute(0, 3, 1, 2)
    y = (left @ x).reshape(batch, channels, grid, terms * width)
    return y @ right.t()


def halve_by_fft(x: Tensor, grid: tuple[int, int], windows: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """`halving_basis` on both axes, by transforms: (B, C, H, W) -> (B, C, *grid).

    Args:
        x: the maps.
        grid: the output's height and width.
        windows: weights of the frequencies 0 to h // 2 and 0 to w // 2.
    """
    height, width = grid
    top, left = height // 2 + 1, width // 2 + 1
    x_f = _spectrum(x)[..., :left]
    upper, lower = x_f[..., :top, :], x_f[..., x.shape[2] - top + 1 :, :]
    if height % 2 == 0:  # the highest frequency is half of each sign's
        middle = (upper[..., -1:, :] + lower[..., :1, :]) / 2
        upper, lower = torch.cat([upper[..., :-1, :], middle], 2), lower[..., 1:, :]
    y_f = torch.cat([upper, lower], 2)  # (B, C, h, w // 2 + 1)
    if windows is not None:
        rows, columns = windows
        rows = torch.cat([rows, rows[1 : height - top + 1].flip(0)])  # negative frequencies mirror
        y_f = y_f * rows.unsqueeze(1) * columns
    scale = height * width / (x.shape[2] * x.shape[3])
    return (torch.fft.irfft2(y_f, s=grid) * scale).to(x.dtype)


def crop_by_fft(x: Tensor, first: int, last: int, kept: int, width: int, window: Tensor | None) -> Tensor:
    """`row_basis` and `column_basis` by transforms: (B, C, H, W) -> (B, C, first + last, width).

    `window`, (first + last, kept), weighs the frequencies.
    """
    x_f = _spectrum(x)[..., :kept]
    y_f = torch.cat([x_f[..., :first, :], x_f[..., x.shape[2] - last :, :]], 2)
    if window is not None:
        y_f = y_f * window
    return torch.fft.irfft2(y_f, s=(first + last, width)).to(x.dtype)


def _spectrum(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W // 2 + 1), at least in complex64: there are no transforms in bfloat16."""
    return torch.fft.rfft2(x if x.dtype == torch.float64 else x.float())
