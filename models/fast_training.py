"""Exact rewrites of a network for training: same weights, same values to float rounding, less work.

1. The two 1x1 convolutions that read a C3's input run as one, BatchNorm and activation included.
2. SiLU does not run in place: autograd needs its input, which would have to be copied first.

A space-to-depth stays one. The strided convolution that models/fuse.py makes of it for inference is faster to
train in contiguous layout only, and channels_last is faster than either (benchmarks/spd.py).
"""

from __future__ import annotations

from torch import nn

from models.layers.blocks import C3, Conv


def fast_training(model: nn.Module, on: bool = True) -> None:
    """Switch the rewrites on or off in place; names and values of the weights stay.

    Only training mode changes. Frozen BatchNorm, other norms and hooked convolutions stay as they are.
    """
    for module in model.modules():
        if isinstance(module, C3):
            module.merged = on and _can_run_as_one(module.cv1, module.cv2)
        elif isinstance(module, nn.SiLU):
            module.inplace = not on


def _can_run_as_one(first: Conv, second: Conv) -> bool:
    """Return whether one convolution can replace the two unnoticed: same kind, same settings, no hooks."""
    norms, convs = (first.bn, second.bn), (first.conv, second.conv)
    return (
        all(type(block) is Conv for block in (first, second))
        and all(type(norm) is nn.BatchNorm2d and norm.track_running_stats for norm in norms)
        and all(type(conv) is nn.Conv2d and conv.bias is None for conv in convs)
        and str(first.act) == str(second.act)
        and not any(m._forward_hooks or m._forward_pre_hooks for m in (first, second, *norms, *convs))
    )
