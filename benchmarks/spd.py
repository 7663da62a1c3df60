"""What does SPD-Conv cost, and how much of it does fuse() save?

    python benchmarks/spd.py
    python benchmarks/spd.py --device 0 --batch-size 16
    python benchmarks/spd.py --quick

Four ways to halve a map, as blocks and in whole YOLOv5 networks:

    baseline   Conv k3 s2
    released   Conv k3 s1, space-to-depth, and the 1x1 convolution that reads it (yolov5n-spd)
    paper      space-to-depth, Conv k3 s1 (yolov5n --downsample spd)
    fused      either, rewritten by models/fuse.py

Every row is one race, run in turns; every ratio is to the released form in the same row.
"""

from __future__ import annotations

import copy
import functools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.race import print_ratios, race
from utils.cli import opt, run, validate

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from models.detector import Detector

BLOCKS = [(16, 320), (32, 160), (64, 80), (128, 40)]  # channels and side of the map before: yolov5n at 640


@dataclass(frozen=True)
class SpdBenchmark:
    """Compare the forms of SPD-Conv with each other and with a strided convolution."""

    scale: str = opt("n", "scale letter of the networks: n, s, m or l")
    imgsz: int = opt(640, "side of the networks' square input, pixels", "--img", "--img-size", min=32)
    batch_size: int = opt(1, "pictures at a time in inference", "--batch", min=1)
    device: str = opt("cpu", "cpu or the number of a GPU")
    rounds: int = opt(7, "times each contestant runs, in turns", min=1)
    threads: int = opt(1, "threads of the CPU", min=1)
    onnx: bool = opt(True, "export the networks and time ONNX Runtime, too")
    quick: bool = opt(False, "small pictures and one round, to see that it runs")

    def __post_init__(self) -> None:
        """Check every option."""
        validate(self)


def settings(device: torch.device) -> dict[str, tuple[torch.memory_format, torch.dtype]]:
    """Return the layouts and precisions of inference."""
    import torch

    half = torch.bfloat16 if device.type == "cpu" else torch.float16
    return {
        "contiguous": (torch.contiguous_format, torch.float32),
        "channels_last": (torch.channels_last, torch.float32),
        f"channels_last, {str(half)[6:]}": (torch.channels_last, half),
    }


def inference(
    model: nn.Module, x: Tensor, layout: torch.memory_format, dtype: torch.dtype
) -> Callable[[], object]:
    """Return a run of a copy of `model` in that layout and precision."""
    import torch

    model = copy.deepcopy(model).eval().to(x.device, dtype)
    if layout == torch.channels_last:
        model = _channels_last(model)
    x = x.to(dtype=dtype, memory_format=layout)

    def step() -> object:
        with torch.inference_mode():
            return model(x)

    return step


def block_forms(channels: int) -> dict[str, nn.Module]:
    """Return the five forms of a block: (B, C, H, W) -> (B, 2C, H/2, W/2)."""
    from torch import nn

    from models.blocks import Conv
    from models.downsample.spd import SpaceToDepth, SPDConv, strided_weight
    from models.fuse import StridedSPD, fold_batchnorm

    out = 2 * channels
    blocks = {"baseline": Conv(channels, out, 3, 2), "paper": SPDConv(channels, out)}
    first, reader = Conv(channels, out, 3), nn.Conv2d(4 * out, out, 1, bias=False)
    for block in (*blocks.values(), first):
        fold_batchnorm(block.eval())
    strided = nn.Conv2d(out, out, 2, 2, bias=False)
    strided.weight.data = strided_weight(reader.weight.data)
    return {
        "released": nn.Sequential(first, SpaceToDepth(), reader),
        "released fused": _channels_last(nn.Sequential(first, strided)),
        "paper": blocks["paper"],
        "paper fused": _channels_last(StridedSPD(blocks["paper"])),
        "baseline": blocks["baseline"],
    }


def _channels_last(model: nn.Module) -> nn.Module:
    """Give the weights the layout that fuse() gives them."""
    import torch

    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def network_forms(scale: str) -> dict[str, Detector]:
    """Return the five forms of a whole network; what is not fused has BatchNorm as trained."""
    from models import build_model
    from models.detector import require_detector

    released = require_detector(build_model(f"yolov5{scale}-spd"), "benchmark").eval()
    paper = require_detector(build_model(f"yolov5{scale}", downsample="spd"), "benchmark").eval()
    baseline = require_detector(build_model(f"yolov5{scale}"), "benchmark").eval()
    return {
        "released": released,
        "released fused": copy.deepcopy(released).fuse(),
        "paper": paper,
        "paper fused": copy.deepcopy(paper).fuse(),
        "baseline": baseline,
        "baseline fused": copy.deepcopy(baseline).fuse(),
    }


