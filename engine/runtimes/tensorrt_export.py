"""A detector as a TensorRT engine, built from its ONNX graph for the GPU of this computer."""

from __future__ import annotations

from pathlib import Path

from engine.runtimes.metadata import Metadata
from engine.runtimes.tensorrt import import_tensorrt, write_engine
from utils.errors import UserError

MOST = 8  # images in a batch that a dynamic engine takes at least


def export_tensorrt(onnx_file: Path, file: Path, metadata: Metadata) -> Path:
    """Build the engine, which takes minutes, and write it with its metadata.

    Args:
        onnx_file: the graph in 32 bits.
        file: to write.
        metadata: precision "fp16" lets layers compute in 16 bits; "dynamic" makes an engine for sides from
            the stride to twice the export's and for batches up to 8, or the export's if that is more.

    Raises:
        UserError: TensorRT is missing or cannot build it.
    """
    trt = import_tensorrt(file)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    if not parser.parse(onnx_file.read_bytes()):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise UserError(f"TensorRT cannot read the ONNX graph ({'; '.join(reasons) or 'no reason given'})")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # its 10 bits of mantissa would not pass the comparison
    if metadata.precision == "fp16":
        config.set_flag(trt.BuilderFlag.FP16)
    if metadata.dynamic:
        profile = builder.create_optimization_profile()
        profile.set_shape(network.get_input(0).name, *_shapes(metadata))
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError("TensorRT could not build the engine; its messages are above")
    write_engine(file, metadata.to_strings(), bytes(engine))
    return file


def _shapes(metadata: Metadata) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Smallest, usual and largest (B, 3, H, W)."""
    assert metadata.imgsz is not None
    height, width = metadata.imgsz
    least = 5 * metadata.stride  # a side that the comparison with PyTorch tries
    largest = (max(metadata.batch, MOST), 3, max(2 * height, least), max(2 * width, least))
    return (1, 3, metadata.stride, metadata.stride), (metadata.batch, 3, height, width), largest
