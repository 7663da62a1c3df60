"""How large a network that a file describes may be: checked before its layers are made and run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from utils.limits import CHANNELS, KERNEL, MAP_VALUES, PARAMETERS, REPEATS

GROWING = ("nn.Upsample", "Upsample", "nn.ConvTranspose2d")  # their outputs are larger than their inputs
MULTIPLICATIONS = 5e10  # of one layer, on the image that networks are tried on; seconds of a CPU


@contextlib.contextmanager
def bounded_parameters(where: str) -> Iterator[None]:
    """Refuse more parameters than a network has; each is counted before it is filled.

    Raises:
        UserError: there are more.
    """
    total, thread = 0, threading.get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        if parameter is not None and threading.get_ident() == thread:
            total += parameter.numel()
            PARAMETERS.check(total, where)

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def check_row(name: str, arguments: Sequence[Any], repeat: int) -> None:
    """Refuse numbers in a row of a model YAML that no network has.

    Raises:
        UserError: it names the limit.
    """
    REPEATS.check(repeat, "number")
    numbers = [value if isinstance(value, list) else [value] for value in arguments if name != "Detect"]
    for place, values in enumerate(numbers):
        for value in values:
            if isinstance(value, int | float) and not isinstance(value, bool):
                channels = place == 0 and name not in ("Contract", "Expand", "nn.MaxPool2d", "nn.ZeroPad2d")
                (CHANNELS if channels else KERNEL).check(abs(value), f"argument {place + 1}")


def check_output(
    name: str, arguments: Sequence[Any], layer: nn.Module, channels: int, inputs: Sequence[Tensor]
) -> None:
    """Refuse a layer whose output, or whose work, would be too much, before it is run.

    Raises:
        UserError: it names the limit.
    """
    factor = max(
        [1.0, *(float(value) for value in arguments[1:3] if type(value) in (int, float))]
        if name in GROWING
        else [1.0]
    )
    for maps in inputs:
        positions = int(maps.shape[-1] * maps.shape[-2] * factor**2) if maps.dim() == 4 else 1
        MAP_VALUES.check(max(channels, 1) * positions, "output")
        work = sum(parameter.numel() for parameter in layer.parameters()) * positions
        MAP_VALUES.check(work * MAP_VALUES.most // int(MULTIPLICATIONS), "work, in values of output,")
