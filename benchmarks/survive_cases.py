"""What is interrupted by `benchmarks.survive`, what is done next, and what must then be there."""

from __future__ import annotations

import csv
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

from utils.cli import run

NETWORK = """
nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[12, 12, 16, 16, 24, 24]]
backbone: [[-1, 1, Conv, [8, 3, 2]], [-1, 1, Conv, [16, 3, 2]], [-1, 1, Conv, [16, 3, 2]]]
head: [[[2], 1, Detect, [nc, anchors]]]
"""
SIDE, IMAGES, FRAMES = 64, 4, 12


def make_inputs(folder: Path) -> None:
    """Write a data set with labels and as VOC, a video, a network and its weights, untrained."""
    from models import build_model
    from models.checkpoint import save_checkpoint
    from models.load import to_checkpoint

    rng = np.random.default_rng(0)
    frames = [_image(rng) for _ in range(IMAGES)]
    for split in ("train", "val"):
        for number, (image, rows, xml) in enumerate(frames):
            for part in ("images", "labels"):
                (folder / part / split).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"images/{split}/{number}.png"), image)
            (folder / f"labels/{split}/{number}.txt").write_text("\n".join(rows))
            (folder / "voc").mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"voc/{number}.png"), image)
            (folder / f"voc/{number}.xml").write_text(xml)
    description = {"path": ".", "train": "images/train", "val": "images/val", "names": ["light", "dark"]}
    (folder / "data.yaml").write_text(yaml.safe_dump(description))
    (folder / "small.yaml").write_text(NETWORK)
    writer = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (SIDE, SIDE))
    for number in range(FRAMES):
        writer.write(frames[number % IMAGES][0])
    writer.release()
    for seed, name in enumerate(("w.pt", "old.pt")):
        torch.manual_seed(seed)
        save_checkpoint(folder / name, to_checkpoint(build_model(folder / "small.yaml")))


def _image(rng: np.random.Generator) -> tuple[np.ndarray, list[str], str]:
    """A gray image with a light and a dark square, its YOLO labels and its XML."""
    image, rows = np.full((SIDE, SIDE, 3), 120, np.uint8), []
    xml = f"<annotation><size><width>{SIDE}</width><height>{SIDE}</height></size>"
    for category, value in enumerate((255, 0)):
        x, y = rng.integers(4 + 30 * category, 12 + 30 * category), rng.integers(4, 44)
        image[y : y + 16, x : x + 16] = value
        rows.append(f"{category} {(x + 8) / SIDE} {(y + 8) / SIDE} 0.25 0.25")
        corners = zip(("xmin", "ymin", "xmax", "ymax"), (x + 1, y + 1, x + 16, y + 16), strict=True)
        box = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
        xml += f"<object><name>{('light', 'dark')[category]}</name><bndbox>{box}</bndbox></object>"
    return image, rows, xml + "</annotation>"


class Case(ABC):
    """A command that is interrupted.

    Attributes:
        name: in the table.
    """

    name: str

    def prepare(self, folder: Path) -> None:  # noqa: B027 (may be left out)
        """Make ready what the command finds; `folder` holds what `make_inputs` wrote."""

    @abstractmethod
    def command(self, folder: Path) -> None:
        """Do it."""

    def next_command(self, folder: Path) -> None:
        """What a user does after an interruption."""
        self.command(folder)

    def usable(self, folder: Path) -> str:
        """Return what is half there after an interruption; nothing may be."""
        return ""

    @abstractmethod
    def result(self, folder: Path) -> dict[str, Any]:
        """Return everything that must be equal to the uninterrupted command's."""


class Train(Case):
    """Two epochs; after an interruption, --resume."""

    name = "train"
    options: tuple[str, ...] = ("--epochs", "2", "--no-plots")

    def command(self, folder: Path) -> None:
        """Train from the start, into the same folder."""
        common = [
            "--imgsz",
            str(SIDE),
            "--batch-size",
            "2",
            "--workers",
            "0",
            "--device",
            "cpu",
            "--exist-ok",
        ]
        data = ["--data", folder / "data.yaml", "--cfg", folder / "small.yaml", "--project", folder / "runs"]
        _train([*common, *self.options, *data])

    def next_command(self, folder: Path) -> None:
        """Resume where there is something to resume; what is already finished needs nothing."""
        last = folder / "runs/exp/weights/last.pt"
        if not last.exists():
            return self.command(folder)
        from models.checkpoint import read_checkpoint

        if "training" in read_checkpoint(last):
            _train(["--resume", last, "--workers", "0", "--device", "cpu"])

    def usable(self, folder: Path) -> str:
        """Checkpoints can be read, and no epoch is in results.csv twice."""
        from models.checkpoint import read_checkpoint

        run_folder = folder / "runs/exp"
        for file in run_folder.glob("weights/*.pt"):
            read_checkpoint(file)
        epochs = [row["epoch"] for row in _rows(run_folder / "results.csv")]
        return "an epoch is there twice" if len(set(epochs)) < len(epochs) else _unreadable(run_folder)

    def result(self, folder: Path) -> dict[str, Any]:
        """Weights, rows and names of files."""
        from models.checkpoint import read_checkpoint

        run_folder = folder / "runs/exp"
        kept = {"images_per_s"}
        rows = [{k: v for k, v in row.items() if k not in kept} for row in _rows(run_folder / "results.csv")]
        weights = {file.name: read_checkpoint(file)["weights"] for file in run_folder.glob("weights/*.pt")}
        return {"rows": rows, "weights": weights, "files": _names(run_folder)}


