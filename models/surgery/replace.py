"""Replace the downsampling layers of any network by space-to-depth and a convolution, its outputs unchanged.

    python -m models.surgery.replace --weights yolov5s.pt --to spd --out yolov5s-spd-init.pt

Each strided convolution becomes an `SPDConv2d` that holds its weights exactly (see `spd_conv2d.py`), under
the same name; so a pretrained network keeps its accuracy, and fine-tuning may use the pixels skipped so far.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel
from models.summary import count_parameters
from models.surgery.layers import POOLS, Where, downsampling_layers, plan_layers
from models.surgery.report import SurgeryReport
from utils.cli import run
from utils.errors import UserError
from utils.options import Options, opt

EXAMPLE_SIDE = 128  # pixels, of the example where none is given
TOLERANCE = 1e-4  # relative difference of outputs that the command accepts


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
        preserve: the network computes the same. Otherwise new convolutions start afresh, and poolings,
            max pooling among them, as averages.
        where: which layers: patterns of names ("backbone.*"), or a function of name and module; None is all.
        skip: leave what cannot be replaced, and say why in the report.
        example: an input to measure with; zeros of 128x128 pixels if there is none.

    Raises:
        UserError: a layer cannot be replaced, `where` finds none, or the example does not run. Nothing has
            changed then.
    """
    if to != "spd":
        raise UserError(f"surgery makes 'spd', not '{to}'; other downsamplers are built with --downsample")
    if getattr(model, "fused", False):
        raise UserError("the network was fused for inference; replace its downsampling before it is fused")
    found = downsampling_layers(model, where)
    example = _example(model) if example is None else example
    flops, channels = _measure(model, example)
    parameters = count_parameters(model)
    layers, new = plan_layers(model, found, preserve, channels)
    refused = [f"{layer.name} ({layer.kind}): {layer.reason}" for layer in layers if layer.reason]
    if refused and not skip:
        raise UserError(f"cannot replace {'; '.join(refused)}. Nothing was changed; skip them to go on")
    _swap(model, new)
    try:
        flops_after, _ = _measure(model, example)
    except BaseException:
        for name in new:  # each under its old name again
            new[name], found[name] = found[name], new[name]
        _swap(model, new)
        raise
    architecture = getattr(model, "yaml", None)
    if isinstance(architecture, dict) and new:
        record: dict[str, Any] = {"to": to, "layers": list(new)}
        if any(name in channels for name in new):
            record["channels"] = {name: channels[name] for name in new if name in channels}
        architecture["surgery"] = [*architecture.get("surgery", []), record]
    return SurgeryReport(layers, (parameters, count_parameters(model)), (flops, flops_after))


def repeat_surgery(model: nn.Module, steps: Any) -> None:
    """Replace what the `surgery` of a YAML names; the weights, which follow, decide what is computed.

    Raises:
        UserError: it does not fit the network.
    """
    for step in steps if isinstance(steps, list) else [steps]:
        if not isinstance(step, dict) or step.get("to") != "spd" or not isinstance(step.get("layers"), list):
            raise UserError(f"surgery must be a list of steps {{to: spd, layers: [...]}}, got {step!r}")
        found = downsampling_layers(model, step["layers"])
        pools = any(isinstance(module, POOLS) for module in found.values())
        channels = step.get("channels") or (_measure(model, _example(model))[1] if pools else {})
        layers, new = plan_layers(model, found, False, channels)
        for layer in layers:
            if layer.reason:
                raise UserError(f"surgery of {layer.name}: {layer.reason}")
        _swap(model, new)


def _swap(model: nn.Module, new: Mapping[str, nn.Module]) -> None:
    """Put modules into their places; a module with several names is replaced under each of them."""
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
    """Run the example in eval mode; return floating-point operations and the channels before each pool."""
    parameter = next(model.parameters(), torch.empty(0))
    example = example.to(parameter.device, parameter.dtype)
    seen: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen[name] = inputs[0].shape[1]

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
    return counter.get_total_flops(), seen


@dataclass(frozen=True)
class SurgeryConfig(Options):
    """Replace a network's downsampling, its outputs unchanged, as a start for fine-tuning."""

    weights: Path = opt("yolov5s.pt", "checkpoint of ours or of YOLOv5")
    to: Literal["spd"] = opt("spd", "what replaces strided convolutions and poolings")
    out: Path | None = opt(None, "checkpoint to write (default: NAME-spd-init.pt beside the weights)")
    where: tuple[str, ...] = opt((), "names or patterns of the layers to replace (default: all)")
    preserve: bool = opt(True, "keep the outputs; --no-preserve starts the new layers afresh")
    skip: bool = opt(False, "leave what cannot be replaced")


def main(config: SurgeryConfig) -> int:
    """Operate, compare, write; 1 where the outputs differ."""
    from models.checkpoint import save_checkpoint
    from models.load import load_model, to_checkpoint

    out = config.out or config.weights.with_name(f"{config.weights.stem}-{config.to}-init.pt")
    if out.resolve() == config.weights.resolve():
        raise UserError(f"--out {out} would overwrite the weights; give another name")
    model = load_model(config.weights)
    images = torch.rand(2, model.yaml["ch"], EXAMPLE_SIDE, EXAMPLE_SIDE)
    before = outputs(model, images)
    report = replace_downsampling(
        model, config.to, config.preserve, config.where or None, config.skip, images[:1]
    )
    print(report)
    difference = relative_difference(before, outputs(model, images))
    print(f"largest relative difference of the outputs: {difference:.2g}")
    if config.preserve and not difference <= TOLERANCE:
        print(f"the outputs differ by more than {TOLERANCE:g}, so {out} was not written", file=sys.stderr)
        return 1
    save_checkpoint(out, to_checkpoint(model))
    print(f"saved {out}; try: python train.py --weights {out}")
    return 0


def outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Return every floating-point tensor among the outputs of `model` in eval mode."""
    with torch.no_grad():
        return list(_tensors(model.eval()(images)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def relative_difference(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the largest difference of two networks' outputs, each tensor's relative to its largest value."""
    gaps = [
        ((b - a).abs().max() / a.abs().max().clamp_min(torch.finfo(a.dtype).tiny)).item()
        for a, b in zip(before, after, strict=True)
        if a.numel()
    ]
    return torch.tensor(gaps).max().item()  # NaN, if there is one


if __name__ == "__main__":
    run(SurgeryConfig, main)
