"""Exports: every file gives what PyTorch gives, at every size it promises."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from data.detection.calibration import calibration_batches
from engine.export import command as export
from engine.export.config import ExportConfig
from engine.runtimes import FORMATS, load_predictor, parity
from engine.runtimes.quantize import quantize
from models import build_model
from models.checkpoint import save_checkpoint
from models.load import to_checkpoint
from tests.models.yolov5_stand_ins import load_as_yolov5
from tests.rectangles import save
from utils.errors import UserError
from utils.nms import non_max_suppression

GOLDEN = Path(__file__).parents[2] / "golden"
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


def save_tiny(path: Path) -> Path:
    """A checkpoint of a very small network, stride 8, that finds something everywhere."""
    torch.manual_seed(0)
    model = build_model(TINY)
    with torch.no_grad():
        for conv in model.head.m:
            conv.bias.view(2, -1)[:, 4] += 6
            conv.bias.view(2, -1)[:, 5:] += 2
    model.names = ["car", "дерево", "a 'b' \"c\""]
    save_checkpoint(path, to_checkpoint(model) | {"config": {"imgsz": 64}, "tile": {"size": 96}})
    return path


@pytest.fixture
def tiny(tmp_path) -> Path:
    return save_tiny(tmp_path / "best.pt")


def only_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_fixed_export_equals_pytorch_and_says_what_it_is(tiny, capsys):
    assert export.main(ExportConfig.of(weights=tiny, imgsz=(64, 96), batch_size=2, opset=17)) == 0
    assert "largest difference from PyTorch on 2 inputs" in "".join(capsys.readouterr())
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
    assert export.main(ExportConfig.of(weights=tiny, dynamic=True)) == 0
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2 and "exported in" in lines[1], "the exporter's own warnings are kept quiet"
    ours, theirs = load_predictor(tiny), load_predictor(tiny.with_suffix(".onnx"))
    assert theirs.imgsz is None
    for shape in ((1, 3, 8, 8), (4, 3, 40, 120), (1, 3, 256, 64)):
        images = torch.rand(shape)
        torch.testing.assert_close(theirs(images), ours(images), atol=1e-3, rtol=1e-4)


def by_format(tiny: Path, format: str, marks: str = "") -> Path:
    return tiny.with_name(f"best{marks}{FORMATS[format].written_as}")


@pytest.fixture(scope="module", params=[False, True], ids=["fixed", "dynamic"])
def others(request, tmp_path_factory) -> tuple[Path, bool]:
    """A checkpoint with its OpenVINO and TorchScript files beside it."""
    pytest.importorskip("openvino")
    tiny = save_tiny(tmp_path_factory.mktemp("others") / "best.pt")
    options = {"imgsz": (64, 96), "batch_size": 2, "dynamic": request.param}
    assert export.main(ExportConfig.of(weights=tiny, include=("openvino", "torchscript"), **options)) == 0
    return tiny, request.param


@pytest.mark.parametrize("format", ["openvino", "torchscript"])
def test_other_formats_equal_pytorch_and_say_what_they_are(others, format, offline):
    tiny, dynamic = others
    ours, theirs = load_predictor(tiny), load_predictor(by_format(tiny, format))
    assert theirs.imgsz == (None if dynamic else (64, 96))
    assert (theirs.names, theirs.stride, theirs.config) == (ours.names, ours.stride, ours.config)
    for shape in [(3, 3, 64, 96), *([(1, 3, 40, 120)] if dynamic else [])]:
        images = torch.rand(shape)
        torch.testing.assert_close(theirs(images), ours(images), atol=1e-3, rtol=1e-4)
    assert len(only_files(tiny.parent)) == 3


@pytest.mark.parametrize("format", ["openvino", "torchscript"])
def test_one_file_may_be_used_by_several_threads(others, format):
    predictor = load_predictor(by_format(others[0], format))
    images = [torch.rand(1, 3, 64, 96) for _ in range(12)]
    expected = [predictor(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for output, alone in zip(pool.map(predictor, images), expected, strict=True):
            torch.testing.assert_close(output, alone)


def test_16_bits_halve_the_file_and_keep_32_at_both_ends(tiny):
    pytest.importorskip("openvino")
    formats = ("onnx", "openvino", "torchscript")
    assert export.main(ExportConfig.of(weights=tiny, imgsz=(64,), half=True, include=formats)) == 0
    images = torch.rand(1, 3, 64, 64)
    expected = load_predictor(tiny)(images)
    for format in formats:
        actual = load_predictor(by_format(tiny, format, "_fp16"))(images)
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, expected, atol=0.5, rtol=2e-2)
    stored = onnx.load(str(by_format(tiny, "onnx", "_fp16"))).graph.initializer
    assert sum(value.data_type == onnx.TensorProto.FLOAT16 and len(value.dims) == 4 for value in stored) > 5


def test_nms_inside_the_file_finds_the_same_objects(tiny, capsys):
    pytest.importorskip("openvino"), pytest.importorskip("onnxslim")
    options = {"imgsz": (64, 96), "batch_size": 2, "dynamic": True, "include": ("onnx", "openvino")}
    assert export.main(ExportConfig.of(weights=tiny, nms=True, simplify=True, max_det=40, **options)) == 0
    assert "objects are also among" in "".join(capsys.readouterr())
    ours, images = load_predictor(tiny), torch.rand(3, 3, 64, 96)
    expected = non_max_suppression(ours(images), max_det=40)
    for format in ("onnx", "openvino"):
        theirs = load_predictor(by_format(tiny, format, "_nms"))
        rows = theirs.run(images[:2])
        assert rows.shape == (2, 40, 6) and (rows[:, :-1, 4] >= rows[:, 1:, 4]).all()
        for a, b in zip(expected, non_max_suppression(theirs(images), max_det=40), strict=True):
            assert len(a) > 3, "the case should be worth it"
            torch.testing.assert_close(b, a, atol=1e-2, rtol=1e-4)


@pytest.fixture
def six_images(tmp_path) -> Path:
    """The YAML of a data set of three images for training and three for validation."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for i in range(3):
            image = cv2.resize(rng.integers(0, 255, (8, 8, 3), np.uint8), (64, 64))
            save(tmp_path / "set" / "images" / split / f"{i}.png", image)
            label = tmp_path / "set" / "labels" / split / f"{i}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 .5 .5 .3 .3\n")
    data = tmp_path / "d.yaml"
    data.write_text("path: set\ntrain: images/train\nval: images/val\nnames: [car, bus, x]\n")
    return data


