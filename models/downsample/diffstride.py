"""DiffStride: a spectral crop whose stride is learned by backpropagation.

Riad, Teboul, Grangier & Zeghidour, ICLR 2022, arXiv:2202.01653. A window over the spectrum falls from 1 to 0
at the end of the crop; its position depends on the stride, which thus receives a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from models.downsample import fourier
from models.downsample.fourier import Method, use_matrices
from models.downsample.spectral import basis_dtype, check_stride, grid_of


class DiffStride2d(nn.Module):
    """Multiply the spectrum by a window that ends at the learned cut-off.

    As published, the strides determine the crop and with it the output's size: the window is 1 up to H / 2s
    cycles (one more for columns), falls over `smoothness` cycles, and the rest is transformed back, so that
    means grow by HW / hw. With `fixed_grid` the output is always ceil(H / stride) x ceil(W / stride) of the
    initial strides, the mean is kept, and the middle of the fall lies at H / 2s cycles: the strides learn the
    cut-off on that grid.

    Attributes:
        strides: of rows and columns, the parameter; one number for both if `shared`.

    Args:
        stride: the initial strides, at least 1.
        smoothness: width of the window's fall, in cycles per map.
        shared: one stride for both axes.
        fixed_grid: see above.
        limits: smallest and largest stride allowed. The smallest is raised to where the window's fall still
            begins inside the spectrum, as a stride below would no longer learn.
        method: the form of the computation; "auto" chooses by `fourier.use_matrices`.

    Raises:
        ValueError: a stride below 1 or outside of the limits, or no smoothness.
    """

    def __init__(
        self,
        stride: tuple[float, float] = (2.0, 2.0),
        smoothness: float = 4.0,
        shared: bool = False,
        fixed_grid: bool = False,
        limits: tuple[float, float] = (1.0, math.inf),
        method: Method = "auto",
    ):
        super().__init__()
        self.stride = check_stride(stride)
        if smoothness <= 0:
            raise ValueError(f"smoothness must be above 0, got {smoothness}")
        if shared and self.stride[0] != self.stride[1]:
            raise ValueError(f"a shared stride is one number for both axes, got {stride}")
        if not (1 <= limits[0] <= min(self.stride) and max(self.stride) <= limits[1]):
            raise ValueError(f"strides {self.stride} must lie within their limits {limits}, at least 1")
        self.smoothness, self.fixed_grid, self.limits, self.method = smoothness, fixed_grid, limits, method
        self.strides = nn.Parameter(torch.tensor(self.stride[:1] if shared else self.stride))
        self._exported_strides = self.stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, h, w)."""
        lowest = self._lowest(x)
        strides = self._limited(x, lowest)
        return self._halve(x, strides) if self.fixed_grid else self._crop(x, strides, lowest)

    def _lowest(self, x: Tensor) -> list[float]:
        """Return the smallest useful strides, at which the fall begins at the last frequency."""
        sizes = x.shape[2:]
        if self.fixed_grid and torch.compiler.is_compiling():  # sizes may be symbols, and no value changes:
            return [self.limits[0]] * 2  # below this the window is 1 on the whole grid
        if self.fixed_grid:
            grid = grid_of(x, self.stride)
            lowest = [size / (kept + self.smoothness) for size, kept in zip(sizes, grid, strict=True)]
        else:
            lowest = [size / (size - self.smoothness) if size > self.smoothness else 1.0 for size in sizes]
        lowest = [min(max(low, self.limits[0]), self.limits[1]) for low in lowest]
        return lowest if self.strides.numel() == 2 else [max(lowest)] * 2

    def _limited(self, x: Tensor, lowest: list[float]) -> Tensor:
        """Return both strides within their limits; in training the parameter is moved there as well."""
        strides = self.strides.to(basis_dtype(x))
        low = torch.tensor(lowest[: strides.numel()], device=x.device, dtype=strides.dtype)
        allowed = torch.maximum(strides.detach(), low).clamp_max(self.limits[1])
        if self.training and not torch.compiler.is_compiling():
            self.strides.data.copy_(allowed)  # .data: the same layer may run twice before backward
        return (strides + (allowed - strides).detach()).expand(2)

    def _halve(self, x: Tensor, strides: Tensor) -> Tensor:
        grid = grid_of(x, self.stride)
        windows = []
        for size, kept, stride in zip(x.shape[2:], grid, strides, strict=True):
            frequency = torch.arange(kept // 2 + 1, device=x.device)
            window = self._window(size / (2 * stride) - self.smoothness / 2, frequency)
            windows.append(torch.where(frequency == 0, 1.0, window))  # the mean always passes
        if not use_matrices(x, self.method, 1):
            return fourier.halve_by_fft(x, grid, (windows[0], windows[1]))
        rows, columns = (
            fourier.axis_matrix(fourier.halving_basis(size, kept, x.device, basis_dtype(x)), window)
            for size, kept, window in zip(x.shape[2:], grid, windows, strict=True)
        )
        return fourier.separable(x, rows, columns)

    def _crop(self, x: Tensor, strides: Tensor, lowest: list[float]) -> Tensor:
        height, width = x.shape[2:]
        traced = torch.compiler.is_compiling() or strides.is_meta
        steps = map(max, self._exported_strides, lowest) if traced else strides.tolist()
        step_rows, step_columns = steps
        odd, reach = height % 2, math.ceil(height / step_rows / 2 + self.smoothness)
        first, last = min(height // 2, reach - odd), min(height // 2 + odd, reach)
        kept = min(width // 2 + 1, math.ceil(width / step_columns / 2 + 1 + self.smoothness))
        # The reference counts rows from 0 away from both ends, from 1 at the first end of an odd height.
        near = torch.arange(odd, first + odd, device=x.device)
        distance = torch.cat([near, torch.arange(last, device=x.device).flip(0)])
        rows = self._window(height / strides[0] / 2, distance)
        columns = self._window(width / strides[1] / 2 + 1, torch.arange(kept, device=x.device))
        if not use_matrices(x, self.method, 2):
            window = rows.unsqueeze(1) * columns
            return fourier.crop_by_fft(x, first, last, kept, 2 * (kept - 1), window)
        dtype = basis_dtype(x)
        row_basis = fourier.row_basis(height, first, last, x.device, dtype)
        column_basis = fourier.column_basis(width, kept, 2 * (kept - 1), x.device, dtype)
        return fourier.separable(
            x, fourier.axis_matrix(row_basis, rows), fourier.axis_matrix(column_basis, columns)
        )

    def _window(self, end: Tensor, frequency: Tensor) -> Tensor:
        """1 up to `end`, then falling to 0 over `smoothness`; (K,)."""
        return ((end - frequency) / self.smoothness + 1).clamp(0, 1)

    def train(self, mode: bool = True) -> DiffStride2d:
        """Set the mode; a graph traced in eval mode is cropped by the present strides."""
        self._note_strides()
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._note_strides()

    def _note_strides(self) -> None:
        if not self.strides.is_meta:
            values = self.strides.tolist()
            self._exported_strides = (values[0], values[-1])

    def extra_repr(self) -> str:
        """Return what print() shows."""
        return f"stride={self.stride}, smoothness={self.smoothness}, fixed_grid={self.fixed_grid}"


def learned_strides(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Return the strides of rows and columns of every DiffStride layer, by its name."""
    strides = {}
    for name, module in model.named_modules():
        if isinstance(module, DiffStride2d):
            rows, columns = module.strides.detach().expand(2).tolist()
            strides[name] = (rows, columns)
    return strides


def stride_complexity(layers: Iterable[DiffStride2d]) -> Tensor:
    """The paper's penalty on small strides, to be scaled by its weight and added to the loss.

    The sum over the layers, first to last, of the share of the input's pixels that remains after each: the
    product of 1 / (row stride · column stride) so far.

    Raises:
        ValueError: there is no layer.
    """
    shares = [1 / layer.strides.expand(2).prod() for layer in layers]
    if not shares:
        raise ValueError("there is no DiffStride layer to penalize")
    return torch.stack(shares).cumprod(0).sum()


def diffstride() -> nn.Module:
    """(B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2)): the cut-off is learned, the size is fixed."""
    return DiffStride2d(fixed_grid=True)
