"""The ML program of a CoreML package computed with PyTorch: what the file says, where CoreML is not.

Operators as in coremltools' documentation of MIL; only those that our networks need.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.errors import UserError

DTYPES = {"fp16": torch.float16, "fp32": torch.float32, "int32": torch.int32}


class Program:
    """(B, 3, H, W) float32 -> the output of the program.

    Args:
        spec: of the package.
        weights: the folder of its weights.
    """

    def __init__(self, spec: Any, weights: Path):
        from coremltools.converters.mil.frontend.milproto.load import load

        loaded = load(spec, spec.specificationVersion, str(weights))
        (function,) = loaded.functions.values()
        self.input, self.outputs = next(iter(function.inputs)), [var.name for var in function.outputs]
        self.steps = [step for step in function.operations if step.op_type != "const"]
        unknown = sorted({step.op_type for step in self.steps} - set(OPERATORS))
        if unknown:
            raise UserError(f"its program has operators that are not known here: {', '.join(unknown)}")
        self.constants: dict[str, Any] = {}
        for step in self.steps:
            for given in step.inputs.values():
                for var in given if isinstance(given, list | tuple) else [given]:
                    if var.val is not None:
                        self.constants[var.name] = _constant(var.val)

    def __call__(self, images: Tensor) -> Tensor:
        """Compute every operator in turn."""
        values: dict[str, Any] = {**self.constants, self.input: images}
        for step in self.steps:
            given = {
                key: [values[each.name] for each in var]
                if isinstance(var, list | tuple)
                else values[var.name]
                for key, var in step.inputs.items()
            }
            result = OPERATORS[step.op_type](**given)
            results = result if isinstance(result, tuple) else (result,)
            values.update({var.name: part for var, part in zip(step.outputs, results, strict=True)})
        output: Tensor = values[self.outputs[0]]
        return output.float()


def _constant(value: Any) -> Any:
    """Arrays of floats become tensors; sizes, names and switches plain Python."""
    if hasattr(value, "dtype") and value.dtype.kind == "f":
        return torch.as_tensor(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _pad(x: Tensor, pad_type: str, pad: list[int] | None, value: float) -> Tensor:
    if pad_type == "valid" or not pad or not any(pad):
        return x
    if pad_type != "custom":
        raise UserError(f"its program pads by '{pad_type}', which is not known here")
    top, bottom, left, right = pad
    return F.pad(x, (left, right, top, bottom), value=value)


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Any = 1,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    dilations: Any = 1,
    groups: int = 1,
) -> Tensor:
    return F.conv2d(_pad(x, pad_type, pad, 0.0), weight, bias, strides, 0, dilations, groups)


def _max_pool(
    x: Tensor, kernel_sizes: Any, strides: Any, pad_type: str, pad: Any = None, ceil_mode: bool = False
) -> Tensor:
    return F.max_pool2d(_pad(x, pad_type, pad, -torch.inf), kernel_sizes, strides, ceil_mode=ceil_mode)


def _slice(
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    index: list[Any] = []
    for axis in range(x.dim()):
        if squeeze_mask and squeeze_mask[axis]:
            index.append(begin[axis])
            continue
        start = None if begin_mask and begin_mask[axis] else begin[axis]
        stop = None if end_mask and end_mask[axis] else end[axis]
        index.append(slice(start, stop, stride[axis] if stride else 1))
    return x[tuple(index)]


def _split(x: Tensor, axis: int, split_sizes: list[int] | None = None, num_splits: int = 0) -> Any:
    return x.split(split_sizes, axis) if split_sizes else x.chunk(num_splits, axis)


def _upsample(x: Tensor, scale_factor_height: Any, scale_factor_width: Any) -> Tensor:
    return F.interpolate(x, scale_factor=(float(scale_factor_height), float(scale_factor_width)))


def _matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


OPERATORS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "batch_norm": lambda x, mean, variance, gamma=None, beta=None, epsilon=1e-5: F.batch_norm(
        x, mean, variance, gamma, beta, eps=float(epsilon)
    ),
    "cast": lambda x, dtype: x.to(DTYPES[dtype]),
    "concat": lambda values, axis, interleave=False: torch.cat(values, axis),
    "conv": _conv,
    "expand_dims": lambda x, axes: functools.reduce(torch.unsqueeze, sorted(axes), x),
    "identity": lambda x: x,
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "matmul": _matmul,
    "max_pool": _max_pool,
    "mul": lambda x, y: x * y,
    "pad": lambda x, pad, mode="constant", constant_val=0.0: F.pad(
        x, tuple(side for pair in zip(pad[-2::-2], pad[::-2], strict=True) for side in pair)
    ),
    "pow": lambda x, y: x**y,
    "reduce_mean": lambda x, axes, keep_dims=False: x.mean(axes, keep_dims),
    "reduce_sum": lambda x, axes, keep_dims=False: x.sum(axes, keep_dims),
    "relu": lambda x: torch.relu(x),
    "reshape": lambda x, shape: x.reshape(shape),
    "sigmoid": lambda x: torch.sigmoid(x),
    "silu": lambda x: F.silu(x),
    "slice_by_index": _slice,
    "softmax": lambda x, axis: x.softmax(axis),
    "split": _split,
    "squeeze": lambda x, axes: x.squeeze(tuple(axes)),
    "sub": lambda x, y: x - y,
    "transpose": lambda x, perm: x.permute(perm),
    "upsample_nearest_neighbor": _upsample,
}
