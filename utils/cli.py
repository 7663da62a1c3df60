"""A command line generated from a frozen dataclass, and the exit codes of a command.

Each option is declared once, as a field made by `opt`. The field's annotation decides how it is parsed:
`Literal` lists the choices, `bool` gives --amp/--no-amp, `tuple[int, ...]` takes several values.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from utils.errors import UserError, suggest

Config = TypeVar("Config")


def opt(
    default: Any,
    help: str,
    *aliases: str,
    min: float | None = None,
    max: float | None = None,
    const: Any = None,
) -> Any:
    """Declare one option of a command.

    Args:
        default: the value when the option is not given; a str becomes a Path where the field is one. None in
            a field whose type has no None is a value that the command finds elsewhere and fills in.
        help: one line for --help.
        aliases: further spellings, such as "--img".
        min: smallest allowed value, inclusive.
        max: largest allowed value, inclusive.
        const: the value of the bare option, without an argument (as in `--resume`).
    """
    metadata = {"help": help, "aliases": aliases, "min": min, "max": max, "const": const}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What a field's annotation says: plain type, several values or one, None allowed, choices."""

    type: type
    many: bool = False
    optional: bool = False
    choices: tuple[Any, ...] = ()


def _kind(annotation: Any) -> _Kind:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        inner = [arg for arg in args if arg is not type(None)]
        assert len(inner) == 1, f"an option has one type, not {annotation}"
        return dataclasses.replace(_kind(inner[0]), optional=True)
    if origin is tuple:
        return dataclasses.replace(_kind(args[0]), many=True)
    if origin is Literal:
        return _Kind(type(args[0]), choices=args)
    return _Kind(annotation)


def flag_of(name: str) -> str:
    """'conf_thres' -> '--conf-thres'."""
    return "--" + name.replace("_", "-")


def validate(config: Any) -> None:
    """Check choices and ranges of every field and turn str into Path where the field is one.

    Call it from `__post_init__`, so that a config is valid however it was made.

    Raises:
        UserError: a value is out of range, not a choice or of the wrong type; it names the option.
    """
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        kind, value = _kind(hints[field.name]), getattr(config, field.name)
        if value is None:
            if not (kind.optional or field.default is None):
                raise UserError(f"{flag_of(field.name)} needs a value")
            continue
        if kind.many:
            value = tuple(_checked(field, kind, item) for item in value)
        else:
            value = _checked(field, kind, value)
        object.__setattr__(config, field.name, value)


def _checked(field: dataclasses.Field, kind: _Kind, value: Any) -> Any:
    flag, low, high = flag_of(field.name), field.metadata.get("min"), field.metadata.get("max")
    if kind.type is Path and isinstance(value, str):
        value = Path(value)
    if kind.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind.type) or (kind.type is int and isinstance(value, bool)):
        raise UserError(f"{flag} takes {kind.type.__name__}, got {value!r}")
    if kind.choices and value not in kind.choices:
        raise UserError(f"{flag} has no choice {value!r}. {suggest(str(value), map(str, kind.choices))}")
    if kind.type is float and value != value:
        raise UserError(f"{flag} must be a number, got nan")
    if low is not None and value < low:
        raise UserError(f"{flag} must be at least {low}, got {value}")
    if high is not None and value > high:
        raise UserError(f"{flag} must be at most {high}, got {value}")
    return value


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line and raise."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.replace("argument ", "", 1))


def _parser(config_class: type, prog: str | None) -> _Parser:
    doc = (config_class.__doc__ or "").strip()
    parser = _Parser(prog=prog, description=doc, allow_abbrev=False)
    hints = get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        kind, flag = _kind(hints[field.name]), flag_of(field.name)
        spellings = [flag, *field.metadata.get("aliases", ())]
        if "_" in field.name:
            spellings.append("--" + field.name)
        options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        options["help"] = _help(field, kind)
        if kind.type is bool:
            parser.add_argument(*spellings, action=argparse.BooleanOptionalAction, **options)
            continue
        options["type"] = kind.type
        choices = ",".join(map(str, kind.choices))
        options["metavar"] = f"{{{choices}}}" if choices else kind.type.__name__.upper()
        if kind.many:
            options["nargs"] = "+"
        elif field.metadata.get("const") is not None:
            options.update(nargs="?", const=field.metadata["const"])
        parser.add_argument(*spellings, **options)
    return parser


def _help(field: dataclasses.Field, kind: _Kind) -> str:
    text = field.metadata["help"].replace("%", "%%")
    default: Any = field.default
    if default is None or default == ():
        return text
    shown = " ".join(map(str, default)) if kind.many else str(default)
    return f"{text} (default: {shown})" if shown else text


def parse(config_class: type[Config], argv: Sequence[str] | None = None, prog: str | None = None) -> Config:
    """Read a command line into `config_class`.

    Raises:
        UserError: an unknown option or a bad value.
    """
    parser = _parser(config_class, prog)
    values, unknown = parser.parse_known_args(argv)
    if unknown:
        options = [name for name in parser._option_string_actions if name.startswith("--")]
        wrong = unknown[0].split("=")[0]
        if wrong.startswith("-"):
            raise UserError(f"unknown option {wrong}. {suggest(wrong, options)}")
        raise UserError(f"unexpected argument '{wrong}'; options start with --, see --help")
    return config_class(**vars(values))


def run(
    config_class: type[Config], main: Callable[[Config], int | None], argv: Sequence[str] | None = None
) -> NoReturn:
    """Parse the command line, call `main` with it and exit.

    Exit codes: what `main` returns (None is 0), 2 for bad input (one line on stderr), 130 for Ctrl-C.
    """
    prog = Path(sys.argv[0]).name
    try:
        code = main(parse(config_class, argv, prog)) or 0
    except UserError as error:
        code = _complain(prog, str(error))
    except OSError as error:  # a missing file, a folder that cannot be written, a full disk
        where = f": {error.filename}" if error.filename is not None else ""
        code = _complain(prog, f"{error.strerror}{where}" if error.strerror else str(error))
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _complain(prog: str, message: str) -> int:
    print(f"{prog}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def as_plain(config: Any) -> dict[str, Any]:
    """Return the config as a dict of str, numbers, lists and None, fit for YAML and for a checkpoint."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def save_config(config: Any, path: Path) -> None:
    """Write the config as YAML."""
    import yaml

    path.write_text(yaml.safe_dump(as_plain(config), sort_keys=False), encoding="utf-8")


def refuse_options(config: Any, names: Iterable[str]) -> None:
    """Raise a UserError if an option that only detectors know was given to a classifier."""
    for name in names:
        field = type(config).__dataclass_fields__.get(name)
        if field is not None and getattr(config, name) != field.default:
            raise UserError(f"{flag_of(name)} is for detectors; these weights are a classifier's")
