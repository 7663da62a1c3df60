"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.metadata import Metadata
from utils.errors import UserError

if TYPE_CHECKING:
    import onnxruntime


class OnnxPredictor:
    """One ONNX file; see `models.runtime.Predictor`.

    Where the file fixes the batch, other batches are cut and filled to fit.
    """

    def __init__(self, session: onnxruntime.InferenceSession, metadata: Metadata, device: torch.device):
        self.session, self.device = session, device
        self.names, self.stride, self.task = metadata.names, metadata.stride, metadata.task
        self.config = metadata.config
        entry = session.get_inputs()[0]
        self.input_name, self.output_name = entry.name, session.get_outputs()[0].name
        self.dtype = np.float16 if entry.type == "tensor(float16)" else np.float32
        batch, _, height, width = entry.shape
        self.batch = batch if isinstance(batch, int) else None
        self.imgsz = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in 0..1 -> (B, N, 5 + classes) float32."""
        shape = (images.shape[2], images.shape[3])
        if self.imgsz not in (None, shape):
            raise ValueError(f"this ONNX file takes images of {self.imgsz}, height and width, not {shape}")
        array = np.ascontiguousarray(images.detach().cpu().numpy().astype(self.dtype, copy=False))
        size = self.batch or len(array)
        parts = [self._run(array[start : start + size]) for start in range(0, len(array), size)]
        return torch.from_numpy(np.concatenate(parts).astype(np.float32, copy=False)).to(self.device)

    def _run(self, array: np.ndarray) -> np.ndarray:
        count = len(array)
        if self.batch and count < self.batch:
            array = np.concatenate([array, np.zeros((self.batch - count, *array.shape[1:]), self.dtype)])
        return self.session.run([self.output_name], {self.input_name: array})[0][:count]


def load(
    file: Path, device: torch.device, fuse: bool, half: bool, names: Sequence[str] | None = None
) -> OnnxPredictor:
    """Open an ONNX file; `fuse` means nothing here, the file is as it was exported.

    Raises:
        UserError: no such file, not ONNX, not a YOLOv5 graph, or no class names in it and none given.
    """
    if not file.is_file():
        raise UserError(
            f"no such weights: {file}; make it with: python export.py --weights {file.with_suffix('.pt')}"
        )
    if half:
        raise UserError(f"{file}: an ONNX file computes as it was exported; leave out --half")
    session = _open(file, device)
    classes = _check_graph(session, file)
    written = session.get_modelmeta().custom_metadata_map
    if names is not None and "names" not in written:
        metadata = Metadata(list(names), int(written.get("stride", 32)))
    else:
        metadata = Metadata.from_strings(written, str(file))
    if classes is not None and len(metadata.names) != classes:
        raise UserError(f"{file}: the graph has {classes} classes, but {len(metadata.names)} are named")
    return OnnxPredictor(session, metadata, device)


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
    """Return the number of classes, where the graph fixes it."""
    inputs, output = session.get_inputs(), session.get_outputs()[0]
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or len(output.shape) != 3:
        found = f"inputs {[i.shape for i in inputs]}, first output {output.shape}"
        raise UserError(
            f"{file}: not a YOLOv5 graph, which maps (B, 3, H, W) to (B, N, 5 + classes); it has {found}"
        )
    last = output.shape[2]
    return last - 5 if isinstance(last, int) else None
