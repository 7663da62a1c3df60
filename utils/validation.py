"""Plain data checked by pydantic models: whatever is wrong becomes one line that says what and where.

class Recipe(Checked):
    imgsz: int | None = Field(None, ge=1, description="input side, pixels")

Recipe(imgsz=0)            # UserError: 'imgsz' must be at least 1, got 0
Recipe(imgzs=640)          # UserError: unknown key 'imgzs'. Did you mean 'imgsz'? Choose from: imgsz
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from typing_extensions import Self

from utils.errors import UserError, quoted, suggest

_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}
_KINDS = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "keys with values",
    "string_type": "text",
    "tuple_type": "a list",
}


def as_tuple(written: Any) -> Any:
    """Return a list as a tuple, and anything else as it is: for fields of frozen models."""
    return tuple(written) if isinstance(written, list) else written


class Checked(BaseModel):
    """Base of models: frozen, without unknown keys, and without conversions (true is no number, '3' neither).

    Raises:
        UserError: a value is of the wrong type or out of range, or a key is unknown or missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _Invalid(error.errors(include_url=False)[0]) from None

    @classmethod
    def of(cls, values: Mapping[Any, Any], file: Path) -> Self:
        """Return the model of a file's content; messages start with the file.

        Raises:
            UserError: as above.
        """
        try:
            return cls(**{str(key): value for key, value in values.items()})
        except UserError as error:
            raise UserError(f"{file}: {error}") from None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if cls.model_config.get("extra") == "forbid" and isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    choices = suggest(str(key), cls.model_fields)
                    raise PydanticCustomError("unknown_key", "{choices}", {"key": key, "choices": choices})
        return values


def must_be(what: str) -> WrapValidator:
    """Return a validator that says what a value must be where its type does not take it."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            if error.errors()[0]["type"] == "value_error":  # a sentence of its own, which says more
                raise
            about = {"what": what, "found": kind_of(value)}
            raise PydanticCustomError("must_be", "must be {what}, found {found}", about) from None

    return WrapValidator(check)


def kind_of(value: Any) -> str:
    """Return what a value of a YAML is, for messages."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return f"the keys {quoted([str(key) for key in value][:4])}"
    if isinstance(value, bool):
        return str(value).lower()
    kind = "text" if isinstance(value, str) else type(value).__name__
    return f"the {kind} {quoted(value)}"


class _Invalid(UserError):
    """The first thing that is wrong; one that holds the model in a field adds the field's name."""

    def __init__(self, detail: ErrorDetails) -> None:
        super().__init__(_sentence(detail, []))
        self.detail = detail

    def __reduce__(self) -> tuple[type[UserError], tuple[str]]:
        """Travel between processes as the message alone."""
        return UserError, (str(self),)


def _sentence(detail: ErrorDetails, outer: list[str]) -> str:
    """Return what is wrong in one line; `outer` are the fields in which the model lies."""
    names = outer + [name for name in detail["loc"] if isinstance(name, str)]
    context = detail.get("ctx", {})
    if detail["type"] == "unknown_key":
        return f"unknown key {_place([*names, str(context['key'])])}. {context['choices']}"
    if detail["type"] == "value_error":
        error = context["error"]
        return _sentence(error.detail, names) if isinstance(error, _Invalid) else str(error)
    if detail["type"] == "missing":
        return f"no key {_place(names)}"
    return f"{_place(names)} {_complaint(detail, context)}"


def _complaint(detail: ErrorDetails, context: Mapping[str, Any]) -> str:
    kind, value = detail["type"], detail["input"]
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"must be {words} {context[key]:g}, got {quoted(value)}"
    if kind == "literal_error":
        choices = re.findall("'(.*?)'", context["expected"])  # "'SGD', 'Adam' or 'AdamW'"
        return f"has no choice '{value}'. {suggest(str(value), choices)}"
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, found {kind_of(value)}"
    return detail["msg"]


def _place(names: list[str]) -> str:
    """['recipe', 'imgsz'] -> "'imgsz' in 'recipe'"."""
    return " in ".join(f"'{name}'" for name in reversed(names))
