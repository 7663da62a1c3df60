"""Which layers of a network downsample, whether they can be replaced, and by what."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.downsample.spd_conv2d import SPDConv2d, from_conv, from_pool
from models.summary import count_parameters
from models.surgery.report import LayerReport
from utils.errors import UserError, suggest

Where = str | Sequence[str] | Callable[[str, nn.Module], bool] | None
_CONVS = (nn.Conv2d,)
POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def plan_layers(
    model: nn.Module, old: Mapping[str, nn.Module], preserve: bool, channels: Mapping[str, int]
) -> tuple[list[LayerReport], dict[str, nn.Module]]:
    """Plan the replacement of layers; nothing is changed yet.

    Args:
        model: the network.
        old: its layers to replace, by name, from `downsampling_layers`.
        preserve: keep what the network computes.
        channels: of the poolings among them, by name.

    Returns:
        A report on each layer, and the new layers, by name, of those that can be replaced.
    """
    owners, like = _owners(model), first_parameter(model)
    layers: list[LayerReport] = []
    new: dict[str, nn.Module] = {}
    for name, module in old.items():
        reason = _obstacle(name, module, preserve, channels.get(name), owners)
        if not reason:
            new[name] = _replacement(module, preserve, channels.get(name), like)
        counts = (count_parameters(module), count_parameters(new.get(name, module)))
        layers.append(LayerReport(name, _kind(module), reason, counts))
    return layers, new


def downsampling_layers(model: nn.Module, where: Where) -> dict[str, nn.Module]:
    """Return the layers with a stride above 1 that `where` selects, by name, in the network's order.

    Raises:
        UserError: there is none, or a pattern matches none.
    """
    modules = dict(model.named_modules())
    candidates = {name: module for name, module in modules.items() if _stride(module) > 1}
    if where is None:
        selected = candidates
    elif callable(where):
        selected = {name: module for name, module in candidates.items() if where(name, module)}
    else:
        selected = {}
        for pattern in [where] if isinstance(where, str) else where:
            matching = {name: candidates[name] for name in fnmatch.filter(candidates, pattern)}
            if not matching and pattern in modules:
                raise UserError(
                    f"{pattern} is a {type(modules[pattern]).__name__}, which does not downsample"
                )
            if not matching:
                raise UserError(
                    f"no downsampling layer is called '{pattern}'. {suggest(pattern, candidates)}"
                )
            selected.update(matching)
    if not selected:
        raise UserError("the network has no strided convolution or pooling to replace")
    return selected


def _stride(module: nn.Module) -> int:
    """Return the largest stride of a layer that could downsample an image, 1 for others."""
    kind = type(module)
    quantized = kind.__module__.startswith("torch.ao.nn") and kind.__name__ in ("Conv2d", "ConvReLU2d")
    if not isinstance(module, _CONVS + POOLS) and not quantized:
        return 1
    stride: Any = module.stride
    return stride if isinstance(stride, int) else max(stride)


def _obstacle(
    name: str, module: nn.Module, preserve: bool, channels: int | None, owners: Mapping[int, list[str]]
) -> str:
    """Return why a layer cannot be replaced, or an empty text."""
    if not name:
        return "it is the whole network; put it into an nn.Sequential"
    if type(module) not in (*_CONVS, *POOLS):
        return f"{type(module).__module__}.{type(module).__qualname__} computes in a way of its own"
    if len(set(_both(module.stride))) > 1:
        return f"the strides {module.stride} differ"
    if set(_both(getattr(module, "dilation", 1))) != {1}:
        return f"dilation {module.dilation}"
    if isinstance(module, nn.Conv2d):
        return _obstacle_of_conv(module, owners)
    return _obstacle_of_pool(module, preserve, channels)


def _obstacle_of_conv(conv: nn.Conv2d, owners: Mapping[int, list[str]]) -> str:
    if conv.padding_mode != "zeros":
        return f"padding mode '{conv.padding_mode}'"
    if parametrize.is_parametrized(conv) or "weight" not in dict(conv.named_parameters()):
        return "its weight is computed from other parameters"
    holders = owners[id(conv.weight)]
    return f"its weight is shared by {', '.join(holders)}" if len(holders) > 1 else ""


def _obstacle_of_pool(pool: nn.Module, preserve: bool, channels: int | None) -> str:
    if channels is None:
        return "the example does not pass through it, so its channels are unknown"
    if getattr(pool, "return_indices", False):
        return "it returns indices"
    if not preserve:
        return ""
    if isinstance(pool, nn.MaxPool2d):
        return "max pooling is no convolution; it can be replaced only without preserving outputs"
    assert isinstance(pool, nn.AvgPool2d)
    if pool.ceil_mode:
        return "with ceil_mode the last window averages fewer pixels"
    if not pool.count_include_pad and any(_both(pool.padding)):
        return "windows at the border average fewer pixels"
    return ""


def _replacement(module: nn.Module, preserve: bool, channels: int | None, like: Tensor) -> SPDConv2d:
    if isinstance(module, nn.Conv2d):
        layer = from_conv(module, preserve)
    else:
        assert isinstance(module, nn.MaxPool2d | nn.AvgPool2d)
        assert channels is not None
        layer = from_pool(module, channels, like)
    own = {*vars(layer), *getattr(module, "__constants__", ())}
    for key, value in vars(module).items():  # hooks, and what the network stored on its layer
        if key.endswith("_hooks") or "_hooks_" in key or key not in own:
            setattr(layer, key, value)
    return layer


def first_parameter(model: nn.Module) -> Tensor:
    """Return a parameter, which tells device and precision of the network; an empty tensor if it has none."""
    return next(model.parameters(), torch.empty(0))


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """Return the names of the modules that hold each parameter, by its identity."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return owners


def _both(value: Any) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _kind(module: nn.Module) -> str:
    sides = ["x".join(map(str, dict.fromkeys(_both(value)))) for value in (module.kernel_size, module.stride)]
    groups = getattr(module, "groups", 1)
    return f"{type(module).__name__} k{sides[0]} s{sides[1]}" + (f" g{groups}" if groups > 1 else "")
