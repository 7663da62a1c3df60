from __future__ import annotations

from pathlib import Path

import pytest

from engine.training.classifier_hyperparameters import ClassifierHyperparameters
from engine.training.hyperparameters import HYPS, Hyperparameters, read_hyp
from utils.errors import UserError

OF_CLASSIFIERS = {"resnet-spd-cifar10", "resnet-spd-tiny-imagenet", "diffstride-cifar", "mnist5k"}


@pytest.mark.parametrize("path", sorted(HYPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file_reads(path: Path) -> None:
    kind = ClassifierHyperparameters if path.stem in OF_CLASSIFIERS else Hyperparameters
    assert read_hyp(path, kind).lr0 > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("milestones: 3", "milestones must be a list"),
        ("milestones: [5, 3]\nfactors: [1, 1, 1]", "milestones must rise"),
        ("milestones: [5]\nfactors: [1]", "one more than milestones"),
        ("milestone_unit: minutes", "milestone_unit has no choice 'minutes'"),
        ("mosaic: 1.0", "unknown hyperparameter 'mosaic'"),
    ],
)
def test_bad_files_of_classifiers_are_named_with_the_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "hyp.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"hyp\.yaml") as caught:
        read_hyp(file, ClassifierHyperparameters)
    assert message in str(caught.value)


def test_low_is_the_default() -> None:
    assert read_hyp(HYPS / "low.yaml") == Hyperparameters()


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "hyp.yaml"
    file.write_text("weight_decay: 5e-4\n")  # text, by YAML's own rule
    assert read_hyp(file).weight_decay == 5e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: 0.1", "unknown hyperparameter 'x'. Choose from"),
        ("mozaic: 1.0", "Did you mean 'mosaic'"),
        ("mosaic: 2.0", "mosaic must be at most 1, got 2.0"),
        ("warmup_epochs: soon", "warmup_epochs takes float, got 'soon'"),
        ("optimizer: SDG", "Did you mean 'SGD'"),
        ("- 1", "must hold 'key: value' lines"),
        ("a: [", "is not valid YAML"),
        ("fl_gamma: -1.5", "fl_gamma must be at least 0, got -1.5"),
        ("label_smoothing: 2", "label_smoothing must be at most 1, got 2"),
        ("box_loss: nwdd", "Did you mean 'nwd'"),
        ("copy_paste: 1.5", "copy_paste must be at most 1, got 1.5"),
        ("crop: -0.1", "crop must be at least 0, got -0.1"),
        ("close_mosaic: 1.5", "close_mosaic takes int, got 1.5"),
        ("warmup_bias_lr: -1", "warmup_bias_lr must be at least 0, got -1"),
        ("nwd_constant: 0", "nwd_constant must be at least 0.001, got 0"),
    ],
)
def test_bad_files_are_named_with_the_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "hyp.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"hyp\.yaml") as caught:
        read_hyp(file)
    assert message in str(caught.value)


def test_a_missing_file_lists_those_that_ship(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"low\.yaml"):
        read_hyp(tmp_path / "nothing.yaml")
