"""What does a network give and cost in each format and precision?

    python -m benchmarks.runtimes --weights best.pt
    python -m benchmarks.runtimes --weights best.pt --data visdrone.yaml --batch-size 8

Every file is exported, proved and run on the same images: size, time of a batch (all in turns, so that
whatever else the machine does hits all alike), AP and AP_S on the data set's validation images.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from utils.cli import run
from utils.errors import UserError
from utils.options import Options, opt

if TYPE_CHECKING:
    from engine.runtimes import Predictor

Format = Literal["onnx", "openvino", "torchscript", "ncnn", "litert"]


@dataclass(frozen=True)
class RuntimeBenchmark(Options):
    """Compare formats and precisions of one network."""

    weights: Path | None = opt(None, "checkpoint (.pt; default: newest best.pt, or what ships)")
    data: Path | None = opt(None, "data-set YAML (default: the one it was trained on)")
    include: tuple[Format, ...] = opt(("onnx", "openvino", "torchscript", "ncnn", "litert"), "formats")
    imgsz: int | None = opt(None, "input side, px (default: as trained)", "--img", min=32)
    batch_size: int = opt(1, "images in a batch", "--batch", min=1)
    rounds: int = opt(20, "batches that are timed", min=1)
    threads: int | None = opt(None, "threads of the CPU (default: all)", min=1)
    quick: bool = opt(False, "a few rounds, no 16 and 8 bits: shows that it runs")


def main(cfg: RuntimeBenchmark) -> int:
    """Print the table."""
    import torch

    from benchmarks.markdown import print_head, print_row
    from benchmarks.race import race
    from engine.inference.sizes import input_size
    from engine.runtimes import load_predictor
    from utils.run_folders import default_weights

    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    weights = cfg.weights or default_weights()
    reference = load_predictor(weights)
    imgsz = input_size((cfg.imgsz,) if cfg.imgsz else None, reference)
    data = cfg.data or Path(str(reference.config.get("data") or "data/treecrowns.yaml"))
    with tempfile.TemporaryDirectory() as name:
        copy = Path(shutil.copy(weights, Path(name) / "net.pt"))
        files = {"pytorch fp32": copy, **_exports(cfg, copy, data, imgsz)}
        predictors = {name: load_predictor(file) for name, file in files.items()}
        images = torch.rand(cfg.batch_size, 3, *imgsz)
        runs: dict[str, Callable[[], object]] = {
            name: partial(predictor, images) for name, predictor in predictors.items()
        }
        seconds = race(runs, 2 if cfg.quick else cfg.rounds)
        base = seconds["pytorch fp32"]
        size = f"{imgsz[0]}x{imgsz[1]}, batch {cfg.batch_size}, {torch.get_num_threads()} threads"
        print(f"\n{weights} at {size}; AP on {data}\n")
        print_head("format", "MB", "ms an image", "images/s", "time of PyTorch's", "AP", "AP_S", "AP lost")
        full = None
        for name, predictor in predictors.items():
            each = seconds[name] / cfg.batch_size
            ap, small = _score(predictor, data, imgsz)
            full = ap if full is None else full
            lost = None if ap is None or full is None else full - ap
            numbers = (f"{_megabytes(files[name]):.1f}", f"{1000 * each:.1f}", f"{1 / each:.1f}")
            print_row(name, *numbers, f"{seconds[name] / base:.2f}", *map(_fraction, (ap, small, lost)))
    return 0


def _exports(cfg: RuntimeBenchmark, copy: Path, data: Path, imgsz: tuple[int, int]) -> dict[str, Path]:
    """Export every format in every precision it has; what cannot be had here is said and left out."""
    from engine.export import command as export
    from engine.export.formats import EXPORT_FORMATS
    from engine.runtimes import FORMATS

    files = {}
    for precision in ("fp32",) if cfg.quick else ("fp32", "fp16", "int8"):
        for format in cfg.include:
            if precision == "int8" and "--int8" not in EXPORT_FORMATS[format].takes:
                continue
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    config = export.ExportConfig.of(
                        weights=copy, data=data, include=(format,), imgsz=imgsz, batch_size=cfg.batch_size
                    )
                    code = export.main(replace(config, half=precision == "fp16", int8=precision == "int8"))
            except UserError as error:
                print(f"{format} {precision}: left out, {error}", file=sys.stderr)
                continue
            if code == 0:
                marks = "" if precision == "fp32" else f"_{precision}"
                files[f"{format} {precision}"] = copy.with_name(
                    f"{copy.stem}{marks}{FORMATS[format].written_as}"
                )
    return files


def _megabytes(file: Path) -> float:
    return sum(f.stat().st_size for f in (file.iterdir() if file.is_dir() else [file])) / 1e6


def _fraction(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _score(predictor: Predictor, data: Path, imgsz: tuple[int, int]) -> tuple[float | None, float | None]:
    """AP and AP_S on the validation images."""
    from data.detection.calibration import validation_loader
    from engine.evaluation.evaluator import evaluate
    from engine.evaluation.predictions import predict_loader

    loader = validation_loader(data, imgsz, predictor.stride)
    predictions = predict_loader(predictor, loader, "cpu", progress=False)
    values = evaluate(predictions, predictor.names).metrics.values
    return values["AP"], values["AP_S"]


if __name__ == "__main__":
    run(RuntimeBenchmark, main)
