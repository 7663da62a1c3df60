"""Export a detector for other runtimes, and check that it still gives the same boxes.

python export.py --weights runs/train/exp/weights/best.pt               # best.onnx beside it
python export.py --weights best.pt --imgsz 640 --dynamic                # any batch, height and width
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from utils.cli import opt, run, validate
from utils.errors import UserError

if TYPE_CHECKING:
    from models.metadata import Metadata
    from models.runtime import Predictor
    from models.runtime_torch import TorchPredictor


@dataclass(frozen=True)
class ExportConfig:
    """Export a detector for other runtimes and compare it with PyTorch."""

    weights: Path = opt("runs/train/exp/weights/best.pt", "checkpoint (.pt)")
    data: Path | None = opt(
        None, "data-set YAML whose class names go into the file (default: the checkpoint's)"
    )
    include: tuple[Literal["onnx"], ...] = opt(("onnx",), "formats")
    imgsz: tuple[int, ...] | None = opt(
        None, "side or height and width, pixels (default: the training's)", "--img", "--img-size", min=32
    )
    batch_size: int = opt(1, "pictures in a batch", "--batch", min=1)
    dynamic: bool = opt(False, "take any batch, height and width")
    opset: int = opt(18, "version of ONNX's operators", min=17)
    device: str = opt("cpu", "where PyTorch runs: cpu, 0, cuda:1, mps")

    def __post_init__(self) -> None:
        """Check every option."""
        validate(self)


def main(cfg: ExportConfig) -> int:
    """Export to each format; 1 where a result differs from PyTorch."""
    import torch

    from models.runtime import load_predictor
    from models.runtime_torch import TorchPredictor
    from utils.device import select_device

    if cfg.weights.suffix.lower() == ".onnx":
        raise UserError(f"{cfg.weights} is an export already; give the .pt checkpoint")
    torch.backends.cudnn.allow_tf32 = False  # compare with full precision
    predictor = load_predictor(cfg.weights, select_device(cfg.device), names=_names(cfg.data))
    assert isinstance(predictor, TorchPredictor)
    metadata = _metadata(cfg, predictor)
    height, width = metadata.imgsz or (0, 0)
    batch = "any batch" if cfg.dynamic else f"batch {cfg.batch_size}"
    size = f"any size (multiples of {predictor.stride})" if cfg.dynamic else f"{height}x{width} pixels"
    print(f"{cfg.weights}: {len(predictor.names)} classes, {batch}, {size}")
    return max(_export(cfg, format, predictor, metadata) for format in cfg.include)


def _names(data: Path | None) -> tuple[str, ...] | None:
    if data is None:
        return None
    from data.description import read_description

    return read_description(data).names


def _metadata(cfg: ExportConfig, predictor: TorchPredictor) -> Metadata:
    from models.metadata import Metadata
    from models.sizes import input_size

    size = input_size(cfg.imgsz, predictor)
    return Metadata(
        predictor.names, predictor.stride, imgsz=size, dynamic=cfg.dynamic, config=predictor.config
    )


def _export(cfg: ExportConfig, format: str, predictor: TorchPredictor, metadata: Metadata) -> int:
    """Write one format under a temporary name; it gets its own once it is proved equal."""
    from models.onnx_export import export_onnx
    from models.parity import PIXELS, RELATIVE, SCORES, compare

    target = cfg.weights.with_suffix(f".{format}")
    draft = target.with_name(f".{target.stem}.{os.getpid()}.draft.{format}")
    start = time.perf_counter()
    try:
        draft.touch()  # before the long part: can it be written at all?
        export_onnx(predictor.model, draft, metadata, cfg.batch_size, cfg.opset)
        seconds, size = time.perf_counter() - start, draft.stat().st_size / 1e6
        print(f"{format}: opset {cfg.opset}, {size:.1f} MB, exported in {seconds:.1f} s")
        found = compare(predictor, _reload(draft, format), _shapes(cfg, metadata))
        print(
            f"{format}: largest difference from PyTorch on {found.inputs} inputs: "
            f"{found.pixels:.2g} pixels, {found.scores:.2g} in scores "
            f"(allowed: {PIXELS:g} + {RELATIVE:g} of the value, and {SCORES:g})"
        )
        if not found.agree:
            print(f"{format}: the outputs differ, so {target} was not written", file=sys.stderr)
            return 1
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    print(f"{format}: saved {target}; try: python detect.py --weights {target}")
    return 0


def _reload(draft: Path, format: str) -> Predictor:
    from models.runtime import load_predictor

    try:
        return load_predictor(draft, "cpu")
    except UserError as error:
        raise UserError(f"the {format} file does not run here, so it was not kept: {error}") from error


def _shapes(cfg: ExportConfig, metadata: Metadata) -> list[tuple[int, int, int]]:
    """Batch, height and width of the inputs to compare; a dynamic file must take others than its example."""
    assert metadata.imgsz is not None
    height, width = metadata.imgsz
    if not cfg.dynamic:
        return [(cfg.batch_size, height, width)]
    stride = metadata.stride
    return [(1, height, width), (3, height + stride, width), (2, 3 * stride, 5 * stride)]


if __name__ == "__main__":
    run(ExportConfig, main)
