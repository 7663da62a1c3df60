"""Spectral pooling: keep the low frequencies of a map.

Rippel, Snoek & Adams, NeurIPS 2015, arXiv:1506.03767; the default is the pooling that Riad et al., ICLR 2022,
arXiv:2202.01653, compare with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.downsample import fourier
from models.downsample.fourier import Method, use_matrices


class SpectralPool2d(nn.Module):
    """Crop the spectrum to height / stride and width / stride.

    As published, the height is rounded down to an even number, the width is rounded down, and the mean grows
    by HW / hw. With `fixed_grid` the output is ceil(H / stride) x ceil(W / stride), the mean is kept.

    Args:
        stride: of rows and of columns, at least 1; fractions are allowed.
        fixed_grid: see above.
        method: the form of the computation; "auto" chooses by `fourier.use_matrices`.

    Raises:
        ValueError: a stride below 1.
    """

    def __init__(
        self,
        stride: tuple[float, float] = (2.0, 2.0),
        fixed_grid: bool = False,
        method: Method = "auto",
    ):
        super().__init__()
        self.stride, self.fixed_grid, self.method = check_stride(stride), fixed_grid, method

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, h, w).

        Raises:
            ValueError: as published, the map is too small to keep two rows and one column.
        """
        return self._halve(x) if self.fixed_grid else self._crop(x)

    def _halve(self, x: Tensor) -> Tensor:
        grid = grid_of(x, self.stride)
        if not use_matrices(x, self.method, 1):
            return fourier.halve_by_fft(x, grid)
        rows, columns = (
            fourier.axis_matrix(fourier.halving_basis(size, kept, x.device, basis_dtype(x)))
            for size, kept in zip(x.shape[2:], grid, strict=True)
        )
        return fourier.separable(x, rows, columns)

    def _crop(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        half, grid = int(height / self.stride[0]) // 2, int(width / self.stride[1])
        if half < 1 or grid < 1:
            raise ValueError(
                f"spectral pooling: a {height}x{width} map is too small for strides {self.stride}"
            )
        kept = grid // 2 + 1
        if not use_matrices(x, self.method, 2):
            return fourier.crop_by_fft(x, half, half, kept, grid, None)
        dtype = basis_dtype(x)
        rows = fourier.axis_matrix(fourier.row_basis(height, half, half, x.device, dtype))
        columns = fourier.axis_matrix(fourier.column_basis(width, kept, grid, x.device, dtype))
        return fourier.separable(x, rows, columns)

    def extra_repr(self) -> str:
        """Return what print() shows."""
        return f"stride={self.stride}, fixed_grid={self.fixed_grid}"


def check_stride(stride: tuple[float, float]) -> tuple[float, float]:
    """Return strides of rows and columns as floats, or raise a ValueError if one is below 1."""
    rows, columns = (float(value) for value in stride)
    if not (rows >= 1 and columns >= 1):
        raise ValueError(f"strides must be at least 1, got {stride}")
    return rows, columns


def grid_of(x: Tensor, stride: tuple[float, float]) -> tuple[int, int]:
    """Return ceil(H / stride), ceil(W / stride) of a (B, C, H, W) map; symbolic sizes need whole strides."""
    height, width = (
        -(-size // int(step)) if step == int(step) else math.ceil(size / step)
        for size, step in zip(x.shape[2:], stride, strict=True)
    )
    return height, width


def basis_dtype(x: Tensor) -> torch.dtype:
    """Return the precision of the matrices for `x`: at least float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def spectral_pool() -> nn.Module:
    """(B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2)): the frequencies below half of the highest."""
    return SpectralPool2d(fixed_grid=True)
