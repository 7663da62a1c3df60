"""One writer per format: each makes its file, or folder, among the drafts of an export."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.export.config import ExportConfig

if TYPE_CHECKING:
    from torch import Tensor

    from engine.runtimes.metadata import Metadata
    from engine.runtimes.pytorch import TorchPredictor


@dataclass(frozen=True)
class Job:
    """What is to be written.

    Attributes:
        cfg: the options.
        predictor: the network in PyTorch, ready to run.
        metadata: for the file, whose precision it is to have.
        drafts: the folder where files are made; the formats of one export share it.
    """

    cfg: ExportConfig
    predictor: TorchPredictor
    metadata: Metadata
    drafts: Path


def write(format: str, job: Job) -> Path:
    """Write one format and return its file, or its folder."""
    return WRITERS[format](job)


def write_graph(job: Job) -> Path:
    """Write the ONNX graph; the part before NMS is made once."""
    from engine.runtimes.onnx import export_onnx
    from engine.runtimes.onnx_nms import add_nms
    from engine.runtimes.quantize import quantize

    cfg, metadata = job.cfg, job.metadata
    file = job.drafts / f"{metadata.precision}.onnx"
    if not file.exists():
        export_onnx(job.predictor.model, file, metadata, cfg.opset, cfg.simplify)
        if cfg.int8:
            quantize(file, _calibration(job))
    if cfg.nms_settings is None:
        return file
    with_nms = job.drafts / f"{metadata.precision}_nms.onnx"
    add_nms(file, with_nms, cfg.nms_settings)
    return with_nms


def _calibration(job: Job) -> Iterator[Tensor]:
    from data.detection.calibration import calibration_batches

    cfg, imgsz = job.cfg, job.metadata.imgsz
    assert cfg.data is not None and imgsz is not None
    return calibration_batches(cfg.data, imgsz, cfg.batch_size, cfg.calibration)


def _full_graph(job: Job) -> Path:
    """The ONNX graph in 32 bits for converters that halve it themselves; in 8 bits it stays as it is."""
    full = replace(job.metadata, precision="fp32") if job.cfg.half else job.metadata
    return write_graph(replace(job, metadata=full))


def _onnx(job: Job) -> Path:
    return Path(shutil.copy(write_graph(job), job.drafts / "draft.onnx"))


def _triton(job: Job) -> Path:
    from engine.runtimes.triton import export_triton

    return export_triton(write_graph(job), job.drafts / "triton", job.cfg.weights.stem, job.metadata)


def _openvino(job: Job) -> Path:
    from engine.runtimes.openvino import export_openvino

    return export_openvino(_full_graph(job), job.drafts / "openvino", job.metadata).parent


def _tensorrt(job: Job) -> Path:
    from engine.runtimes.tensorrt import export_tensorrt

    return export_tensorrt(_full_graph(job), job.drafts / "draft.engine", job.metadata)


def _torchscript(job: Job) -> Path:
    from engine.runtimes.torchscript import export_torchscript

    file = job.drafts / "draft.torchscript"
    export_torchscript(job.predictor.model, file, job.metadata)
    return file


def _ncnn(job: Job) -> Path:
    from engine.runtimes.ncnn import export_ncnn

    return export_ncnn(job.predictor.model, job.drafts / "ncnn", job.metadata)


def _litert(job: Job) -> Path:
    from engine.runtimes.litert import export_litert

    file, images = job.drafts / "draft.tflite", functools.partial(_calibration, job)
    return export_litert(job.predictor.model, file, job.metadata, images)


def _coreml(job: Job) -> Path:
    from engine.runtimes.coreml import export_coreml

    return export_coreml(job.predictor.model, job.drafts / "draft.mlpackage", job.metadata)


def _yolov5(job: Job) -> Path:
    from engine.runtimes.pytorch import export_yolov5

    file = job.drafts / "draft.pt"
    export_yolov5(job.cfg.weights, file, job.metadata)
    return file


WRITERS: dict[str, Callable[[Job], Path]] = {
    "onnx": _onnx,
    "triton": _triton,
    "openvino": _openvino,
    "torchscript": _torchscript,
    "engine": _tensorrt,
    "ncnn": _ncnn,
    "litert": _litert,
    "coreml": _coreml,
    "yolov5": _yolov5,
}
