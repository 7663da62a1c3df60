"""TensorRT: an engine built from the ONNX graph for the Nvidia GPU of this computer, and running it."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.runtimes.exported_file import FilePredictor, check_file, read_metadata
from engine.runtimes.metadata import Metadata
from utils.errors import UserError

LENGTH = 4  # bytes that say how long the JSON text before the engine is, little-endian


def import_tensorrt(file: Path | str) -> Any:
    """Return the package.

    Raises:
        UserError: it is missing, or older than 10.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise UserError(
            f"{file}: TensorRT engines need an Nvidia GPU and its package: pip install tensorrt"
        ) from error
    if int(tensorrt.__version__.split(".")[0]) < 10:
        raise UserError(f"{file}: TensorRT 10 or later is needed, here is {tensorrt.__version__}")
    return tensorrt


def read_engine(file: Path) -> tuple[dict[str, str], bytes]:
    """Return the metadata before the engine, and the engine; without metadata all is the engine."""
    content = file.read_bytes()
    length = int.from_bytes(content[:LENGTH], "little")
    if not 0 < length <= len(content) - LENGTH:
        return {}, content
    try:
        written = json.loads(content[LENGTH : LENGTH + length])
    except ValueError:
        return {}, content
    if not isinstance(written, dict):
        return {}, content
    strings = {key: value if isinstance(value, str) else json.dumps(value) for key, value in written.items()}
    return strings, content[LENGTH + length :]


def write_engine(file: Path, metadata: dict[str, str], engine: bytes) -> None:
    """Write what `read_engine` reads."""
    text = json.dumps(metadata).encode()
    file.write_bytes(len(text).to_bytes(LENGTH, "little") + text + engine)


def load(
    file: Path, device: torch.device, fuse: bool, half: bool, names: Sequence[str] | None = None
) -> FilePredictor:
    """Open an engine; it runs on the kind of GPU and the version of TensorRT that it was built with.

    Raises:
        UserError: no such file, no TensorRT or GPU, not an engine for here, or no class names in it and none
            given.
    """
    check_file(file, half)
    trt = import_tensorrt(file)
    if device.type != "cuda":
        raise UserError(f"{file}: TensorRT runs on an Nvidia GPU; choose one with --device 0")
    strings, content = read_engine(file)
    with torch.cuda.device(device):
        engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(content)
    if engine is None:
        raise UserError(f"{file}: not an engine for this GPU and TensorRT {trt.__version__}; export it here")
    tensors = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in tensors if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in tensors if name not in inputs]
    plain = all(engine.get_tensor_dtype(name) == trt.float32 for name in tensors)
    shape = tuple(engine.get_tensor_shape(inputs[0])) if len(inputs) == len(outputs) == 1 else ()
    if len(shape) != 4 or not plain:
        raise UserError(f"{file}: not a YOLOv5 engine, which maps float32 images to float32 rows")
    columns = tuple(engine.get_tensor_shape(outputs[0]))[-1]
    metadata = read_metadata(strings, names, columns if columns > 0 else None, file)
    contexts = threading.local()  # a context serves one thread

    def run(images: Tensor) -> Tensor:
        images = images.to(device).contiguous()
        with torch.cuda.device(device):
            if not hasattr(contexts, "mine"):
                contexts.mine = engine.create_execution_context()
            context = contexts.mine
            if not context.set_input_shape(inputs[0], tuple(images.shape)):
                raise UserError(f"{file}: was not built for images of shape {tuple(images.shape)}")
            rows = torch.empty(tuple(context.get_tensor_shape(outputs[0])), device=device)
            context.set_tensor_address(inputs[0], images.data_ptr())
            context.set_tensor_address(outputs[0], rows.data_ptr())
            context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream)
        return rows

    batch, _, height, width = shape
    fixed = (height, width) if height > 0 and width > 0 else None
    return FilePredictor(file, run, metadata, device, batch if batch > 0 else None, fixed)


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
