"""LiteRT, once TensorFlow Lite: a .tflite file converted by litert-torch, and running it on the CPU.

As in YOLOv5's .tflite files, the input is (B, H, W, 3), and a detector's output (B, N, 5 + classes) has its
boxes as fractions of width and height; what the predictor here returns is in pixels. A classifier's output is
logits (B, classes).
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.runtimes.exported_file import FilePredictor, check_file, read_metadata
from engine.runtimes.litert_quantize import halve, quantize
from engine.runtimes.metadata import Metadata, read_value
from engine.runtimes.tracing import Decoded, silenced, strided
from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel
from utils.archives import check_sums
from utils.errors import UserError
from utils.limits import METADATA_BYTES
from utils.offline import keep_offline
from utils.reading import guarded

MEMBER = "metadata.json"  # of the archive behind the graph, as in Ultralytics' files
IDENTIFIER = b"TFL3"  # bytes 4 to 8 of the graph


class Portable(nn.Module):
    """(B, H, W, 3) -> logits, or decoded rows whose boxes are fractions of the input's width and height."""

    def __init__(self, model: DetectionModel | ClassificationModel, imgsz: tuple[int, int]):
        super().__init__()
        self.network = Decoded(strided(model), half=False)
        self.detects = isinstance(model, DetectionModel)
        height, width = imgsz
        self.register_buffer("scale", torch.tensor([width, height, width, height]).reciprocal())
        self.scale: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Run the network."""
        output = self.network(images.permute(0, 3, 1, 2))
        if not self.detects:
            return output
        return torch.cat((output[..., :4] * self.scale, output[..., 4:]), -1)


def load(
    file: Path, device: torch.device, fuse: bool, half: bool, names: Sequence[str] | None = None
) -> FilePredictor:
    """Open a .tflite file; it runs on the CPU.

    Raises:
        UserError: no such file, not LiteRT's, not a YOLOv5 graph, no class names, or another device.
    """
    check_file(file, half)
    if device.type != "cpu":
        raise UserError(f"{file}: LiteRT runs on the CPU here; add --device cpu")
    _check_start(file)
    strings = _strings(file)
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(f"{file}: running .tflite files needs LiteRT: pip install ai-edge-litert") from error
    threads = threading.local()  # an interpreter serves one thread

    def interpreter() -> Any:
        if not hasattr(threads, "mine"):
            with silenced():
                threads.mine = Interpreter(str(file), num_threads=torch.get_num_threads())
                threads.mine.allocate_tensors()
        return threads.mine

    try:
        batch, imgsz, shape = _check_graph(interpreter(), file)
    except (ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UserError(f"{file}: LiteRT cannot open it ({reason})") from error
    metadata = read_metadata(strings, names, shape[-1], file)
    height, width = imgsz
    pixels = torch.tensor([width, height, width, height])

    def run(images: Tensor) -> Tensor:
        mine = interpreter()
        mine.set_tensor(mine.get_input_details()[0]["index"], images.permute(0, 2, 3, 1).contiguous().numpy())
        mine.invoke()
        output = torch.from_numpy(mine.get_tensor(mine.get_output_details()[0]["index"]))
        if metadata.task != "classify":
            output[..., :4] *= pixels
        return output

    return FilePredictor(file, run, metadata, device, batch, imgsz)


def _check_start(file: Path) -> None:
    with file.open("rb") as opened:
        start = opened.read(8)
    root = int.from_bytes(start[:4], "little")
    if start[4:] != IDENTIFIER or not 8 <= root < file.stat().st_size:
        raise UserError(f"{file}: LiteRT cannot open it (it does not begin as a .tflite file)")


def _strings(file: Path) -> dict[str, str]:
    """Read the metadata behind the graph: ours, Ultralytics', or YOLOv5's text file of another name."""
    if not zipfile.is_zipfile(file):
        return {}
    with guarded(file, "metadata"), zipfile.ZipFile(file) as archive:
        check_sums(archive, file)
        members = [name for name in archive.namelist() if name.endswith((".json", ".txt"))]
        if not members:
            return {}
        METADATA_BYTES.check(archive.getinfo(members[0]).file_size, file)
        text = archive.read(members[0]).decode("utf-8")
    content = read_value(text)
    return (
        {str(key): json.dumps(value) for key, value in content.items()} if isinstance(content, dict) else {}
    )


def _check_graph(interpreter: Any, file: Path) -> tuple[int, tuple[int, int], tuple[int, ...]]:
    """Return the batch, height and width, and the output's shape."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    shape, result = tuple(map(int, inputs[0]["shape"])), tuple(map(int, outputs[0]["shape"]))
    plain = all(entry["dtype"] == np.float32 for entry in (*inputs, *outputs))
    if len(inputs) != 1 or len(outputs) != 1 or len(shape) != 4 or shape[3] != 3 or not plain:
        raise UserError(
            f"{file}: not a YOLOv5 graph, which maps float32 (B, H, W, 3) to (B, N, 5 + classes) or logits; "
            f"it has inputs {[tuple(map(int, entry['shape'])) for entry in inputs]} and output {result}"
        )
    return shape[0], (shape[1], shape[2]), result


def export_litert(
    model: DetectionModel | ClassificationModel,
    file: Path,
    metadata: Metadata,
    images: Callable[[], Iterable[Tensor]] = tuple,
) -> Path:
    """Write `model`, which is in eval mode, as .tflite with its metadata behind it.

    Args:
        model: best fused.
        file: is overwritten.
        metadata: its batch and size are the graph's; precision "fp16" halves the weights, "int8" computes
            convolutions with integers.
        images: for "int8": gives batches (B, 3, H, W) in 0..1 on which the ranges are measured.

    Raises:
        UserError: a package is missing, or the network cannot be converted.
    """
    assert metadata.imgsz is not None, "an export has a size"
    keep_offline()
    try:
        with silenced():
            import litert_torch
    except ImportError as error:
        raise UserError(f"LiteRT export needs the package {error.name}: pip install litert-torch") from error
    example = torch.zeros(metadata.batch, *metadata.imgsz, 3)
    try:
        with silenced(), torch.inference_mode(False), torch.no_grad():
            litert_torch.convert(Portable(model, metadata.imgsz).eval(), (example,)).export(str(file))
            if metadata.precision == "fp16":
                halve(file)
            elif metadata.precision == "int8":
                quantize(file, images)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        if isinstance(error, UserError):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"litert-torch cannot convert this network ({lines[-1] if lines else type(error).__name__})"
        ) from error
    content = {key: json.loads(value) for key, value in metadata.to_strings().items()}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr(zipfile.ZipInfo(MEMBER), json.dumps(content, ensure_ascii=False))
    with file.open("ab") as opened:
        opened.write(archive.getvalue())
    return file