class TrainReport(Train):
    """One epoch with every plot, so that most of the time goes into the report."""

    name = "train, plots and report"
    options = ("--epochs", "1")


class LabelCache(Case):
    """Labels are checked and cached."""

    name = "label cache"

    def command(self, folder: Path) -> None:
        """Read both splits."""
        _records(folder)

    def result(self, folder: Path) -> dict[str, Any]:
        """Boxes, and the names of files."""
        return {"boxes": [r.boxes_xyxy for r in _records(folder)], "files": _names(folder)}


class PixelCache(Case):
    """Images are decoded and kept."""

    name = "pixel cache"

    def command(self, folder: Path) -> None:
        """Fill the cache."""
        from data.detection.image_store import ImageStore

        ImageStore(_records(folder), "disk", 48)

    def result(self, folder: Path) -> dict[str, Any]:
        """Pixels, and the names of files."""
        from data.detection.image_store import ImageStore

        records = _records(folder)
        store = ImageStore(records, "disk", 48)
        return {"pixels": [np.array(store.shrunk(record)) for record in records], "files": _names(folder)}


class Export(Case):
    """Three formats, where older exports are."""

    name = "export"
    formats = ("torchscript", "onnx", "openvino")

    def prepare(self, folder: Path) -> None:
        """Put other weights' exports where the new ones go."""
        for source in _exports(folder.parent / "exported"):
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / source.name)

    def command(self, folder: Path, weights: str = "w.pt") -> None:
        """Export."""
        from engine.export.command import main
        from engine.export.config import ExportConfig

        options = ["--imgsz", str(SIDE), "--device", "cpu", "--include", *self.formats]
        run(ExportConfig, main, ["--weights", str(folder / weights), *options])

    def usable(self, folder: Path) -> str:
        """Every format is there, and is the older file or the new one."""
        known = [_outputs(folder.parent / name) for name in ("exported", "reference export")]
        for name, output in _outputs(folder).items():
            if not any(torch.equal(output, outputs[name]) for outputs in known):
                return f"{name} is neither the older nor the new one"
        return "" if len(_outputs(folder)) == len(self.formats) else "an older export is lost"

    def result(self, folder: Path) -> dict[str, Any]:
        """What the networks return, and the names of files."""
        return {"outputs": _outputs(folder), "files": _names(folder)}


class Convert(Case):
    """VOC's XML files become COCO and YOLO files."""

    name = "tools.convert"

    def command(self, folder: Path) -> None:
        """Convert, unless it is done."""
        from tools.convert import ConvertConfig, main

        if not (folder / "set").exists():
            arguments = ["--format", "voc", "--source", str(folder / "voc"), "--target", str(folder / "set")]
            run(ConvertConfig, main, arguments)

    def result(self, folder: Path) -> dict[str, Any]:
        """Every file's content."""
        files = {
            str(path.relative_to(folder)): path for path in (folder / "set").rglob("*") if path.is_file()
        }
        return {"set": {name: path.read_bytes() for name, path in files.items()}, "files": _names(folder)}

    def usable(self, folder: Path) -> str:
        """The data set is whole or not there."""
        half = (folder / "set").exists() and not (folder / "set/data.yaml").exists()
        return "half a data set" if half else ""


