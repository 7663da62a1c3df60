"""Hyperparameter files: those that ship, YOLOv5's, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.training.classifier_hyperparameters import ClassifierHyperparameters
from engine.training.hyperparameters import HYPS, Hyperparameters, read_hyp
from utils.errors import UserError

FOR_CLASSIFIERS = {"resnet-spd-cifar10", "resnet-spd-tiny-imagenet", "diffstride-cifar", "mnist5k"}


@pytest.mark.parametrize("path", sorted(HYPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file_reads(path: Path) -> None:
    kind = ClassifierHyperparameters if path.stem in FOR_CLASSIFIERS else Hyperparameters
    assert read_hyp(path, kind).lr0 > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("milestones: 3", "'milestones' must be a list, found the int 3"),
        ("milestones: [5, 3]\nfactors: [1, 1, 1]", "'milestones' must rise"),
        ("milestones: [5]\nfactors: [1]", "must be one more than 'milestones'"),
        ("milestone_unit: minutes", "'milestone_unit' has no choice 'minutes'"),
        ("milestones: [0]\nfactors: [1, 1]", "'milestones' must be at least 1, got 0"),
        ("mosaic: 1.0", "unknown key 'mosaic'"),
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


def test_every_key_of_yolov5_is_read_and_those_without_effect_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "hyp.yaml"
    file.write_text(
        "lr0: 0.00334\nlrf: 0.15135\nmomentum: 0.74832\nweight_decay: 0.00025\nwarmup_epochs: 3.3835\n"
        "warmup_momentum: 0.59462\nwarmup_bias_lr: 0.18657\nbox: 0.02\ncls: 0.21638\ncls_pw: 0.5\n"
        "obj: 0.51728\nobj_pw: 0.67198\niou_t: 0.2\nanchor_t: 3.3744\nanchors: 3\nfl_gamma: 0.0\n"
        "hsv_h: 0.01041\nhsv_s: 0.54703\nhsv_v: 0.27739\ndegrees: 0.0\ntranslate: 0.04591\nscale: 0.75544\n"
        "shear: 0.0\nperspective: 0.0\nflipud: 0.0\nfliplr: 0.5\nmosaic: 0.85834\nmixup: 0.04266\n"
        "copy_paste: 0.0\n"
    )
    hyp = read_hyp(file)
    assert (hyp.lr0, hyp.scale, hyp.optimizer) == (0.00334, 0.75544, "SGD")
    assert not {"iou_t", "anchors"} & hyp.plain().keys()


@pytest.mark.parametrize("name", ["high", "diffstride-cifar"])
def test_what_a_run_folder_keeps_reads_back_as_the_same(name: str, tmp_path: Path) -> None:
    kind = ClassifierHyperparameters if name in FOR_CLASSIFIERS else Hyperparameters
    hyp = read_hyp(HYPS / f"{name}.yaml", kind)
    hyp.save(tmp_path / "hyp.yaml")
    assert read_hyp(tmp_path / "hyp.yaml", kind) == hyp


def test_a_changed_hyperparameter_is_checked() -> None:
    assert Hyperparameters().changed(lr0=0.5).lr0 == 0.5
    with pytest.raises(UserError, match="'mosaic' must be at most 1"):
        Hyperparameters().changed(mosaic=2.0)


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "hyp.yaml"
    file.write_text("weight_decay: 5e-4\n")  # text, by YAML's own rule
    assert read_hyp(file).weight_decay == 5e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: 0.1", "unknown key 'x'. Choose from"),
        ("mozaic: 1.0", "Did you mean 'mosaic'"),
        ("mosaic: 2.0", "'mosaic' must be at most 1, got 2.0"),
        ("warmup_epochs: soon", "'warmup_epochs' must be a number, found the text 'soon'"),
        ("optimizer: SDG", "Did you mean 'SGD'"),
        ("- 1", "must hold 'key: value' lines"),
        ("a: [", "is not valid YAML"),
        ("fl_gamma: -1.5", "'fl_gamma' must be at least 0, got -1.5"),
        ("label_smoothing: 2", "'label_smoothing' must be at most 1, got 2"),
        ("box_loss: nwdd", "Did you mean 'nwd'"),
        ("copy_paste: 1.5", "'copy_paste' must be at most 1, got 1.5"),
        ("crop: -0.1", "'crop' must be at least 0, got -0.1"),
        ("close_mosaic: 1.5", "'close_mosaic' must be a whole number, found the float 1.5"),
        ("warmup_bias_lr: -1", "'warmup_bias_lr' must be at least 0, got -1"),
        ("nominal_batch: 0", "'nominal_batch' must be at least 1, got 0"),  # the range of --nbs
        ("shear: 60", "'shear' must be at most 40, got 60"),
        ("lr0: .inf", "'lr0' must be a finite number"),
        ("nwd_constant: 0", "'nwd_constant' must be at least 0.001, got 0"),
    ],
)
def test_bad_files_are_named_with_the_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "hyp.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"hyp\.yaml") as caught:
        read_hyp(file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "spelling",
    ["low", "low.yaml", "data/hyps/low.yaml", "hyp.scratch-low.yaml", "data/hyps/hyp.scratch-low.yaml"],
)
def test_a_file_that_ships_is_found_by_each_of_its_names_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_hyp(Path(spelling)) == Hyperparameters()


def test_a_missing_file_lists_those_that_ship(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Choose from: .*low, med"):
        read_hyp(tmp_path / "nothing.yaml")
