"""The registry of blocks: what a row of a model YAML may name, and how its arguments are checked.

A builder is a function `(c_in, scale, *arguments of the row) -> (module, c_out)`, registered by `@block`;
`c_in` holds the channels of the inputs. With a keyword `repeat` it takes the row's number, scaled, and
repeats a part of the block; without, the whole block is stacked so many times. Its annotations are the types
that a row may give.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from torch import nn

from utils.errors import UserError, quoted, suggest

Builder = Callable[..., tuple[nn.Module, int]]  # returns the module and its output channels


@dataclass(frozen=True)
class Scale:
    """Compound scaling: repeats are multiplied by depth; channels are capped, then multiplied by width."""

    depth: float = 1.0
    width: float = 1.0
    max_channels: float = math.inf
    multiple: int = 8

    def channels(self, channels: int) -> int:
        """Return the scaled channels, rounded up to a multiple (of 8)."""
        if channels < 1:
            raise UserError(f"the number of channels must be at least 1, got {channels}")
        return math.ceil(min(channels, self.max_channels) * self.width / self.multiple) * self.multiple

    def repeats(self, number: int) -> int:
        """Return the scaled number of repeats, at least 1."""
        return max(round(number * self.depth), 1) if number > 1 else number


@dataclass(frozen=True)
class Block:
    """A registered block: its builder, and whether it joins several inputs."""

    build: Builder
    joins: bool


BLOCKS: dict[str, Block] = {}


def block(*names: str, joins: bool = False) -> Callable[[Builder], Builder]:
    """Register the decorated builder under these names; `joins` if its module takes a list of maps."""

    def register(build: Builder) -> Builder:
        for name in names:
            assert name not in BLOCKS, f"block {name} is registered twice"
            BLOCKS[name] = Block(build, joins)
        return build

    return register


def make_layer(
    name: str, c_in: list[int], scale: Scale, arguments: list[Any], repeat: int
) -> tuple[nn.Module, int]:
    """Return the layer that a row describes, and its output channels.

    Raises:
        UserError: unknown block, or arguments that do not fit it.
    """
    entry = find_block(name)
    if len(c_in) > 1 and not entry.joins:
        raise UserError(f"takes one input, and 'from' names {len(c_in)}")
    parameters = inspect.signature(entry.build).parameters
    _check_arguments(entry.build, arguments)
    repeats = scale.repeats(repeat)
    if "repeat" in parameters:
        return entry.build(c_in, scale, *arguments, repeat=repeats)
    layers, c_out = [], 0
    for _ in range(repeats):
        layer, c_out = entry.build(c_in, scale, *arguments)
        layers.append(layer)
        c_in = [c_out]
    return (layers[0] if repeats == 1 else nn.Sequential(*layers)), c_out


def find_block(name: str) -> Block:
    """Return the block of that name, or raise a UserError that lists the choices."""
    if name not in BLOCKS:
        raise UserError(f"unknown block '{name}'. {suggest(name, BLOCKS)}")
    return BLOCKS[name]


_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a word", list: "a list"}


def _check_arguments(build: Builder, arguments: list[Any]) -> None:
    """Compare a row's arguments with the builder's signature; positions count from 1, as in the row."""
    parameters = _positional(build)
    if len(arguments) > len(parameters):
        extra = len(parameters)
        raise UserError(f"unexpected argument {extra + 1}, {quoted(arguments[extra])}")
    for position, (parameter, kinds) in enumerate(parameters, 1):
        if position > len(arguments):
            if parameter.default is parameter.empty:
                raise UserError(f"argument {position}, '{parameter.name}', is missing")
            continue
        value = arguments[position - 1]
        if type(value) not in kinds and not (float in kinds and type(value) is int):
            expected = " or ".join(_KINDS.get(kind, "None") for kind in kinds)
            raise UserError(f"argument {position}, '{parameter.name}', takes {expected}, got {quoted(value)}")


@functools.cache
def _positional(build: Builder) -> list[tuple[inspect.Parameter, list[type]]]:
    """Return the parameters that a row's arguments fill, in order, with the types that each takes."""
    hints = get_type_hints(build)
    parameters = [p for p in inspect.signature(build).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    return [(parameter, _kinds_of(hints[parameter.name])) for parameter in parameters[2:]]


def _kinds_of(hint: Any) -> list[type]:
    """Return the plain types of an annotation: int | list[float] -> int, list.

    Python 3.10 turns the annotation of a parameter whose default is None into a `typing.Union`.
    """
    hints = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [get_origin(each) or each for each in hints]
