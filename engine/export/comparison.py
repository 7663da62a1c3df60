"""Does an exported file give what PyTorch gives: number by number, box by box or, in 8 bits, by their AP?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from utils.log import RESULT

if TYPE_CHECKING:
    from engine.export.config import ExportConfig
    from engine.runtimes import Predictor
    from engine.runtimes.metadata import Metadata
    from engine.runtimes.onnx_nms import NmsSettings
    from engine.runtimes.parity import Tolerance

LOG = logging.getLogger(__name__)

Shape = tuple[int, int, int]  # batch, height, width


def agrees_with_pytorch(
    cfg: ExportConfig, format: str, reference: Predictor, exported: Predictor, metadata: Metadata
) -> bool:
    """Run both on the same inputs, say how far they differ, and return whether that is within the tolerance.

    Args:
        cfg: of the export.
        format: its name, for the messages.
        reference: the network in PyTorch.
        exported: the file.
        metadata: of the file; its precision chooses the tolerance.
    """
    from engine.runtimes.parity import TOLERANCES

    if cfg.int8:
        return _keeps_ap(cfg, reference, exported, metadata)
    shapes, tolerance = _input_shapes(cfg, metadata), TOLERANCES[metadata.precision]
    if cfg.nms_settings is not None:
        return _same_detections(format, reference, exported, shapes, tolerance, cfg.nms_settings)
    return _same_numbers(format, reference, exported, shapes, tolerance)


def _input_shapes(cfg: ExportConfig, metadata: Metadata) -> list[Shape]:
    """Return the inputs to compare; a dynamic file must take others than its example."""
    assert metadata.imgsz is not None
    height, width = metadata.imgsz
    if not cfg.dynamic:
        return [(cfg.batch_size, height, width)]
    if metadata.task == "classify":
        return [(1, height, width), (3, height, width)]
    stride = metadata.stride
    return [(1, height, width), (3, height + stride, width), (2, 3 * stride, 5 * stride)]


def _same_numbers(
    format: str, reference: Predictor, exported: Predictor, shapes: Sequence[Shape], tolerance: Tolerance
) -> bool:
    from engine.runtimes.parity import compare, compare_logits

    if reference.task == "classify":
        difference = compare_logits(reference, exported, shapes, tolerance)
        size = f"{difference.scores:.2g} in logits (allowed: {tolerance.scores:g} and as much of the value)"
    else:
        difference = compare(reference, exported, shapes, tolerance)
        size = f"{difference.pixels:.2g} pixels, {difference.scores:.2g} in scores (allowed: {tolerance})"
    LOG.log(RESULT, f"{format}: largest difference from PyTorch on {difference.inputs} inputs: {size}")
    return difference.agree


def _same_detections(
    format: str,
    reference: Predictor,
    exported: Predictor,
    shapes: Sequence[Shape],
    tolerance: Tolerance,
    settings: NmsSettings,
) -> bool:
    from engine.runtimes.parity import compare_detections

    agreement = compare_detections(reference, exported, shapes, settings)
    LOG.log(
        RESULT,
        f"{format}: {agreement.both} of PyTorch's {agreement.first} objects are also among its "
        f"{agreement.second}",
    )
    return agreement.agree(tolerance)


def _keeps_ap(cfg: ExportConfig, reference: Predictor, exported: Predictor, metadata: Metadata) -> bool:
    """Print the AP of both on the validation images; return whether at least half of it is left."""
    from data.detection.calibration import validation_loader
    from engine.evaluation.evaluator import evaluate
    from engine.evaluation.predictions import predict_loader

    assert cfg.data is not None and metadata.imgsz is not None
    metrics = []
    for predictor in (reference, exported):
        loader = validation_loader(cfg.data, metadata.imgsz, reference.stride)
        predictions = predict_loader(predictor, loader, progress=False)
        metrics.append(evaluate(predictions, reference.names).metrics.values)
    before, after = metrics
    for key in ("AP", "AP50", "AP_S"):
        full, quantized = before.get(key), after.get(key)
        if full is not None and quantized is not None:
            LOG.log(RESULT, f"int8: {key} {full:.4f} -> {quantized:.4f} ({quantized - full:+.4f})")
    return (after["AP"] or 0) >= 0.5 * (before["AP"] or 0)
