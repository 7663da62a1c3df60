"""A command line generated from a config of options, and the exit codes of a command.

A field's annotation decides how it is parsed: `Literal` lists the choices, `bool` gives --amp and --no-amp,
`tuple[int, ...]` takes several values. Groups of options are groups of --help.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from utils.errors import UserError, one_line, suggest
from utils.log import LogOptions, setup_logging
from utils.memory import ended_worker
from utils.offline import keep_offline
from utils.options import Option, Options, options_of

Config = TypeVar("Config", bound=Options)


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line and raise."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.replace("argument ", "", 1))


def _parser(config_class: type[Options], prog: str | None) -> _Parser:
    doc = (config_class.__doc__ or "").strip()
    parser = _Parser(prog=prog, description=doc, allow_abbrev=False, add_help=False)
    groups: dict[type[Options], argparse._ArgumentGroup] = {}
    for option in options_of(config_class):
        if option.group not in groups:
            own = option.group is config_class
            title = (
                "options" if own else (option.group.__doc__ or "").strip().splitlines()[0].rstrip(".").lower()
            )
            groups[option.group] = parser.add_argument_group(title)
        _add(groups[option.group], option)
    if config_class not in groups:
        groups[config_class] = parser.add_argument_group("options")
    groups[config_class].add_argument("-h", "--help", action="help", help="show this message")
    return parser


def _add(target: argparse._ArgumentGroup, option: Option) -> None:
    """Add one option: a single spelling is shown, aliases and underscores work as well."""
    spellings = dict.fromkeys([option.flag, *option.aliases, "--" + option.name])
    settings: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS}
    if option.kind.type is bool:
        negated = [] if option.name.startswith("no") else [f"--no-{flag[2:]}" for flag in spellings]
        negated += option.off
        shown = negated[0] if option.default and negated else option.flag
        for flag, value in [*((flag, True) for flag in spellings), *((flag, False) for flag in negated)]:
            help = _help(option) if flag == shown else argparse.SUPPRESS
            target.add_argument(flag, action="store_const", const=value, help=help, **settings)
        return
    settings["type"] = str if option.kind.type is Path else option.kind.type
    choices = ",".join(map(str, option.kind.choices))
    settings["metavar"] = f"{{{choices}}}" if choices else option.kind.type.__name__.upper()
    if option.kind.many:
        settings["nargs"] = "+"
    elif option.const is not None:
        settings.update(nargs="?", const=option.const)
    for flag in spellings:
        help = _help(option) if flag == option.flag else argparse.SUPPRESS
        target.add_argument(flag, help=help, **settings)


def _help(option: Option) -> str:
    default: Any = option.default
    text = option.help
    if default is True:  # what is shown is the flag that switches it off
        text = option.off_help or f"do not {option.help}"
    text = text.replace("%", "%%")
    if option.kind.type is bool:
        return text
    if default is None or default == ():
        return text
    shown = " ".join(map(str, default)) if option.kind.many else str(default)
    return f"{text} (default: {shown})" if shown else text


def parse(config_class: type[Config], argv: Sequence[str] | None = None, prog: str | None = None) -> Config:
    """Read a command line into `config_class`.

    Raises:
        UserError: an unknown option or a bad value.
    """
    parser = _parser(config_class, prog)
    values, unknown = parser.parse_known_args(argv)
    if unknown:
        wrong = unknown[0].split("=")[0]
        reason = config_class.left_out.get(wrong.replace("_", "-"))
        if reason:
            raise UserError(f"{wrong} of YOLOv5 is left out: {reason}")
        if wrong.startswith("-"):
            raise UserError(f"unknown option {wrong}. {suggest(wrong, _spellings(config_class))}")
        raise UserError(f"unexpected argument '{wrong}'; options start with --, see --help")
    return config_class.of(**vars(values))


def _spellings(config_class: type[Options]) -> list[str]:
    return [spelling for option in options_of(config_class) for spelling in (option.flag, *option.aliases)]


def run(
    config_class: type[Config], main: Callable[[Config], int | None], argv: Sequence[str] | None = None
) -> NoReturn:
    """Parse the command line, call `main` with it and exit.

    Exit codes: what `main` returns (None is 0), 2 for bad input (one line on stderr), 130 for Ctrl-C.
    """
    called = Path(sys.argv[0])
    prog = called.parent.name if called.name == "__main__.py" else called.name
    debug = "--debug" in (sys.argv[1:] if argv is None else argv)
    setup_logging()
    keep_offline()
    try:
        config = parse(config_class, argv, prog)
        setup_logging(
            next((item for item in vars(config).values() if isinstance(item, LogOptions)), LogOptions())
        )
        code = main(config) or 0
    except UserError as error:
        code = _complain(prog, str(error), debug)
    except BrokenPipeError:  # whoever read our output has left
        sys.stderr.close()
        code = 0
    except OSError as error:  # a missing file, a folder that cannot be written, a full disk
        where = f": {error.filename}" if error.filename is not None else ""
        code = _complain(prog, f"{error.strerror}{where}" if error.strerror else str(error), debug)
    except KeyboardInterrupt:
        code = 130
    except RuntimeError as error:
        ended = ended_worker(error)
        if ended is None:
            raise
        code = _complain(prog, ended, debug)
    sys.exit(code)


def _complain(prog: str, message: str, debug: bool) -> int:
    if debug:
        logging.getLogger(__name__).error("", exc_info=True)
    sys.stderr.write(f"{prog}: error: {one_line(message)}\n")
    return 2
