"""CoreML: an .mlpackage (an ML program) converted from the traced network, and running it on macOS.

Input `images` (B, 3, H, W); output `output0`: (B, N, 5 + classes), decoded, of a detector, or logits
(B, classes) of a classifier. CoreML itself exists on macOS only. Elsewhere a package is written, and
`load_reference` computes its program with PyTorch, operator by operator, so that what the file says can be
compared.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.runtimes.exported_file import FilePredictor, read_metadata
from engine.runtimes.metadata import Metadata
from engine.runtimes.tracing import silenced, strided, trace
from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel
from utils.errors import UserError
from utils.reading import check_regular, guarded

MACOS = platform.system() == "Darwin"
INSIDE = ("Manifest.json", "Data/com.apple.CoreML/model.mlmodel")  # what is read, beside the weights
WEIGHTS = Path("Data/com.apple.CoreML/weights")


def load(
    file: Path, device: torch.device, fuse: bool, half: bool, names: Sequence[str] | None = None
) -> FilePredictor:
    """Open an .mlpackage on macOS; CoreML chooses among CPU, GPU and Neural Engine.

    Written against coremltools' documented API; it has not been run.

    Raises:
        UserError: no such package, another system, not a YOLOv5 graph, or no class names in it and none
            given.
    """
    _check_package(file, half)
    if not MACOS:
        raise UserError(f"{file}: CoreML files run on macOS only; use another format here, such as .onnx")
    if device.type == "cuda":
        raise UserError(f"{file}: CoreML chooses where it computes; leave out --device")
    coremltools = _coremltools(f"{file}: running CoreML files")
    model = coremltools.models.MLModel(str(file))
    metadata, batch, imgsz = _describe(model.get_spec(), names, file)
    one_at_a_time = threading.Lock()  # nothing says that a model may be used by several threads

    def run(images: Tensor) -> Tensor:
        with one_at_a_time:
            output = model.predict({"images": images.cpu().numpy()})["output0"]
        return torch.from_numpy(np.asarray(output))

    return FilePredictor(file, run, metadata, torch.device("cpu"), batch, imgsz)


def load_reference(file: Path) -> FilePredictor:
    """Return a predictor that computes the package's program with PyTorch, on any system.

    Raises:
        UserError: an operator is not known, or it is not a YOLOv5 graph.
    """
    from engine.runtimes.coreml_program import Program

    _check_package(file, half=False)
    coremltools = _coremltools(f"{file}: reading CoreML files")
    with guarded(file, "a CoreML package"):
        spec = coremltools.utils.load_spec(str(file))
        metadata, batch, imgsz = _describe(spec, None, file)
        with silenced():
            program = Program(spec, file / WEIGHTS)
    return FilePredictor(file, program, metadata, torch.device("cpu"), batch, imgsz)


def _coremltools(what: str) -> Any:
    try:
        with silenced():  # it says which versions of torch it was tried with, and what is missing on Linux
            import coremltools
    except ImportError as error:
        raise UserError(f"{what} needs coremltools: pip install coremltools") from error
    return coremltools


def _check_package(file: Path, half: bool) -> None:
    if not file.exists():
        made = "python export.py --weights best.pt --include coreml"
        raise UserError(f"no such weights: {file}; CoreML's are made with: {made}")
    if half:
        raise UserError(f"{file}: an exported file computes as it was exported; leave out --half")
    if not file.is_dir():
        raise UserError(f"{file}: not a CoreML package, which is a folder")
    for name in INSIDE:
        check_regular(file / name, "a CoreML package")
    root = file.resolve()
    for path in file.rglob("*"):
        if not path.resolve().is_relative_to(root):
            raise UserError(f"{path}: leads out of the CoreML package; it is not read")


def _describe(spec: Any, names: Sequence[str] | None, file: Path) -> tuple[Metadata, int, tuple[int, int]]:
    """Return what the package says of itself, its batch, and its height and width."""
    inputs, outputs = list(spec.description.input), list(spec.description.output)
    shape = tuple(inputs[0].type.multiArrayType.shape) if len(inputs) == 1 else ()
    last = tuple(outputs[0].type.multiArrayType.shape) if len(outputs) == 1 else ()
    named = [entry.name for entry in (*inputs, *outputs)]
    strings: Mapping[str, str] = dict(spec.description.metadata.userDefined)
    strings = {key: value for key, value in strings.items() if not key.startswith("com.")}
    if (
        spec.WhichOneof("Type") != "mlProgram"
        or named != ["images", "output0"]
        or len(shape) != 4
        or not last
    ):
        raise UserError(
            f"{file}: not a YOLOv5 graph, which maps images (B, 3, H, W) to output0; it has {named}, {shape}"
        )
    return read_metadata(strings, names, last[-1], file), shape[0], (shape[2], shape[3])


def export_coreml(model: DetectionModel | ClassificationModel, package: Path, metadata: Metadata) -> Path:
    """Write `model`, which is in eval mode, as an ML program with its metadata.

    Args:
        model: best fused.
        package: the folder to write.
        metadata: its batch and size are the graph's; precision "fp16" computes in 16 bits, with 32 at
            both ends.

    Raises:
        UserError: the package coremltools is missing, or cannot convert the network.
    """
    assert metadata.imgsz is not None, "an export has a size"
    coremltools = _coremltools("CoreML export")
    precision = coremltools.precision
    traced = trace(strided(model), metadata.imgsz, metadata.batch, sizes_first=True)
    try:
        with silenced():
            converted = coremltools.convert(
                torch.jit.freeze(traced),  # what is computed from constants alone becomes one
                inputs=[coremltools.TensorType("images", shape=(metadata.batch, 3, *metadata.imgsz))],
                outputs=[coremltools.TensorType("output0", dtype=np.float32)],
                convert_to="mlprogram",
                minimum_deployment_target=coremltools.target.iOS15,
                compute_precision=precision.FLOAT16 if metadata.precision == "fp16" else precision.FLOAT32,
                skip_model_load=True,
            )
            for key, value in metadata.to_strings().items():
                converted.user_defined_metadata[key] = value
            converted.save(str(package))
    except Exception as error:  # its converter raises whatever its passes do
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"coremltools cannot convert this network ({lines[-1] if lines else type(error).__name__})"
        ) from error
    return package