def compare_blocks(cfg: SpdBenchmark, device: torch.device) -> None:
    """Print a row a size and setting."""
    import torch

    print("\nblocks, inference, BatchNorm folded")
    for channels, side in BLOCKS[-1:] if cfg.quick else BLOCKS:
        x = torch.rand(cfg.batch_size, channels, side, side, device=device)
        for name, setting in settings(device).items():
            forms = {key: inference(form, x, *setting) for key, form in block_forms(channels).items()}
            title = f"{channels}x{side}² {name}"
            print_ratios(title, race(forms, 3 * cfg.rounds, device.type), "released")


def compare_networks(cfg: SpdBenchmark, device: torch.device) -> None:
    """Print arithmetic, then a row a setting."""
    import torch

    from models.summary import count_gflops, count_parameters

    forms = network_forms(cfg.scale)
    plain = {name: forms[name] for name in ("released", "paper", "baseline")}
    base = plain["released"]
    print(f"\nyolov5{cfg.scale} at {cfg.imgsz}x{cfg.imgsz}, batch {cfg.batch_size}")
    for what, count in (("parameters", count_parameters), ("arithmetic", count_gflops)):
        shares = {name: count(model) / count(base) for name, model in plain.items()}
        print(f"{what:<34} " + "  ".join(f"{name} {share:.2f}x" for name, share in shares.items()))
    x = torch.rand(cfg.batch_size, 3, cfg.imgsz, cfg.imgsz, device=device)
    for name, setting in settings(device).items():
        runs = {key: inference(form, x, *setting) for key, form in forms.items()}
        print_ratios(f"inference, {name}", race(runs, cfg.rounds, device.type), "released")
    if cfg.onnx and device.type == "cpu":
        print_ratios("inference, ONNX Runtime", race(onnx_runs(cfg, forms), cfg.rounds), "released")
    for name, layout in (
        ("contiguous", torch.contiguous_format),
        ("channels_last", torch.channels_last),
    ):
        steps = {key: training_step(model, cfg, device, layout) for key, model in plain.items()}
        print_ratios(f"training step, {name}", race(steps, max(cfg.rounds // 2, 1), device.type), "released")


def onnx_runs(cfg: SpdBenchmark, forms: dict[str, Detector]) -> dict[str, Callable[[], object]]:
    """Return a run of each network in ONNX Runtime; the exporter folds BatchNorm in all of them."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cfg.threads
    images = torch.rand(cfg.batch_size, 3, cfg.imgsz, cfg.imgsz)
    runs: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in forms.items():
            file = Path(folder) / "model.onnx"
            torch.onnx.export(model, (images,), file, dynamo=True, input_names=["images"], verbose=False)
            session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
            runs[name] = functools.partial(session.run, None, {"images": images.numpy()})
    return runs


def training_step(
    model: Detector, cfg: SpdBenchmark, device: torch.device, layout: torch.memory_format
) -> Callable[[], None]:
    """Return forward and backward of two pictures, in float32."""
    import torch

    twin: nn.Module = copy.deepcopy(model).train().to(device)
    twin = _channels_last(twin) if layout == torch.channels_last else twin
    images = torch.rand(2, 3, cfg.imgsz // 2, cfg.imgsz // 2, device=device).to(memory_format=layout)

    def step() -> None:
        sum(level.square().mean() for level in twin(images)).backward()

    return step


def main(cfg: SpdBenchmark) -> None:
    """Print both tables."""
    import dataclasses

    import torch

    from utils.device import select_device

    if cfg.quick:
        cfg = dataclasses.replace(cfg, imgsz=64, rounds=1)
    torch.set_num_threads(cfg.threads)
    device = select_device(cfg.device)
    print(
        f"torch {torch.__version__}, {device}, {cfg.threads} threads, median of {cfg.rounds} rounds in turns"
    )
    compare_blocks(cfg, device)
    compare_networks(cfg, device)


if __name__ == "__main__":
    run(SpdBenchmark, main)
