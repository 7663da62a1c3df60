"""python -m tools.summary prints each layer or stage of a network, and its totals."""

from __future__ import annotations

import pytest

from tools.summary import SummaryConfig, main, with_flag
from utils.cli import run


def summary_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run the command; return what it writes to standard output."""
    with pytest.raises(SystemExit) as exit:
        run(SummaryConfig, main, with_flag(arguments))
    assert exit.value.code == 0
    return capsys.readouterr().out.splitlines()


def test_a_detector_gets_a_line_for_each_layer_and_the_totals(capsys: pytest.CaptureFixture[str]) -> None:
    lines = summary_lines(["yolov5n-spd", "--nc", "5"], capsys)
    assert len(lines) == 33
    assert lines[1].split()[:5] == ["0", "-1", "1", "1,760", "Focus"]
    assert lines[-1].startswith("2,154,682 parameters, ")
    assert lines[-1].endswith("GFLOPs at 640x640, 5 classes")


def test_a_classifier_gets_a_line_for_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    lines = summary_lines(["--cfg", "resnet18-spd", "--num-classes", "10", "--quiet"], capsys)
    assert len(lines) == 8
    assert lines[1].split() == ["stem", "1", "896", "64x16x16", "focus", "2"]
    assert lines[3].split()[-2:] == ["spd", "2"]
    assert lines[-1] == "20,468,106 parameters, 0.532 GFLOPs at 32x32, 10 classes"


def test_other_downsampling_and_another_size_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    lines = summary_lines(["yolov5n", "--downsample", "max", "--imgsz", "320"], capsys)
    assert sum("Downsample" in line for line in lines) == 6
    assert "GFLOPs at 320x320" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["yolov7"], "unknown model 'yolov7'. Did you mean 'yolov5"),
        (["yolov5n", "--imgsz", "650"], "imgsz must be a multiple of the model's stride 32, got 650"),
        (["yolov5n", "--downsample", "sdp"], "unknown downsampler 'sdp'. Did you mean 'spd'?"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        run(SummaryConfig, main, with_flag(arguments))
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
