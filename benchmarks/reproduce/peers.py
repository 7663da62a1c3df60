"""Ultralytics' networks as peers: trained by their own engine, scored by our evaluator.

They see the same images or tiles, written once as files. "default" is their own recipe, untouched. "ours" is
our hyperparameters under their names; what has no counterpart there (quarter turns, moving tiles, anchors)
stays out, and the moving average's length is set by a callback. Their detections are decoded outputs like
ours: the same letterboxing, NMS and limits for all, but no NMS after an end-to-end head.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

AUGMENTATION = ("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective",
                "flipud", "fliplr", "mosaic", "mixup")  # fmt: skip
SCHEDULE = ("lr0", "lrf", "momentum", "weight_decay", "warmup_epochs", "warmup_momentum", "warmup_bias_lr",
            "optimizer", "close_mosaic")  # fmt: skip


def engine(threads: int) -> Any:
    """Return Ultralytics' package, offline, with its NMS in place and as many threads as given."""
    from benchmarks.others import stand_in_for_torchvision
    from utils.ultralytics_adapter import load, prepare_engine

    stand_in_for_torchvision()
    prepare_engine()
    utils: Any = load("ultralytics.utils")
    utils.NUM_THREADS = threads
    torch.set_num_threads(threads)
    return load("ultralytics")


def as_files(data: Path, folder: Path) -> Path:
    """Write the images or tiles of a data set and their labels as a YOLO data set; return its YAML."""
    import yaml
    from filelock import FileLock

    from data.dataset_yaml import read_dataset_yaml
    from data.detection.split import read_split
    from utils.files import write_folder_atomically

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if (folder / "data.yaml").exists():
            return folder / "data.yaml"
        description = read_dataset_yaml(data)
        with write_folder_atomically(folder) as new:
            for split in ("train", "val"):
                for number, record in enumerate(read_split(description, split)):
                    _write(record, new, split, number)
            keys = {"path": str(folder.resolve()), "train": "images/train", "val": "images/val"}
            keys |= {"names": list(description.names)}  # type: ignore[dict-item]
            (new / "data.yaml").write_text(yaml.safe_dump(keys, sort_keys=False), encoding="utf-8")
    return folder / "data.yaml"


def _write(record: Any, folder: Path, split: str, number: int) -> None:
    """Write one image without loss, and its targets."""
    import cv2

    from data.detection.yolo_labels import label_text
    from data.media.image_files import read_image

    images, labels = folder / "images" / split, folder / "labels" / split
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    pixels = read_image(record.path)
    if record.tile:
        x0, y0, x1, y1 = record.tile
        pixels = pixels[y0:y1, x0:x1]
    cv2.imwrite(str(images / f"{number:06}.png"), pixels)
    targets = ~record.crowd
    text = label_text(record.classes[targets], record.boxes_xyxy[targets], record.width, record.height)
    (labels / f"{number:06}.txt").write_text(text, encoding="utf-8")


def translated(hyp: Any, epochs: int) -> dict[str, Any]:
    """Return our hyperparameters as Ultralytics' options."""
    options = {name: getattr(hyp, name) for name in (*AUGMENTATION, *SCHEDULE)}
    return {**options, "nbs": hyp.nominal_batch, "close_mosaic": min(hyp.close_mosaic, epochs)}


def train_peer(
    name: str, data: Path, folder: Path, options: dict[str, Any], ours: Any, validate: bool, threads: int
) -> None:
    """Train a peer from random weights, or go on where it was interrupted.

    Args:
        name: such as "yolov8n".
        data: YAML of `as_files`.
        folder: of the run.
        options: epochs, imgsz, batch_size, seed, device.
        ours: our hyperparameters, for our recipe translated; None for its own.
        validate: after every epoch, so that the best is known; else the last epoch counts.
        threads: of the CPU.
    """
    package = engine(threads)
    last = folder / "weights" / "last.pt"
    go_on = last.exists()
    model = package.YOLO(str(last) if go_on else f"{name}.yaml", task="detect")
    _keep_times(model, folder / "epochs.jsonl")
    if ours is not None:
        model.add_callback("on_train_epoch_start", _average_over(ours.ema_decay, ours.ema_tau))
    if go_on:
        model.train(resume=True, workers=0, device=options["device"], val=validate)
        return
    epochs = options["epochs"]
    model.train(
        data=str(data),
        imgsz=options["imgsz"],
        batch=options["batch_size"],
        epochs=epochs,
        patience=epochs + 1,
        seed=options["seed"],
        device=options["device"],
        workers=0,
        cache="ram",
        val=validate,
        plots=False,
        pretrained=False,
        amp=options["device"] != "cpu",
        project=str(folder.resolve().parent),
        name=folder.name,
        exist_ok=True,
        **(translated(ours, epochs) if ours is not None else {}),
    )