class Detect(Case):
    """A video, with every kind of output."""

    name = "detect, video"

    def command(self, folder: Path) -> None:
        """Detect into a new folder."""
        from engine.inference.command import main
        from engine.inference.config import DetectConfig

        options = ["--save-json", "--save-csv", "--save-txt", "--conf-thres", "0.001", "--max-det", "3"]
        options += ["--imgsz", str(SIDE), "--device", "cpu", "--save-frames"]
        place = ["--weights", folder / "w.pt", "--source", folder / "v.avi", "--project", folder / "runs"]
        run(DetectConfig, main, [*options, *map(str, place)])

    def usable(self, folder: Path) -> str:
        """Files that have their names can be read."""
        return next(filter(None, map(_unreadable, (folder / "runs").glob("*"))), "")

    def result(self, folder: Path) -> dict[str, Any]:
        """Everything in the newest folder."""
        newest = max((folder / "runs").iterdir(), key=lambda path: (len(path.name), path.name))
        text = {path.name: path.read_text() for path in newest.rglob("*.txt")}
        tables = [(newest / f"predictions.{kind}").read_text() for kind in ("json", "csv")]
        tables = [table.replace(str(folder), "") for table in tables]
        return {
            "labels": text,
            "tables": tables,
            "frames": _frames(newest / "v.mp4"),
            "files": _names(newest),
        }


class Validate(Case):
    """Weights are evaluated."""

    name = "val"

    def command(self, folder: Path) -> None:
        """Evaluate into a new folder."""
        from engine.evaluation.command import main
        from engine.evaluation.config import ValConfig

        options = ["--imgsz", str(SIDE), "--device", "cpu", "--workers", "0", "--save-json", "--save-txt"]
        options += ["--no-plots", "--batch-size", "2"]
        place = ["--weights", folder / "w.pt", "--data", folder / "data.yaml", "--project", folder / "runs"]
        run(ValConfig, main, [*options, *map(str, place)])

    def usable(self, folder: Path) -> str:
        """Files that have their names can be read."""
        return next(filter(None, map(_unreadable, (folder / "runs").glob("*"))), "")

    def result(self, folder: Path) -> dict[str, Any]:
        """Everything in the newest folder, times aside."""
        newest = max((folder / "runs").iterdir(), key=lambda path: (len(path.name), path.name))
        metrics = json.loads((newest / "metrics.json").read_text())
        metrics.pop("seconds_per_image", None)
        text = {path.name: path.read_text() for path in newest.rglob("*.txt")}
        predictions = (newest / "predictions.json").read_text()
        return {"metrics": metrics, "labels": text, "predictions": predictions, "files": _names(newest)}


CASES: tuple[Case, ...] = (
    *(Train(), TrainReport(), LabelCache(), PixelCache(), Export(), Convert(), Detect(), Validate()),
)


def equal(value: Any, other: Any) -> bool:
    """Whether two results are the same, to the last bit."""
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(equal(value[key], other[key]) for key in value)
    if isinstance(value, list):
        return len(value) == len(other) and all(map(equal, value, other))
    if isinstance(value, torch.Tensor):
        return torch.equal(value, other)
    if isinstance(value, np.ndarray):
        return np.array_equal(value, other)
    return bool(value == other)


def _train(arguments: list[Any]) -> None:
    from engine.training.command import main
    from engine.training.config import TrainConfig

    run(TrainConfig, main, [str(argument) for argument in arguments])


def _records(folder: Path) -> list[Any]:
    from data.dataset_yaml import read_dataset_yaml
    from data.detection.records import read_records

    description = read_dataset_yaml(folder / "data.yaml")
    return [record for split in ("train", "val") for record in read_records(description, split)[0]]


def _rows(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _names(folder: Path) -> list[str]:
    """The files below a folder; a lock is none."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock")


def _exports(folder: Path) -> Iterator[Path]:
    for name in ("w.torchscript", "w.onnx", "w_openvino_model"):
        if (folder / name).exists():
            yield folder / name


def _outputs(folder: Path) -> dict[str, torch.Tensor]:
    """What each exported network of a folder makes of one image."""
    from engine.runtimes import load_predictor

    image = torch.linspace(0, 1, 3 * SIDE * SIDE).view(1, 3, SIDE, SIDE)
    return {path.name: load_predictor(path, torch.device("cpu"))(image).clone() for path in _exports(folder)}


def _frames(video: Path) -> int:
    capture, count = cv2.VideoCapture(str(video)), 0
    while capture.grab():
        count += 1
    return count


def _unreadable(folder: Path) -> str:
    """Return the first file that has its name but cannot be read."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or ".part" in path.name:
            continue
        if path.suffix == ".mp4" and not _frames(path):
            return f"{path.name} does not play"
        if path.suffix in (".jpg", ".png") and cv2.imread(str(path)) is None:
            return f"{path.name} is no image"
        if path.suffix == ".json":
            try:
                json.loads(path.read_text())
            except ValueError:
                return f"{path.name} is no JSON"
        if path.suffix == ".yaml" and not isinstance(yaml.safe_load(path.read_text()), dict):
            return f"{path.name} is empty"
    return ""
