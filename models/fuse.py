"""Exact rewrites for inference: the outputs stay, to float rounding, and the network gets smaller and faster."""

from __future__ import annotations

import torch
from torch import nn

from models.blocks import Conv


def fuse(model: nn.Module) -> None:
    """Apply every rewrite to `model`, in place."""
    for module in model.modules():
        if isinstance(module, Conv):
            fold_batchnorm(module)


def fold_batchnorm(block: Conv) -> None:
    """Fold the running statistics and the affine map of `block.bn` into `block.conv`, computed in float64.

    w' = w * gamma / sqrt(var + eps); b' = beta - mean * gamma / sqrt(var + eps).
    """
    conv, norm = block.conv, block.bn
    if not isinstance(norm, nn.BatchNorm2d):
        return
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    weight = conv.weight.detach().double() * gain.view(-1, 1, 1, 1)
    bias = norm.bias.detach().double() - norm.running_mean.double() * gain
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
    block.bn = nn.Identity()
