"""Is resampling by two matrix products faster than by Fourier transforms, and what do whole networks cost?

    python -m benchmarks.spectral
    python -m benchmarks.spectral --device 0
    python -m benchmarks.spectral --quick

First, spectral pooling and DiffStride at the sizes of ResNet-18 and of a detector, forward and with backward:
the rule in models/downsample/fourier.py is read from this table. Then a training step of ResNet-18 with
DiffStride beside one with average pooling, on the fixed grid and as published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.race import print_ratios, race
from utils.cli import run
from utils.options import Options, opt

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from models.downsample.fourier import Method

SHAPES = [(32, 64, 32), (32, 128, 16), (32, 256, 8), (32, 512, 4), (4, 64, 80), (2, 32, 160), (1, 16, 320)]


@dataclass(frozen=True)
class SpectralBenchmark(Options):
    """Compare matrix products with Fourier transforms."""

    device: str = opt("cpu", "cpu or the number of a GPU")
    rounds: int = opt(9, "times each side runs, in turns", min=1)
    threads: int = opt(1, "threads of the CPU", min=1)
    quick: bool = opt(False, "only a few small sizes, to see that it runs")


def layers(fixed_grid: bool) -> dict[str, Callable[[Method], nn.Module]]:
    """Return what makes each layer for a method."""
    from models.downsample.diffstride import DiffStride2d
    from models.downsample.spectral import SpectralPool2d

    return {
        "spectral": lambda method: SpectralPool2d(fixed_grid=fixed_grid, method=method),
        "diffstride": lambda method: DiffStride2d(fixed_grid=fixed_grid, method=method),
    }


def forward(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    """Return a run without gradients."""
    import torch

    def step() -> object:
        with torch.inference_mode():
            return layer(x)

    return step


def forward_backward(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    """Return a run with gradients of the input and the parameters."""
    import torch

    x = x.clone().requires_grad_()
    cotangent = torch.randn_like(layer(x))

    def step() -> object:
        x.grad = None
        return layer(x).backward(cotangent)

    return step


def compare_methods(cfg: SpectralBenchmark, device: torch.device) -> None:
    """Print a row a layer, size and direction."""
    import torch

    shapes = SHAPES[2:4] if cfg.quick else SHAPES
    for fixed_grid in (True, False):
        print("\nfixed grid" if fixed_grid else "\nas published")
        for name, make in layers(fixed_grid).items():
            for batch, channels, side in shapes:
                x = torch.randn(batch, channels, side, side, device=device)
                for what, wrap in (("forward", forward), ("+ backward", forward_backward)):
                    methods: tuple[Method, ...] = ("fft", "matrices")
                    sides = {str(method): wrap(make(method).to(device), x) for method in methods}
                    seconds = race(sides, cfg.rounds, device.type)
                    print_ratios(f"{name} {batch}x{channels}x{side}² {what}", seconds, "fft")


def compare_networks(cfg: SpectralBenchmark, device: torch.device) -> None:
    """Print time and arithmetic of a training step of ResNet-18, relative to average pooling."""
    import torch
    from torch.nn import functional as F

    from models import build_model
    from models.summary import count_gflops

    batch, side = (2, 16) if cfg.quick else (16, 32)
    published = {**build_model("resnet18-diffstride").yaml}
    fixed = {**published, "fixed_grid": True}
    architectures = {
        "avg": {**fixed, "downsample": ["none", "none", *["avg"] * 3]},
        "spectral": {**fixed, "downsample": ["none", "none", *["spectral"] * 3]},
        "diffstride": fixed,  # one behind the stem, too, as published
        "published": published,
    }
    images = torch.rand(batch, 3, side, side, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    steps, gflops = {}, {}
    for name, yaml in architectures.items():
        model = build_model(yaml).to(device)

        def step(model: nn.Module = model) -> None:
            F.cross_entropy(model(images), labels).backward()

        steps[name], gflops[name] = step, count_gflops(model, side)
    print(f"\nResNet-18, pre-activation, training step of {batch} images of {side}²")
    seconds = race(steps, max(cfg.rounds // 3, 1), device.type)
    print_ratios("time", seconds, "avg")
    print(f"{'multiply-adds':<34} " + "  ".join(f"{n} {g / gflops['avg']:.2f}x" for n, g in gflops.items()))
    quotient = {n: seconds[n] / seconds["avg"] / (gflops[n] / gflops["avg"]) for n in seconds}
    print(f"{'time / multiply-adds':<34} " + "  ".join(f"{n} {q:.2f}x" for n, q in quotient.items()))


def main(cfg: SpectralBenchmark) -> None:
    """Print both tables."""
    import torch

    from utils.device import select_device

    torch.set_num_threads(cfg.threads)
    device = select_device(cfg.device)
    print(f"torch {torch.__version__}, {device}, {cfg.threads} threads, median of {cfg.rounds} runs in turns")
    compare_methods(cfg, device)
    compare_networks(cfg, device)


if __name__ == "__main__":
    run(SpectralBenchmark, main)