def finished(folder: Path, epochs: int) -> bool:
    """Whether a peer has been trained to the end."""
    return len(_times(folder / "epochs.jsonl")) >= epochs and (folder / "weights/last.pt").exists()


def epoch_seconds(folder: Path) -> list[float]:
    """Return the seconds of each epoch, without evaluations."""
    return list(_times(folder / "epochs.jsonl").values())


def _times(file: Path) -> dict[int, float]:
    """Seconds of each epoch; one that was made twice, after an interruption, counts as the last time."""
    if not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("]")]
    return {epoch: seconds for epoch, seconds in lines}


def _keep_times(model: Any, file: Path) -> None:
    started = [0.0]

    def start(trainer: Any) -> None:
        started[0] = time.perf_counter()

    def end(trainer: Any) -> None:
        trainer.spent = time.perf_counter() - started[0]

    def saved(trainer: Any) -> None:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([trainer.epoch, trainer.spent]) + "\n")

    model.add_callback("on_train_epoch_start", start)
    model.add_callback("on_train_epoch_end", end)
    model.add_callback("on_model_save", saved)


def _average_over(decay: float, tau: float) -> Callable[[Any], None]:
    """Let the moving average keep `decay`, reached over `tau` updates."""
    import math

    def set_decay(trainer: Any) -> None:
        trainer.ema.decay = lambda updates: decay * (1 - math.exp(-updates / tau))

    return set_decay


class Peer:
    """A trained peer with the interface of our predictors.

    Attributes:
        end_to_end: whether its output needs no NMS.
        network: as trained, fused for inference.
        parameters: as trained.
    """

    stride, task = 32, "detect"
    imgsz: tuple[int, int] | None = None

    def __init__(self, weights: Path, threads: int) -> None:
        model = engine(threads).YOLO(str(weights), task="detect")
        self.names = [model.names[i] for i in sorted(model.names)]
        self.device, self.config = torch.device("cpu"), dict[str, Any]()
        network: nn.Module = model.model.float().cpu().eval()
        self.parameters = sum(p.numel() for p in network.parameters())
        self.network: Any = network.fuse(verbose=False)  # type: ignore[operator]
        self.end_to_end = bool(getattr(self.network.model[-1], "end2end", False))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in 0..1 -> (B, N, 5 + classes): cx, cy, w, h, 1, class scores, as ours."""
        output = self.network(images)
        output = output[0] if isinstance(output, tuple | list) else output
        return self._one_hot(output) if self.end_to_end else _with_objectness(output)

    def _one_hot(self, output: Tensor) -> Tensor:
        """(B, N, 6) x1, y1, x2, y2, score, class -> (B, N, 5 + classes)."""
        low, high = output[..., :2], output[..., 2:4]
        classes = nn.functional.one_hot(output[..., 5].long(), len(self.names)) * output[..., 4:5]
        return torch.cat([(low + high) / 2, high - low, torch.ones_like(output[..., 4:5]), classes], -1)


def _with_objectness(output: Tensor) -> Tensor:
    """(B, 4 + classes, N) -> (B, N, 5 + classes)."""
    rows = output.transpose(1, 2)
    return torch.cat([rows[..., :4], torch.ones_like(rows[..., :1]), rows[..., 4:]], -1)


def export_onnx(weights: Path, imgsz: int, threads: int) -> Path:
    """Write a peer as ONNX by its own exporter, beside its weights."""
    model = engine(threads).YOLO(str(weights), task="detect")
    return Path(model.export(format="onnx", imgsz=imgsz, simplify=False, device="cpu"))


def gflops(peer: Peer, imgsz: int) -> float:
    """Return 10^9 floating-point operations for one image, as `models.summary.count_gflops` counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        peer(torch.zeros(1, 3, imgsz, imgsz))
    return counter.get_total_flops() / 1e9
