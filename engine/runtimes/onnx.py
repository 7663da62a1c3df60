"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from engine.runtimes.exported_file import FilePredictor, check_file, output_dimensions, read_metadata
from utils.errors import UserError

if TYPE_CHECKING:
    import onnxruntime


def load(
    file: Path, device: torch.device, fuse: bool, half: bool, names: Sequence[str] | None = None
) -> FilePredictor:
    """Open an ONNX file; `fuse` means nothing here, the file is as it was exported.

    Raises:
        UserError: no such file, not ONNX, not a YOLOv5 graph, or no class names in it and none given.
    """
    check_file(file, half)
    session = _open(file, device)
    columns = _check_graph(session, file)
    metadata = read_metadata(session.get_modelmeta().custom_metadata_map, names, columns, file)
    entry, result = session.get_inputs()[0], session.get_outputs()[0]
    dtype = np.float16 if entry.type == "tensor(float16)" else np.float32
    batch, _, height, width = entry.shape

    def run(images: Tensor) -> Tensor:
        array = images.cpu().numpy().astype(dtype, copy=False)
        return torch.from_numpy(session.run([result.name], {entry.name: array})[0])

    return FilePredictor(
        run,
        metadata,
        device,
        batch if isinstance(batch, int) else None,
        (height, width) if isinstance(height, int) and isinstance(width, int) else None,
    )


def _open(file: Path, device: torch.device) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{file}: running ONNX files needs onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = torch.get_num_threads()
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise UserError(
                f"{file}: this onnxruntime has no CUDA; pip install onnxruntime-gpu, or --device cpu"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))  # type: ignore[arg-type]
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # its exceptions share no base class but this one
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file}: ONNX Runtime cannot open it ({reason})") from error


def _check_graph(session: onnxruntime.InferenceSession, file: Path) -> int | None:
    """Return how many numbers a row of the output has, where the graph fixes it."""
    inputs, output = session.get_inputs(), session.get_outputs()[0]
    task = session.get_modelmeta().custom_metadata_map.get("task", "")
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or len(output.shape) != output_dimensions(task):
        found = f"inputs {[i.shape for i in inputs]}, first output {output.shape}"
        raise UserError(
            f"{file}: not a YOLOv5 graph, which maps (B, 3, H, W) to (B, N, 5 + classes); it has {found}"
        )
    last = output.shape[-1]
    return last if isinstance(last, int) else None