def test_calibration_fills_the_last_batch_by_repetition(six_images):
    one_by_one = torch.cat(list(calibration_batches(six_images, (64, 64), 1, 100)))
    assert len(one_by_one) == 3
    (batch,) = calibration_batches(six_images, (64, 64), 5, 100)
    assert torch.equal(batch, one_by_one[[0, 1, 2, 0, 1]])
    batches = list(calibration_batches(six_images, (64, 64), 2, 100))
    assert torch.equal(torch.cat(batches), one_by_one[[0, 1, 2, 2]])


def test_8_bits_take_fewer_images_than_the_batch_but_not_none(tiny, six_images, tmp_path):
    options = {"data": six_images, "int8": True, "imgsz": (64,), "batch_size": 4, "calibration": 2}
    assert export.main(ExportConfig.of(weights=tiny, **options)) == 0
    assert load_predictor(by_format(tiny, "onnx", "_int8")).run(torch.rand(4, 3, 64, 64)).shape[0] == 4
    with pytest.raises(UserError, match="calibrated on images, and there were none"):
        quantize(tmp_path / "any.onnx", [])


def test_8_bits_are_calibrated_on_the_data_set_and_report_their_cost(tiny, six_images, capsys):
    assert export.main(ExportConfig.of(weights=tiny, data=six_images, int8=True, imgsz=(64,))) == 0
    assert "int8: AP " in "".join(capsys.readouterr())
    predictor = load_predictor(by_format(tiny, "onnx", "_int8"))
    assert predictor.names == ["car", "bus", "x"]
    images = torch.rand(1, 3, 64, 64)
    gap = (predictor(images) - load_predictor(tiny)(images)).abs()
    assert 0 < gap[..., 4:].max() < 0.2

    graph = onnx.load(str(by_format(tiny, "onnx", "_int8"))).graph
    kernels = {
        e.name: onnx.numpy_helper.to_array(e) for e in graph.initializer if ".weight" in e.name and e.dims
    }
    in_float = [name for name, kernel in kernels.items() if kernel.dtype == np.float32 and kernel.ndim == 4]
    assert in_float == ["model.model.7.m.0.weight", "model.model.7.m.1.weight"], (
        "the outputs, which are decoded"
    )
    quantized = [kernel for kernel in kernels.values() if kernel.dtype == np.int8 and kernel.ndim == 4]
    assert len(quantized) > 5
    for kernel in quantized:
        assert np.abs(kernel.astype(int)).max() <= 64, "8 by 8 bits overflow where there is no VNNI"


