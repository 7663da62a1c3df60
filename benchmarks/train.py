"""How many images a second does the training path take, beside Ultralytics' own, in one run?

    python -m benchmarks.train                       # every part, on the CPU
    python -m benchmarks.train --part loader --rounds 5

The loader part draws training batches (mosaic, affine, color, flip, with the same strengths on both sides)
from JPEG full images of 640 x 480 pixels, cut from those that ship, and does nothing with them. Every process
has one thread. Each loader runs alone, epoch after epoch: Ultralytics' own, with its RAM cache, goes on
preparing batches between epochs, so taking turns would give it time for nothing.

"planned" is what workers do when images are made by tensor operations on the training device; "device" are
these operations alone, one batch after the other, on --device.

The step part takes one batch again and again: "plain" is contiguous float32 as written, "ours" what train.py
does. The epoch part trains on all images, loader and step together, and divides by the arithmetic of the
networks; on a CPU without workers, on a GPU with the most of --workers, on every side.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from utils.cli import run
from utils.options import Options, opt

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
class TrainBenchmark(Options):
    """Compare our training path with Ultralytics'."""

    part: Literal["all", "loader", "step", "epoch"] = opt("all", "what to measure")
    cfg: tuple[str, ...] = opt(("yolov5n", "yolov5n-spd"), "networks of the step and epoch parts")
    other: str = opt("yolov8n", "Ultralytics' network of the epoch part")
    step_batch: int = opt(4, "images a batch of the step and epoch parts", min=2)
    threads: int = opt(2, "torch's threads in the step and epoch parts", min=1)
    imgsz: tuple[int, ...] = opt((320, 640), "input sides, pixels", min=32)
    workers: tuple[int, ...] = opt((0, 1, 2), "worker processes of the loader", min=0)
    images: int = opt(192, "full images in the data set", min=4)
    batch_size: int = opt(16, "images a batch", min=1)
    rounds: int = opt(3, "epochs that count", min=1)
    device: str = opt("cpu", "where images are made in the 'device' form")


def main(cfg: TrainBenchmark) -> int:
    """Print a table for each part."""
    with tempfile.TemporaryDirectory() as folder:
        cut_images(Path(folder), cfg.images)
        if cfg.part in ("all", "loader"):
            loaders(cfg, Path(folder))
        if cfg.part in ("all", "step"):
            steps(cfg, folder)
        if cfg.part in ("all", "epoch"):
            epochs(cfg, folder)
    return 0


def cut_images(folder: Path, count: int) -> None:
    """Write windows of the shipping full images and their boxes as a YOLO data set."""
    import cv2
    import numpy as np

    from data.dataset_yaml import read_dataset_yaml
    from data.detection.records import read_records
    from data.media.image_files import read_image
    from data.tiling import crop_record

    records, _ = read_records(read_dataset_yaml("data/treecrowns.yaml"), "train")
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    pixels = {record.path: read_image(record.path) for record in records}
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
    """Images a second of the loader alone."""
    import cv2
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    names = ["Ultralytics, ram", "none", "disk", "ram", "ram, planned", "device"]
    print(f"\n| input, px | workers | {' | '.join(names)} | ram / Ultralytics | planned / Ultralytics |")
    print("|---" * (len(names) + 4) + "|")
    for imgsz in cfg.imgsz:
        for workers in cfg.workers:
            setting = (cfg, folder, imgsz, workers)
            builders = [
                partial(ultralytics_epoch, *setting),
                partial(our_epoch, *setting, None),
                partial(our_epoch, *setting, "disk"),
                partial(our_epoch, *setting, "ram"),
                partial(our_epoch, *setting, "ram", "device"),
            ]
            seconds = [steady(build, cfg.rounds) for build in builders]
            speeds = [cfg.images / one for one in seconds]
            making = cfg.batch_size / steady(partial(device_batch, cfg, folder, imgsz), cfg.rounds)
            cells = [f"{speed:.0f}" for speed in (*speeds, making)]
            cells += [f"{speeds[column] / speeds[0]:.2f}" for column in (3, 4)]
            print(f"| {imgsz} | {workers} | {' | '.join(cells)} |", flush=True)


