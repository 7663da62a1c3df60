"""Options, declared once: typed dataclass fields that become the command line and the Python API.

An option is a field made by `opt`; options that belong together are a frozen dataclass, a group; a command's
config is a frozen dataclass of groups and of options of its own. `utils.cli` makes the command line from it.

    @dataclass(frozen=True)
    class RunOptions(Options):
        \"\"\"Run folder.\"\"\"

        project: Path = opt("runs/train", "folder of runs")

    @dataclass(frozen=True)
    class TrainConfig(Options):
        \"\"\"Train a detector.\"\"\"

        epochs: int = opt(100, "epochs", min=1)
        run: RunOptions = group(RunOptions)

    TrainConfig.of(epochs=3, project="runs/mine").run.project
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from utils.errors import UserError, suggest

Task = Literal["detect", "classify"]
KINDS: Mapping[str, str] = {"detect": "detector", "classify": "classifier"}
Config = TypeVar("Config", bound="Options")


def opt(
    default: Any,
    help: str,
    *aliases: str,
    min: float | None = None,
    max: float | None = None,
    const: Any = None,
    task: Task | None = None,
    off: tuple[str, ...] = (),
    off_help: str | None = None,
) -> Any:
    """Declare one option.

    Args:
        default: the value when the option is not given; a str becomes a Path where the field is one. None in
            a field whose type has no None is a value that the command finds elsewhere and fills in.
        help: one line for --help.
        aliases: further spellings, such as "--img".
        min: smallest allowed value, inclusive.
        max: largest allowed value, inclusive.
        const: the value of the bare option, without an argument (as in `--resume`).
        task: the only task the option is for; None is both.
        off: further spellings that switch a bool off, such as "--noplots".
        off_help: what --no-x does, for a bool that is on; None is "do not", then `help`, which begins with a
            verb.
    """
    metadata = {
        "help": help,
        "aliases": aliases,
        "min": min,
        "max": max,
        "const": const,
        "task": task,
        "off": off,
        "off_help": off_help,
    }
    return dataclasses.field(default=default, metadata=metadata)


def group(options: type[Options], **defaults: Any) -> Any:
    """Declare a field that is a group of options, with other defaults where given."""
    return dataclasses.field(
        default_factory=functools.partial(options, **defaults),
        metadata={"group": options, "defaults": defaults},
    )


@dataclass(frozen=True)
class Kind:
    """What a field's annotation says: plain type, several values or one, None allowed, choices."""

    type: type
    many: bool = False
    optional: bool = False
    choices: tuple[Any, ...] = ()


def kind_of(annotation: Any) -> Kind:
    """Read an annotation such as `int | None`, `Literal["a", "b"]` or `tuple[Path, ...]`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        inner = [arg for arg in args if arg is not type(None)]
        assert len(inner) == 1, f"an option has one type, not {annotation}"
        return dataclasses.replace(kind_of(inner[0]), optional=True)
    if origin is tuple:
        return dataclasses.replace(kind_of(args[0]), many=True)
    if origin is Literal:
        return Kind(type(args[0]), choices=args)
    return Kind(annotation)


@dataclass(frozen=True)
class Option:
    """One option of a config, wherever in its groups it is declared."""

    name: str
    default: Any
    kind: Kind
    group: type[Options]  # which declares it
    path: str  # name of the group's field in the config; "" for the config's own
    help: str
    aliases: tuple[str, ...]
    min: float | None
    max: float | None
    const: Any
    task: Task | None
    off: tuple[str, ...] = ()
    off_help: str | None = None

    @property
    def flag(self) -> str:
        """'conf_thres' -> '--conf-thres'."""
        return flag_of(self.name)


def flag_of(name: str) -> str:
    """'conf_thres' -> '--conf-thres'."""
    return "--" + name.replace("_", "-")


def options_of(config: type[Options]) -> tuple[Option, ...]:
    """Return every option of a config class, those of its groups included, in the order of declaration."""
    of_class: Any = config  # a class is hashable, whatever its objects are
    return _listed(of_class)


@functools.cache
def _listed(config: Any) -> tuple[Option, ...]:
    return tuple(_options(config, config, "", {}))


def _options(config: Any, root: Any, path: str, defaults: Mapping[str, Any]) -> Iterator[Option]:
    kinds = _kinds(config)
    for field in dataclasses.fields(config):
        if "group" in field.metadata:
            assert config is root, f"{config.__name__}: a group holds options, not groups"
            yield from _options(field.metadata["group"], root, field.name, field.metadata["defaults"])
            continue
        what = {key: value for key, value in field.metadata.items() if key != "group"}
        default = defaults.get(field.name, field.default)
        yield Option(field.name, default, kinds[field.name], config, path, **what)


@functools.cache
def _kinds(config: Any) -> dict[str, Kind]:
    """Return the kind of each option that a class itself declares."""
    hints = get_type_hints(config)
    return {
        field.name: kind_of(hints[field.name])
        for field in dataclasses.fields(config)
        if "group" not in field.metadata
    }


@dataclass(frozen=True)
class Options:
    """Base of groups and configs: every value is checked however the object is made.

    Attributes:
        left_out: flags of YOLOv5 that a command does not have, and what to do instead.

    Raises:
        UserError: a value is out of range, not a choice or of the wrong type; it names the option.
    """

    left_out: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        """Check choices and ranges of every field, and turn str into Path where the field is one."""
        of_class: Any = type(self)
        kinds = _kinds(of_class)
        for field in dataclasses.fields(self):
            if field.name in kinds:
                value = _checked(field, kinds[field.name], getattr(self, field.name))
                object.__setattr__(self, field.name, value)

    @classmethod
    def of(cls: type[Config], **values: Any) -> Config:
        """Make a config from options by their names, whichever group they are declared in.

        Aliases work as on the command line: `conf` for `conf_thres`.

        Raises:
            UserError: an unknown option, or a bad value.
        """
        groups = {
            field.name: field.metadata["group"](**field.metadata["defaults"])
            for field in dataclasses.fields(cls)
            if "group" in field.metadata
        }
        return cls(**_placed(cls, values, groups))

    def replace(self: Config, **values: Any) -> Config:
        """Return a copy with some options changed, by their names, whichever group they are declared in."""
        return dataclasses.replace(self, **_placed(type(self), values, vars(self)))

    def get(self, name: str) -> Any:
        """Return an option's value by its name, whichever group it is declared in."""
        path = next(option.path for option in options_of(type(self)) if option.name == name)
        return getattr(getattr(self, path) if path else self, name)

    def plain(self) -> dict[str, Any]:
        """Return all options by name as str, numbers, lists and None, fit for YAML and for a checkpoint."""
        return {option.name: _plain(self.get(option.name)) for option in options_of(type(self))}

    def save(self, path: Path) -> None:
        """Write all options as YAML.

        Raises:
            UserError: the file cannot be written.
        """
        import yaml

        from utils.files import write_atomically

        with write_atomically(path) as file:
            file.write(yaml.safe_dump(self.plain(), sort_keys=False))

    def refuse_other_tasks(self, task: Task, what: str) -> None:
        """Refuse options that are for another task than the network's.

        Args:
            task: of the network.
            what: names the network, such as "resnet18-quarter".

        Raises:
            UserError: such an option was given a value that is not its default.
        """
        for option in options_of(type(self)):
            if option.task not in (None, task) and self.get(option.name) != _defaulted(option):
                needed, present = KINDS[str(option.task)], KINDS[task]
                raise UserError(f"{option.flag} is for {needed}s, and {what} is a {present}")


