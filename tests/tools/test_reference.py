"""docs/reference.md: what the code says, and every option and hyperparameter documented."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from engine.training.classifier_hyperparameters import ClassifierHyperparameters
from engine.training.hyperparameters import Hyperparameters
from tools.reference import COMMANDS, PAGE, page
from utils.options import options_of

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tools.reference"


@pytest.mark.parametrize(
    ("command", "name"),
    zip(COMMANDS, ("training.md", "evaluation.md", "detect.md", "export.md"), strict=True),
)
def test_every_option_is_on_the_page_of_its_command(command: str, name: str) -> None:
    module, _, config = COMMANDS[command].rpartition(".")
    text = (DOCS / name).read_text(encoding="utf-8")
    flags = [option.flag for option in options_of(getattr(import_module(module), config))]
    assert [flag for flag in flags if not re.search(rf"`[^`]*{flag}(?![\w-])", text)] == []


def test_every_hyperparameter_is_documented() -> None:
    text = "".join(
        (DOCS / name).read_text(encoding="utf-8") for name in ("hyperparameters.md", "classification.md")
    )
    keys = {**Hyperparameters.model_fields, **ClassifierHyperparameters.model_fields}
    assert [key for key in keys if f"`{key}`" not in text] == []
