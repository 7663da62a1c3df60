"""The readers of strangers' files, each as a function of a file's bytes.

A target returns, or raises a `UserError` (or a reader's own error for one broken image or video). Whatever
else it raises is a fault, and so is taking 5 seconds, or 500 MB.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

NAMES = ("car", "person")


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        read: takes the bytes of a file.
        structured: whether good files are JSON, so that their values can be changed one by one.
        runs: in a test run, about half a second of them.
    """

    read: Callable[[bytes], Any]
    structured: bool = False
    runs: int = 1000


@cache
def folder() -> Path:
    """Where the files lie; an empty folder of this process."""
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def written(name: str, content: bytes) -> Path:
    """Write a file of that name and return it."""
    path = folder() / name
    path.write_bytes(content)
    return path


def labels(content: bytes) -> None:
    from data.detection.yolo_labels import read_labels

    read = read_labels(written("l.txt", content), NAMES)
    assert len(read.classes) == len(read.boxes_xyxy_norm)
    assert ((read.boxes_xyxy_norm >= 0) & (read.boxes_xyxy_norm <= 1)).all()


def coco(content: bytes) -> None:
    from data.detection.coco_json import read_category_ids, read_coco
    from utils.errors import UserError

    file = written("instances.json", content)
    try:
        images, *_ = read_coco(file, NAMES)
    except UserError:
        read_coco(file, NAMES, (1, 2))
        raise
    assert all(image.width > 0 for image in images)
    read_category_ids(file, NAMES)


def coco_results(content: bytes) -> None:
    import numpy as np

    from engine.evaluation.coco_results import Known, read_results

    known = Known(Path("instances.json"), {1: 0, "b": 1}, {1: 0, 3: 1}, [(64, 64), (640, 480)])
    columns, _ = read_results(written("results.json", content), known)
    assert np.isfinite(columns.boxes_xywh).all()


def dataset_yaml(content: bytes) -> None:
    from data.dataset_yaml import read_class_names, read_dataset_yaml
    from utils.errors import UserError

    file = written("d.yaml", content)
    with contextlib.suppress(UserError):
        read_class_names(file)
    read_dataset_yaml(file)


def classification_yaml(content: bytes) -> None:
    from data.classification.dataset_yaml import read_classification_yaml

    read_classification_yaml(written("c.yaml", content))


def model_yaml(content: bytes) -> None:
    from models import build_model

    build_model(written("m.yaml", content))


def hyp_yaml(content: bytes) -> None:
    from engine.training.classifier_hyperparameters import ClassifierHyperparameters
    from engine.training.hyperparameters import read_hyp
    from utils.errors import UserError

    file = written("h.yaml", content)
    with contextlib.suppress(UserError):
        read_hyp(file, ClassifierHyperparameters)
    read_hyp(file)


def results_csv(content: bytes) -> None:
    from engine.training.results_csv import append_row, drop_rows_from, rename_columns

    file = written("results.csv", content)
    rename_columns(file, {"train/box_loss": "train/box", "epoch": "step"})
    drop_rows_from(file, 2)
    append_row(file, {"epoch": 2, "train/box_loss": 0.5, "metrics/mAP_0.5": None})


def path_list(content: bytes) -> None:
    from data.media.sources import open_source
    from data.paths import read_lines

    file = written("list.txt", content)
    if all(map(_is_local, read_lines(file))):
        open_source(str(file))


def source(content: bytes) -> None:
    from data.media.sources import open_source

    text = content.decode("utf-8", "surrogateescape")
    written("i.jpg", b"")
    if _is_local(text):
        open_source(text)


def _is_local(text: str) -> bool:
    """Whether a source lies below the current folder, so that a glob does not walk this machine's disk."""
    return not text.lstrip().startswith(("/", "~", "\\")) and ".." not in text


def image(content: bytes) -> None:
    from data.media.image_files import ImageReadError, read_image, read_size

    file = written("i.jpg", content)
    sizes = []
    for read in (read_size, lambda file: read_image(file).shape[1::-1]):
        try:
            sizes.append(read(file))
        except ImageReadError:
            continue
    assert all(min(size) > 0 for size in sizes)


def video(content: bytes) -> None:
    from data.media.sources import open_source

    source = open_source(str(written("v.gif" if content.startswith(b"GIF") else "v.mp4", content)))
    str(source), source.count
    for frame in islice(source, 3):
        assert frame.image.ndim == 3


def idx(content: bytes) -> None:
    from data.classification.mnist import _read_idx
    from utils.errors import UserError

    file = written("train-images-idx3-ubyte", content)
    try:
        _read_idx(file, 3)
    except UserError:
        _read_idx(file, 1)


