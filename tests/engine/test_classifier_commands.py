"""val.py, detect.py and export.py with classifiers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from engine.evaluation import command as val
from engine.evaluation.classification.metrics import ClassificationResult
from engine.export import command as export
from engine.inference import command as detect
from engine.runtimes import load_predictor
from models.build import build_model
from models.checkpoint import save_checkpoint
from models.load import to_checkpoint
from tests.classification_cases import SMALL_NETWORK, some_images, stripes
from utils.errors import UserError


def save_classifier(path: Path, architecture: str | dict, data: Path | None = None, side: int = 12) -> Path:
    """Write an untrained classifier whose logits differ clearly, as train.py would."""
    torch.manual_seed(0)
    model = build_model(architecture, num_classes=10)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    model.names = [f"class {i}" for i in range(10)]
    config = {"imgsz": side, "data": str(data) if data else None}
    save_checkpoint(path, to_checkpoint(model) | {"config": config, "resize": 10})
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stripes(tmp_path_factory.mktemp("stripes"), 30)


@pytest.fixture(scope="module")
def weights(data: Path) -> Path:
    return save_classifier(data.parent / "small.pt", yaml.safe_load(SMALL_NETWORK), data)


def test_val_counts_what_it_writes(data: Path, weights: Path, tmp_path: Path, capsys) -> None:
    options = {"weights": (weights,), "device": "cpu", "project": tmp_path}
    assert val.main(val.ValConfig.of(**options)) == 0
    metrics = json.loads((tmp_path / "exp/metrics.json").read_text())
    with (tmp_path / "exp/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert metrics["top1"] == pytest.approx(sum(row["true"] == row["predicted"] for row in rows) / 30)
    assert metrics["loss"] == pytest.approx(np.mean([float(row["loss"]) for row in rows]), abs=1e-4)
    assert np.sum(metrics["confusion"]) == 30
    assert {"confusion_matrix.png", "mistakes.png"} <= {path.name for path in (tmp_path / "exp").iterdir()}
    assert "the weights call the classes class 0" in "".join(capsys.readouterr())
    val.main(val.ValConfig.of(**options | {"weights": (weights, weights), "plots": False}))  # an ensemble
    again = json.loads((tmp_path / "exp2/metrics.json").read_text())
    assert again["loss"] == pytest.approx(metrics["loss"], rel=1e-5)


def test_metrics_equal_slow_counts() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(40, 7)).astype(np.float32), rng.integers(0, 6, 40)
    result = ClassificationResult(scores, labels, tuple("abcdefg"), 0.0)
    for k in (1, 5):
        hits = [labels[i] in sorted(range(7), key=lambda c: -scores[i, c])[:k] for i in range(40)]
        assert result.top(k) == pytest.approx(np.mean(hits))
    for c in range(6):
        of_class = [i for i in range(40) if labels[i] == c]
        assert result.per_class()[c] == pytest.approx(np.mean([scores[i].argmax() == c for i in of_class]))
    assert result.per_class()[6] is None
    wrong = [i for i in range(40) if scores[i].argmax() != labels[i]]
    assert result.worst(3).tolist() == sorted(wrong, key=lambda i: scores[i, labels[i]])[:3]


def test_detect_labels_images_and_videos(weights: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number, image in enumerate(some_images(2, 20)):
        cv2.imwrite(str(source / f"{number}.png"), image)
    video = cv2.VideoWriter(str(source / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (40, 32))
    for _ in range(3):
        video.write(np.zeros((32, 40, 3), np.uint8))
    video.release()
    options = {"save_txt": True, "save_csv": True, "device": "cpu", "project": tmp_path / "runs"}
    assert detect.main(detect.DetectConfig.of(weights=(weights,), source=(str(source),), **options)) == 0
    folder = tmp_path / "runs/exp"
    assert cv2.imread(str(folder / "0.png")).shape == (260, 260, 3)  # enlarged, so that words fit
    assert (folder / "film.mp4").exists() or (folder / "film.avi").exists()
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (2 + 3) * 5
    lines = (folder / "labels/1.txt").read_text().splitlines()
    of_file = [row for row in rows if row["file"].endswith("1.png")]
    assert lines == [f"{row['confidence']} {row['name']}" for row in of_file]


def test_detect_shows_images_as_training_did(data: Path, weights: Path, tmp_path: Path) -> None:
    from data.classification.dataset_yaml import read_classification_yaml
    from data.classification.reading import read_labeled_images

    description = read_classification_yaml(data)
    inputs = read_labeled_images(description, "val", description.transform(12)).pixels[:1].repeat(3, 3)
    predictor = load_predictor(weights, task="classify")
    expected = predictor(torch.from_numpy(inputs).permute(0, 3, 1, 2) / 255).softmax(1).max().item()
    with np.load(data.parent / "test.npz") as content:
        cv2.imwrite(str(tmp_path / "a.png"), content["images"][0])
    options = {"save_txt": True, "nosave": True, "device": "cpu", "project": tmp_path / "runs"}
    detect.main(detect.DetectConfig.of(weights=(weights,), source=(str(tmp_path / "a.png"),), **options))
    first = (tmp_path / "runs/exp/labels/a.txt").read_text().split()[0]
    assert float(first) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("val", {"conf_thres": 0.3}, "--conf-thres is for detectors"),
        ("val", {"save_json": True}, "--save-json is for detectors"),
        ("detect", {"tile": "320"}, "--tile is for detectors"),
        ("detect", {"track": "bytetrack"}, "--track is for detectors"),
        ("detect", {"imgsz": (12, 16)}, "--imgsz takes one side"),
        ("export", {"nms": True}, "--nms is for detectors"),
        ("export", {"int8": True}, "--int8 is for detectors"),
        ("val", {"imgsz": 8}, "--imgsz 8 does not hold"),
        ("val", {"data": Path("data/treecrowns.yaml")}, "not a data set for classification"),
    ],
)
def test_options_of_detectors_are_refused_in_one_line(
    command: str, options: dict, message: str, weights: Path, tmp_path: Path
) -> None:
    module = {"val": val, "detect": detect, "export": export}[command]
    kind = {"val": "ValConfig", "detect": "DetectConfig", "export": "ExportConfig"}[command]
    given = {"weights": weights if command == "export" else (weights,), "device": "cpu"} | options
    if command != "export":
        given["project"] = tmp_path
    with pytest.raises(UserError, match=message):
        module.main(getattr(module, kind).of(**given))
    assert not list(tmp_path.iterdir())


def small(name: str) -> dict:
    """The network of that name: its stem and its last two stages, with few channels."""
    whole = build_model(name).yaml
    ends = {key: [whole[key][i] for i in (0, -2, -1)] for key in ("downsample", "strides")}
    return {**whole, **ends, "depths": [1, 1], "widths": [8, 8, 8]}


@pytest.mark.parametrize("name", ["resnet50-spd", "resnet18-hybrid"])
def test_classifiers_export_to_equal_logits(name: str, tmp_path: Path) -> None:
    if name == "resnet18-hybrid" and torch.__version__ < "2.7":
        pytest.skip("torch 2.6 exports no cut-offs that are learned (docs/export.md)")
    architecture = small(name)
    file = save_classifier(tmp_path / "net.pt", architecture, side=32)
    if "diffstride" in architecture["downsample"]:  # as if it had learned
        content = torch.load(file, weights_only=True)
        for key, value in content["weights"].items():
            if key.endswith(".strides"):
                value.copy_(torch.tensor([1.7, 2.3]))
        torch.save(content, file)
    formats = ("onnx", "openvino", "torchscript") if name == "resnet18-hybrid" else ("onnx",)
    if "openvino" in formats:
        pytest.importorskip("openvino", reason="OpenVINO is optional: pip install openvino")
    assert export.main(export.ExportConfig.of(weights=file, include=formats, dynamic=True)) == 0
    expected = load_predictor(file, task="classify")
    images = torch.rand(3, 3, 32, 32)
    for path in ("net.onnx", "net_openvino_model", "net.torchscript")[: len(formats)]:
        exported = load_predictor(tmp_path / path, task="classify")
        assert torch.allclose(exported(images), expected(images), rtol=1e-4, atol=1e-4)
        assert (exported.task, exported.names, exported.imgsz) == ("classify", expected.names, (32, 32))
        assert exported.config["resize"] == 10
    with pytest.raises(UserError, match="for the task 'classify', not for detection"):
        load_predictor(tmp_path / "net.onnx")
