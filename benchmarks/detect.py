"""How fast is detection from file to boxes, and what do tiles cost and give?

    python -m benchmarks.detect --video street.avi
    python -m benchmarks.detect --weights best.pt --only tiles      # trained on treecrowns, for the AP
    python -m benchmarks.detect --quick

Videos and full images: our pipeline against Ultralytics' `predict` of a network of about the same size, both
with random weights, in the same runtime, one after the other. Tiles: the whole against its parts (tiles times
the time of one in a batch), and against SAHI with the same network; AP of both on the validation full image.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.cli import run
from utils.errors import UserError
from utils.options import Options, opt

if TYPE_CHECKING:
    import numpy as np

    from engine.inference.settings import DetectSettings
    from engine.runtimes import Predictor

SAMPLES = Path("data/samples/treecrowns/images")
SIDE = 640


@dataclass(frozen=True)
class DetectBenchmark(Options):
    """Compare detection end to end."""

    weights: Path | None = opt(None, "our network (default: --cfg with random weights)")
    cfg: str = opt("yolov5n", "our network without --weights")
    other: str = opt("yolo11n", "Ultralytics' network")
    video: Path | None = opt(None, "video (default: one made of the sample full images)")
    frames: int = opt(300, "frames of the video", min=2)
    images: int = opt(64, "images", min=2)
    side: int = opt(8000, "side of the image that is cut into tiles, px", min=640)
    runtimes: tuple[Literal["torch", "onnx", "openvino"], ...] = opt(
        ("torch", "onnx", "openvino"), "runtimes"
    )
    only: Literal["media", "tiles"] | None = opt(None, "one part only")
    quick: bool = opt(False, "small sizes: shows that it runs, not how fast")


def main(cfg: DetectBenchmark) -> int:
    """Print the tables."""
    if cfg.quick:
        cfg = replace(cfg, frames=16, images=4, side=1600, runtimes=cfg.runtimes[:1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = cfg.weights or _save_random(cfg.cfg, folder)
        if cfg.only in (None, "media"):
            _media(cfg, weights, folder)
        if cfg.only in (None, "tiles"):
            _tiles(cfg, weights)
    return 0


def _save_random(name: str, folder: Path) -> Path:
    from models import build_model
    from models.checkpoint import save_checkpoint
    from models.load import to_checkpoint

    path = folder / f"{name}.pt"
    save_checkpoint(path, to_checkpoint(build_model(name, num_classes=80)))
    return path


# ------------------------------------------------------------------ videos and full images


def _media(cfg: DetectBenchmark, weights: Path, folder: Path) -> None:
    from benchmarks.markdown import print_head, print_row
    from benchmarks.others import yolo
    from models.load import load_model

    sources = {"video": _video(cfg, folder), "images": _images(cfg, folder)}
    flops = (_gigaflops(load_model(weights, fuse=True)), _gigaflops(yolo(cfg.other).model))
    print(f"{weights.stem} {flops[0]:.1f} GFLOP, {cfg.other} {flops[1]:.1f} GFLOP at {SIDE} x {SIDE}\n")
    rows = []
    for runtime in cfg.runtimes:
        ours, theirs = _in_runtime(runtime, weights, cfg.other, folder)
        for what, (source, count) in sources.items():
            fps, share, alone = _our_speed(ours, source, count)
            rival = _their_speed(theirs, source, count)
            per_flop = (fps * flops[0]) / (rival * flops[1])
            speeds = (f"{fps:.1f}", f"{alone:.1f}", f"{rival:.1f}")
            rows.append((what, runtime, *speeds, f"{fps / rival:.2f}", f"{per_flop:.2f}", f"{share:.0%}"))
    head = ("source", "runtime", "our fps", "our network alone", "other fps", "ratio", "ratio of GFLOP/s")
    print_head(*head, "our pre + post")
    for row in rows:
        print_row(*row)


def _video(cfg: DetectBenchmark, folder: Path) -> tuple[Path, int]:
    import cv2

    if cfg.video is not None:
        return cfg.video, cfg.frames
    image = _read(next((SAMPLES / "val").glob("*.jpg")))
    path = folder / "made.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (768, 576))
    for i in range(cfg.frames):
        writer.write(image[i % 400 : i % 400 + 576, i % 400 : i % 400 + 768])
    writer.release()
    return path, cfg.frames


def _images(cfg: DetectBenchmark, folder: Path) -> tuple[Path, int]:
    import cv2

    image = _read(next((SAMPLES / "val").glob("*.jpg")))
    where = folder / "full images"
    where.mkdir()
    for i in range(cfg.images):
        cv2.imwrite(str(where / f"{i:03}.jpg"), image[i : i + 960, i : i + 1200])
    return where, cfg.images


def _gigaflops(model: Any) -> float:
    """Multiplications and additions of one square image, in thousands of millions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, SIDE, SIDE))
    return counter.get_total_flops() / 1e9