def _placed(config: type[Options], values: Mapping[str, Any], groups: Mapping[str, Any]) -> dict[str, Any]:
    """Sort values by option name into the config's fields; `groups` are the groups as they are."""
    options = {option.name: option for option in options_of(config)}
    names = {alias.lstrip("-").replace("-", "_"): o.name for o in options.values() for alias in o.aliases}
    fields = {field.name for field in dataclasses.fields(config)}
    own: dict[str, Any] = {}
    grouped: dict[str, dict[str, Any]] = {}
    for given, value in values.items():
        name = given if given in options or given in fields else names.get(given, given)
        if name in options:
            path = options[name].path
            (grouped.setdefault(path, {}) if path else own)[name] = value
        elif name in fields:  # a whole group
            own[name] = value
        else:
            raise UserError(f"unknown option '{given}'. {suggest(given, options)}")
    for path, changed in grouped.items():
        own[path] = dataclasses.replace(own.get(path, groups[path]), **changed)
    return own


def _defaulted(option: Option) -> Any:
    """Return the default as a config holds it."""
    default = option.default
    return Path(default) if option.kind.type is Path and isinstance(default, str) else default


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _checked(field: dataclasses.Field[Any], kind: Kind, value: Any) -> Any:
    if value == "" and kind.optional and kind.type is Path:  # --weights '' means none, as in YOLOv5
        value = None
    if value is None:
        if not (kind.optional or field.default is None):
            raise UserError(f"{flag_of(field.name)} needs a value")
        return None
    if kind.many:
        value = () if value in ("", ("",), [""]) and kind.type is Path else value
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise UserError(f"{flag_of(field.name)} takes several values, got {value!r}")
        return tuple(_checked_item(field, kind, item) for item in value)
    return _checked_item(field, kind, value)


def _checked_item(field: dataclasses.Field[Any], kind: Kind, value: Any) -> Any:
    flag, low, high = flag_of(field.name), field.metadata.get("min"), field.metadata.get("max")
    if kind.type is Path and isinstance(value, str):
        value = Path(value)
    if kind.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind.type) or (kind.type is int and isinstance(value, bool)):
        raise UserError(f"{flag} takes {kind.type.__name__}, got {value!r}")
    if kind.choices and value not in kind.choices:
        raise UserError(f"{flag} has no choice {value!r}. {suggest(str(value), map(str, kind.choices))}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{flag} must be a finite number, got {value}")
    if low is not None and value < low:
        raise UserError(f"{flag} must be at least {low}, got {value}")
    if high is not None and value > high:
        raise UserError(f"{flag} must be at most {high}, got {value}")
    return value
