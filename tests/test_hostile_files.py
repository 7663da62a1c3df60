"""Files that break, ask for gigabytes or start programs: each is one line, soon, and nothing is run."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import resource
import struct
import sys
import time
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from data.classification import cifar, mnist, npz
from data.classification.dataset_yaml import read_classification_yaml
from data.dataset_yaml import read_dataset_yaml
from data.detection.coco_json import read_coco
from data.detection.record_cache import load_cache
from data.detection.records import read_records
from data.media.image_files import ImageReadError, read_image, read_size
from data.media.sources import open_source
from data.tiling import tile_boxes
from engine.evaluation.coco_results import Known, read_results
from engine.runtimes import load_predictor
from engine.runtimes.metadata import Metadata
from engine.training.hyperparameters import read_hyp
from engine.training.results_csv import drop_rows_from
from models import build_model
from models.checkpoint import read_checkpoint
from models.load import to_checkpoint
from utils.errors import UserError
from utils.files import read_yaml

SECONDS, MEGABYTES = 5, 500
COCO = {
    "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
    "categories": [{"id": 1, "name": "a"}],
}
TEXT = json.dumps(COCO)
KNOWN = Known(Path("g"), {1: 0}, {1: 0}, [(64, 64)])


@pytest.fixture(autouse=True)
def soon_and_small() -> Iterator[None]:
    """Every file is done with within 5 s of this process and 500 MB more than before."""
    before, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - before < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEGABYTES * 1024


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    return {"format": 1, **to_checkpoint(build_model("yolov5n", 1))}


def refused(read: Callable[[], Any], *errors: type[Exception]) -> str:
    with pytest.raises(errors or UserError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


BOMB = "a: &a [" + ",".join(["lol"] * 10) + "]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(12)
)  # fmt: skip
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{','.join(['*' + chr(97 + i)] * 10)}]}}\n" for i in range(12)
)
YAMLS = {
    "date": "lr0: 2001-13-45", "tag": "lr0: !!int x", "stamp": "lr0: !!timestamp x", 
    "digits": "lr0: " + "9" * 5000,
    "deep": "lr0: " + "[" * 3000, "aliases": BOMB, "itself": "lr0: &a [*a]",
    "large": "a" * 300_000,
}  # fmt: skip


def test_merge_keys_without_end_take_no_time(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MERGES)
    try:
        assert read_yaml(tmp_path / "m.yaml")["m"] == {"x": 1, "y": 2}  # newer releases of PyYAML
    except UserError as error:
        assert "merged by <<" in str(error)


@pytest.mark.parametrize("name", YAMLS)
def test_a_hostile_yaml_is_one_line_for_every_command_that_reads_one(tmp_path: Path, name: str) -> None:
    file = tmp_path / "h.yaml"
    file.write_text(YAMLS[name])
    for read in (read_yaml, read_hyp, read_dataset_yaml, read_classification_yaml, build_model):
        assert str(file) in refused(lambda read=read: read(file))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({**COCO, "annotations": None}),
        TEXT.replace('"width": 64', '"width": NaN'),
        TEXT.replace('"width": 64', '"width": 1e400'),
        TEXT.replace('"width": 64', '"width": -3'),
        TEXT.replace("[1, 2", "[" + "9" * 5000 + ", 2"),
        TEXT.replace('"id": 1', '"id": ' + "9" * 50, 1),
        "[" * 100_000,
        json.dumps({**COCO, "categories": [{"id": i, "name": "a"} for i in range(10_001)]}),
    ],
)
def test_a_hostile_coco_file_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    assert str(file) in refused(lambda: read_coco(file, ("a",)))


@pytest.mark.parametrize("box", ["[1, 2, 1e39, 4]", "[" + "9" * 400 + ", 2, 3, 4]", "[1, 2, NaN, 4]", '"x"'])
def test_a_box_that_no_image_holds_is_a_bad_row(tmp_path: Path, box: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(TEXT.replace("[1, 2, 3, 4]", box))
    images, _, faults, _ = read_coco(file, ("a",))
    assert len(faults) == 1
    assert not len(images[0].annotations.classes)


@pytest.mark.parametrize(
    "text", ["[", "[" * 100_000, "[1", '[{"image_id": []}]', "[null]", "[" + "9" * 5000 + "]"]
)
def test_a_hostile_results_file_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "r.json"
    file.write_text(text)
    assert str(file) in refused(lambda: read_results(file, KNOWN))


def checkpoint_changes(good: dict[str, Any]) -> dict[str, dict[str, Any]]:
    model, weights = good["model"], good["weights"]
    return {
        "number as key": {"weights": {1: torch.ones(1)}},
        "no tensors": {"weights": dict.fromkeys(weights)},
        "config is text": {"config": "x"},
        "infinite width": {"model": {**model, "width_multiple": float("inf")}},
        "activation": {"model": {**model, "activation": "nn.LeakyReLU(1.2.3)"}},
        "channels": {"model": {**model, "ch": 10**8}},
        "classes": {"model": {**model, "nc": 10**6}},
        "channel_multiple": {"model": {**model, "channel_multiple": 10**8}},
        "repeats": {"model": {**model, "depth_multiple": 1e8}},
        "meta": {"weights": {key: value.to("meta") for key, value in weights.items()}},
        "expanded": {"weights": {"x": torch.zeros(1).expand(10**9)}},
        "training is a list": {"training": [1]},
    }


@pytest.mark.parametrize("name", checkpoint_changes({"model": {}, "weights": {}}))
def test_a_checkpoint_with_a_field_of_the_wrong_kind_is_one_line(
    tmp_path: Path, good: dict[str, Any], name: str
) -> None:
    file = tmp_path / "a.pt"
    torch.save({**good, **checkpoint_changes(good)[name]}, file)
    assert str(file) in refused(lambda: load_predictor(file))


@pytest.mark.parametrize("state", [{"cyclic": True}, {"names": 5}, {"_parameters": [1]}])
def test_a_hostile_pickle_of_yolov5_is_one_line(
    tmp_path: Path, good: dict[str, Any], state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("models.yolo")
    network_class = type("DetectionModel", (), {"__module__": "models.yolo"})
    module.DetectionModel = network_class  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "models.yolo", module)
    network = network_class()
    network.__dict__.update(yaml=good["model"], nc=1, names=["a"], _parameters={}, _buffers={}, _modules={})
    network.__dict__.update(state)
    if "cyclic" in state:
        network.__dict__["_modules"]["a"] = network
    torch.save({"model": network}, tmp_path / "a.pt")
    assert "a.pt" in refused(lambda: read_checkpoint(tmp_path / "a.pt"))


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_small_checkpoint_that_asks_for_gigabytes_is_refused(tmp_path: Path, compression: int) -> None:
    ask = b"\x80\x02cbuiltins\nbytearray\n(J" + struct.pack("<i", 2_000_000_000) + b"tR."
    (tmp_path / "b.pt").write_bytes(
        archive({"archive/data.pkl": ask, "archive/version": b"3\n"}, compression)
    )
    assert "refused" in refused(lambda: read_checkpoint(tmp_path / "b.pt"))


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_hostile_files_of_classification_data_are_one_line(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3072), np.uint8)
    nested: list[Any] = [1]
    for _ in range(25):
        nested = [nested, nested]
    for content in (
        b"\x80\x02}(U\x04datacnumpy\nndarray\n)RU\x06labels]u.",
        pickle.dumps({b"data": pixels, b"labels": [[1], [2, 3]]}, 2),
        pickle.dumps({b"data": pixels, b"labels": nested}, 2),
        b"\x80\x02Nr" + struct.pack("<I", 2**27) + b".",
    ):
        (tmp_path / "batch").write_bytes(content)
        refused(lambda: cifar._pickled(tmp_path / "batch", 10))
    header = b"{'descr':'|u1','fortran_order':False,'shape':(1000000000000,)}"
    header += b" " * (64 - (len(header) + 11) % 64) + b"\n"
    huge = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    labels = npy(np.array([0]))
    broken = bytearray(archive({"images.npy": npy(np.zeros((1, 80, 80), np.uint8)), "labels.npy": labels}))
    broken[40:60] = b"\xff" * 20
    for content in (archive({"images.npy": huge, "labels.npy": labels}), bytes(broken)):
        (tmp_path / "a.npz").write_bytes(content)
        refused(lambda: npz._arrays(tmp_path / "a.npz", "train"))
    idx = tmp_path / "train-images-idx3-ubyte"
    with gzip.open(idx, "wb", 1) as stream:
        stream.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", 280, 1000, 1000))
        for _ in range(28):
            stream.write(bytes(10**7))
    assert "280,000,000 bytes unpacked" in refused(lambda: mnist._read_idx(idx, 3))


def jpeg_with_size(width: int, height: int) -> bytes:
    encoded = bytearray(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
    place = encoded.find(b"\xff\xc0")
    encoded[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(encoded)


def test_an_image_that_its_file_cannot_hold_is_refused_by_its_header(tmp_path: Path) -> None:
    png = bytearray(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    png[16:24] = struct.pack(">II", 30_000, 30_000)
    for name, content in (("a.jpg", jpeg_with_size(20_000, 20_000)), ("a.png", bytes(png))):
        (tmp_path / name).write_bytes(content)
        for read in (read_size, read_image):
            refused(lambda read=read, name=name: read(tmp_path / name), ImageReadError)


def test_postscript_named_jpg_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gs = tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gs.parent}:{os.environ['PATH']}")
    file = tmp_path / "a.jpg"
    file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n")
    for read in (read_size, read_image, lambda file: list(open_source(str(file)))):
        refused(lambda read=read: read(file), ImageReadError, UserError)
    assert not (tmp_path / "called").exists()


def test_a_fifo_and_an_endless_link_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "a.mp4")
    (tmp_path / "b.jpg").symlink_to("/dev/zero")
    for name in ("a.jpg", "a.mp4", "b.jpg"):
        assert "only regular files" in refused(
            lambda name=name: list(open_source([str(tmp_path / name)])), UserError
        )
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    cv2.imwrite(str(images / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "d.yaml").write_text(
        yaml.safe_dump({"path": str(tmp_path), "train": "images", "names": ["a"]})
    )
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        make(labels / "a.txt")
        assert "only regular files" in refused(
            lambda: read_records(read_dataset_yaml(tmp_path / "d.yaml"), "train")
        )
        (labels / "a.txt").unlink()


def test_a_playlist_named_mp4_reaches_no_decoder(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n")
    assert "none of the formats" in refused(lambda: list(open_source(str(file))))


def test_a_list_with_a_nul_and_too_many_tiles_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"a\0.png\n")
    (tmp_path / "d.yaml").write_text(
        yaml.safe_dump({"path": str(tmp_path), "train": "l.txt", "names": ["a"]})
    )
    assert "NUL" in refused(lambda: read_records(read_dataset_yaml(tmp_path / "d.yaml"), "train"))
    assert "NUL" in refused(lambda: open_source(str(tmp_path / "l.txt")))
    assert "tiles of one image" in refused(lambda: tile_boxes(4000, 3000, 1, 0.0))


def test_metadata_that_no_network_has_is_one_line() -> None:
    names = '["a"]'
    for strings in (
        {"names": names, "stride": "Infinity"},
        {"names": names, "stride": "0"},
        {"names": names, "stride": "32", "imgsz": "[1e9, 64]"},
        {"names": names, "stride": "32", "batch": "1e12"},
        {"names": json.dumps(["a"] * 10_001), "stride": "32"},
        {"names": '"' + "a" * 3_000_000 + '"', "stride": "32"},
    ):
        assert "x.onnx" in refused(lambda strings=strings: Metadata.from_strings(strings, "x.onnx"))


ROWS = {
    "kernel": [-1, 1, "Conv", [64, 100_000, 1]],
    "channels": [-1, 1, "Conv", [10**9, 3, 1]],
    "repeats": [-1, 10**6, "C3", [64]],
    "factor": [-1, 1, "nn.Upsample", [None, 100, "nearest"]],
    "padding": [-1, 1, "Conv", [8, 1, 1, 10**5]],
    "expansion": [-1, 1, "C3", [64, True, 1, 1e5]],
    "sides": [-1, 1, "nn.ZeroPad2d", [10**6]],
}


@pytest.mark.parametrize("name", ROWS)
def test_a_layer_that_is_too_large_is_refused_before_it_is_made(name: str) -> None:
    content = {
        "nc": 1,
        "anchors": [[10, 13]],
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], ROWS[name]],
        "head": [[[0], 1, "Detect", ["nc", "anchors"]]],
    }
    assert "at most" in refused(lambda: build_model(content))


def test_a_damaged_label_cache_is_read_again_and_results_are_named(tmp_path: Path) -> None:
    (tmp_path / "c.npz").write_bytes(archive({"header.npy": npy(np.zeros(3, np.uint8))}))
    assert load_cache(tmp_path / "c.npz", "", None) is None
    (tmp_path / "results.csv").write_bytes(b"epoch,a\n\xff")
    assert "results.csv" in refused(lambda: drop_rows_from(tmp_path / "results.csv", 3))


def test_onnx_tensors_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    for location in ("../secret", "/etc/passwd", "missing.bin"):
        tensor = TensorProto(
            name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL
        )
        tensor.external_data.add(key="location", value=location)
        value = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
        output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 3, 8])
        graph = helper.make_graph(
            [helper.make_node("Add", ["images", "w"], ["output0"])], "g", [value], [output], [tensor]
        )
        (tmp_path / "a.onnx").write_bytes(helper.make_model(graph).SerializeToString())
        assert location in refused(lambda: load_predictor(tmp_path / "a.onnx", names=["a"]))


def test_an_endless_loop_in_an_onnx_graph_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx import helper, parser

    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]>
        g (float[1, 3, 8, 8] images) => (float[1, 3, 8] output0)
        <int64 most = {9223372036854775807}, bool yes = {1}, int64[1] three = {3}>
        {
          start = ReduceSum <keepdims = 0> (images, three)
          output0 = Loop (most, yes, start) <body = b
            (int64 i, bool c, float[1, 3, 8] x) => (bool d, float[1, 3, 8] y) {
            d = Identity(c)
            y = Sin(x)
          }>
        }"""
    )
    helper.set_model_props(model, {"names": json.dumps(["a"] * 3), "stride": "8"})
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    monkeypatch.setenv("YOLOV5_SPD_LIMITS", "loop_seconds=1")
    predictor = load_predictor(tmp_path / "a.onnx")
    assert "seconds of one run" in refused(lambda: predictor(torch.zeros(1, 3, 8, 8)))


def test_an_openvino_file_with_entities_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "a.xml").write_text('<!DOCTYPE net [<!ENTITY x SYSTEM "file:///etc/passwd">]><net>&x;</net>')
    assert "document type" in refused(lambda: load_predictor(tmp_path / "a.xml"))


def test_a_torchscript_file_is_said_to_be_a_program(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from engine.runtimes import torchscript

    torchscript._say_once.cache_clear()
    (tmp_path / "a.torchscript").write_bytes(b"x")
    for _ in range(2):
        refused(lambda: load_predictor(tmp_path / "a.torchscript"))
    assert caplog.text.count("is a program") == 1
