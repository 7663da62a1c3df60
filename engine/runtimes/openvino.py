"""OpenVINO: its pair of files made from the ONNX graph, and running them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from engine.runtimes.exported_file import (
    ByThreads,
    FilePredictor,
    check_file,
    output_dimensions,
    read_metadata,
)
from engine.runtimes.metadata import Metadata
from utils.errors import UserError
from utils.files import read_yaml
from utils.offline import import_openvino
from utils.reading import check_regular

SECTION = "yolov5_spd"  # of the file's run-time information, where its metadata is


def load(
    file: Path, device: torch.device, fuse: bool, half: bool, names: Sequence[str] | None = None
) -> FilePredictor:
    """Open OpenVINO's .xml, beside which the weights lie as .bin; it runs on the CPU, in float32.

    Raises:
        UserError: no such file, not OpenVINO's, not a YOLOv5 graph, no class names, or another device.
    """
    check_file(file, half)
    check_files(file)
    if device.type != "cpu":
        raise UserError(f"{file}: OpenVINO runs on the CPU here; add --device cpu")
    try:
        openvino = import_openvino()
    except ImportError as error:
        raise UserError(f"{file}: running OpenVINO files needs openvino: pip install openvino") from error
    core = openvino.Core()
    try:
        model = core.read_model(file)
        batch, imgsz, columns = _check_graph(model, file)
        metadata = read_metadata(_strings(model) or _beside(file), names, columns, file)
        available = torch.get_num_threads()

        def compile_for(threads: int) -> Any:
            options = {
                "INFERENCE_PRECISION_HINT": "f32",  # left to itself it takes bf16 where the processor has it
                "INFERENCE_NUM_THREADS": max(available, threads),
                "NUM_STREAMS": max(1, available // threads),  # requests that are computed at once
            }
            return core.compile_model(model, "CPU", options)

        compiled = ByThreads(compile_for)
        compiled.get()
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"{file}: OpenVINO cannot open it ({lines[-1] if lines else 'no reason given'})"
        ) from error
    requests = threading.local()  # a request serves one thread

    def run(images: Tensor) -> Tensor:
        threads = torch.get_num_threads()
        if getattr(requests, "threads", None) != threads:
            requests.mine, requests.threads = compiled.get().create_infer_request(), threads
        return torch.from_numpy(requests.mine.infer([images.cpu().numpy()])[0].copy())

    return FilePredictor(file, run, metadata, device, batch, imgsz)


def check_files(file: Path) -> None:
    """Refuse an .xml with a document type, whose entities can name other files, and weights that are no file.

    Raises:
        UserError: as above.
    """
    content = file.read_bytes()
    if re.search(rb"<!\s*(DOCTYPE|ENTITY)", content, re.IGNORECASE) or content[:2] in (
        b"\xff\xfe",
        b"\xfe\xff",
    ):
        raise UserError(f"{file}: an OpenVINO file has no document type or entities; it is not read")
    weights = file.with_suffix(".bin")
    if weights.exists():
        check_regular(weights, "the weights of an OpenVINO file")


def _strings(model: Any) -> dict[str, str]:
    if not model.has_rt_info(SECTION):
        return {}
    return {
        key: model.get_rt_info([SECTION, key]).astype(str) for key in model.get_rt_info(SECTION).astype(dict)
    }


def _beside(file: Path) -> dict[str, str]:
    """Read the stride and names that YOLOv5's export writes to a YAML file of the same name."""
    path = file.with_suffix(".yaml")
    if not path.is_file():
        return {}
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold stride and names, as YOLOv5's export writes them")
    return {str(key): json.dumps(value, default=str) for key, value in content.items()}


def _check_graph(model: Any, file: Path) -> tuple[int | None, tuple[int, int] | None, int | None]:
    """Return the batch size, height and width, and the numbers in a row, where the graph fixes them."""
    shape, last = model.inputs[0].partial_shape, model.outputs[0].partial_shape
    dimensions = output_dimensions(_strings(model).get("task", ""))
    if len(model.inputs) != 1 or len(shape) != 4 or len(last) != dimensions:
        raise UserError(f"{file}: not a YOLOv5 graph, which maps (B, 3, H, W) to (B, N, 5 + classes)")
    batch, _, height, width = (side.get_length() if side.is_static else None for side in shape)
    columns = last[dimensions - 1].get_length() if last[dimensions - 1].is_static else None
    return batch, (height, width) if height and width else None, columns


def export_openvino(onnx_file: Path, folder: Path, metadata: Metadata) -> Path:
    """Write `folder`/model.xml, .bin and .yaml and return the .xml.

    Args:
        onnx_file: the graph, of whatever precision; int8 stays int8.
        folder: is made.
        metadata: goes into the file; precision "fp16" halves the weights, which still compute in float32 on
            a CPU.

    Raises:
        UserError: the package is missing, or OpenVINO cannot read the graph.
    """
    try:
        openvino = import_openvino()
    except ImportError as error:
        raise UserError("OpenVINO export needs the package openvino: pip install openvino") from error
    try:
        model = openvino.Core().read_model(onnx_file)
    except RuntimeError as error:
        raise UserError(
            f"OpenVINO cannot read the ONNX graph ({str(error).strip().splitlines()[-1]})"
        ) from error
    for key, value in metadata.to_strings().items():
        model.set_rt_info(value, [SECTION, key])
    folder.mkdir(exist_ok=True)
    file = folder / "model.xml"
    beside = {"stride": metadata.stride, "names": dict(enumerate(metadata.names))}
    text = yaml.safe_dump(beside, sort_keys=False, allow_unicode=True)
    file.with_suffix(".yaml").write_text(text, encoding="utf-8")  # which YOLOv5's detect.py reads
    openvino.save_model(model, file, compress_to_fp16=metadata.precision == "fp16")
    return file
