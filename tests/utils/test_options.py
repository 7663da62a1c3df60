"""Options: declared once, in groups, reached by name from the command line and from Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.utils.test_cli import Folder, Grouped
from utils.cli import parse
from utils.errors import UserError
from utils.options import options_of


def test_command_line_and_python_make_the_same_config() -> None:
    argv = ["--epochs", "7", "--name", "mine", "--no-amp", "--quiet"]
    assert parse(Grouped, argv) == Grouped.of(epochs=7, name="mine", amp=False, quiet=True)


def test_a_group_has_the_defaults_that_its_config_gives_it() -> None:
    assert Grouped().run == Folder(project=Path("runs/train"))
    assert {option.name: option.default for option in options_of(Grouped)}["project"] == "runs/train"


def test_options_are_reached_by_name_and_by_alias() -> None:
    config = Grouped.of(n_epochs=5, project="a")
    assert (config.epochs, config.get("project"), config.run.name) == (5, Path("a"), "exp")
    assert config.replace(name="b", epochs=1).run == Folder(project=Path("a"), name="b")
    assert Grouped.of(run=Folder(name="c"), project="d").run == Folder(project=Path("d"), name="c")


def test_plain_values_make_the_same_config_again() -> None:
    config = Grouped.of(epochs=9, name="x", verbose=True)
    assert Grouped.of(**config.plain()) == config
    assert config.plain()["project"] == "runs/train"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "unknown option 'epoch'. Did you mean 'epochs'"),
        ({"epochs": 0}, "--epochs must be at least 1, got 0"),
        ({"name": 3}, "--name takes str, got 3"),
    ],
)
def test_bad_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Grouped.of(**values)
    assert message in str(caught.value)


def test_options_of_another_task_are_refused_by_one_rule() -> None:
    Grouped().refuse_other_tasks("classify", "resnet18")
    Grouped.of(mosaic=0.5).refuse_other_tasks("detect", "yolov5n")
    with pytest.raises(UserError, match="--mosaic is for detectors, and resnet18 is a classifier"):
        Grouped.of(mosaic=0.5).refuse_other_tasks("classify", "resnet18")