def cifar(content: bytes) -> None:
    from data.classification import cifar as reader
    from utils.errors import UserError
    from utils.reading import reading

    for name, read in (("b.bin", reader._binary), ("b", reader._pickled)):
        file = written(name, content)
        for classes in (10, 100):
            try:
                with reading(file, "a CIFAR batch"):
                    read(file, classes)
            except UserError:
                continue


def npz(content: bytes) -> None:
    from data.classification.npz import _arrays

    _arrays(written("a.npz", content), "train")


def label_cache(content: bytes) -> None:
    from data.detection.record_cache import load_cache

    loaded = load_cache(written("c.npz", content), "", [])
    for record in loaded[0] if loaded else ():
        assert len(record.classes) == len(record.boxes_xywh)


def pixel_cache(content: bytes) -> None:
    from data.detection.pixel_cache import StoredPixels

    picture = written("p.png", b"x")
    os.utime(picture, ns=(0, 0))
    store = StoredPixels([picture.parent], None)
    (picture.parent / ".pixels" / "p.png.full.bgr").write_bytes(content)
    pixels = store.get(picture, (2, 3))
    assert pixels is None or pixels.shape == (2, 3, 3)


def checkpoint(content: bytes) -> None:
    from models.load import load_model

    load_model(written("w.pt", content))


@cache
def _trained() -> dict[str, Any]:
    """A checkpoint's content in the middle of a training, of a tiny network."""
    import torch

    from engine.training.config import TrainConfig
    from models import build_model
    from models.load import to_checkpoint

    torch.manual_seed(0)
    model = build_model(TINY)
    state = _state(model)
    return {
        "format": 1,
        **to_checkpoint(model),
        "config": TrainConfig().plain(),
        "epoch": 1,
        "best_fitness": 0.5,
        "training": state.state_dict(),
    }


TINY = {
    "nc": 2,
    "anchors": [[10, 13, 16, 30]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]],
    "head": [[[1], 1, "Detect", ["nc", "anchors"]]],
}


def _state(model: Any) -> Any:
    from engine.training.hyperparameters import Hyperparameters
    from engine.training.optimizer import Schedule
    from engine.training.state import TrainState

    return TrainState(model, Hyperparameters(), Schedule(2, 3, 4, 4, warmup_epochs=0.0))


def _changed_checkpoint(content: bytes, *within: str) -> dict[str, Any]:
    """A checkpoint of which some values are changed, as the bytes say; none of the bytes "good".

    Args:
        content: what happens.
        within: keys of the checkpoint, of which one is changed first; all of them by default.
    """
    from tests.fuzz.mutate import changed_value

    if content.endswith(b"good"):
        return _trained()
    rng = random.Random(content)
    tree: dict[str, Any] = dict(_trained())
    for number in range(rng.choice((1, 1, 2))):
        key = rng.choice(within if within and not number else list(tree))
        changed = changed_value({key: _own_containers(tree[key])}, rng)
        tree = {**tree, **changed} if key in changed else {k: v for k, v in tree.items() if k != key}
    return tree


def _own_containers(tree: Any) -> Any:
    """Copy dicts and lists, whose values are then changed, but not their tensors."""
    if isinstance(tree, dict):
        return {key: _own_containers(value) for key, value in tree.items()}
    return [_own_containers(value) for value in tree] if isinstance(tree, list) else tree


@cache
def _large_file() -> Path:
    """A file that could hold the tensors of the checkpoint."""
    return written("fields.pt", bytes(10**6))


def checkpoint_fields(content: bytes) -> None:
    from models.checkpoint import _bounded, _checked
    from models.load import from_checkpoint
    from utils.reading import reading

    file = _large_file()
    with reading(file, "a checkpoint"):
        checked = _checked(_bounded(_changed_checkpoint(content), file), file)
    from_checkpoint(checked, str(file))


def resumed_options(content: bytes) -> None:
    from unittest import mock

    from engine.training import resume
    from engine.training.config import TrainConfig
    from models.checkpoint import _checked

    file = folder() / "w.pt"
    checked = _checked(_changed_checkpoint(content, "config", "epoch", "training"), file)
    with mock.patch.object(resume, "read_checkpoint", lambda path: checked):
        run = resume.interrupted_run(TrainConfig.of(resume=str(file)))
    run.check_names(["0", "1"], file)


@cache
def _resumed() -> Any:
    """A state that takes one file after the other: what one leaves behind is no reason to refuse the next."""
    from models import build_model

    return _state(build_model(TINY))


def training_state(content: bytes) -> None:
    changed = _changed_checkpoint(content, "training", "weights")
    if isinstance(changed.get("training"), dict) and isinstance(changed.get("weights"), dict):
        _resumed().load_state_dict(changed["training"], changed["weights"])


