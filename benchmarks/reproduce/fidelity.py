"""Trained weights scored in another runtime or precision, without training: coco_fidelity."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.reproduce.latency import load, measure
from benchmarks.reproduce.networks import start_of
from benchmarks.reproduce.scoring import ScoredData, detect, save, score
from benchmarks.reproduce.suite import Run
from utils.errors import UserError, suggest

if TYPE_CHECKING:
    from benchmarks.reproduce.place import Place

PRECISIONS = ("fp32", "fp16", "int8")
FIXED = " fixed"  # a file of one size
CALIBRATED_ON = 19  # images, at most


def scored_in_runtime(run: Run, place: Place, data: Path, folder: Path) -> dict[str, Any]:
    """Export the weights as the suite says, score them as YOLOv5 publishes AP, and return a row's values.

    YOLOv5's procedure is confidence .001, IoU .6, at most 300 detections per image, rectangular inputs with a
    border of half a stride, and pycocotools.

    Raises:
        UserError: the weights are not there, or the runtime is not known or not installed.
    """
    import torch

    from engine.runtimes import load_predictor
    from engine.runtimes.coreml import MACOS, load_reference
    from models import load_model
    from models.summary import count_gflops, count_parameters

    imgsz = int(run.options.get("imgsz", 640))
    weights = start_of(run.entry, place.root, folder)
    assert weights is not None
    if weights.parent != folder:
        weights = Path(shutil.copy(weights, folder / weights.name))
    file = _in_runtime(str(run.entry.runtime), weights, data, imgsz)
    predictor = load_reference(file) if file.suffix == ".mlpackage" and not MACOS else load_predictor(file)
    scored = ScoredData(data, run.data_entry.split, imgsz, "pycocotools", resample=False)
    kept = folder / "scored"
    kept.mkdir(exist_ok=True)
    save(detect(predictor, scored), kept)
    model, images, before = load_model(weights), torch.rand(1, 3, imgsz, imgsz), load()
    column = {"pytorch": "ms_pytorch", "onnx": "ms_onnx"}.get(str(run.entry.runtime).split()[0])
    times = measure({column: lambda: predictor(images)}) if column else {}
    return {
        **score(kept, scored),
        "architecture": f"{weights.name} {run.entry.runtime}",
        "epochs": 0,
        "imgsz": imgsz,
        "parameters": count_parameters(model),
        "gflops": count_gflops(model, imgsz),
        "load": before,
        **times,
    }


def _in_runtime(runtime: str, weights: Path, data: Path, imgsz: int) -> Path:
    """'onnx int8' -> the file, exported for any size; 'onnx int8 fixed', and what has no other: for one.

    Raises:
        UserError: no such runtime or precision.
    """
    from engine.export import export
    from engine.export.formats import EXPORT_FORMATS
    from engine.runtimes import FORMATS

    format, _, precision = runtime.removesuffix(FIXED).partition(" ")
    if format not in FORMATS:
        raise UserError(f"unknown runtime '{format}' in '{runtime}'. {suggest(format, FORMATS)}")
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision '{precision}' in '{runtime}'. {suggest(precision, PRECISIONS)}")
    if format == "pytorch":
        return weights
    free = {name for name, kind in EXPORT_FORMATS.items() if "--dynamic" in kind.takes}
    files = export(
        weights,
        data=data,
        include=(format,),
        imgsz=(imgsz,),
        dynamic=format in free and not runtime.endswith(FIXED),
        half=precision == "fp16",
        int8=precision == "int8",
        calibration=CALIBRATED_ON,
    )
    if not files:
        raise UserError(f"{runtime} differs from PyTorch by more than its format allows, see the log")
    return files[0]
