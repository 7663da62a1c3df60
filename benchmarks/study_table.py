"""The numbers of a study of downsampling: accuracy over seeds, significance, size, arithmetic, time.

Two tests answer two questions, both against the study's first operator. *p (seeds)*, a paired t-test over
the seeds: would other trainings tell them apart? With three seeds it finds only large differences.
*p (images)*, an exact paired sign-flip test over the test images, each with the number of seeds whose
network was right (with one seed this is McNemar's exact test): would other images tell these networks
apart? Both are Holm-adjusted for the number of comparisons.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.race import race

if TYPE_CHECKING:
    from torch import nn

TIMED = 32  # images in a batch
ROUNDS = 9


@dataclass(frozen=True)
class Row:
    """One operator.

    Attributes:
        operator: its name.
        top1: share of right answers of each seed.
        p_seeds: see the module; None for the first operator, or a single seed.
        p_images: likewise.
        parameters: of the network.
        mflops: 10^6 floating-point operations an image, two a multiply-add.
        inference_ms: milliseconds an image, one thread, batches of 32.
        training_ms: likewise, forward and backward.
    """

    operator: str
    top1: list[float]
    p_seeds: float | None
    p_images: float | None
    parameters: int
    mflops: float
    inference_ms: float
    training_ms: float


def write_study(folder: Path, runs: Mapping[str, Sequence[Path]]) -> str:
    """Write table.md, table.csv and plot.png, and return the table; `runs` are each operator's folders."""
    import yaml

    right = {operator: np.stack([read_right(run) for run in each]) for operator, each in runs.items()}
    first, *others = right
    p_seeds = holm([paired_t(right[name].mean(1), right[first].mean(1)) for name in others])
    p_images = holm([sign_flip(right[name].sum(0) - right[first].sum(0)) for name in others])
    imgsz = yaml.safe_load((runs[first][0] / "config.yaml").read_text(encoding="utf-8"))["imgsz"]
    costs = measure({name: folder / f"{name}.yaml" for name in runs}, imgsz)
    rows = [
        Row(name, right[name].mean(1).tolist(), a, b, *costs[name])
        for name, a, b in zip(right, [None, *p_seeds], [None, *p_images], strict=True)
    ]
    table = as_table(rows, right[first].shape[1])
    (folder / "table.md").write_text(table + "\n", encoding="utf-8")
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*Row.__dataclass_fields__, "mean", "sd"])
        for row in rows:
            writer.writerow([*vars(row).values(), np.mean(row.top1), sd(row.top1)])
    plot(rows, folder / "plot.png")
    return table


def read_right(run: Path) -> NDArray[np.int64]:
    """(N,) whether each test image was classified right."""
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return np.array([int(row["true"] == row["predicted"]) for row in csv.DictReader(file)])


def sd(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample; nan of a single value."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def paired_t(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    """Return p of a two-sided paired t-test; None where it cannot be had."""
    from scipy.stats import ttest_rel

    gap = a - b
    if len(gap) < 2:
        return None
    if np.ptp(gap) == 0:  # no spread
        return None if gap[0] else 1.0
    return float(ttest_rel(a, b).pvalue)


def sign_flip(differences: NDArray[np.int64]) -> float:
    """Return p of the exact two-sided sign-flip test of whole differences, (N,): is their sum 0?

    Every difference may have had the other sign; the distribution of the sum is a product of polynomials.
    """
    sizes = np.abs(differences[differences != 0])
    chances, total = np.ones(1), int(sizes.sum())
    for size in sizes.tolist():
        longer = np.zeros(len(chances) + 2 * size)
        longer[: len(chances)] += chances / 2
        longer[2 * size :] += chances / 2
        chances = longer
    sums = np.arange(-total, total + 1)
    return float(min(chances[np.abs(sums) >= abs(int(differences.sum()))].sum(), 1.0))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values adjusted for their number (Holm 1979)."""
    known = sorted((p, i) for i, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(p * (len(known) - rank), 1.0))
        adjusted[i] = largest
    return adjusted


def measure(files: Mapping[str, Path], imgsz: int) -> dict[str, tuple[int, float, float, float]]:
    """Return parameters, 10^6 operations, and milliseconds an image of inference and of training."""
    import torch
    from torch.nn import functional as F

    from models.build import build_model
    from models.summary import count_gflops, count_parameters

    torch.set_num_threads(1)
    images = torch.rand(TIMED, 3, imgsz, imgsz).to(memory_format=torch.channels_last)
    labels = torch.zeros(TIMED, dtype=torch.long)

    def infer(model: nn.Module) -> object:
        with torch.inference_mode():
            return model(images)

    def train(model: nn.Module) -> None:
        F.cross_entropy(model(images), labels).backward()

    models: dict[str, Any] = {
        name: build_model(file).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for name, file in files.items()
    }
    training = race({name: partial(train, model.train()) for name, model in models.items()}, ROUNDS)
    inference = race({name: partial(infer, model.eval()) for name, model in models.items()}, ROUNDS)
    return {
        name: (
            count_parameters(model),
            1000 * count_gflops(model, imgsz),
            1000 * inference[name] / TIMED,
            1000 * training[name] / TIMED,
        )
        for name, model in models.items()
    }


def as_table(rows: Sequence[Row], images: int) -> str:
    """Return the rows as Markdown."""
    first, seeds = rows[0].operator, len(rows[0].top1)
    lines = [
        f"Top-1 on {images} test images, seeds 0 to {seeds - 1}; differences and p-values against "
        f"{first}, p Holm-adjusted; time on one CPU thread.",
        "",
        f"| downsampling | top-1 % mean ± sd | - {first} | p (seeds) | p (images) | parameters | MFLOPs "
        "| inference ms | training ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        gap = f"{100 * (np.mean(row.top1) - np.mean(rows[0].top1)):+.2f}" if row is not rows[0] else ""
        p = ["" if row is rows[0] else "-" if p is None else f"{p:.3f}" for p in (row.p_seeds, row.p_images)]
        accuracy = f"{100 * np.mean(row.top1):.2f}" + (f" ± {100 * sd(row.top1):.2f}" if seeds > 1 else "")
        cells = [row.operator, accuracy, gap, *p, f"{row.parameters:,}", f"{row.mflops:.1f}"]
        lines.append(f"| {' | '.join([*cells, f'{row.inference_ms:.2f}', f'{row.training_ms:.2f}'])} |")
    return "\n".join(lines)


def plot(rows: Sequence[Row], png: Path) -> None:
    """Draw every seed as a dot, and mean and standard deviation beside them."""
    from engine.evaluation.report.plots import color_of, make_figure

    figure, axes = make_figure(1.4 + 1.1 * len(rows), 4.5)
    axis = axes[0, 0]
    for x, row in enumerate(rows):
        values, color = 100 * np.array(row.top1), color_of(x)
        axis.plot(np.full(len(values), x - 0.12), values, "o", color=color, alpha=0.7, markersize=5)
        spread = 0 if len(values) < 2 else 100 * sd(row.top1)
        axis.errorbar(x + 0.12, values.mean(), spread, fmt="_", color="black", capsize=4, markersize=14)
    axis.set_xticks(range(len(rows)), [row.operator for row in rows])
    axis.set(ylabel="top-1, %", title=f"each of {len(rows[0].top1)} seeds, mean and standard deviation")
    axis.grid(axis="y", color="0.9")
    figure.savefig(png)
