"""A network as TorchScript: PyTorch without Python."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from engine.runtimes.metadata import Metadata
from engine.runtimes.onnx_export import Decoded, quiet
from engine.runtimes.torchscript import CONFIG
from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel


def export_torchscript(model: DetectionModel | ClassificationModel, file: Path, metadata: Metadata) -> None:
    """Write `model`, which is in eval mode, as a traced archive with its metadata.

    Args:
        model: best fused.
        file: is overwritten.
        metadata: goes into the file; its batch and size are the example's.
    """
    assert metadata.imgsz is not None, "an export has a size"
    example = torch.zeros(metadata.batch, 3, *metadata.imgsz, device=next(model.parameters()).device)
    with quiet(), torch.inference_mode(False), torch.no_grad():
        module = Decoded(model, metadata.precision == "fp16").eval()
        traced = torch.jit.trace(module, example, check_trace=False)
        traced = torch.jit.freeze(traced)
        content = {key: json.loads(value) for key, value in metadata.to_strings().items()}
        torch.jit.save(traced, str(file), _extra_files={CONFIG: json.dumps(content)})
