"""Checks that the YAML of a detector and that of a classifier share; each message names the place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from utils.errors import UserError, quoted, suggest

Architecture = dict[str, Any]  # a checked model YAML: plain data that builds the network again


LARGEST = 1e9  # no number of a model YAML comes near; infinities and endless integers lie beyond


def check_keys(content: Architecture, known: Iterable[str], where: str, of: str = "") -> None:
    """Raise a UserError that suggests a known key where `content` has an unknown one."""
    for key in content:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'{of}. {suggest(str(key), known)}")


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number above 0; True is none."""
    return type(value) is int and value > 0


def check_whole(value: Any, where: str) -> None:
    """Raise a UserError unless `value` is a whole number above 0."""
    if not is_whole(value):
        raise UserError(f"{where} must be a whole number above 0, got {quoted(value)}")


def check_positive(value: Any, where: str) -> None:
    """Raise a UserError unless `value` is a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST:
        raise UserError(f"{where} must be a number above 0, got {quoted(value)}")