def _in_runtime(runtime: str, weights: Path, name: str, folder: Path) -> tuple[Predictor, Any]:
    """Return both networks, ours and the one of that name, in a runtime."""
    from benchmarks.others import yolo
    from engine.export import command as export
    from engine.runtimes import FORMATS, load_predictor
    from utils.ultralytics_adapter import load

    if runtime == "torch":
        return load_predictor(weights), yolo(name)
    copy = folder / weights.name
    if copy != weights:
        copy.write_bytes(weights.read_bytes())
    export.main(export.ExportConfig.of(weights=copy, imgsz=(SIDE,), dynamic=True, include=(runtime,)))
    ours = load_predictor(copy.with_name(copy.stem + FORMATS[runtime].written_as))
    fresh = yolo(name)
    fresh.model.pt_path = str(folder / f"{name}.pt")  # beside which it exports
    exported = fresh.export(format=runtime, imgsz=SIDE, dynamic=True, verbose=False)
    return ours, load("ultralytics").YOLO(exported, task="detect", verbose=False)


def _our_speed(predictor: Predictor, source: Path, count: int) -> tuple[float, float, float]:
    """Frames a second, the share of pre- and postprocessing in the work, and calls of the network alone."""
    import os
    from itertools import islice

    import torch

    from benchmarks.race import race
    from data.media.sources import open_source
    from engine.inference.pipeline import detect_images
    from engine.inference.settings import DetectSettings, usual_batch

    torch.set_num_threads(os.cpu_count() or 1)  # Ultralytics' choice of a device takes one away
    settings = DetectSettings((SIDE, SIDE), batch_size=usual_batch(predictor, (SIDE, SIDE)))

    def once(frames: int) -> list[Any]:
        return list(islice(detect_images(predictor, open_source(source), settings), frames))

    once(2)
    start = time.perf_counter()
    results = once(count)
    seconds = time.perf_counter() - start
    work = [sum(getattr(one.stages, name) for one in results) for name in ("pre", "inference", "post")]
    batch = torch.rand(1, 3, *results[0].shape)
    alone = race({"network": lambda: predictor(batch)}, 20)["network"]
    return len(results) / seconds, (work[0] + work[2]) / sum(work), 1 / alone


def _their_speed(model: Any, source: Path, count: int) -> float:
    from itertools import islice

    def once(frames: int) -> int:
        results = model.predict(str(source), stream=True, imgsz=SIDE, device="cpu", verbose=False, save=False)
        return sum(1 for _ in islice(results, frames))

    once(2)
    start = time.perf_counter()
    done = once(count)
    return done / (time.perf_counter() - start)


# ------------------------------------------------------------------ tiles


@dataclass(frozen=True)
class _ImageItem:
    image: Any


