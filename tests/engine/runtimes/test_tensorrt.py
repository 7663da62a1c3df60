"""TensorRT engines: metadata in the file, and one clear line where they cannot be built or run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.export import command as export
from engine.export import comparison
from engine.runtimes import load_predictor
from engine.runtimes.metadata import Metadata
from engine.runtimes.tensorrt import _shapes, read_engine, write_engine
from utils.errors import UserError

METADATA = Metadata(["tree", "дерево"], 32, imgsz=(256, 320), batch=4, dynamic=True)
ENGINE = b"ptrt\x00\x01 not a real one"


def stand_in(version: str = "10.3.0") -> SimpleNamespace:
    """As much of the package as is asked before an engine runs; it can read none."""
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda content: None)
    logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
    return SimpleNamespace(__version__=version, Logger=logger, Runtime=lambda logger: runtime)


@pytest.fixture
def engine(tmp_path) -> Path:
    write_engine(tmp_path / "best.engine", METADATA.to_strings(), ENGINE)
    return tmp_path / "best.engine"


def test_metadata_and_engine_survive_the_file(engine):
    strings, content = read_engine(engine)
    assert Metadata.from_strings(strings, "file") == METADATA
    assert content == ENGINE


@pytest.mark.parametrize("content", [b"", b"\x01", b"ptrt" * 9, b"\x02\0\0\0[]rest", b"\x04\0\0\0{{{{rest"])
def test_file_without_metadata_is_an_engine_as_a_whole(tmp_path, content):
    (tmp_path / "foreign.engine").write_bytes(content)
    assert read_engine(tmp_path / "foreign.engine") == ({}, content)


@pytest.mark.parametrize(
    "module, device, message",
    [
        (None, "cpu", "pip install tensorrt"),
        (stand_in("8.6.1"), "cpu", "TensorRT 10 or later is needed, here is 8.6.1"),
        (stand_in(), "cpu", "choose one with --device 0"),
    ],
)
def test_what_is_missing_is_one_clear_line(monkeypatch, engine, module, device, message):
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(UserError, match=message):
        load_predictor(engine, device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_engine_of_another_gpu_is_refused(monkeypatch, engine):
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in())
    with pytest.raises(UserError, match="not an engine for this GPU"):
        load_predictor(engine, "cuda:0")


def test_export_says_what_is_missing_before_it_reads_the_weights(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(UserError, match=r"--include engine: .*pip install tensorrt"):
        export.main(export.ExportConfig.of(weights=tmp_path / "none.pt", include=("engine",)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"int8": True}, {"nms": True}])
def test_options_that_engines_do_not_have_are_refused(options):
    with pytest.raises(UserError, match="not for engine"):
        export.ExportConfig.of(include=("onnx", "engine"), **options)


def test_dynamic_engines_take_every_size_that_is_compared():
    config = export.ExportConfig.of(dynamic=True, batch_size=4)
    smallest, usual, largest = _shapes(METADATA)
    assert usual == (4, 3, 256, 320)
    for batch, height, width in comparison._input_shapes(config, METADATA):
        for low, side, high in zip(smallest, (batch, 3, height, width), largest, strict=True):
            assert low <= side <= high
