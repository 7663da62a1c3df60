"""LiteRT graphs in 16 and 8 bits, by ai-edge-quantizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from utils.errors import UserError

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


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


def quantize(file: Path, images: Iterable[Tensor]) -> None:
    """Replace a float32 graph by its 8-bit form.

    Args:
        file: the graph.
        images: batches (B, 3, H, W) in 0..1 of images like those it will see.

    Raises:
        UserError: there are no images.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import qtyping, quantizer

    content = file.read_bytes()
    signatures = Interpreter(model_content=content).get_signature_list()
    ((key, ends),) = signatures.items()
    count = 0

    def samples() -> Iterator[dict[str, Any]]:
        nonlocal count
        for batch in images:
            count += 1
            yield {ends["inputs"][0]: np.ascontiguousarray(batch.permute(0, 2, 3, 1).numpy())}

    work = quantizer.Quantizer(content)
    for kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        work.add_static_config(".*", qtyping.TFLOperationName(kind), 8, 8)
    ranges = work.calibrate({key: samples()}, num_threads=1)
    if not count:
        raise UserError("int8 is calibrated on images, and there were none")
    file.write_bytes(bytes(work.quantize(ranges, enable_progress_report=False).quantized_model))
