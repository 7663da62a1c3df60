from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from engine.evaluation.config import ValConfig
from engine.export.config import ExportConfig
from engine.inference.config import DetectConfig
from engine.training.config import TrainConfig
from tools.doctor import DoctorConfig
from tools.surgery import SurgeryConfig
from utils.cli import parse, run
from utils.errors import UserError, suggest
from utils.log import LogOptions
from utils.options import Options, group, opt, options_of


@dataclass(frozen=True)
class Config(Options):
    """An example."""

    data: Path = opt("data.yaml", "a path")
    imgsz: int = opt(640, "pixels", "--img", min=32, max=4096)
    conf_thres: float = opt(0.25, "confidence", min=0, max=1)
    mode: Literal["fast", "exact"] = opt("fast", "mode")
    classes: tuple[int, ...] = opt((), "classes")
    amp: bool = opt(True, "mixed precision")
    resume: str | None = opt(None, "resume", const="newest")


@dataclass(frozen=True)
class Folder(Options):
    """Run folder."""

    project: Path = opt("runs", "folder")
    name: str = opt("exp", "name")


@dataclass(frozen=True)
class Grouped(Options):
    """An example with groups."""

    epochs: int = opt(3, "epochs", "--n-epochs", min=1)
    amp: bool = opt(True, "use mixed precision")
    plots: bool = opt(True, "draw figures", off_help="leave out all figures")
    nosave: bool = opt(False, "save nothing")
    mosaic: float = opt(1.0, "probability", task="detect")
    run: Folder = group(Folder, project="runs/train")
    log: LogOptions = group(LogOptions)


@pytest.mark.parametrize(
    ("argv", "field", "expected"),
    [
        ([], "data", Path("data.yaml")),
        (["--data", "x/y.yaml"], "data", Path("x/y.yaml")),
        (["--img", "320"], "imgsz", 320),
        (["--conf-thres", "1"], "conf_thres", 1.0),
        (["--conf_thres=0.5"], "conf_thres", 0.5),
        (["--mode", "exact"], "mode", "exact"),
        (["--classes", "0", "2"], "classes", (0, 2)),
        (["--no-amp"], "amp", False),
        (["--resume"], "resume", "newest"),
        (["--resume", "last.pt"], "resume", "last.pt"),
    ],
)
def test_options_parse_by_their_annotation(argv: list[str], field: str, expected: object) -> None:
    assert getattr(parse(Config, argv), field) == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--imgz", "3"], "unknown option --imgz. Did you mean '--imgsz'"),
        (["--imgsz", "8"], "--imgsz must be at least 32, got 8"),
        (["--conf-thres", "1.5"], "--conf-thres must be at most 1, got 1.5"),
        (["--conf-thres", "nan"], "--conf-thres must be a finite number"),
        (["--mode", "fats"], "no choice 'fats'. Did you mean 'fast'? Choose from: exact, fast"),
        (["--imgsz", "big"], "invalid int value: 'big'"),
        (["stray"], "unexpected argument 'stray'"),
    ],
)
def test_bad_options_are_named_with_the_right_ones(argv: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(Config, argv)
    assert message in str(caught.value)


def test_a_config_made_in_python_is_checked_too() -> None:
    with pytest.raises(UserError, match="--imgsz takes int"):
        Config(imgsz="640")  # type: ignore[arg-type]


def test_plain_config_makes_the_same_config_again() -> None:
    config = Config(classes=(1, 2), imgsz=64)
    plain = config.plain()
    assert all(isinstance(value, (str, int, float, list, type(None))) for value in plain.values())
    assert Config(**plain) == config


def test_help_shows_groups_and_one_spelling_of_each_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(Grouped, ["--help"])
    text = capsys.readouterr().out
    assert "run folder:" in text and "messages:" in text
    shown = re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)
    assert len(shown) == len(set(shown)) == len(options_of(Grouped))
    assert "--no-amp" in shown and "--nosave" in shown and "--no-nosave" not in text


def test_help_of_an_option_that_is_on_says_what_switching_it_off_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse(Grouped, ["--help"])
    lines = dict(re.findall(r"^  (--[a-z-]+) +(.*)", capsys.readouterr().out, re.MULTILINE))
    assert lines["--no-amp"] == "do not use mixed precision"
    assert lines["--no-plots"] == "leave out all figures"
    assert lines["--nosave"] == "save nothing"


VERBS = ("batch", "decode", "draw", "fit", "keep", "leave", "use", "write")


@pytest.mark.parametrize(
    "config", [TrainConfig, ValConfig, DetectConfig, ExportConfig, DoctorConfig, SurgeryConfig]
)
def test_every_option_that_is_on_reads_well_after_do_not(config: type[Options]) -> None:
    for option in options_of(config):
        if option.default is True:
            assert option.help.startswith(VERBS), f"{option.flag}: {option.help}"


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (UserError("no such\nthing"), 2, "no such thing"),
        (FileNotFoundError(2, "No such file or directory", "x.pt"), 2, "No such file or directory: x.pt"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    error: BaseException, code: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: Config) -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run(Config, fail, [])
    assert caught.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(printed)
    assert not printed or printed in lines[0]


def test_suggest_ignores_case_and_always_lists_the_choices() -> None:
    assert suggest("conv", ["Conv", "C3"]) == "Did you mean 'Conv'? Choose from: C3, Conv"
    assert suggest("zzz", ["Conv", "C3"]) == "Choose from: C3, Conv"
