"""TorchScript: PyTorch without Python, written by tracing, and running it.

A TorchScript file is a program: it can do whatever its author wrote, so run only files that you trust.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.runtimes.exported_file import FilePredictor, check_file, read_metadata
from engine.runtimes.metadata import Metadata
from engine.runtimes.tracing import quiet, trace
from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel
from utils.archives import check_sums
from utils.errors import UserError

LOG = logging.getLogger(__name__)
CONFIG = "config.txt"  # the file inside the archive that holds the metadata, JSON, as in YOLOv5


def load(
    file: Path, device: torch.device, fuse: bool, half: bool, names: Sequence[str] | None = None
) -> FilePredictor:
    """Open a TorchScript archive of ours or of YOLOv5.

    Raises:
        UserError: no such file, not TorchScript, or no class names in it and none given.
    """
    check_file(file, half)
    _say_once()
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            check_sums(archive, file)
    extra = {CONFIG: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(str(file), map_location=device, _extra_files=extra).eval()
        written = json.loads(extra[CONFIG] or "{}")
        strings = {key: json.dumps(value) for key, value in _with_size(written).items()}
    except (RuntimeError, ValueError, AttributeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{file}: not a TorchScript file that can be read ({reason})") from error
    metadata = read_metadata(strings, names, None, file)
    fixed = not metadata.dynamic and metadata.imgsz is not None

    def run(images: Tensor) -> Tensor:
        output = module(images.to(device))
        return output[0] if isinstance(output, tuple) else output

    imgsz = metadata.imgsz if fixed or metadata.task == "classify" else None
    return FilePredictor(file, run, metadata, device, metadata.batch if fixed else None, imgsz)


@functools.cache
def _say_once() -> None:
    LOG.warning("a TorchScript file is a program, which can do whatever its author wrote: run only your own")


def _with_size(written: dict[str, Any]) -> dict[str, Any]:
    """Say batch and size as ours do; YOLOv5 traces for one `shape`, (B, 3, H, W), and says that only."""
    shape = written.get("shape")
    if "imgsz" in written or not isinstance(shape, list) or len(shape) != 4:
        return written
    return {**written, "batch": shape[0], "imgsz": shape[2:]}


def export_torchscript(model: DetectionModel | ClassificationModel, file: Path, metadata: Metadata) -> None:
    """Write `model`, which is in eval mode, as a traced archive with its metadata.

    Args:
        model: best fused.
        file: is overwritten.
        metadata: goes into the file; its batch and size are the example's.
    """
    assert metadata.imgsz is not None, "an export has a size"
    traced = trace(model, metadata.imgsz, metadata.batch, metadata.precision == "fp16")
    with quiet(), torch.inference_mode(False), torch.no_grad():
        traced = torch.jit.freeze(traced)
        content = {key: json.loads(value) for key, value in metadata.to_strings().items()}
        archive = io.BytesIO()  # torch's own writer says of a full disk what it likes
        torch.jit.save(traced, archive, _extra_files={CONFIG: json.dumps(content)})
    file.write_bytes(archive.getbuffer())
