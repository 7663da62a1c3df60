"""LiteRT: a golden file runs like its checkpoint; conversion where litert-torch is installed."""

from __future__ import annotations

import logging
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.export import command as export
from engine.export.config import ExportConfig
from engine.inference.detector import Detector
from engine.runtimes import load_predictor
from models import load_model
from utils.boxes import box_iou
from utils.errors import UserError

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture
def lite() -> Path:
    pytest.importorskip("ai_edge_litert")
    return GOLDEN / "tiny.tflite"


def test_a_tflite_file_equals_its_checkpoint_and_says_what_it_is(lite, offline):
    ours, theirs = load_predictor(GOLDEN / "tiny.pt"), load_predictor(lite)
    assert (theirs.names, theirs.stride, theirs.config) == (ours.names, ours.stride, ours.config)
    assert theirs.imgsz == (64, 96)
    images = torch.rand(3, 3, 64, 96)
    torch.testing.assert_close(theirs(images), ours(images), atol=1e-3, rtol=1e-4)
    with ThreadPoolExecutor(3) as pool:
        alone = list(pool.map(theirs, images.split(1)))
    torch.testing.assert_close(torch.cat(alone), theirs(images))
    assert logging.root.manager.disable == 0, "threads that open it at once leave messages as they were"


def test_a_tflite_file_detects_what_its_checkpoint_detects(lite):
    image = (torch.rand(64, 96, 3) * 255).byte().numpy()
    options = {"conf_thres": 0.1, "imgsz": (64, 96)}
    (ours,), (theirs,) = (Detector(file)(image, **options) for file in (GOLDEN / "tiny.pt", lite))
    assert len(ours.boxes) > 3
    assert len(theirs.boxes) == len(ours.boxes)
    same = box_iou(ours.boxes.xyxy, theirs.boxes.xyxy) > 0.99  # equal scores come in any order
    assert (same & (ours.boxes.cls[:, None] == theirs.boxes.cls)).any(1).all()


def test_boxes_in_the_file_are_fractions_and_its_names_are_readable(lite):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(lite))
    interpreter.allocate_tensors()
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert list(entry["shape"]) == [1, 64, 96, 3]
    interpreter.set_tensor(entry["index"], np.full((1, 64, 96, 3), 0.5, np.float32))  # not what memory held
    interpreter.invoke()
    assert interpreter.get_tensor(result["index"])[..., :2].max() < 1.1
    with zipfile.ZipFile(lite) as archive:
        assert "дерево" in archive.read("metadata.json").decode()


@pytest.mark.parametrize("kept", [0, 7, 100, 30_000])
def test_a_tflite_file_cut_short_is_one_line(lite, tmp_path, kept):
    (tmp_path / "cut.tflite").write_bytes(lite.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"cut.tflite: .*LiteRT cannot open it|cut.tflite: no metadata"):
        load_predictor(tmp_path / "cut.tflite")


def test_a_tflite_file_without_metadata_asks_for_the_data_set(lite, tmp_path):
    content = lite.read_bytes()
    (tmp_path / "bare.tflite").write_bytes(content[: content.rindex(b"PK\x03\x04")])
    with pytest.raises(UserError, match=r"no metadata 'names'.*--data"):
        load_predictor(tmp_path / "bare.tflite")
    assert load_predictor(tmp_path / "bare.tflite", names=["a", "b", "c"]).names == ["a", "b", "c"]
    with pytest.raises(UserError, match="the graph has 3 classes, but 1 are named"):
        load_predictor(tmp_path / "bare.tflite", names=["a"])


def test_running_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match="pip install ai-edge-litert"):
        load_predictor(GOLDEN / "tiny.tflite")
    with pytest.raises(UserError, match="LiteRT runs on the CPU here"):
        load_predictor(GOLDEN / "tiny.tflite", "cuda:0")


def test_a_network_becomes_a_tflite_file_in_32_bits_and_in_16(tmp_path):
    pytest.importorskip("litert_torch")
    for half in (False, True):
        weights = tmp_path / "best.pt"
        weights.write_bytes((GOLDEN / "tiny.pt").read_bytes())
        assert export.main(ExportConfig.of(weights=weights, include=("litert",), imgsz=(64,), half=half)) == 0
    full, half = tmp_path / "best.tflite", tmp_path / "best_fp16.tflite"
    weights = sum(weight.numel() for weight in load_model(GOLDEN / "tiny.pt", fuse=True).parameters())
    assert full.stat().st_size - half.stat().st_size > 1.5 * weights  # 2 bytes each, but for small ones


def test_a_network_becomes_a_tflite_file_in_8_bits(tmp_path, squares, capsys):
    pytest.importorskip("litert_torch")
    weights = tmp_path / "best.pt"
    weights.write_bytes((GOLDEN / "tiny.pt").read_bytes())
    data = tmp_path / "d.yaml"
    data.write_text(f"path: {squares}\ntrain: images/train\nval: images/val\nnames: [a, b, c]\n")
    options = {"include": ("litert",), "imgsz": (64,), "int8": True, "data": data}
    assert export.main(ExportConfig.of(weights=weights, **options)) == 0
    assert "int8: AP " in capsys.readouterr().out
    images = torch.rand(1, 3, 64, 64)
    gap = (load_predictor(tmp_path / "best_int8.tflite")(images) - load_predictor(weights)(images)).abs()
    assert 0 < gap[..., 4:].max() < 0.2
