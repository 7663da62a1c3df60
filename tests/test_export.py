"""Export to ONNX: the file gives what PyTorch gives, at every size it promises."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import export
from export import ExportConfig
from models import build_model, parity
from models.load import to_checkpoint
from models.runtime import load_predictor
from utils.checkpoint import save_checkpoint
from utils.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
TINY = {
    "nc": 3,
    "anchors": [[8, 8, 16, 16], [24, 24, 40, 40]],
    "backbone": [
        [-1, 1, "Conv", [8, 6, 2, 2]],
        [-1, 1, "Conv", [16, 3, 1]],
        [-1, 1, "space_to_depth", [1]],
        [-1, 1, "C3", [16]],
        [-1, 1, "Conv", [16, 3, 2]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 3], 1, "Concat", [1]],
        [[6, 4], 1, "Detect", ["nc", "anchors"]],
    ],
}


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A trained-looking checkpoint of a very small network, stride 8."""
    torch.manual_seed(0)
    model = build_model(TINY)
    model.names = ["car", "дерево", "a 'b' \"c\""]
    path = tmp_path / "best.pt"
    save_checkpoint(path, to_checkpoint(model) | {"config": {"imgsz": 64}, "tile": {"size": 96}})
    return path


def only_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_fixed_export_equals_pytorch_and_says_what_it_is(tiny, capsys):
    onnx = pytest.importorskip("onnx")
    assert export.main(ExportConfig(tiny, imgsz=(64, 96), batch_size=2, opset=17)) == 0
    assert "largest difference from PyTorch on 2 inputs" in capsys.readouterr().out
    assert only_files(tiny.parent) == {"best.pt", "best.onnx"}

    ours, theirs = load_predictor(tiny), load_predictor(tiny.with_suffix(".onnx"))
    assert theirs.imgsz == (64, 96)
    assert (theirs.names, theirs.stride, theirs.config) == (ours.names, ours.stride, ours.config)
    images = torch.rand(3, 3, 64, 96)  # not a multiple of the file's batch
    torch.testing.assert_close(theirs(images), ours(images), atol=1e-3, rtol=1e-4)

    model = onnx.load(str(tiny.with_suffix(".onnx")))
    onnx.checker.check_model(model, full_check=True)
    assert [entry.name for entry in model.graph.input] == ["images"]
    assert [entry.name for entry in model.graph.output] == ["output0"]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    written = tiny.with_suffix(".onnx").read_bytes()
    assert b"site-packages" not in written and str(Path.cwd()).encode() not in written


def test_dynamic_export_takes_any_batch_and_size(tiny, capfd):
    assert export.main(ExportConfig(tiny, dynamic=True)) == 0
    assert capfd.readouterr().err == ""  # the exporter's own warnings are kept quiet
    ours, theirs = load_predictor(tiny), load_predictor(tiny.with_suffix(".onnx"))
    assert theirs.imgsz is None
    for shape in ((1, 3, 8, 8), (4, 3, 40, 120), (1, 3, 256, 64)):
        images = torch.rand(shape)
        torch.testing.assert_close(theirs(images), ours(images), atol=1e-3, rtol=1e-4)


def test_released_spd_network_exports(tmp_path):
    shutil.copy(GOLDEN / "yolov5n_spd.pt", tmp_path)
    assert export.main(ExportConfig(tmp_path / "yolov5n_spd.pt", imgsz=(64, 64))) == 0


def test_file_that_differs_is_not_kept_and_the_old_one_stays(tiny, monkeypatch, capsys):
    tiny.with_suffix(".onnx").write_text("old")
    monkeypatch.setattr(parity, "compare", lambda *_: parity.Difference(3.0, 0.5, False, 2))
    monkeypatch.setattr("models.onnx_export.export_onnx", lambda model, file, *_: file.touch())
    monkeypatch.setattr(export, "_reload", lambda *_: None)
    assert export.main(ExportConfig(tiny)) == 1
    assert "differ" in capsys.readouterr().err
    assert tiny.with_suffix(".onnx").read_text() == "old"
    assert only_files(tiny.parent) == {"best.pt", "best.onnx"}


def test_interrupted_export_leaves_nothing_behind(tiny, monkeypatch):
    def interrupt(model, file, *_):
        file.write_text("half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr("models.onnx_export.export_onnx", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export.main(ExportConfig(tiny))
    assert only_files(tiny.parent) == {"best.pt"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"imgsz": (60,)}, "try --imgsz 64"),
        ({"weights": "missing.pt"}, "missing.pt"),
        ({"weights": "x.onnx"}, "is an export already"),
        ({"opset": 9}, "at least 17"),
        ({"include": ("tflite",)}, "Choose from: onnx"),
        ({"data": "data/treecrowns.yaml"}, "3 classes, but the data set names 1"),
    ],
)
def test_wrong_options_are_one_clear_line(tiny, options, message):
    with pytest.raises(UserError, match=message):
        export.main(ExportConfig(**({"weights": tiny} | options)))
    assert only_files(tiny.parent) == {"best.pt"}
