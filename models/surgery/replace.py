"""Replace the downsampling layers of any network by space-to-depth and a convolution, its outputs unchanged.

Each strided convolution becomes an `SPDConv2d` that holds its weights exactly (see `spd_conv2d.py`), under
the same name. A pretrained network keeps its accuracy, and fine-tuning can use the pixels skipped so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel
from models.summary import count_parameters
from models.surgery.layers import POOLS, Where, downsampling_layers, first_parameter, plan_layers
from models.surgery.report import SurgeryReport
from utils.errors import UserError, quoted

EXAMPLE_SIDE = 128  # pixels, of the example where none is given


def replace_downsampling(
    model: nn.Module,
    to: str = "spd",
    preserve: bool = True,
    where: Where = None,
    skip: bool = False,
    example: Tensor | None = None,
) -> SurgeryReport:
    """Replace strided convolutions and poolings in place; all of them or, if one cannot be, none.

    Hooks, names, devices, precision, `channels_last` and training mode stay. Layers that a forward calls as
    functions (F.max_pool2d) are not seen.

    Args:
        model: any network; a `yaml` in it, as ours and Ultralytics' have, notes the surgery, so that a
            checkpoint builds it again.
        to: "spd".
        preserve: keep what the network computes. Otherwise new convolutions are initialized at random, and
            poolings, max pooling included, start as averages.
        where: the layers to replace: patterns of names ("model.[0-7].*"), or a function of name and module;
            None is all.
        skip: leave a layer that cannot be replaced, and give the reason in the report.
        example: an input to measure with; zeros of 128x128 pixels if there is none.

    Raises:
        UserError: a layer cannot be replaced, `where` matches none, or the example does not run. The network
            is then unchanged.
    """
    if to != "spd":
        raise UserError(f"surgery makes 'spd', not '{to}'; other downsamplers are built with --downsample")
    if getattr(model, "fused", False):
        raise UserError("the network was fused for inference; replace its downsampling before it is fused")
    old = downsampling_layers(model, where)
    example = _example(model) if example is None else example
    flops, channels = _measure(model, example)
    parameters = count_parameters(model)
    layers, new = plan_layers(model, old, preserve, channels)
    refused = [f"{layer.name} ({layer.kind}): {layer.reason}" for layer in layers if layer.reason]
    if refused and not skip:
        raise UserError(f"cannot replace {'; '.join(refused)}. Nothing was changed; skip them to go on")
    _swap(model, new)
    try:
        flops_after, _ = _measure(model, example)
    except BaseException:
        for name in new:  # the old layers return to their names
            new[name], old[name] = old[name], new[name]
        _swap(model, new)
        raise
    _note_in_yaml(model, to, list(new), channels)
    return SurgeryReport(layers, (parameters, count_parameters(model)), (flops, flops_after))


def _note_in_yaml(model: nn.Module, to: str, replaced: list[str], channels: Mapping[str, int]) -> None:
    """Add the surgery to the network's `yaml`, if it has one, for `repeat_surgery`."""
    architecture = getattr(model, "yaml", None)
    if not isinstance(architecture, dict) or not replaced:
        return
    step: dict[str, Any] = {"to": to, "layers": replaced}
    of_pools = {name: channels[name] for name in replaced if name in channels}
    if of_pools:
        step["channels"] = of_pools
    architecture["surgery"] = [*architecture.get("surgery", []), step]


def repeat_surgery(model: nn.Module, steps: Any) -> None:
    """Replace the layers that the `surgery` of a YAML names; their weights come with the checkpoint.

    Raises:
        UserError: it does not fit the network.
    """
    for step in steps if isinstance(steps, list) else [steps]:
        if not isinstance(step, dict) or step.get("to") != "spd" or not isinstance(step.get("layers"), list):
            raise UserError(f"surgery must be a list of steps {{to: spd, layers: [...]}}, got {quoted(step)}")
        old = downsampling_layers(model, step["layers"])
        pools = any(isinstance(module, POOLS) for module in old.values())
        channels = step.get("channels") or (_measure(model, _example(model))[1] if pools else {})
        layers, new = plan_layers(model, old, False, channels)
        for layer in layers:
            if layer.reason:
                raise UserError(f"surgery of {layer.name}: {layer.reason}")
        _swap(model, new)


def _swap(model: nn.Module, new: Mapping[str, nn.Module]) -> None:
    """Put modules in their places; a module with several names is replaced under each of them."""
    by_identity = {id(model.get_submodule(name)): module for name, module in new.items()}
    for parent in list(model.modules()):
        for leaf, child in list(parent._modules.items()):
            if id(child) in by_identity:
                parent._modules[leaf] = by_identity[id(child)]


def _example(model: nn.Module) -> Tensor:
    """Return a small black image."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    channels = 3 if first is None else first.in_channels
    if isinstance(model, DetectionModel | ClassificationModel):
        channels = model.yaml["ch"]
    return torch.zeros(1, channels, EXAMPLE_SIDE, EXAMPLE_SIDE)


def _measure(model: nn.Module, example: Tensor) -> tuple[int, dict[str, int]]:
    """Run the example in eval mode; return the floating-point operations and each pooling's channels."""
    like = first_parameter(model)
    example = example.to(like.device, like.dtype)
    channels: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            channels[name] = inputs[0].shape[1]

        return hook

    handles = [
        module.register_forward_pre_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, POOLS)
    ]
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(example)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the network does not run on the example {tuple(example.shape)}: {reason}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return counter.get_total_flops(), channels
