"""What does SPD-Conv cost, and how much of it do fuse_detector() and fast_training() save?

    python -m benchmarks.spd
    python -m benchmarks.spd --device 0 --batch-size 16
    python -m benchmarks.spd --quick

Three ways to halve a map, as blocks and in whole YOLOv5 networks:

    baseline   Conv k3 s2
    released   Conv k3 s1, space-to-depth, and the 1x1 convolution that reads it (yolov5n-spd)
    paper      space-to-depth, Conv k3 s1 (yolov5n --downsample spd)

and with them "fused", rewritten by models/fuse.py for inference, and "fast", by models/fast_training.py for
training. Every row is one race, run in turns; a row's ratios are to its first form. The tables are Markdown.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.race import race
from benchmarks.spd_forms import (
    NETWORKS,
    block_forms,
    exported,
    inference,
    network,
    training,
    training_blocks,
    training_network,
)
from benchmarks.spd_memory import Load, peak_megabytes
from utils.cli import run
from utils.options import Options, opt

if TYPE_CHECKING:
    import torch

BLOCKS = [(16, 320), (32, 160), (64, 80), (128, 40)]  # channels and side of the map before: yolov5n at 640
TRAINED = ("released", "released fast", "paper", "paper fast", "baseline", "baseline fast")
SHIPPED = ("released fused", "released fast")  # exact rewrites that the commands use
SLOWER = 1.05  # times the original: below, it is noise


@dataclass(frozen=True)
class SpdBenchmark(Options):
    """Compare the forms of SPD-Conv with each other and with a strided convolution."""

    scale: str = opt("n", "scale letter of the networks: n, s, m or l")
    imgsz: int = opt(640, "side of the networks' square input, pixels", "--img", "--img-size", min=32)
    batch_size: int = opt(1, "images at a time in inference", "--batch", min=1)
    train_batch: int = opt(16, "images at a time in training, of half that side", min=1)
    device: str = opt("cpu", "cpu or the number of a GPU")
    rounds: int = opt(7, "times each contestant runs, in turns", min=1)
    threads: int = opt(1, "threads of the CPU", min=1)
    compile: bool = opt(True, "time torch.compile, too, which takes minutes to compile")
    onnx: bool = opt(True, "export the networks and time ONNX Runtime and OpenVINO, too")
    memory: bool = opt(True, "measure peak memory, too")
    quick: bool = opt(False, "small images and one round, to see that it runs")


class Table:
    """A Markdown table of races: the first column in milliseconds, the others as its multiples."""

    slower: ClassVar[list[str]] = []  # rows of all tables in which a form we ship loses

    def __init__(self, title: str, what: str, columns: tuple[str, ...]):
        print(f"\n**{title}**\n\n| {what} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
        self.title, self.columns = title, columns

    def row(self, name: str, values: Mapping[str, float], unit: str = "ms", factor: float = 1000) -> None:
        """Print values by column, seconds for the default unit."""
        base = values[self.columns[0]]
        cells = [f"{base * factor:.4g} {unit}"]
        cells += [f"{values[column] / base:.2f}x" for column in self.columns[1:]]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        if unit != "ms" or self.columns[0] != "released":
            return
        for column in set(SHIPPED) & set(self.columns):
            if values[column] > SLOWER * base:
                self.slower.append(f"{self.title}, {name}: {column} {values[column] / base:.2f}x")


def settings() -> dict[str, tuple[torch.memory_format, bool]]:
    """Return the layouts, and whether bfloat16 is used."""
    import torch

    return {
        "contiguous": (torch.contiguous_format, False),
        "channels_last": (torch.channels_last, False),
        "channels_last, bfloat16": (torch.channels_last, True),
    }


def compare_blocks(cfg: SpdBenchmark, device: torch.device, compiles: bool) -> None:
    """Print a row a size and setting, for inference and for training."""
    import torch

    sizes = [(16, 32)] if cfg.quick else BLOCKS
    columns = ("released", "released fused", "paper", "paper fused", "baseline")
    table = Table("Blocks, inference, BatchNorm folded", "channels x side", columns)
    for channels, side in sizes:
        x = torch.rand(cfg.batch_size, channels, side, side, device=device)
        forms = block_forms(channels)
        for name, (layout, half) in settings().items():
            runs = {key: inference(form, x, layout, half) for key, form in forms.items()}
            table.row(f"{channels}x{side} {name}", race(runs, 3 * cfg.rounds, device.type))
        if compiles:
            runs = {
                key: inference(form, x, torch.channels_last, compiled=True) for key, form in forms.items()
            }
            table.row(f"{channels}x{side} channels_last, compiled", race(runs, 3 * cfg.rounds, device.type))
    columns = ("released", "released strided", "paper", "paper strided", "baseline")
    table = Table(f"Blocks, forward and backward, batch {cfg.train_batch}", "channels x side", columns)
    for channels, side in sizes:
        x = torch.rand(cfg.train_batch, channels, side // 4, side // 4, device=device)
        for name, (layout, half) in settings().items():
            runs = {}
            for key, form in training_blocks(channels, device, layout).items():
                runs[key] = training(form, x.requires_grad_(), layout, half)
            table.row(f"{channels}x{side // 4} {name}", race(runs, cfg.rounds, device.type))


def compare_inference(cfg: SpdBenchmark, device: torch.device, compiles: bool) -> None:
    """Print a row a setting and runtime."""
    import torch

    names = NETWORKS[:2] if cfg.quick else NETWORKS
    models = {name: network(name, cfg.scale) for name in names}
    x = torch.rand(cfg.batch_size, 3, cfg.imgsz, cfg.imgsz, device=device)
    where = f"yolov5{cfg.scale} at {cfg.imgsz}x{cfg.imgsz}, batch {cfg.batch_size}"
    table = Table(f"Inference, {where}", "how", names)
    for name, (layout, half) in settings().items():
        runs = {key: inference(model, x, layout, half) for key, model in models.items()}
        table.row(name, race(runs, cfg.rounds, device.type))
    if compiles and not cfg.quick:
        runs = {key: inference(m, x, torch.channels_last, compiled=True) for key, m in models.items()}
        table.row("channels_last, compiled", race(runs, cfg.rounds, device.type))
    if cfg.onnx and device.type == "cpu":
        for runtime, graphs in exported(models, x, cfg.threads).items():
            table.row(runtime, race(graphs, cfg.rounds))


def compare_training(cfg: SpdBenchmark, device: torch.device) -> None:
    """Print a row a setting; then all of them against the released form as it was trained, contiguous."""
    import torch

    side = max(cfg.imgsz // 2, 32)
    x = torch.rand(cfg.train_batch, 3, side, side, device=device)
    where = f"yolov5{cfg.scale} at {side}x{side}, batch {cfg.train_batch}"
    rows = settings()
    runs: dict[str, Callable[[], object]] = {}
    for setting, (layout, half) in rows.items():
        for name in TRAINED:
            model = training_network(name, cfg.scale, device, layout)
            runs[f"{setting}|{name}"] = training(model, x, layout, half)
    seconds = race(runs, cfg.rounds, device.type)  # one race of all rows
    table = Table(f"Training step, {where}", "how", TRAINED)
    for setting in rows:
        table.row(setting, {name: seconds[f"{setting}|{name}"] for name in TRAINED})
    table = Table("The same, as multiples of the released form, contiguous", "how", ("as released", *TRAINED))
    for setting in rows:
        values = {name: seconds[f"{setting}|{name}"] for name in TRAINED}
        table.row(setting, {"as released": seconds["contiguous|released"], **values})


def compare_memory(cfg: SpdBenchmark) -> None:
    """Print peak memory of inference and of a training step, each in a process of its own."""
    side = max(cfg.imgsz // 2, 32)
    for train, names in ((False, NETWORKS), (True, TRAINED)):
        what = "training step" if train else "inference"
        table = Table(f"Peak memory, {what}, channels_last", "images", names)
        batch, size = (cfg.train_batch, side) if train else (cfg.batch_size, cfg.imgsz)
        values = {
            name: peak_megabytes(Load(name, train, cfg.scale, batch, size, cfg.device)) for name in names
        }
        table.row(f"{batch} of {size}x{size}", values, "MB", 1)


def main(cfg: SpdBenchmark) -> None:
    """Print all tables, and where a form that we ship is slower than the released one."""
    import torch

    from models.summary import count_gflops, count_parameters
    from utils.device import select_device

    if cfg.quick:
        cfg = dataclasses.replace(cfg, imgsz=64, train_batch=2, rounds=1)
    torch.set_num_threads(cfg.threads)
    device = select_device(cfg.device)
    compiles = cfg.compile and (device.type != "cpu" or shutil.which("c++") is not None)
    print(
        f"torch {torch.__version__}, {device}, {cfg.threads} threads, median of {cfg.rounds} rounds in turns"
    )
    if cfg.compile and not compiles:
        print("no C++ compiler (c++): torch.compile is left out")
    plain = ("released", "paper", "baseline")
    models: dict[str, Any] = {name: network(name, cfg.scale) for name in plain}
    table = Table(f"yolov5{cfg.scale}", "", plain)
    table.row("parameters", {name: count_parameters(model) for name, model in models.items()}, "M", 1e-6)
    table.row("arithmetic", {name: count_gflops(model) for name, model in models.items()}, "GFLOPs", 1)
    compare_blocks(cfg, device, compiles)
    compare_inference(cfg, device, compiles)
    compare_training(cfg, device)
    if cfg.memory and (device.type != "cpu" or sys.platform == "linux"):
        compare_memory(cfg)
    print("\nShipped and slower than the released form:", "; ".join(Table.slower) or "nothing")


if __name__ == "__main__":
    run(SpdBenchmark, main)
