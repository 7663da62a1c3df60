"""LiteRT graphs in 16 and 8 bits, by ai-edge-quantizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from utils.errors import UserError

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")

IN_8_BITS = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "LOGISTIC",
    "MUL",
    "ADD",
    "CONCATENATION",
    "MAX_POOL_2D",
    "PAD",
    "RESIZE_NEAREST_NEIGHBOR",
    "SLICE",
)
BEFORE_DECODING = (
    r"^(?!.*(layers\.head|layers\.anchor_free|Portable;|serving_default))"  # by modules in the names
)


def halve(file: Path) -> None:
    """Store the weights of a float32 graph in 16 bits; they compute in 32."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=16, dtype=qtyping.TensorDataType.FLOAT
        ),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    work = quantizer.Quantizer(file.read_bytes())
    for kind in CONVOLUTIONS:
        work.update_quantization_recipe(
            ".*", qtyping.TFLOperationName(kind), config, algorithm_manager.AlgorithmName.FLOAT_CASTING
        )
    file.write_bytes(bytes(work.quantize(enable_progress_report=False).quantized_model))


class _Samples:
    """Batches by the name of the input, in the file's layout; the quantizer goes through them twice."""

    def __init__(self, images: Callable[[], Iterable[Tensor]], name: str):
        self.images, self.name, self.count = images, name, 0

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for batch in self.images():
            self.count += 1
            yield {self.name: np.ascontiguousarray(batch.permute(0, 2, 3, 1).numpy())}


def quantize(file: Path, images: Callable[[], Iterable[Tensor]]) -> None:
    """Replace a float32 graph by its 8-bit form, whose input, last convolutions and decoding stay in float32.

    Args:
        file: the graph.
        images: gives batches (B, 3, H, W) in 0..1 of images like those it will see.

    Raises:
        UserError: there are no images.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import qtyping, quantizer

    content = file.read_bytes()
    ((key, ends),) = Interpreter(model_content=content).get_signature_list().items()
    samples = _Samples(images, ends["inputs"][0])
    work = quantizer.Quantizer(content)
    for kind in IN_8_BITS:
        work.add_static_config(BEFORE_DECODING, qtyping.TFLOperationName(kind), 8, 8)
    ranges = work.calibrate({key: samples}, num_threads=1)
    if not samples.count:
        raise UserError("int8 is calibrated on images, and there were none")
    file.write_bytes(bytes(work.quantize(ranges, enable_progress_report=False).quantized_model))
