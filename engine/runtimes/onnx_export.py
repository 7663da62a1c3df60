"""A network as an ONNX file: input `images` (B, 3, H, W), output `output0`.

That is (B, N, 5 + classes), decoded, for a detector and logits (B, classes) for a classifier.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.runtimes.metadata import Metadata
from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel
from utils.errors import UserError

if TYPE_CHECKING:
    import onnx


class Decoded(nn.Module):
    """(B, 3, H, W) float32 -> a classifier's logits, or the first of a detector's two outputs, float32.

    Args:
        model: the network; it is copied where it has to compute in 16 bits.
        half: compute in 16 bits.
    """

    def __init__(self, model: DetectionModel | ClassificationModel, half: bool):
        super().__init__()
        self.model = copy.deepcopy(model).half() if half else model
        self.half_precision = half

    def forward(self, images: Tensor) -> Tensor:
        """Run the network."""
        output = self.model(images.half() if self.half_precision else images)
        return output.float() if isinstance(output, Tensor) else output[0]


def export_onnx(
    model: DetectionModel | ClassificationModel,
    file: Path,
    metadata: Metadata,
    opset: int = 18,
    simplify: bool = False,
) -> None:
    """Write `model`, which is in eval mode, as ONNX with its metadata.

    Args:
        model: best fused, which makes a smaller and faster graph.
        file: is overwritten.
        metadata: goes into the file; its batch and size are the graph's, unless `dynamic` frees them; its
            precision "fp16" computes in 16 bits, with 32 at both ends.
        opset: version of ONNX's operators.
        simplify: let onnxslim tidy the graph.

    Raises:
        UserError: a package is missing, or this opset cannot be had.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise UserError(f"ONNX export needs the package {error.name}: pip install onnx onnxscript") from error
    assert metadata.imgsz is not None, "an export has a size"
    batch = 2 if metadata.dynamic else metadata.batch
    example = torch.zeros(batch, 3, *metadata.imgsz, device=next(model.parameters()).device)
    with quiet():
        program = torch.onnx.export(
            Decoded(model, metadata.precision == "fp16").eval(),
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=["output0"],
            opset_version=opset,
            dynamic_shapes=_dynamic_shapes(metadata) if metadata.dynamic else None,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    written = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:
        raise UserError(f"this network cannot be exported to opset {opset}; try --opset {written}")
    if written < 18:
        _mend_split(proto)
    _strip(proto)
    if simplify:
        proto = _simplify(proto)
    proto.producer_name = "YOLOv5-SPD"
    onnx.helper.set_model_props(proto, metadata.to_strings())
    file.write_bytes(proto.SerializeToString())


def _simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        import onnxslim
    except ImportError as error:
        raise UserError("--simplify needs the package onnxslim: pip install onnxslim") from error
    return onnxslim.slim(proto)


def _dynamic_shapes(metadata: Metadata) -> dict[str, Any]:
    from torch.export import Dim

    if metadata.task == "classify":  # spectral crops are matrices of one size
        return {"images": {0: Dim("batch")}}
    stride = metadata.stride
    return {"images": {0: Dim("batch"), 2: stride * Dim("rows"), 3: stride * Dim("columns")}}


def _mend_split(proto: onnx.ModelProto) -> None:
    """Take back `num_outputs`, which opset 17 does not have: there a Split without sizes is even anyway."""
    for node in proto.graph.node:
        if node.op_type == "Split" and len(node.input) == 1:
            kept = [attribute for attribute in node.attribute if attribute.name != "num_outputs"]
            del node.attribute[:]
            node.attribute.extend(kept)


def _strip(proto: onnx.ModelProto) -> None:
    """Remove the exporter's notes: stack traces with paths of this machine, half a megabyte of them."""
    graph = proto.graph
    for noted in (
        proto,
        graph,
        *graph.node,
        *graph.value_info,
        *graph.initializer,
        *graph.input,
        *graph.output,
    ):
        if hasattr(noted, "metadata_props"):
            del noted.metadata_props[:]
        noted.doc_string = ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters warn of what only their authors can change."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
