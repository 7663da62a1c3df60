"""Write docs/reference.md: every option of the four commands, and the Python API, from the code itself.

python -m tools.reference           # write the page
python -m tools.reference --check   # exit 1 where the page is not what the code says
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from utils.cli import run
from utils.log import RESULT, LogOptions
from utils.options import KINDS, Option, Options, group, opt, options_of

LOG = logging.getLogger(__name__)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"
COMMANDS = {
    "train.py": "engine.training.config.TrainConfig",
    "val.py": "engine.evaluation.config.ValConfig",
    "detect.py": "engine.inference.config.DetectConfig",
    "export.py": "engine.export.config.ExportConfig",
}
API = {
    "engine.training": ("train",),
    "engine.evaluation": ("validate", "score"),
    "engine.inference": ("Detector", "Classifier"),
    "engine.export": ("export",),
    "models": ("build_model", "load_model", "replace_downsampling", "transfer_weights"),
    "utils.detections": ("Detections",),
}
INTRODUCTION = """# Reference

Every option of the four commands and the whole Python API, written by `python -m tools.reference` from the
code; edit the code, not the page. Guides: [training](training.md), [evaluation](evaluation.md),
[detection](detect.md), [export](export.md), [classification](classification.md),
[hyperparameters](hyperparameters.md).
"""


@dataclass(frozen=True)
class ReferenceConfig(Options):
    """Write docs/reference.md from the code."""

    check: bool = opt(False, "compare only; exit 1 where the page differs")
    log: LogOptions = group(LogOptions)


def main(cfg: ReferenceConfig) -> int:
    """Write the page, or compare it with the code."""
    text = page()
    if cfg.check:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        LOG.log(RESULT, f"{PAGE.name} is {'up to date' if same else 'not what the code says'}")
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    LOG.log(RESULT, f"wrote {PAGE}")
    return 0


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, "## Commands\n"]
    for command, config in COMMANDS.items():
        parts += command_section(command, _find(config))
    parts.append("## Python API\n")
    parts.append("Options have the same names as on the command line, with `_` for `-`: `conf_thres=0.3`.\n")
    for module, names in API.items():
        for name in names:
            parts += api_section(f"{module}.{name}", getattr(import_module(module), name))
    return "\n".join(parts)


def _find(path: str) -> type[Options]:
    module, _, name = path.rpartition(".")
    config: type[Options] = getattr(import_module(module), name)
    return config


def command_section(command: str, config: type[Options]) -> Iterator[str]:
    """Yield the options of a command, a table a group."""
    yield f"### {command}\n\n{_summary(config)}\n"
    groups: dict[type[Options], list[Option]] = {}
    for option in options_of(config):
        groups.setdefault(option.group, []).append(option)
    for options, members in groups.items():
        title = "" if options is config else f"**{_summary(options).rstrip('.')}**\n\n"
        rows = "\n".join(option_row(option) for option in members)
        yield f"{title}| option | value | default | what it does |\n|---|---|---|---|\n{rows}\n"


def option_row(option: Option) -> str:
    """Return one row of a table."""
    kind = option.kind
    value = " ".join(f"`{choice}`" for choice in kind.choices) or kind.type.__name__.lower()
    flags = " ".join(f"`{flag}`" for flag in (option.flag, *option.aliases))
    if kind.type is bool:
        value = "on/off"
        flags += f" `--no-{option.flag[2:]}`" if option.default else ""
    if kind.many:
        value += ", several"
    if option.min is not None:
        value += f", ≥ {option.min:g}"
    if option.max is not None:
        value += f", ≤ {option.max:g}"
    only = f" ({KINDS[option.task]}s only)" if option.task else ""
    return f"| {flags} | {value} | {_default(option)} | {option.help}{only} |"


def _default(option: Option) -> str:
    if option.kind.type is bool:
        return "on" if option.default else "off"
    if option.default is None or option.default == () or option.default == "":
        return ""
    many = isinstance(option.default, tuple)
    return f"`{' '.join(map(str, option.default)) if many else option.default}`"


def api_section(name: str, thing: Any) -> Iterator[str]:
    """Yield a function, or a class with its public methods."""
    yield f"### `{name}`\n\n{_signature(name.rpartition('.')[2], thing)}\n{_docstring(thing)}"
    if not inspect.isclass(thing):
        return
    for method, value in vars(thing).items():
        call = inspect.isfunction(value) and (not method.startswith("_") or method == "__call__")
        if (call or isinstance(value, classmethod)) and getattr(thing, method).__doc__:
            bound, owner = getattr(thing, method), name.rpartition(".")[2]
            yield f"#### `{owner}.{method}`\n\n{_signature(method, bound)}\n{_docstring(bound)}"


def _signature(name: str, thing: Callable[..., Any]) -> str:
    # annotations are texts, shown without their quotes; defaults that are texts keep them
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(thing))).replace("'", '"')
    return f"```python\n{name}{text}\n```\n"


def _docstring(thing: Any) -> str:
    """A Google docstring as Markdown: sections become bold words, their entries bullets."""
    lines = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        entry = re.match(r"^    (\w[\w.* ]*): (.*)$", line)
        if re.fullmatch(r"(Args|Returns|Raises|Attributes|Yields):", line):
            lines += [f"**{line.rstrip(':')}**", ""]
        elif entry:
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            lines.append(line[4:] if line.startswith("    ") else line)
    return "\n".join(lines) + "\n"


def _summary(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").splitlines()[0]


if __name__ == "__main__":
    run(ReferenceConfig, main)
