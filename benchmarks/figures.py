"""Draw the figures of docs/spd.md and docs/downsampling.md: `python -m benchmarks.figures`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np

matplotlib.use("Agg")

import torch
from matplotlib import pyplot as plt
from torch import Tensor

from models.downsample import RESAMPLERS
from models.downsample.spd import space_to_depth
from utils.cli import run
from utils.options import Options

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES = Path(__file__).parents[1] / "docs" / "images"
FULL_IMAGE = Path(__file__).parents[1] / "data/samples/treecrowns/images/val/yell_541000_4977000.jpg"
CORNER, SIDE = (890, 720), 96  # left, top and side of the square shown, pixels
OFFSETS = {0: "row 0, column 0", 1: "row 1, column 0", 2: "row 0, column 1", 3: "row 1, column 1"}
COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44")  # a color for each offset


@dataclass(frozen=True)
class FiguresConfig(Options):
    """Draw the figures of docs/spd.md and docs/downsampling.md anew, into docs/images."""


def save(name: str) -> None:
    """Write the current figure."""
    IMAGES.mkdir(exist_ok=True)
    plt.savefig(IMAGES / name, dpi=80, bbox_inches="tight")
    plt.close()
    print(IMAGES / name)


def crown() -> Tensor:
    """Return a square of a full image, one tree, (1, 3, SIDE, SIDE) in 0..1."""
    left, top = CORNER
    image = plt.imread(FULL_IMAGE)[top : top + SIDE, left : left + SIDE]
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0) / 255


def show(axes: Axes, image: Tensor, title: str) -> None:
    """Draw (1, 3, H, W) or (1, 1, H, W) with hard pixels."""
    pixels = image[0].permute(1, 2, 0).clamp(0, 1).numpy()
    axes.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def draw_space_to_depth() -> None:
    """What space-to-depth keeps of a tree crown, beside what skipping pixels keeps."""
    image = crown()
    groups = space_to_depth(image).split(3, 1)
    figure = plt.figure(figsize=(11, 4.2))
    grid = figure.add_gridspec(2, 5, width_ratios=(2, 1, 1, 0.15, 1.4))
    show(figure.add_subplot(grid[:, 0]), image, f"{SIDE} x {SIDE} pixels of a full image")
    for i, group in enumerate(groups):
        axes = figure.add_subplot(grid[i % 2, 1 + i // 2])
        show(axes, group, OFFSETS[i])
        axes.title.set_color(COLORS[i])
    show(figure.add_subplot(grid[:, 4]), groups[0], "every second pixel:\nthree quarters are gone")
    figure.suptitle("space-to-depth keeps all four groups of pixels, as channels", y=1.02)
    save("space-to-depth.png")


def draw_kernel(axes: Axes, read: int, first: int, zeros: set[int], title: str) -> None:
    """Draw the pixels that one output reads, `read` x `read` from `first`; those in `zeros` start at zero."""
    for row in range(-3, 5):
        for column in range(-3, 5):
            inside = first <= row < first + read and first <= column < first + read
            at_zero = inside and (row in zeros or column in zeros)
            color = COLORS[(column % 2) * 2 + row % 2]
            axes.add_patch(
                plt.Rectangle(
                    (column, row),
                    0.94,
                    0.94,
                    facecolor=color if inside else "#eeeeee",
                    alpha=0.3 if at_zero else 1,
                )
            )
            if at_zero:
                axes.text(column + 0.47, row + 0.5, "0", ha="center", va="center", fontsize=9)
    axes.add_patch(plt.Rectangle((-0.03, -0.03), 1.97, 1.97, fill=False, linewidth=2))
    axes.set(xlim=(-3.1, 5), ylim=(5, -3.1), aspect="equal")
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def draw_kernels() -> None:
    """Which pixels an output reads: strided, strided inside SPD, SPD with a 3x3 kernel."""
    _, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 4))
    draw_kernel(left, 3, -1, set(), "3x3, stride 2:\n9 pixels")
    draw_kernel(middle, 4, -2, {-2}, "the same, in 2x2 cells:\n16 pixels, 7 at zero")
    draw_kernel(right, 6, -2, set(), "SPD-Conv, 3x3 cells:\n36 pixels, a 6x6 kernel of stride 2")
    save("spd-kernels.png")


def zone_plate(side: int) -> Tensor:
    """Rings whose frequency grows from 0 in the middle to the highest at the border; (1, 1, side, side)."""
    axis = torch.linspace(-1, 1, side)
    radius = axis[:, None] ** 2 + axis**2
    return (0.5 + 0.5 * torch.cos(radius * side * torch.pi / 4))[None, None]


def draw_zone_plates() -> None:
    """Rings halved by every resampler, in whole pixels: rings around the corners are aliases."""
    side, gap, heading, dpi = 192, 12, 24, 100
    image = zone_plate(side)
    halves = {"every second pixel": lambda x: x[..., ::2, ::2]}
    halves.update({name: make() for name, make in RESAMPLERS.items()})
    columns, rows = 4, 2
    width, height = columns * (side + gap) + gap, rows * (side + heading) + gap
    figure = plt.figure(figsize=(width / dpi, height / dpi), dpi=dpi)
    with torch.no_grad():
        panels = {"192 x 192": image, **{name: halve(image) for name, halve in halves.items()}}
    for i, (name, panel) in enumerate(panels.items()):
        left, top = gap + i % columns * (side + gap), heading + i // columns * (side + heading)
        box = (left / width, 1 - (top + side) / height, side / width, side / height)
        show(figure.add_axes(box), panel, name)
    plt.savefig(IMAGES / "zone-plates.png", dpi=dpi)
    plt.close()


def main(cfg: FiguresConfig) -> None:
    """Draw everything."""
    draw_space_to_depth()
    draw_kernels()
    draw_zone_plates()


if __name__ == "__main__":
    run(FiguresConfig, main)
