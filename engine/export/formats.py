"""What each format of `export.py --include` takes, and what it needs of the computer that makes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from utils.errors import UserError

FormatName = Literal[
    "onnx", "openvino", "torchscript", "engine", "ncnn", "litert", "coreml", "triton", "yolov5", "all"
]
ALL: FormatName = "all"  # as a format: every one that can be made here


@dataclass(frozen=True)
class ExportFormat:
    """A format as `--include` names it.

    Attributes:
        takes: of the options that not every format has: "--int8", "--nms", "--dynamic" and "--batch-size".
        packages: by the names they are imported by; they write the file and run it for the comparison.
        pip: installs them.
    """

    takes: frozenset[str]
    packages: tuple[str, ...] = ()
    pip: str = ""


_SIZES = frozenset({"--dynamic", "--batch-size"})
_EVERYTHING = frozenset({"--int8", "--nms"}) | _SIZES

EXPORT_FORMATS: dict[FormatName, ExportFormat] = {
    "onnx": ExportFormat(_EVERYTHING),
    "openvino": ExportFormat(_EVERYTHING, ("openvino",), "openvino"),
    "torchscript": ExportFormat(_SIZES),
    "engine": ExportFormat(_SIZES),
    "ncnn": ExportFormat(frozenset(), ("ncnn", "pnnx"), "ncnn pnnx"),
    "litert": ExportFormat(
        frozenset({"--int8", "--batch-size"}),
        ("litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
        "litert-torch",
    ),
    "coreml": ExportFormat(frozenset({"--batch-size"}), ("coremltools",), "coremltools"),
    "triton": ExportFormat(_EVERYTHING),
    "yolov5": ExportFormat(_SIZES),
}


def refused_option(format: FormatName, asked: Iterable[str]) -> str | None:
    """Return why this format cannot be had with the options asked for, None where it can."""
    for option in asked:
        if option not in EXPORT_FORMATS[format].takes:
            able = [name for name, other in EXPORT_FORMATS.items() if option in other.takes]
            return f"{option} is for {', '.join(able[:-1])} and {able[-1]}, not for {format}"
    return None


def unavailable(format: FormatName, asked: Iterable[str]) -> str | None:
    """Return in one line why this computer cannot make a format with these options, None where it can."""
    if reason := refused_option(format, asked):
        return reason
    needs = EXPORT_FORMATS[format]
    missing = [package for package in needs.packages if find_spec(package) is None]
    if missing:
        names = " and ".join(missing)
        return f"--include {format} needs the package {names}: pip install {needs.pip}"
    return _no_tensorrt() if format == "engine" else None


def _no_tensorrt() -> str | None:
    import torch

    from engine.runtimes.tensorrt import import_tensorrt

    try:
        import_tensorrt("--include engine")
    except UserError as error:
        return str(error)
    return None if torch.cuda.is_available() else "--include engine: TensorRT needs an Nvidia GPU"
