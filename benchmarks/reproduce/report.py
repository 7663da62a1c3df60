"""Tables in Markdown and plots of a suite, from its CSV alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.reproduce.results import Results, Row, number, resampled
from benchmarks.reproduce.statistics import Comparison, adjusted, compare
from utils.errors import UserError, suggest
from utils.files import write_atomically

if TYPE_CHECKING:
    from benchmarks.reproduce.suite import Suite

SHOWN = ("AP", "AP50", "AP_S", "AP_M", "AP_L", "full_AP", "full_AP50", "full_AP_S", "top1")
TITLES = {
    "full_AP": "AP, full images",
    "full_AP50": "AP50, full images",
    "full_AP_S": "AP_S, full images",
    "top1": "top-1",
}
BUSY = 0.5  # processes besides ours in the minute before, from which a time is marked
Groups = dict[str, list[Row]]


def write_report(results: Results, suite: Suite, against: Sequence[str] = ()) -> str:
    """Write SUITE.md and the plots beside the CSV; return the tables.

    Args:
        results: the CSV.
        suite: names the networks to compare with, and the metrics.
        against: networks to compare with instead of the suite's.

    Raises:
        UserError: no rows, or `against` names a network that has none.
    """
    from benchmarks.reproduce.plots import plot_latency, plot_sizes

    rows = results.read()
    if not rows:
        raise UserError(f"{results.path} has no finished rows yet")
    names = list(dict.fromkeys(row["network"] for row in rows))
    for name in against:
        if name not in names:
            raise UserError(f"--against {name} has no row in {results.path}. {suggest(name, names)}")
    references = [name for name in against or suite.against or names[:1] if name in names]
    parts = [f"# {results.suite}", suite.about, _machine(rows)]
    for (data, budget), groups in by_setting(rows).items():
        stem = f"{results.suite}-{Path(data).stem}-{budget.replace(' ', '-')}"
        parts += [f"## {data}, {budget}", table(groups)]
        for reference in references:
            parts += comparison_tables(groups, reference, suite.metrics)
        for plot, what in ((plot_sizes, "size"), (plot_latency, "latency")):
            png = results.path.with_name(f"{stem}-{what}.png")
            if plot(groups, png):
                parts.append(f"![{what}]({png.name})")
    text = "\n\n".join(parts) + "\n"
    with write_atomically(results.path.with_suffix(".md")) as file:
        file.write(text)
    return text


def by_setting(rows: Iterable[Row]) -> dict[tuple[str, str], Groups]:
    """Return the rows of each data set and budget, by network, in order of seeds."""
    settings: dict[tuple[str, str], Groups] = {}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        settings.setdefault((row["data"], row["budget"]), {}).setdefault(row["network"], []).append(row)
    return settings


def values(rows: Sequence[Row], name: str) -> list[float]:
    """Return a metric of the rows that have it."""
    return [value for row in rows if (value := number(row, name)) is not None]


def mean_sd(numbers: Sequence[float], digits: int = 3) -> str:
    """'.094 ± .003', without a deviation for a single value, '' without any."""
    if not numbers:
        return ""
    text = fraction(statistics.fmean(numbers), digits)
    return text + (f" ± {fraction(statistics.stdev(numbers), digits)}" if len(numbers) > 1 else "")


def fraction(value: float, digits: int = 3) -> str:
    """0.0942 -> '.094'."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def _machine(rows: Sequence[Row]) -> str:
    """Return one line of where the rows were made."""
    machines = {f"{row['cpu']}, {row['threads']} thread(s), torch {row['torch']}" for row in rows}
    commits = sorted({row["commit"] for row in rows if row["commit"]})
    line = f"{len(rows)} runs on {'; '.join(sorted(machines))}; commit {', '.join(commits) or 'unknown'}."
    marked = " Times marked * were taken beside other work." if any(map(busy, rows)) else ""
    return f"{line} Mean ± standard deviation over seeds.{marked}"


def busy(row: Row) -> bool:
    """Whether other processes used the CPU while the times were taken."""
    load = number(row, "load")
    return load is not None and load > float(row["threads"] or 1) + BUSY