def steady(build: Callable[[], Callable[[], None]], rounds: int) -> float:
    """Return the seconds of one call of what `build` makes, after a first one that does not count."""
    function = build()
    function()
    start = time.perf_counter()
    for _ in range(rounds):
        function()
    return (time.perf_counter() - start) / rounds


def our_loader(
    cfg: TrainBenchmark, folder: Path, imgsz: int, workers: int, cache: Any, augment_on: Any
) -> Any:
    """Return our loader of the images."""
    from data.augment.settings import AugmentationSettings
    from data.dataset_yaml import read_dataset_yaml
    from data.detection.dataset import DetectionDataset
    from data.detection.loader import build_loader
    from data.detection.records import read_records

    records, _ = read_records(read_dataset_yaml(folder / "data.yaml"), "train")
    settings = AugmentationSettings.only(**STRENGTHS)
    dataset = DetectionDataset(records, imgsz, settings, cache=cache, augment_on=augment_on)
    return build_loader(dataset, cfg.batch_size, shuffle=True, workers=workers)


def our_epoch(
    cfg: TrainBenchmark, folder: Path, imgsz: int, workers: int, cache: Any, augment_on: Any = "cpu"
) -> Callable[[], None]:
    """Return a function that loads one epoch."""
    loader = our_loader(cfg, folder, imgsz, workers, cache, augment_on)
    epochs = iter(range(10**6))

    def load() -> None:
        loader.set_epoch(next(epochs))
        for _ in loader:
            pass

    return load


def device_batch(cfg: TrainBenchmark, folder: Path, imgsz: int) -> Callable[[], None]:
    """Return a function that makes the images of one planned batch on the device."""
    import torch

    from data.augment.device import render

    batch = next(iter(our_loader(cfg, folder, imgsz, 0, "ram", "device")))

    def make() -> None:
        render(batch, cfg.device)
        if cfg.device != "cpu":
            torch.cuda.synchronize()

    return make


def steps(cfg: TrainBenchmark, folder: str) -> None:
    """Milliseconds of a training step, plain and ours."""
    import torch

    from benchmarks.race import race
    from benchmarks.train_epoch import Epoch, our_step, plain_step

    torch.set_num_threads(cfg.threads)
    print(
        "\n| network | input, px | plain float32, ms | ours, ms | ours / plain | images/s |\n"
        + "|---" * 6
        + "|"
    )
    for name in cfg.cfg:
        for imgsz in cfg.imgsz:
            case = Epoch(name, True, folder, imgsz, cfg.step_batch, 0, 1, cfg.threads, cfg.device)
            with contextlib.redirect_stdout(io.StringIO()):
                sides = {"plain": plain_step(case), "ours": our_step(case)}
            seconds = race(sides, cfg.rounds, cfg.device)
            plain, ours = seconds["plain"], seconds["ours"]
            cells = (
                f"{1000 * plain:.0f} | {1000 * ours:.0f} | {ours / plain:.2f} | {cfg.step_batch / ours:.1f}"
            )
            print(f"| {name} | {imgsz} | {cells} |", flush=True)


def epochs(cfg: TrainBenchmark, folder: str) -> None:
    """Images a second of loader and step together, beside Ultralytics' own trainer."""
    from benchmarks.train_epoch import Epoch, measure

    head = ("network", "input, px", "GFLOPs", "images/s", "peak MB", f"time / GFLOP, of {cfg.other}'s")
    print(f"\n| {' | '.join(head)} |\n" + "|---" * len(head) + "|")
    workers = 0 if cfg.device == "cpu" else max(cfg.workers)  # there the step takes the cores
    for imgsz in cfg.imgsz:
        reference = 0.0
        for name in (cfg.other, *cfg.cfg):
            ours, sizes = name != cfg.other, (imgsz, cfg.step_batch, workers)
            case = Epoch(name, ours, folder, *sizes, cfg.rounds, cfg.threads, cfg.device)
            measured = measure(case)
            per_gflop = measured.seconds / measured.gflops
            reference = reference or per_gflop
            cells = f"{measured.gflops:.1f} | {cfg.images / measured.seconds:.1f} | {measured.megabytes:.0f}"
            print(f"| {name} | {imgsz} | {cells} | {per_gflop / reference:.2f} |", flush=True)


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
