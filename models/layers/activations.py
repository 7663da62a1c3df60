"""The activations that a model YAML may name, read without evaluating anything."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from utils.errors import UserError, suggest

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "SiLU": nn.SiLU,
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "LeakyReLU": nn.LeakyReLU,
    "Hardswish": nn.Hardswish,
    "Mish": nn.Mish,
    "ELU": nn.ELU,
    "GELU": nn.GELU,
    "Identity": nn.Identity,
}
_PARAMETER = {"LeakyReLU": "negative_slope", "ELU": "alpha"}  # the only one that changes what is computed


def make_activation(text: str) -> nn.Module:
    """Return the module that a text such as nn.ReLU() or nn.LeakyReLU(0.1) names.

    Raises:
        UserError: an unknown name or argument.
    """
    name, arguments, keywords = _parse(str(text).strip())
    if name not in ACTIVATIONS:
        raise UserError(f"unknown activation '{text}'. {suggest(name, ACTIVATIONS)}")
    kind = ACTIVATIONS[name]
    taken = _PARAMETER.get(name)
    numbers = [*arguments, *(value for key, value in keywords.items() if key == taken)]
    if (
        set(keywords) - {taken, "inplace"}
        or len(numbers) > (taken is not None)
        or not all(type(number) in (int, float) for number in numbers)
    ):
        choices = f"one number, {taken}" if taken else "no number"
        raise UserError(f"activation '{text}': nn.{name} takes {choices}")
    return kind(**{str(taken): float(number) for number in numbers})


def _parse(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Return class name, arguments and keywords of a call or a bare name; the name is '' for other texts."""
    try:
        node = ast.parse(text, mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        arguments = [ast.literal_eval(argument) for argument in call.args]
        keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        module, _, name = ast.unparse(call.func).rpartition(".")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return "", [], {}
    return (name if module in ("", "nn", "torch.nn") else ""), arguments, keywords


def activation_text(name: str, settings: Mapping[str, Any]) -> str:
    """Return the text by which a YAML names an activation of this class and attributes.

    Raises:
        UserError: it is none of ours.
    """
    if name not in ACTIVATIONS:
        raise UserError(f"unknown activation {name}. {suggest(name, ACTIVATIONS)}")
    parameter = _PARAMETER.get(name)
    if parameter is None:
        return f"nn.{name}()"
    default = inspect.signature(ACTIVATIONS[name]).parameters[parameter].default
    return f"nn.{name}({settings.get(parameter, default)})"
