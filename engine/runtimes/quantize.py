"""ONNX graphs in 8 bits: convolutions compute with integers whose ranges are measured on images."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from engine.runtimes.tracing import quiet
from utils.errors import UserError
from utils.offline import keep_offline

if TYPE_CHECKING:
    import onnx


def quantize(file: Path, images: Iterable[Tensor]) -> None:
    """Replace an ONNX file by its 8-bit form, with its metadata.

    Weights get a scale a channel, activations one a tensor, from their least and greatest value on the
    images. What decodes the boxes stays in float32. Weights take 7 of the 8 bits: processors without VNNI add
    two products in 16 bits, which 8 by 8 bits overflow, silently.

    Args:
        file: a float32 graph with the input `images`.
        images: batches (B, 3, H, W) in 0..1 of images like those it will see.

    Raises:
        UserError: a package is missing, or there are no images.
    """
    keep_offline()
    try:
        import onnx
        from onnxruntime import quantization as q
    except ImportError as error:
        raise UserError(f"int8 needs the package {error.name}: pip install onnx onnxruntime") from error

    batches = iter(images)
    first = next(batches, None)
    if first is None:
        raise UserError("int8 is calibrated on images, and there were none")

    class Reader(q.CalibrationDataReader):
        """Hands the batches over one by one."""

        def __init__(self) -> None:
            self.batches = itertools.chain([first], batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": np.ascontiguousarray(batch.numpy())}

    graph = onnx.load(str(file))
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    result = file.with_suffix(".int8.onnx")
    try:
        with quiet():
            q.quantize_static(
                str(file),
                str(result),
                Reader(),
                quant_format=q.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                reduce_range=True,
                nodes_to_exclude=_last_convolutions(graph),
                activation_type=q.QuantType.QUInt8,
                weight_type=q.QuantType.QInt8,
                calibrate_method=q.CalibrationMethod.MinMax,
            )
        model = onnx.load(str(result))
        onnx.helper.set_model_props(model, properties)
        file.write_bytes(model.SerializeToString())
    finally:
        result.unlink(missing_ok=True)


def _last_convolutions(model: onnx.ModelProto) -> list[str]:
    """Return the names of those whose output is decoded: little work, and 8 bits would show in the boxes."""
    reshaped = {node.input[0] for node in model.graph.node if node.op_type == "Reshape"}
    return [node.name for node in model.graph.node if node.op_type == "Conv" and node.output[0] in reshaped]
