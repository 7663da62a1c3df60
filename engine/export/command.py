"""export.py: from a checkpoint to files for other runtimes, each compared with PyTorch before it is kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.export.comparison import agrees_with_pytorch
from engine.export.config import ExportConfig
from engine.export.formats import ALL, EXPORT_FORMATS, FormatName, unavailable
from engine.export.writers import Job, write
from utils.drafts import clear_drafts, draft_folder
from utils.errors import UserError
from utils.files import move_into_place, writing
from utils.log import RESULT, counted

if TYPE_CHECKING:
    from engine.runtimes import Predictor
    from engine.runtimes.metadata import Metadata
    from engine.runtimes.pytorch import TorchPredictor

LOG = logging.getLogger(__name__)
PROBED = 0.001  # confidence at which NMS is compared first: noise alone may hold nothing surer


def main(cfg: ExportConfig) -> int:
    """Export to each format; 1 where a result differs from PyTorch."""
    return int(None in export_formats(cfg))


def export_formats(cfg: ExportConfig) -> list[Path | None]:
    """Export to each format; return the file of each, None where a result differs from PyTorch."""
    import torch

    from engine.runtimes import load_predictor
    from engine.runtimes.pytorch import TorchPredictor
    from utils.device import select_device
    from utils.run_folders import default_weights

    everything = ALL in cfg.include
    cfg = replace(cfg, weights=cfg.weights or default_weights())
    cfg = replace(cfg, include=_without(cfg, lambda format: unavailable(format, cfg.asked), everything))
    if cfg.weights.suffix.lower() != ".pt":
        raise UserError(f"{cfg.weights} is no checkpoint; give the .pt file")
    torch.backends.cudnn.allow_tf32 = False  # compare with full precision
    predictor = load_predictor(cfg.weights, select_device(cfg.device), names=_names(cfg.data), task=None)
    assert isinstance(predictor, TorchPredictor)
    if predictor.task == "classify":
        cfg.refuse_other_tasks("classify", str(cfg.weights))
    cfg = replace(cfg, include=_without(cfg, lambda format: _unfit(format, cfg, predictor), everything))
    if cfg.int8 and cfg.data is None:
        cfg = replace(cfg, data=_trained_on(predictor))
    metadata = _metadata(cfg, predictor)
    LOG.info("%s: %s", cfg.weights, _summary(cfg, predictor, metadata))
    targets = [_target(cfg, format).name for format in cfg.include]
    clear_drafts(cfg.weights.parent, cfg.weights.name, *targets)
    with (
        writing(cfg.weights.parent),  # before the long part: can it be written at all?
        draft_folder(cfg.weights) as drafts,
    ):
        files = []
        for format in cfg.include:
            try:
                files.append(_export(cfg, format, predictor, metadata, drafts))
            except UserError as error:
                if not everything:
                    raise
                _say_left_out(format, str(error))
        return files


def _without(
    cfg: ExportConfig, problem: Callable[[FormatName], str | None], everything: bool
) -> tuple[FormatName, ...]:
    """Return the formats without a `problem`; one that was asked for by name must have none.

    Raises:
        UserError: it has.
    """
    kept = []
    for format in EXPORT_FORMATS if ALL in cfg.include else cfg.include:
        reason = problem(format)
        if reason is None:
            kept.append(format)
        elif everything:
            _say_left_out(format, reason)
        else:
            raise UserError(reason)
    return tuple(kept)


def _say_left_out(format: str, reason: str) -> None:
    LOG.log(RESULT, f"{format}: not made, {reason}")


def _unfit(format: FormatName, cfg: ExportConfig, predictor: TorchPredictor) -> str | None:
    """Return why this network cannot be had in a format."""
    from engine.runtimes.pytorch import check_yolov5

    if format == "yolov5":
        try:
            check_yolov5(predictor.model, cfg.weights)
        except UserError as error:
            return str(error)
    return None


def _summary(cfg: ExportConfig, predictor: TorchPredictor, metadata: Metadata) -> str:
    """Return in one line what the files take and compute in."""
    classes = counted(len(predictor.names), "class")
    if cfg.include == ("yolov5",):  # a checkpoint, which takes any input
        return classes
    height, width = metadata.imgsz or (0, 0)
    batch = "any batch" if cfg.dynamic else f"batch {cfg.batch_size}"
    any_size = cfg.dynamic and predictor.task == "detect"
    size = f"any size (multiples of {predictor.stride})" if any_size else f"{height}x{width} pixels"
    return f"{classes}, {batch}, {size}, {metadata.precision}"


def _names(data: Path | None) -> tuple[str, ...] | None:
    if data is None:
        return None
    from data.dataset_yaml import read_class_names

    return read_class_names(data)[0]


def _trained_on(predictor: TorchPredictor) -> Path:
    data = predictor.config.get("data")
    if not data:
        raise UserError("--int8 is calibrated on images; give the data set with --data")
    return Path(data)


def _metadata(cfg: ExportConfig, predictor: TorchPredictor) -> Metadata:
    from engine.inference.sizes import input_size
    from engine.runtimes.metadata import Metadata

    return Metadata(
        predictor.names,
        predictor.stride,
        predictor.task,
        imgsz=input_size(cfg.imgsz, predictor),
        dynamic=cfg.dynamic,
        batch=cfg.batch_size,
        nms=cfg.nms,
        precision="int8" if cfg.int8 else "fp16" if cfg.half else "fp32",
        config=predictor.config,
    )


def _export(
    cfg: ExportConfig, format: str, predictor: TorchPredictor, metadata: Metadata, drafts: Path
) -> Path | None:
    """Write one format among the drafts; it gets its own place once it agrees with PyTorch."""
    if format == "yolov5":  # its weights are stored in 16 bits
        metadata = replace(metadata, precision="fp16")
    target = _target(cfg, format)
    attempts = [cfg.replace(conf_thres=PROBED), cfg] if cfg.nms and not cfg.int8 else [cfg]
    for attempt in attempts:
        start = time.perf_counter()
        with writing(target):
            draft = write(format, Job(attempt, predictor, metadata, drafts))
        if attempt is attempts[0]:  # the long part; a second threshold takes no time
            seconds = time.perf_counter() - start
            LOG.info("%s: %.1f MB, exported in %.1f s", format, _megabytes(draft), seconds)
        if not agrees_with_pytorch(attempt, format, predictor, _reload(draft, format), metadata):
            LOG.error("%s: the outputs differ, so %s was not written", format, target)
            return None
    move_into_place(draft, target)
    next_step = "to be run on macOS" if format == "coreml" else f"try: python detect.py --weights {target}"
    LOG.log(RESULT, f"{format}: saved {target}; {next_step}")
    return target


def _megabytes(draft: Path) -> float:
    return sum(file.stat().st_size for file in (draft.rglob("*") if draft.is_dir() else [draft])) / 1e6


def _target(cfg: ExportConfig, format: str) -> Path:
    """Return where a format goes, beside the checkpoint."""
    from engine.runtimes import FORMATS

    precision = "_int8" if cfg.int8 else "_fp16" if cfg.half and format != "yolov5" else ""
    nms = "_nms" if cfg.nms else ""
    return cfg.weights.with_name(f"{cfg.weights.stem}{precision}{nms}{FORMATS[format].written_as}")


def _reload(draft: Path, format: str) -> Predictor:
    from engine.runtimes import load_predictor
    from engine.runtimes.coreml import MACOS, load_reference

    try:
        if format == "coreml" and not MACOS:
            LOG.log(RESULT, f"{format}: not run, CoreML is on macOS only; its program is computed by PyTorch")
            return load_reference(draft)
        return load_predictor(draft, "cuda:0" if format == "engine" else "cpu", task=None)
    except UserError as error:
        raise UserError(f"the {format} file does not run here, so it was not kept: {error}") from error