def _tiles(cfg: DetectBenchmark, weights: Path) -> None:
    import numpy as np
    import torch

    from benchmarks.markdown import print_head, print_row
    from benchmarks.others import sahi_on_tiles
    from benchmarks.race import race
    from data.tiling import Tiling
    from engine.inference.pipeline import detect_images
    from engine.inference.settings import BATCH, DetectSettings, usual_batch
    from engine.inference.sizes import input_size
    from engine.runtimes import load_predictor

    predictor = load_predictor(weights)
    imgsz = input_size(None, predictor)
    tiling = Tiling((predictor.config.get("tile") or {}).get("size") or imgsz[0], 0.2)
    size = usual_batch(predictor, imgsz)
    settings = DetectSettings(imgsz, tiling=tiling, max_det=100_000, batch_size=size)
    source_image = _read(next((SAMPLES / "train").glob("*.jpg")))
    times = -(-cfg.side // min(source_image.shape[:2]))
    image = np.tile(source_image, (times, times, 1))[: cfg.side, : cfg.side].copy()

    def ours() -> Any:
        return next(iter(detect_images(predictor, [_ImageItem(image)], settings)))

    result = ours()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    batch = torch.rand(BATCH, 3, *imgsz).to(memory_format=torch.channels_last)  # as images are
    batches = -(-result.tiles // BATCH)
    sides = {"whole": ours, "batches": lambda: [predictor(batch) for _ in range(batches)]}
    laps = race(sides, 1 if cfg.quick else 3)
    seconds, network = laps["whole"], laps["batches"] * result.tiles / (batches * BATCH)
    print(
        f"\n{cfg.side} x {cfg.side} pixels, {result.tiles} tiles of {tiling.size} px at {imgsz[0]} px; ",
        end="",
    )
    print(f"peak memory {memory:.2f} GB\n")
    print_head("", "seconds", "objects", "time of ours")
    print_row("ours", f"{seconds:.2f}", len(result.detections), "1.00")
    print_row("tiles x time of one in a batch", f"{network:.2f}", "", f"{network / seconds:.2f}")
    one = replace(settings, tiling=None)
    try:
        rows, sahi = _timed(lambda: sahi_on_tiles(predictor, image, one, tiling.size, tiling.overlap))
    except UserError as error:
        print(error)
        return
    print_row("SAHI", f"{sahi:.2f}", len(rows), f"{sahi / seconds:.2f}")
    if cfg.weights is not None:
        _compare_ap(predictor, settings, tiling)


def _compare_ap(predictor: Predictor, settings: DetectSettings, tiling: Any) -> None:
    """Print the AP of both ways on the validation full image."""
    from benchmarks.markdown import print_head, print_row
    from benchmarks.others import sahi_on_tiles
    from data.dataset_yaml import read_dataset_yaml
    from data.detection.records import read_records
    from engine.evaluation.evaluator import ground_truth_of
    from engine.evaluation.metrics import DetectionColumns, evaluate_detections
    from engine.inference.pipeline import detect_image

    description = read_dataset_yaml("data/treecrowns.yaml")
    records: list[Any] = read_records(description, "val")[0]
    image = _read(records[0].path)
    fine = replace(settings, conf_thres=0.001, iou_thres=0.6, max_det=3000)
    one = replace(fine, tiling=None)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: detect_image(predictor, image, fine).detections.to_array(),
        "SAHI": lambda: sahi_on_tiles(predictor, image, one, tiling.size, tiling.overlap),
    }
    print()
    print_head("validation full image", "AP", "AP50", "AP_S", "seconds")
    for name, way in ways.items():
        rows, seconds = _timed(way)
        best = rows[(-rows[:, 4]).argsort(kind="stable")]
        metrics = evaluate_detections(
            ground_truth_of(records),
            DetectionColumns.stack([best]),
            list(description.names),
            max_dets=(1, 10, 1000),
        )
        values = [f"{metrics.values[key]:.4f}" for key in ("AP", "AP50", "AP_S")]
        print_row(name, *values, f"{seconds:.2f}")


def _read(path: Path) -> np.ndarray:
    from data.media.image_files import read_image

    return read_image(path)


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    run(DetectBenchmark, main)
