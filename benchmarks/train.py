"""How many pictures a second does the training path take, beside Ultralytics' own, in one run?

    python benchmarks/train.py                       # every part, on the CPU
    python benchmarks/train.py --part loader --rounds 5

The loader part draws training batches (mosaic, affine, colour, flip, with the same strengths on both sides)
from JPEG photographs of 640 x 480 pixels, cut from those that ship, and does nothing with them. Every process
has one thread. "device" makes the pictures by tensor operations, here on the CPU too unless --device says
otherwise. Ultralytics runs its own data set and loader with its RAM cache.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.race import race
from utils.cli import opt, run, validate

STRENGTHS = {
    "hsv_h": 0.015,
    "hsv_s": 0.7,
    "hsv_v": 0.4,
    "translate": 0.1,
    "scale": 0.5,
    "fliplr": 0.5,
    "mosaic": 1.0,
}


@dataclass(frozen=True)
class TrainBenchmark:
    """Compare our training path with Ultralytics'."""

    part: Literal["all", "loader"] = opt("all", "what to measure")
    imgsz: tuple[int, ...] = opt((320, 640), "input sides, pixels", min=32)
    workers: tuple[int, ...] = opt((0, 1, 2), "worker processes of the loader", min=0)
    pictures: int = opt(192, "photographs in the data set", min=4)
    batch_size: int = opt(16, "pictures a batch", min=1)
    rounds: int = opt(3, "epochs that count", min=1)
    device: str = opt("cpu", "where pictures are made in the 'device' form")

    def __post_init__(self) -> None:
        """Check every option."""
        validate(self)


def main(cfg: TrainBenchmark) -> int:
    """Print a table for each part."""
    with tempfile.TemporaryDirectory() as folder:
        cut_pictures(Path(folder), cfg.pictures)
        if cfg.part in ("all", "loader"):
            loaders(cfg, Path(folder))
    return 0


def cut_pictures(folder: Path, count: int) -> None:
    """Write windows of the shipping photographs and their boxes as a YOLO data set."""
    import cv2
    import numpy as np

    from data.description import read_description
    from data.pictures import read_picture
    from data.records import read_records
    from data.tiling import crop_record

    records, _ = read_records(read_description("data/treecrowns.yaml"), "train")
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    pixels = {record.path: read_picture(record.path) for record in records}
    for number in range(count):
        record = records[number % len(records)]
        x, y = rng.integers(0, [record.width - 640, record.height - 480]).tolist()
        part = crop_record(record, (x, y, x + 640, y + 480), 0.4)
        cv2.imwrite(str(folder / f"images/{number:04}.jpg"), pixels[record.path][y : y + 480, x : x + 640])
        low, high = part.boxes_xyxy[:, :2], part.boxes_xyxy[:, 2:]
        rows = np.concatenate([(low + high) / 2, high - low], axis=1) / [640, 480, 640, 480]
        text = "\n".join(" ".join(["0", *map("{:.6f}".format, row)]) for row in rows)
        (folder / f"labels/{number:04}.txt").write_text(text)
    (folder / "data.yaml").write_text("train: images\nval: images\nnames: [tree]\n")


def loaders(cfg: TrainBenchmark, folder: Path) -> None:
    """Pictures a second of the loader alone."""
    import cv2
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    names = ["Ultralytics, ram", "none", "disk", "ram", "ram, device"]
    print(f"\n| input, px | workers | {' | '.join(names)} | ram / Ultralytics |")
    print("|---" * (len(names) + 3) + "|")
    for imgsz in cfg.imgsz:
        for workers in cfg.workers:
            epochs = [
                ultralytics_epoch(cfg, folder, imgsz, workers),
                our_epoch(cfg, folder, imgsz, workers, None, "cpu"),
                our_epoch(cfg, folder, imgsz, workers, "disk", "cpu"),
                our_epoch(cfg, folder, imgsz, workers, "ram", "cpu"),
                our_epoch(cfg, folder, imgsz, workers, "ram", "device"),
            ]
            seconds = race(dict(zip(names, epochs, strict=True)), cfg.rounds)
            speeds = [f"{cfg.pictures / seconds[name]:.0f}" for name in names]
            ratio = seconds["Ultralytics, ram"] / seconds["ram"]
            print(f"| {imgsz} | {workers} | {' | '.join(speeds)} | {ratio:.2f} |", flush=True)


def our_epoch(
    cfg: TrainBenchmark, folder: Path, imgsz: int, workers: int, cache: Any, augment_on: Any
) -> Callable[[], None]:
    """Return a function that loads one epoch."""
    from data.augment import Augmentation
    from data.dataset import DetectionDataset
    from data.description import read_description
    from data.device_augment import render
    from data.loader import build_loader
    from data.records import read_records

    records, _ = read_records(read_description(folder / "data.yaml"), "train")
    dataset = DetectionDataset(records, imgsz, Augmentation(**STRENGTHS), cache=cache, augment_on=augment_on)
    loader = build_loader(dataset, cfg.batch_size, shuffle=True, workers=workers)
    epochs = iter(range(10**6))

    def load() -> None:
        loader.set_epoch(next(epochs))
        for batch in loader:
            if augment_on == "device":
                render(batch, cfg.device)

    return load


def ultralytics_epoch(cfg: TrainBenchmark, folder: Path, imgsz: int, workers: int) -> Callable[[], None]:
    """Return a function that loads one epoch through Ultralytics' data set and loader."""
    from benchmarks.others import stand_in_for_torchvision
    from utils.ultralytics_adapter import load

    stand_in_for_torchvision()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        build = load("ultralytics.data.build")
        load("ultralytics.utils").LOGGER.setLevel(logging.ERROR)
        off = {"flipud": 0.0, "mixup": 0.0, "copy_paste": 0.0, "erasing": 0.0, "degrees": 0.0}
        options = load("ultralytics.cfg").get_cfg(
            overrides={"task": "detect", "imgsz": imgsz, "cache": "ram", **off, **STRENGTHS}
        )
        data = {"names": {0: "tree"}, "nc": 1, "channels": 3}
        dataset = build.build_yolo_dataset(options, str(folder / "images"), cfg.batch_size, data)
        loader = build.build_dataloader(dataset, cfg.batch_size, workers, device="cpu")

    def load_epoch() -> None:
        for _ in loader:
            pass

    return load_epoch


if __name__ == "__main__":
    run(TrainBenchmark, main)
