"""What each format takes, and `--include all`."""

from __future__ import annotations

import sys

import pytest

from engine.export import command as export
from engine.export.config import ExportConfig
from engine.export.formats import EXPORT_FORMATS, refused_option, unavailable
from engine.export.writers import WRITERS
from engine.runtimes import FORMATS
from tests.engine.export.test_command import save_tiny
from utils.errors import UserError


def test_every_export_format_has_a_writer_and_a_reader():
    assert set(EXPORT_FORMATS) == set(WRITERS) == set(FORMATS) - {"pytorch"}


@pytest.mark.parametrize(
    "format, options, message",
    [
        ("ncnn", {"nms": True}, "--nms is for onnx, openvino and triton, not for ncnn"),
        ("ncnn", {"dynamic": True}, "--dynamic is for .*, not for ncnn"),
        ("ncnn", {"batch_size": 2}, "--batch-size is for .*, not for ncnn"),
        ("ncnn", {"int8": True}, "--int8 is for onnx, openvino, litert and triton, not for ncnn"),
        ("litert", {"nms": True}, "not for litert"),
        ("litert", {"dynamic": True}, "not for litert"),
        ("coreml", {"nms": True, "dynamic": True}, "not for coreml"),
        ("coreml", {"int8": True}, "not for coreml"),
    ],
)
def test_what_a_format_does_not_take_is_refused_before_work(format, options, message):
    with pytest.raises(UserError, match=message):
        ExportConfig.of(include=("onnx", format), **options)


@pytest.mark.parametrize(
    "format, package, message",
    [
        ("ncnn", "pnnx", "needs the package pnnx: pip install ncnn pnnx"),
        ("litert", "litert_torch", "needs the package litert_torch: pip install litert-torch"),
        ("coreml", "coremltools", "needs the package coremltools: pip install coremltools"),
        ("openvino", "openvino", "needs the package openvino: pip install openvino"),
    ],
)
def test_a_missing_converter_is_named_before_the_weights_are_read(
    monkeypatch, tmp_path, format, package, message
):
    monkeypatch.setattr("engine.export.formats.find_spec", lambda name: None if name == package else 1)
    with pytest.raises(UserError, match=message):
        export.main(ExportConfig.of(weights=tmp_path / "none.pt", include=(format,)))
    assert unavailable(format, ()) is not None and refused_option(format, ()) is None


def test_all_makes_what_can_be_made_and_says_why_the_rest_is_not(tmp_path, monkeypatch, capsys):
    weights = save_tiny(tmp_path / "best.pt")
    monkeypatch.setattr("engine.export.formats.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert export.main(ExportConfig.of(weights=weights, include=("all",), imgsz=(64,))) == 0
    told = capsys.readouterr().out
    for format, reason in {
        "openvino": "pip install openvino",
        "engine": "pip install tensorrt",
        "ncnn": "pip install ncnn pnnx",
        "litert": "pip install litert-torch",
        "coreml": "pip install coremltools",
    }.items():
        assert any(line.startswith(f"{format}: not made") and reason in line for line in told.splitlines())
    assert {"best.onnx", "best.torchscript"} <= {file.name for file in tmp_path.iterdir()}


def test_all_leaves_out_what_does_not_take_an_option_or_fails(tmp_path, monkeypatch, capsys):
    weights = save_tiny(tmp_path / "best.pt")

    def fail(job):
        raise UserError("it cannot convert this network")

    monkeypatch.setitem(WRITERS, "openvino", fail)
    monkeypatch.setattr("engine.export.formats.find_spec", lambda name: 1)
    options = {"imgsz": (64,), "nms": True, "include": ("all",)}
    assert export.main(ExportConfig.of(weights=weights, **options)) == 0
    told = capsys.readouterr().out
    assert "openvino: not made, it cannot convert this network" in told
    assert "coreml: not made, --nms is for onnx, openvino and triton, not for coreml" in told
    assert {file.name for file in tmp_path.iterdir()} == {"best.pt", "best_nms.onnx", "best_nms_triton"}