def table(groups: Groups) -> str:
    """Return a table of all networks of one setting."""
    rows = [row for group in groups.values() for row in group]
    metrics = [name for name in SHOWN if values(rows, name)]
    if all(row["AP"] == row["full_AP"] for row in rows):  # not tiled
        metrics = [name for name in metrics if not name.startswith("full_")]
    heads = ["network", "seeds", "epochs", *(TITLES.get(name, name) for name in metrics)]
    heads += ["parameters", "GFLOPs", "training, s", "PyTorch, ms", "ONNX, ms"]
    lines = [_line(heads), _line(["---", *["---:"] * (len(heads) - 1)])]
    for network, group in groups.items():
        cells = [network, str(len(group)), "/".join(dict.fromkeys(row["epochs"] for row in group))]
        cells += [mean_sd(values(group, name)) for name in metrics]
        cells.append(f"{values(group, 'parameters')[0]:,.0f}" if values(group, "parameters") else "")
        cells += [_mean(group, "gflops", 2), _mean(group, "train_seconds", 0)]
        mark = "*" if any(map(busy, group)) else ""
        times = [_mean(group, name, 1) for name in ("ms_pytorch", "ms_onnx")]
        lines.append(_line([*cells, *(f"{time}{mark}" if time else "" for time in times)]))
    return "\n".join(lines)


def _mean(rows: Sequence[Row], name: str, digits: int) -> str:
    numbers = values(rows, name)
    return f"{statistics.fmean(numbers):,.{digits}f}" if numbers else ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def comparison_tables(groups: Groups, reference: str, metrics: Sequence[str]) -> list[str]:
    """Return a table of each metric that compares all networks with one."""
    if reference not in groups:
        return []
    tables = []
    for metric in metrics:
        compared = {
            network: one
            for network, group in groups.items()
            if network != reference and (one := paired(group, groups[reference], metric)) is not None
        }
        if compared:
            final = adjusted(list(compared.values()))
            tables.append(_comparison_table(metric, reference, dict(zip(compared, final, strict=True))))
    return tables


def paired(rows: Sequence[Row], others: Sequence[Row], metric: str) -> Comparison | None:
    """Compare two networks over the seeds that both have; None where they have none in common.

    The images count where both have values on the same resamples of them.
    """
    mine, theirs = (
        {row["seed"]: row for row in group if number(row, metric) is not None} for group in (rows, others)
    )
    seeds = [seed for seed in mine if seed in theirs]
    if not seeds:
        return None
    pairs = [(mine[seed], theirs[seed]) for seed in seeds]
    a, b = ([number(pair[side], metric) or 0.0 for pair in pairs] for side in (0, 1))
    drawn = [[resampled(pair[side], metric) or [] for pair in pairs] for side in (0, 1)]
    images = {row["images"] for pair in pairs for row in pair}
    if len(images) > 1 or not all(one for side in drawn for one in side):
        return compare(a, b)
    return compare(a, b, drawn[0], drawn[1], int(images.pop() or 0))


def _comparison_table(metric: str, reference: str, compared: dict[str, Comparison]) -> str:
    images = max(one.images for one in compared.values())  # none count where there is a single seed
    uncertain = f"seeds and {images} images" if images else "seeds"
    heads = [
        f"{TITLES.get(metric, metric)} against {reference}",
        "seeds",
        "difference",
        "95% interval",
        "p (Holm)",
        "",
    ]
    lines = [_line(heads), _line(["---", *["---:"] * (len(heads) - 2), "---"])]
    for network, one in compared.items():
        interval, p = "", ""
        if one.low is not None and one.high is not None and one.p_holm is not None:
            interval = f"{signed(one.low)} to {signed(one.high)}"
            p = fraction(one.p_holm) if one.p_holm >= 0.001 else "< .001"
        lines.append(_line([network, str(one.seeds), signed(one.difference), interval, p, one.verdict]))
    return "\n".join(
        [*lines, "", f"Interval over {uncertain}; p adjusted for {len(compared)} comparison(s)."]
    )


def signed(value: float) -> str:
    """0.0042 -> '+.004'."""
    return ("+" if value >= 0 else "-") + fraction(math.fabs(value))
