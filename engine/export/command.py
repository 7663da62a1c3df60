"""export.py: from a checkpoint to files for other runtimes, each compared with PyTorch before it is kept."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.export.comparison import agrees_with_pytorch
from engine.export.config import ExportConfig
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
    from engine.runtimes.pytorch import TorchPredictor, check_yolov5
    from engine.runtimes.tensorrt import import_tensorrt
    from utils.device import select_device
    from utils.run_folders import default_weights

    cfg = replace(cfg, weights=cfg.weights or default_weights())
    if "engine" in cfg.include:
        import_tensorrt("--include engine")
    if cfg.weights.suffix.lower() != ".pt":
        raise UserError(f"{cfg.weights} is no checkpoint; give the .pt file")
    torch.backends.cudnn.allow_tf32 = False  # compare with full precision
    predictor = load_predictor(cfg.weights, select_device(cfg.device), names=_names(cfg.data), task=None)
    assert isinstance(predictor, TorchPredictor)
    if predictor.task == "classify":
        cfg.refuse_other_tasks("classify", str(cfg.weights))
    if "yolov5" in cfg.include:
        check_yolov5(predictor.model, cfg.weights)
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
        return [_export(cfg, format, predictor, metadata, drafts) for format in cfg.include]


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
            draft = _write(attempt, format, predictor, metadata, drafts)
        if attempt is attempts[0]:  # the long part; a second threshold takes no time
            size = (
                sum(file.stat().st_size for file in (draft.rglob("*") if draft.is_dir() else [draft])) / 1e6
            )
            LOG.info("%s: %.1f MB, exported in %.1f s", format, size, time.perf_counter() - start)
        if not agrees_with_pytorch(attempt, format, predictor, _reload(draft, format), metadata):
            LOG.error("%s: the outputs differ, so %s was not written", format, target)
            return None
    move_into_place(draft, target)
    LOG.log(RESULT, f"{format}: saved {target}; try: python detect.py --weights {target}")
    return target


def _megabytes(draft: Path) -> float:
    return sum(file.stat().st_size for file in (draft.rglob("*") if draft.is_dir() else [draft])) / 1e6


def _target(cfg: ExportConfig, format: str) -> Path:
    """Return where a format goes, beside the checkpoint."""
    from engine.runtimes import FORMATS

    precision = "_int8" if cfg.int8 else "_fp16" if cfg.half and format != "yolov5" else ""
    nms = "_nms" if cfg.nms else ""
    return cfg.weights.with_name(f"{cfg.weights.stem}{precision}{nms}{FORMATS[format].written_as}")


def _write(
    cfg: ExportConfig, format: str, predictor: TorchPredictor, metadata: Metadata, drafts: Path
) -> Path:
    """Write one format and return its file, or its folder."""
    from engine.runtimes.openvino import export_openvino
    from engine.runtimes.pytorch import export_yolov5
    from engine.runtimes.tensorrt import export_tensorrt
    from engine.runtimes.torchscript import export_torchscript

    if format == "onnx":
        return Path(shutil.copy(_write_onnx(cfg, predictor, metadata, drafts), drafts / "draft.onnx"))
    if format in ("openvino", "engine"):  # which halve what they are given themselves
        full = replace(metadata, precision="fp32") if cfg.half else metadata
        graph = _write_onnx(cfg, predictor, full, drafts)
        if format == "engine":
            return export_tensorrt(graph, drafts / "draft.engine", metadata)
        return export_openvino(graph, drafts / "openvino", metadata).parent
    if format == "yolov5":
        file = drafts / "draft.pt"
        export_yolov5(cfg.weights, file, metadata)
        return file
    file = drafts / "draft.torchscript"
    export_torchscript(predictor.model, file, metadata)
    return file


def _write_onnx(cfg: ExportConfig, predictor: TorchPredictor, metadata: Metadata, drafts: Path) -> Path:
    """Write the ONNX graph; the part before NMS is made once."""
    from engine.runtimes.onnx import export_onnx
    from engine.runtimes.onnx_nms import add_nms
    from engine.runtimes.quantize import quantize

    file = drafts / f"{metadata.precision}.onnx"
    if not file.exists():
        export_onnx(predictor.model, file, metadata, cfg.opset, cfg.simplify)
        if cfg.int8:
            from data.detection.calibration import calibration_batches

            assert cfg.data is not None and metadata.imgsz is not None
            quantize(file, calibration_batches(cfg.data, metadata.imgsz, cfg.batch_size, cfg.calibration))
    if cfg.nms_settings is None:
        return file
    with_nms = drafts / f"{metadata.precision}_nms.onnx"
    add_nms(file, with_nms, cfg.nms_settings)
    return with_nms


def _reload(draft: Path, format: str) -> Predictor:
    from engine.runtimes import load_predictor

    try:
        return load_predictor(draft, "cuda:0" if format == "engine" else "cpu", task=None)
    except UserError as error:
        raise UserError(f"the {format} file does not run here, so it was not kept: {error}") from error
