"""A network as OpenVINO's pair of files, made from its ONNX graph."""

from __future__ import annotations

from pathlib import Path

from engine.runtimes.metadata import Metadata
from engine.runtimes.openvino import SECTION
from utils.errors import UserError


def export_openvino(onnx_file: Path, folder: Path, metadata: Metadata) -> Path:
    """Write `folder`/<its name>.xml and .bin and return the .xml.

    Args:
        onnx_file: the graph, of whatever precision; int8 stays int8.
        folder: is made.
        metadata: goes into the file; precision "fp16" halves the weights, which still compute in float32 on
            a CPU.

    Raises:
        UserError: the package is missing, or OpenVINO cannot read the graph.
    """
    try:
        import openvino
    except ImportError as error:
        raise UserError("OpenVINO export needs the package openvino: pip install openvino") from error
    try:
        model = openvino.Core().read_model(onnx_file)
    except RuntimeError as error:
        raise UserError(
            f"OpenVINO cannot read the ONNX graph ({str(error).strip().splitlines()[-1]})"
        ) from error
    for key, value in metadata.to_strings().items():
        model.set_rt_info(value, [SECTION, key])
    folder.mkdir(exist_ok=True)
    file = folder / "model.xml"
    openvino.save_model(model, file, compress_to_fp16=metadata.precision == "fp16")
    return file
