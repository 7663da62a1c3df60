"""python -m tools.surgery writes a checkpoint that computes the same, or writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import fuse_detector, load_model
from models.downsample.spd_conv2d import SPDConv2d
from models.surgery.compare import outputs_of, relative_difference
from tests.golden_values import GOLDEN
from tools.surgery import SurgeryConfig, main
from utils.cli import run

YOLOV5N = GOLDEN / "yolov5n.pt"


def test_the_golden_yolov5_computes_the_same_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(SurgeryConfig.of(weights=YOLOV5N, out=tmp_path / "init.pt")) == 0
    printed = capsys.readouterr().out
    assert "7 of 7 downsampling layers replaced" in printed
    assert "parameters 1,770,682 -> 2,218,682 (1.253x)" in printed
    assert f"saved {tmp_path / 'init.pt'}; try: python train.py --weights " in printed
    before, after = load_model(YOLOV5N), load_model(tmp_path / "init.pt")
    x = torch.rand(1, 3, 64, 96)
    expected = outputs_of(before, x)
    assert relative_difference(expected, outputs_of(after, x)) < 1e-5
    assert sum(isinstance(m, SPDConv2d) for m in after.modules()) == 7
    assert relative_difference(expected, outputs_of(fuse_detector(after), x)) < 1e-5


def test_only_the_layers_asked_for_are_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = SurgeryConfig.of(weights=YOLOV5N, out=tmp_path / "init.pt", where=("model.1.*", "model.3.*"))
    assert main(config) == 0
    assert "2 of 2 downsampling layers replaced" in capsys.readouterr().out


def test_outputs_that_changed_are_an_error_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.surgery.TOLERANCE", -1.0)
    assert main(SurgeryConfig.of(weights=YOLOV5N, out=tmp_path / "init.pt")) == 1
    assert "so " + str(tmp_path / "init.pt") + " was not written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "nowhere.pt"], "no weights file"),
        (["--weights", "a.pt", "--out", "a.pt"], "would overwrite the weights"),
        (["--weights", str(GOLDEN / "yolov5n_spd.pt")], "no strided convolution or pooling to replace"),
        (["--weights", "a.pt", "--to", "sdp"], "spd"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        run(SurgeryConfig, main, arguments)
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
