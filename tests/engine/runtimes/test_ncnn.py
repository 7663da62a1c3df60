"""NCNN: conversion, one folder, and files that are refused before native code reads them."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml

from engine.export import command as export
from engine.export.config import ExportConfig
from engine.runtimes import load_predictor
from engine.runtimes.ncnn_checks import check_files
from models import build_model
from models.checkpoint import save_checkpoint
from models.load import to_checkpoint
from tests.engine.export.test_command import TINY, save_tiny
from utils.errors import UserError

GRAPH = """7767517
3 3
Input        in0   0 1 in0
Convolution  conv  1 1 in0 1 0=8 1=3 3=2 4=1 5=1 6=216
Sigmoid      out   1 1 1 out0
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its NCNN folder beside it."""
    pytest.importorskip("ncnn"), pytest.importorskip("pnnx")
    weights = save_tiny(tmp_path_factory.mktemp("ncnn") / "best.pt")
    assert export.main(ExportConfig.of(weights=weights, include=("ncnn",), imgsz=(64, 96))) == 0
    return weights


def test_ncnn_equals_pytorch_and_says_what_it_is(tiny, offline):
    folder = tiny.with_name("best_ncnn_model")
    assert {file.name for file in folder.iterdir()} == {
        "model.ncnn.param",
        "model.ncnn.bin",
        "metadata.yaml",
    }
    assert {file.name for file in tiny.parent.iterdir()} == {"best.pt", "best_ncnn_model"}
    ours, theirs = load_predictor(tiny), load_predictor(folder)
    assert (theirs.names, theirs.stride, theirs.config) == (ours.names, ours.stride, ours.config)
    assert theirs.imgsz == (64, 96)
    images = torch.rand(3, 3, 64, 96)
    torch.testing.assert_close(theirs(images), ours(images), atol=1e-3, rtol=1e-4)
    with ThreadPoolExecutor(3) as pool:
        alone = list(pool.map(theirs, images.split(1)))
    torch.testing.assert_close(torch.cat(alone), theirs(images))


@pytest.mark.parametrize("downsample", ["spd", "spectral", "diffstride"])
def test_every_downsampler_becomes_layers_that_ncnn_has(tmp_path, downsample):
    pytest.importorskip("ncnn"), pytest.importorskip("pnnx")
    weights = tmp_path / "best.pt"
    save_checkpoint(weights, to_checkpoint(build_model(TINY, downsample=downsample)))
    options = {"include": ("ncnn",), "imgsz": (64,), "half": downsample == "spd"}
    assert export.main(ExportConfig.of(weights=weights, **options)) == 0


def test_a_classifier_with_spd_becomes_strided_convolutions(tmp_path):
    pytest.importorskip("ncnn"), pytest.importorskip("pnnx")
    small = {"task": "classify", "nc": 2, "block": "basic", "depths": [1, 1], "widths": [8, 8, 8]}
    model = build_model(small | {"downsample": ["none", "spd", "strided"]})
    save_checkpoint(tmp_path / "net.pt", to_checkpoint(model))
    assert export.main(ExportConfig.of(weights=tmp_path / "net.pt", include=("ncnn",), imgsz=(32,))) == 0
    images = torch.rand(2, 3, 32, 32)
    theirs = load_predictor(tmp_path / "net_ncnn_model", task="classify")
    torch.testing.assert_close(theirs(images), load_predictor(tmp_path / "net.pt", task=None)(images))


@pytest.mark.parametrize(
    "before, after, message",
    [
        ("7767517", "7767518", "does not begin with 7767517"),
        ("3 3\n", "9 3\n", "says 9 layers and has 3"),
        ("3 3\n", "3 4\n", "says 4 blobs and has 3"),
        ("3 3\n", "99999999 3\n", "at most 20,000 are taken"),
        ("Sigmoid ", "Backdoor ", "of the kind 'Backdoor'"),
        ("1 1 1 out0", "1 1 7 out0", "takes what no layer before it gives"),
        ("1 1 1 out0", "9 1 1 out0", "cannot be read"),
        ("out0", "other", "its ends are not in0 and out0"),
        ("3=2", "3=0", "parameter 3 must be 1 or more"),
        ("6=216", "6=9999999999", "is no parameter"),
        ("6=216", "6=217000", "it is cut short"),
        ("6=216", "-23306=3,1", "is no array"),
        ("6=216", "6=nan", "is no parameter"),
    ],
)
def test_a_graph_that_cannot_be_is_refused_before_it_is_parsed(tmp_path, before, after, message):
    assert before in GRAPH
    (tmp_path / "a.bin").write_bytes(bytes(4 * 224))
    file = tmp_path / "a.param"
    file.write_text(GRAPH)
    check_files(file)
    file.write_text(GRAPH.replace(before, after, 1))
    with pytest.raises(UserError, match=message):
        check_files(file)


def test_weights_cut_short_and_missing_metadata_are_one_line_each(tiny, tmp_path):
    source = tiny.with_name("best_ncnn_model")
    for name in ("model.ncnn.param", "model.ncnn.bin"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    with pytest.raises(UserError, match=r"no metadata 'names' in the file"):
        load_predictor(tmp_path)
    (tmp_path / "metadata.yaml").write_text(yaml.safe_dump({"names": ["a", "b", "c"], "stride": 8}))
    with pytest.raises(UserError, match=r"metadata.yaml: imgsz is missing"):
        load_predictor(tmp_path)
    (tmp_path / "model.ncnn.bin").write_bytes((source / "model.ncnn.bin").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"it is cut short"):
        load_predictor(tmp_path)
    (tmp_path / "model.ncnn.bin").unlink()
    with pytest.raises(UserError, match=r"no weights of NCNN .*model.ncnn.bin"):
        load_predictor(tmp_path)


def test_running_without_the_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ncnn", None)
    (tmp_path / "a.bin").write_bytes(bytes(4 * 224))
    (tmp_path / "a.param").write_text(GRAPH)
    with pytest.raises(UserError, match="pip install ncnn"):
        load_predictor(tmp_path)
    with pytest.raises(UserError, match="NCNN runs on the CPU here"):
        load_predictor(tmp_path, "cuda:0")