@pytest.mark.parametrize("suffix", [".torchscript", ".xml"])
def test_files_of_another_kind_are_one_clear_line(tmp_path, suffix):
    pytest.importorskip("openvino")
    (tmp_path / f"a{suffix}").write_text("nothing of ours")
    with pytest.raises(UserError, match=f"a{suffix}: .*\\("):
        load_predictor(tmp_path / f"a{suffix}")
    with pytest.raises(UserError, match="exports are made with"):
        load_predictor(tmp_path / f"b{suffix}")


def test_released_spd_network_exports(tmp_path):
    shutil.copy(GOLDEN / "yolov5n_spd.pt", tmp_path)
    assert export.main(ExportConfig.of(weights=tmp_path / "yolov5n_spd.pt", imgsz=(64, 64))) == 0


def test_a_checkpoint_for_yolov5_is_compared_and_says_what_it_is(tiny, capsys):
    options = {"include": ("yolov5", "torchscript"), "imgsz": (64,), "half": True}
    assert export.main(ExportConfig.of(weights=tiny, **options)) == 0
    assert "yolov5: largest difference from PyTorch on 2 inputs" in capsys.readouterr().out
    assert only_files(tiny.parent) == {"best.pt", "best_yolov5.pt", "best_fp16.torchscript"}
    ours, theirs = load_predictor(tiny), load_predictor(tiny.with_name("best_yolov5.pt"))
    assert (theirs.names, theirs.stride, theirs.imgsz) == (ours.names, ours.stride, None)
    images = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(theirs(images), ours(images), atol=0.5, rtol=2e-2)
    content = load_as_yolov5(tiny.with_name("best_yolov5.pt"))
    assert (content["opt"]["imgsz"], content["model"].names) == (64, ours.names)


def test_class_names_of_a_data_set_go_into_the_checkpoint_for_yolov5(tiny, tmp_path):
    (tmp_path / "d.yaml").write_text("train: a\nval: b\nnames: [x, y, z]\n")
    assert export.main(ExportConfig.of(weights=tiny, include=("yolov5",), data=tmp_path / "d.yaml")) == 0
    assert load_predictor(tiny.with_name("best_yolov5.pt")).names == ["x", "y", "z"]


@pytest.mark.parametrize("downsample", ["spd", "spectral", "diffstride"])
def test_what_yolov5_cannot_build_is_refused_before_anything_is_written(tmp_path, downsample):
    model = build_model(TINY, downsample=downsample)
    save_checkpoint(tmp_path / "best.pt", to_checkpoint(model))
    cfg = ExportConfig.of(weights=tmp_path / "best.pt", include=("torchscript", "yolov5"), imgsz=(64,))
    message = (
        rf"--include yolov5: .*best.pt: layer 4 downsamples by '{downsample}', which YOLOv5's code does not"
    )
    with pytest.raises(UserError, match=message):
        export.main(cfg)
    assert only_files(tmp_path) == {"best.pt"}


