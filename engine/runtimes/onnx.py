"""ONNX: writing a network as a graph, and running it with ONNX Runtime.

Input `images` (B, 3, H, W); output `output0`: (B, N, 5 + classes), decoded, of a detector, or logits
(B, classes) of a classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.runtimes.exported_file import (
    ByThreads,
    FilePredictor,
    check_file,
    output_dimensions,
    read_metadata,
)
from engine.runtimes.metadata import Metadata
from engine.runtimes.onnx_checks import check_model, run_loops
from engine.runtimes.tracing import Decoded, quiet
from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel
from utils.errors import UserError
from utils.offline import keep_offline

if TYPE_CHECKING:
    import onnx
    import onnxruntime


def load(
    file: Path, device: torch.device, fuse: bool, half: bool, names: Sequence[str] | None = None
) -> FilePredictor:
    """Open an ONNX file; `fuse` means nothing here, the file is as it was exported.

    Raises:
        UserError: no such file, not ONNX, not a YOLOv5 graph, or no class names in it and none given.
    """
    check_file(file, half)
    loops = check_model(file)
    sessions = ByThreads(partial(open_session, file, device))
    session = sessions.get()
    columns = _check_graph(session, file)
    metadata = read_metadata(session.get_modelmeta().custom_metadata_map, names, columns, file)
    entry, result = session.get_inputs()[0], session.get_outputs()[0]
    dtype = np.float16 if entry.type == "tensor(float16)" else np.float32
    batch, _, height, width = entry.shape

    def run(images: Tensor) -> Tensor:
        array = images.cpu().numpy().astype(dtype, copy=False)
        feed = {entry.name: array}
        mine = sessions.get()
        outputs = run_loops(mine, result.name, feed) if loops else mine.run([result.name], feed)
        return torch.from_numpy(outputs[0])

    return FilePredictor(
        file,
        run,
        metadata,
        device,
        batch if isinstance(batch, int) else None,
        (height, width) if isinstance(height, int) and isinstance(width, int) else None,
    )


def open_session(file: Path, device: torch.device, threads: int) -> onnxruntime.InferenceSession:
    """Open a file in ONNX Runtime, to run with so many threads on a CPU.

    Raises:
        UserError: ONNX Runtime is missing, has no CUDA where that is asked for, or cannot open the file.
    """
    keep_offline()
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{file}: running ONNX files needs onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise UserError(
                f"{file}: this onnxruntime has no CUDA; pip install onnxruntime-gpu, or --device cpu"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))  # type: ignore[arg-type]
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # its exceptions share no base class but this one
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file}: ONNX Runtime cannot open it ({reason})") from error


def _check_graph(session: onnxruntime.InferenceSession, file: Path) -> int | None:
    """Return how many numbers a row of the output has, where the graph fixes it."""
    inputs, output = session.get_inputs(), session.get_outputs()[0]
    task = session.get_modelmeta().custom_metadata_map.get("task", "")
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or len(output.shape) != output_dimensions(task):
        shapes = f"inputs {[i.shape for i in inputs]}, first output {output.shape}"
        raise UserError(
            f"{file}: not a YOLOv5 graph, which maps (B, 3, H, W) to (B, N, 5 + classes); it has {shapes}"
        )
    last = output.shape[-1]
    return last if isinstance(last, int) else None


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
    proto = _to_graph(Decoded(model, metadata.precision == "fp16").eval(), example, metadata, opset, file)
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


def _to_graph(
    network: nn.Module, example: Tensor, metadata: Metadata, opset: int, file: Path
) -> onnx.ModelProto:
    """Return the graph of `network`, with `images` and `output0` as its ends; `file` may be written."""
    import onnx

    ends: dict[str, Any] = {"input_names": ["images"], "output_names": ["output0"], "opset_version": opset}
    with quiet():
        # a version, not text, is compared; the new exporter of 2.6 gets sizes, and types of Resize, wrong
        if torch.__version__ < "2.7":
            axes = {"images": _free_axes(metadata), "output0": {0: "batch"}} if metadata.dynamic else None
            torch.onnx.export(network, (example,), file, dynamo=False, dynamic_axes=axes, **ends)
            return onnx.load(str(file))
        shapes = _dynamic_shapes(metadata) if metadata.dynamic else None
        program = torch.onnx.export(
            network, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False, **ends
        )
    assert program is not None
    return program.model_proto


def _free_axes(metadata: Metadata) -> dict[int, str]:
    return {0: "batch"} if metadata.task == "classify" else {0: "batch", 2: "rows", 3: "columns"}


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