def metadata(content: bytes) -> None:
    from engine.runtimes.metadata import Metadata

    try:
        strings = json.loads(content)
    except (ValueError, RecursionError):
        strings = {"names": content.decode("latin1"), "stride": "32"}
    if isinstance(strings, dict):
        texts = {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in strings.items()
        }
        Metadata.from_strings(texts, "x.onnx")


def onnx(content: bytes) -> None:
    from engine.runtimes.onnx_checks import check_model

    check_model(written("m.onnx", content))


def openvino(content: bytes) -> None:
    from engine.runtimes.metadata import Metadata
    from engine.runtimes.openvino import _beside, check_files

    check_files(written("m.xml", content))
    written("m.yaml", content)
    Metadata.from_strings(_beside(folder() / "m.xml"), "m.xml")


def ncnn(content: bytes) -> None:
    import torch

    from engine.runtimes import ncnn as runtime
    from utils.errors import UserError

    text, _, weights = content.partition(b"\0")  # both files in one
    file, metadata = written("n.param", text), "stride: 32\nnames: [tree]\nimgsz: [8, 8]\n"
    written("n.bin", weights)
    written(runtime.METADATA, metadata.encode())
    runtime.check_files(file)
    with contextlib.suppress(UserError):  # also where NCNN is not installed
        runtime.load(file, torch.device("cpu"), True, False)(torch.zeros(1, 3, 8, 8))


def litert(content: bytes) -> None:
    from engine.runtimes.litert import _check_start, _strings
    from engine.runtimes.metadata import Metadata

    file = written("l.tflite", content)
    _check_start(file)
    Metadata.from_strings(_strings(file), "l.tflite")


def voc(content: bytes) -> None:
    from data.converters.voc import _read_image

    _read_image(written("v.xml", content))


def text_tables(content: bytes) -> None:
    from collections import Counter

    from data.converters import dota, visdrone
    from utils.errors import UserError

    file = written("t.txt", content)
    for read in (dota._read_objects, visdrone._read_objects):
        try:
            read(file, Counter())
        except UserError:
            continue


def geojson(content: bytes) -> None:
    from data.converters.xview import _features, _read_feature

    for number, feature in enumerate(_features(written("x.geojson", content))):
        _read_feature(f"feature {number}", feature)


@cache
def _commands() -> dict[str, Any]:
    from engine.evaluation.config import ValConfig
    from engine.export.config import ExportConfig
    from engine.inference.config import DetectConfig
    from engine.training.config import TrainConfig

    return {"train": TrainConfig, "val": ValConfig, "detect": DetectConfig, "export": ExportConfig}


def options(content: bytes) -> None:
    from utils.cli import parse

    command, *words = content.decode("utf-8", "surrogateescape").split("\n")
    if not {"-h", "--help"} & set(words):
        parse(_commands().get(command, _commands()["train"]), words, "x").plain()


def limits(content: bytes) -> None:
    from utils.limits import lifted

    lifted.__wrapped__(content.decode("utf-8", "surrogateescape"))


TARGETS: dict[str, Target] = {
    "labels": Target(labels),
    "coco": Target(coco, structured=True),
    "coco_results": Target(coco_results, structured=True),
    "dataset_yaml": Target(dataset_yaml, structured=True, runs=300),
    "classification_yaml": Target(classification_yaml, structured=True, runs=300),
    "model_yaml": Target(model_yaml, structured=True, runs=60),
    "hyp_yaml": Target(hyp_yaml, structured=True, runs=300),
    "results_csv": Target(results_csv),
    "path_list": Target(path_list, runs=500),
    "source": Target(source),
    "image": Target(image, runs=300),
    "video": Target(video, runs=60),
    "idx": Target(idx),
    "cifar": Target(cifar, runs=300),
    "npz": Target(npz, runs=300),
    "label_cache": Target(label_cache, runs=300),
    "pixel_cache": Target(pixel_cache, runs=500),
    "checkpoint": Target(checkpoint, runs=60),
    "checkpoint_fields": Target(checkpoint_fields, runs=60),
    "resumed_options": Target(resumed_options, runs=40),
    "training_state": Target(training_state, runs=30),
    "metadata": Target(metadata, structured=True),
    "onnx": Target(onnx, runs=500),
    "openvino": Target(openvino, structured=True, runs=300),
    "ncnn": Target(ncnn, runs=200),
    "litert": Target(litert, runs=300),
    "voc": Target(voc, runs=500),
    "text_tables": Target(text_tables),
    "geojson": Target(geojson, structured=True),
    "options": Target(options, runs=40),
    "limits": Target(limits),
}
