"""A model repository for Nvidia's Triton Inference Server, around an ONNX file.

    best_triton/best/config.pbtxt       what Triton is told of the model
    best_triton/best/labels.txt         a class per line
    best_triton/best/1/model.onnx       version 1

`tritonserver --model-repository=best_triton` serves it; here, the ONNX file inside is run.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from engine.runtimes.metadata import Metadata

if TYPE_CHECKING:
    import onnx

CONFIG, LABELS, MODEL = "config.pbtxt", "labels.txt", "1/model.onnx"
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
    import onnx

    model = repository / name
    (model / MODEL).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(graph, model / MODEL)
    proto = onnx.load(str(graph), load_external_data=False)
    (model / CONFIG).write_text(config_text(proto.graph, metadata), encoding="utf-8")
    labels = (" ".join(label.split()) for label in metadata.names)
    (model / LABELS).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    return repository


def config_text(graph: onnx.GraphProto, metadata: Metadata) -> str:
    """Return Triton's ModelConfig in protobuf's text format.

    Triton adds the batch to the shapes where it may choose it (`max_batch_size` above 0); a fixed batch stays
    part of them. The model's name is left to its folder, so that it can be renamed.
    """
    largest = (metadata.batch if metadata.batch > 1 else LARGEST_BATCH) if metadata.dynamic else 0
    lines = ['backend: "onnxruntime"', f"max_batch_size: {largest}"]
    for kind, tensors in (("input", graph.input), ("output", graph.output)):
        for tensor in tensors:
            lines += [f"{kind} [", "  {", *_tensor_lines(tensor, largest > 0)]
            if kind == "output" and metadata.task == "classify":
                lines.append(
                    f'    label_filename: "{LABELS}"'
                )  # of a detector, they are no index of the output
            lines += ["  }", "]"]
    if largest:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def _tensor_lines(tensor: onnx.ValueInfoProto, batched: bool) -> list[str]:
    import onnx

    shape = [size.dim_value or -1 for size in tensor.type.tensor_type.shape.dim]
    types = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.FLOAT16: "TYPE_FP16"}
    dims = ", ".join(map(str, shape[1:] if batched else shape))
    return [
        f'    name: "{tensor.name}"',
        f"    data_type: {types[tensor.type.tensor_type.elem_type]}",
        f"    dims: [ {dims} ]",
    ]
