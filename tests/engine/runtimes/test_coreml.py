"""CoreML: the package says what PyTorch computes; running it needs a Mac."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.export import command as export
from engine.export.config import ExportConfig
from engine.runtimes import coreml, load_predictor
from engine.runtimes.metadata import Metadata
from engine.runtimes.tracing import strided, trace
from tests.engine.export.test_command import save_tiny
from utils.errors import UserError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its CoreML package beside it."""
    pytest.importorskip("coremltools")
    weights = save_tiny(tmp_path_factory.mktemp("coreml") / "best.pt")
    options = {"include": ("coreml",), "imgsz": (64, 96), "batch_size": 2}
    assert export.main(ExportConfig.of(weights=weights, **options)) == 0
    return weights


def test_the_program_in_the_package_computes_what_pytorch_does(tiny, offline):
    ours, theirs = load_predictor(tiny), coreml.load_reference(tiny.with_name("best.mlpackage"))
    assert (theirs.names, theirs.stride, theirs.config) == (ours.names, ours.stride, ours.config)
    assert theirs.imgsz == (64, 96)
    images = torch.rand(3, 3, 64, 96)
    torch.testing.assert_close(theirs(images), ours(images), atol=1e-3, rtol=1e-4)
    assert {file.name for file in tiny.parent.iterdir()} == {"best.pt", "best.mlpackage"}


def test_the_package_describes_its_ends_and_carries_its_metadata(tiny):
    import coremltools

    spec = coremltools.utils.load_spec(str(tiny.with_name("best.mlpackage")))
    (entry,), (result,) = spec.description.input, spec.description.output
    assert (entry.name, list(entry.type.multiArrayType.shape)) == ("images", [2, 3, 64, 96])
    assert (result.name, list(result.type.multiArrayType.shape)) == ("output0", [2, 960, 8])
    float32 = coremltools.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    assert entry.type.multiArrayType.dataType == result.type.multiArrayType.dataType == float32
    strings = dict(spec.description.metadata.userDefined)
    metadata = Metadata.from_strings({k: v for k, v in strings.items() if "." not in k}, "package")
    assert metadata.names == load_predictor(tiny).names and metadata.batch == 2


def test_a_package_in_16_bits_agrees_within_their_tolerance(tmp_path):
    pytest.importorskip("coremltools")
    weights = save_tiny(tmp_path / "best.pt")
    assert export.main(ExportConfig.of(weights=weights, include=("coreml",), imgsz=(64,), half=True)) == 0
    folder = tmp_path / "best_fp16.mlpackage" / coreml.WEIGHTS
    assert (folder / "weight.bin").stat().st_size < 0.8 * weights.stat().st_size


def test_a_program_that_differs_is_not_kept(tmp_path, monkeypatch, capsys):
    pytest.importorskip("coremltools")
    from engine.runtimes import coreml_program

    weights = save_tiny(tmp_path / "best.pt")
    monkeypatch.setitem(coreml_program.OPERATORS, "add", lambda x, y: x + y + 1)
    assert export.main(ExportConfig.of(weights=weights, include=("coreml",), imgsz=(64,))) == 1
    told = capsys.readouterr()
    assert "coreml: largest difference from PyTorch" in told.out and "was not written" in told.err
    assert [file.name for file in tmp_path.iterdir()] == ["best.pt"]


@pytest.mark.skipif(coreml.MACOS, reason="it runs here")
def test_elsewhere_than_on_macos_it_is_refused_in_one_line(tiny):
    with pytest.raises(UserError, match=r"best.mlpackage: CoreML files run on macOS only"):
        load_predictor(tiny.with_name("best.mlpackage"))


def test_on_macos_it_runs_through_coremltools(tiny, monkeypatch):
    """As far as can be shown without one: by a stand-in of the documented API."""
    import coremltools

    package = tiny.with_name("best.mlpackage")
    spec, reference = coremltools.utils.load_spec(str(package)), coreml.load_reference(package)

    def predict(feed):
        return {"output0": reference(torch.from_numpy(feed["images"])).numpy().astype(np.float32)}

    model = SimpleNamespace(get_spec=lambda: spec, predict=predict)
    monkeypatch.setattr(coreml, "MACOS", True)
    monkeypatch.setattr(coremltools.models, "MLModel", lambda path: model)
    images = torch.rand(2, 3, 64, 96)
    torch.testing.assert_close(load_predictor(package)(images), reference(images))


def test_what_is_no_package_is_one_line(tmp_path):
    (tmp_path / "file.mlpackage").write_text("x")
    (tmp_path / "empty.mlpackage").mkdir()
    inside = tmp_path / "link.mlpackage" / "Data" / "com.apple.CoreML"
    inside.mkdir(parents=True)
    (inside / "model.mlmodel").touch(), (tmp_path / "link.mlpackage" / "Manifest.json").touch()
    os.symlink("/etc", inside / "weights")
    cases = {
        "file": "not a CoreML package, which is a folder",
        "empty": "no CoreML package .*Manifest.json",
        "link": "leads out of the CoreML package",
        "missing": "no such weights: .*--include coreml",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            load_predictor(tmp_path / f"{name}.mlpackage")


def test_a_damaged_package_is_one_line(tiny, tmp_path):
    import shutil

    package = tmp_path / "best.mlpackage"
    shutil.copytree(tiny.with_name("best.mlpackage"), package)
    graph = package / coreml.INSIDE[1]
    graph.write_bytes(graph.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"best.mlpackage: not a CoreML package that can be read") as caught:
        coreml.load_reference(package)
    assert "\n" not in str(caught.value)


def test_export_without_the_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(UserError, match=r"--include coreml needs the package coremltools: pip install"):
        export.main(ExportConfig.of(weights=tmp_path / "none.pt", include=("coreml",)))


def test_no_operator_of_the_detector_that_ships_only_names_a_tensor_once_more():
    model = load_predictor("weights/treecrowns.pt").model
    traced = trace(strided(model), (64, 64), 1, sizes_first=True)
    kinds = {node.kind() for node in torch.jit.freeze(traced).graph.nodes()}
    assert "aten::sigmoid" in kinds and "aten::alias" not in kinds  # which coremltools does not convert