def test_a_classifier_is_not_written_for_yolov5(tmp_path):
    small = {"task": "classify", "nc": 2, "block": "basic", "depths": [1], "widths": [8, 8]}
    save_checkpoint(
        tmp_path / "best.pt", to_checkpoint(build_model(small | {"downsample": ["none", "none"]}))
    )
    with pytest.raises(UserError, match=r"--include yolov5 writes detectors, and .*best.pt is a classifier"):
        export.main(ExportConfig.of(weights=tmp_path / "best.pt", include=("yolov5",)))


def test_an_export_that_cannot_be_moved_leaves_the_older_folder(tiny, monkeypatch):
    pytest.importorskip("openvino")
    older = tiny.with_name("best_openvino_model")
    older.mkdir()
    (older / "model.xml").write_text("old")
    replace = os.replace

    def refuse(source, place):
        if Path(source).name == "openvino":
            raise OSError(28, "No space left on device")
        replace(source, place)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr("utils.files.exchange", lambda finished, target: False)  # as elsewhere than on Linux
    with pytest.raises(UserError, match=r"cannot write .*best_openvino_model: No space left"):
        export.main(ExportConfig.of(weights=tiny, include=("openvino",), imgsz=(64,)))
    assert (older / "model.xml").read_text() == "old"
    assert only_files(tiny.parent) == {"best.pt", "best_openvino_model"}


def test_file_that_differs_is_not_kept_and_the_old_one_stays(tiny, monkeypatch, capsys):
    tiny.with_suffix(".onnx").write_text("old")
    monkeypatch.setattr(parity, "compare", lambda *_: parity.Difference(3.0, 0.5, False, 2))
    monkeypatch.setattr("engine.runtimes.onnx.export_onnx", lambda model, file, *_: file.touch())
    monkeypatch.setattr(export, "_reload", lambda *_: None)
    assert export.main(ExportConfig.of(weights=tiny)) == 1
    assert "differ" in capsys.readouterr().err
    assert tiny.with_suffix(".onnx").read_text() == "old"
    assert only_files(tiny.parent) == {"best.pt", "best.onnx"}


def test_interrupted_export_leaves_nothing_behind(tiny, monkeypatch):
    def interrupt(model, file, *_):
        file.write_text("half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.runtimes.onnx.export_onnx", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export.main(ExportConfig.of(weights=tiny))
    assert only_files(tiny.parent) == {"best.pt"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"imgsz": (60,)}, "try --imgsz 64"),
        ({"weights": "missing.pt"}, "missing.pt"),
        ({"weights": "x.onnx"}, "is no checkpoint"),
        ({"opset": 9}, "writes opset 17 and later"),
        ({"opset": 12}, "--opset 12: PyTorch's exporter writes opset 17 and later"),
        (
            {"include": ("keras",)},
            "Choose from: all, coreml, engine, litert, ncnn, onnx, openvino, torchscript, triton, yolov5",
        ),
        ({"half": True, "int8": True}, "exclude each other"),
        ({"nms": True, "include": ("torchscript",)}, "not for torchscript"),
        ({"nms": True, "include": ("yolov5",)}, "not for yolov5"),
        ({"int8": True, "include": ("onnx", "yolov5")}, "not for yolov5"),
        ({"nms": True, "opset": 17}, "opset 18"),
        ({"int8": True}, "give the data set with --data"),
        ({"data": "data/treecrowns.yaml"}, "3 classes, but the data set names 1"),
    ],
)
def test_wrong_options_are_one_clear_line(tiny, options, message):
    with pytest.raises(UserError, match=message):
        export.main(ExportConfig.of(**({"weights": tiny} | options)))
    assert only_files(tiny.parent) == {"best.pt"}
