"""export.py: from a checkpoint to files for other runtimes, each proved equal before it is kept."""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.export.config import ExportConfig
from utils.errors import UserError
from utils.log import RESULT

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
    from engine.runtimes.tensorrt import import_tensorrt
    from utils.device import select_device
    from utils.run_folders import newest_weights

    cfg = replace(cfg, weights=cfg.weights or newest_weights())
    if "engine" in cfg.include:
        import_tensorrt("--include engine")
    if cfg.weights.suffix.lower() != ".pt":
        raise UserError(f"{cfg.weights} is no checkpoint; give the .pt file")
    torch.backends.cudnn.allow_tf32 = False  # compare with full precision
    predictor = load_predictor(cfg.weights, select_device(cfg.device), names=_names(cfg.data), task=None)
    assert isinstance(predictor, TorchPredictor)
    if predictor.task == "classify":
        cfg.refuse_other_tasks("classify", str(cfg.weights))
    if cfg.int8 and cfg.data is None:
        cfg = replace(cfg, data=_trained_on(predictor))
    metadata = _metadata(cfg, predictor)
    height, width = metadata.imgsz or (0, 0)
    batch = "any batch" if cfg.dynamic else f"batch {cfg.batch_size}"
    any_size = cfg.dynamic and predictor.task == "detect"
    size = f"any size (multiples of {predictor.stride})" if any_size else f"{height}x{width} pixels"
    classes = len(predictor.names)
    LOG.info("%s: %d classes, %s, %s, %s", cfg.weights, classes, batch, size, metadata.precision)
    drafts = cfg.weights.with_name(f".{cfg.weights.stem}.{os.getpid()}.drafts")
    try:
        drafts.mkdir()  # before the long part: can it be written at all?
        return [_export(cfg, format, predictor, metadata, drafts) for format in cfg.include]
    finally:
        shutil.rmtree(drafts, ignore_errors=True)


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
    """Write one format among the drafts; it gets its own place once it is proved equal."""
    from engine.runtimes import FORMATS

    marks = f"{'_int8' if cfg.int8 else '_fp16' if cfg.half else ''}{'_nms' if cfg.nms else ''}"
    target = cfg.weights.with_name(f"{cfg.weights.stem}{marks}{FORMATS[format].written_as}")
    start = time.perf_counter()
    draft = _write(cfg, format, predictor, metadata, drafts)  # the long part
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in (draft.rglob("*") if draft.is_dir() else [draft])) / 1e6
    LOG.info("%s: %.1f MB, exported in %.1f s", format, size, seconds)
    probes = [cfg.replace(conf_thres=PROBED)] if cfg.nms and not cfg.int8 else []
    for probe in (*probes, cfg):
        draft = _write(probe, format, predictor, metadata, drafts)
        if not _proved(probe, format, predictor, _reload(draft, format), metadata):
            LOG.error("%s: the outputs differ, so %s was not written", format, target)
            return None
    _replace(draft, target)
    LOG.log(RESULT, f"{format}: saved {target}; try: python detect.py --weights {target}")
    return target


def _write(
    cfg: ExportConfig, format: str, predictor: TorchPredictor, metadata: Metadata, drafts: Path
) -> Path:
    """Write one format and return its file, or its folder."""
    from engine.runtimes.openvino import export_openvino
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


def _replace(draft: Path, target: Path) -> None:
    """Put a file or folder where an older one may be."""
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(draft, target)


def _reload(draft: Path, format: str) -> Predictor:
    from engine.runtimes import load_predictor

    try:
        return load_predictor(draft, "cuda:0" if format == "engine" else "cpu", task=None)
    except UserError as error:
        raise UserError(f"the {format} file does not run here, so it was not kept: {error}") from error


def _proved(
    cfg: ExportConfig, format: str, predictor: TorchPredictor, other: Predictor, metadata: Metadata
) -> bool:
    """Compare what the file and PyTorch give, number by number, box by box or, in 8 bits, by their AP."""
    from engine.runtimes.parity import TOLERANCES, compare, compare_detections, compare_logits

    shapes = _shapes(cfg, metadata)
    settings = cfg.nms_settings
    if cfg.int8:
        return _score(cfg, predictor, other, metadata)
    tolerance = TOLERANCES[metadata.precision]
    if settings is not None:
        agreement = compare_detections(predictor, other, shapes, settings)
        LOG.log(
            RESULT,
            f"{format}: {agreement.both} of PyTorch's {agreement.first} objects are also among its "
            f"{agreement.second}",
        )
        return agreement.agree(tolerance)
    if predictor.task == "classify":
        gap = compare_logits(predictor, other, shapes, tolerance)
        LOG.log(
            RESULT,
            f"{format}: largest difference from PyTorch on {gap.inputs} inputs: {gap.scores:.2g} in logits "
            f"(allowed: {tolerance.scores:g} and as much of the value)",
        )
        return gap.agree
    gap = compare(predictor, other, shapes, tolerance)
    LOG.log(
        RESULT,
        f"{format}: largest difference from PyTorch on {gap.inputs} inputs: {gap.pixels:.2g} pixels, "
        f"{gap.scores:.2g} in scores (allowed: {tolerance})",
    )
    return gap.agree


def _shapes(cfg: ExportConfig, metadata: Metadata) -> list[tuple[int, int, int]]:
    """Batch, height and width of the inputs to compare; a dynamic file must take others than its example."""
    assert metadata.imgsz is not None
    height, width = metadata.imgsz
    if not cfg.dynamic:
        return [(cfg.batch_size, height, width)]
    if metadata.task == "classify":
        return [(1, height, width), (3, height, width)]
    stride = metadata.stride
    return [(1, height, width), (3, height + stride, width), (2, 3 * stride, 5 * stride)]


def _score(cfg: ExportConfig, predictor: TorchPredictor, other: Predictor, metadata: Metadata) -> bool:
    """Print the AP of both on the validation images; whether at least half of it is left."""
    from data.detection.calibration import validation_loader
    from engine.evaluation.evaluator import evaluate
    from engine.evaluation.predictions import predict_loader

    assert cfg.data is not None and metadata.imgsz is not None
    values = []
    for predict in (predictor, other):
        loader = validation_loader(cfg.data, metadata.imgsz, predictor.stride)
        predictions = predict_loader(predict, loader, progress=False)
        values.append(evaluate(predictions, predictor.names).metrics.values)
    before, after = values
    for key in ("AP", "AP50", "AP_S"):
        full, small = before.get(key), after.get(key)
        if full is not None and small is not None:
            LOG.log(RESULT, f"int8: {key} {full:.4f} -> {small:.4f} ({small - full:+.4f})")
    return (after["AP"] or 0) >= 0.5 * (before["AP"] or 0)
