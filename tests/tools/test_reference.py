"""docs/reference.md: what the code says, and every option and hyperparameter documented."""

from __future__ import annotations

from pathlib import Path

from engine.training.classifier_hyperparameters import ClassifierHyperparameters
from engine.training.hyperparameters import Hyperparameters
from tools.reference import PAGE, page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tools.reference"


def test_every_hyperparameter_is_documented() -> None:
    text = "".join(
        (DOCS / name).read_text(encoding="utf-8") for name in ("hyperparameters.md", "classification.md")
    )
    keys = {**Hyperparameters.model_fields, **ClassifierHyperparameters.model_fields}
    assert [key for key in keys if f"`{key}`" not in text] == []
