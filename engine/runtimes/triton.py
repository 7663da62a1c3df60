"""A model repository for Nvidia's Triton Inference Server, around an ONNX file.

    best_triton/best/config.pbtxt       what Triton is told of the model
    best_triton/best/labels.txt         a class per line
    best_triton/best/1/model.onnx       version 1

`tritonserver --model-repository=best_triton` serves it; here, the ONNX file inside is run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from engine.runtimes.metadata import Metadata
from engine.runtimes.onnx import open_session

if TYPE_CHECKING:
    import onnxruntime

CONFIG, LABELS, MODEL = "config.pbtxt", "labels.txt", "1/model.onnx"
TYPES = {"tensor(float)": "TYPE_FP32", "tensor(float16)": "TYPE_FP16"}
LARGEST_BATCH = 8  # images that Triton puts together where the user does not say


def export_triton(graph: Path, repository: Path, name: str, metadata: Metadata) -> Path:
    """Write a model repository.

    Args:
        graph: the ONNX file.
        repository: a folder; what it holds of an earlier export is replaced.
        name: of the model, by which requests ask for it.
        metadata: of the file. Where its batch is free, Triton may put as many images together as it says, or
            8 where it says one.

    Returns:
        The repository.
    """
    model = repository / name
    (model / MODEL).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(graph, model / MODEL)
    session = open_session(graph, torch.device("cpu"), torch.get_num_threads())
    (model / CONFIG).write_text(config_text(session, metadata), encoding="utf-8")
    labels = (" ".join(label.split()) for label in metadata.names)
    (model / LABELS).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    return repository


def config_text(session: onnxruntime.InferenceSession, metadata: Metadata) -> str:
    """Return Triton's ModelConfig in protobuf's text format.

    Triton adds the batch to the shapes where it may choose it (`max_batch_size` above 0); a fixed batch stays
    part of them. Shapes are those that ONNX Runtime infers, with which Triton compares. The model's name is
    left to its folder, so that it can be renamed.
    """
    largest = (metadata.batch if metadata.batch > 1 else LARGEST_BATCH) if metadata.dynamic else 0
    lines = ['backend: "onnxruntime"', f"max_batch_size: {largest}"]
    for kind, tensors in (("input", session.get_inputs()), ("output", session.get_outputs())):
        for tensor in tensors:
            shape = [size if isinstance(size, int) else -1 for size in tensor.shape[1 if largest else 0 :]]
            lines += [f"{kind} [", "  {", f'    name: "{tensor.name}"']
            lines += [f"    data_type: {TYPES[tensor.type]}", f"    dims: {json.dumps(shape)}"]
            if kind == "output" and metadata.task == "classify":
                lines.append(
                    f'    label_filename: "{LABELS}"'
                )  # of a detector, they are no index of the output
            lines += ["  }", "]"]
    if largest:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"
