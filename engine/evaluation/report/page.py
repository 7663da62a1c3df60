"""report.html: everything about an evaluation in one file that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.evaluation.analysis import Analysis
from engine.evaluation.evaluator import EvaluationResult, ScoringResult
from engine.evaluation.metrics import error_gains
from engine.evaluation.metrics.by_size import box_areas, error_counts
from engine.evaluation.metrics.tables import Table, class_table, shown, size_table, sizes_line
from engine.evaluation.outputs import limit_notes
from engine.evaluation.report.gallery import SMALL, Crop, ReadImage, crops, missed_small, sure_mistakes

MOST_CROPS = 24  # in each gallery
FIGURES = {
    "size_curve.png": "AP and recall over object size",
    "size_errors.png": "Errors over object size",
    "PR_curve.png": "Precision over recall",
    "F1_curve.png": "F1 over confidence",
    "P_curve.png": "Precision over confidence",
    "R_curve.png": "Recall over confidence",
    "confusion_matrix.png": "Confusion matrix",
}
GAINS = {
    "Cls": "classification",
    "Loc": "localization",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}


@dataclass(frozen=True)
class Section:
    """Tables of the numbers of tiles, images or full images."""

    title: str
    tables: list[Table]
    notes: list[str]


def write_report(
    file: Path,
    title: str,
    evaluation: EvaluationResult,
    analysis: Analysis,
    config: Mapping[str, Any],
    read_image: ReadImage | None = None,
) -> None:
    """Write the report; the figures of `plot` must be in the file's folder.

    Args:
        file: the HTML file.
        title: what was evaluated on what.
        evaluation: the numbers.
        analysis: of its images.
        config: the run's options.
        read_image: for the galleries; None leaves them out.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    names = analysis.scored.metrics.names
    gains = error_gains(analysis.scored.truth, analysis.scored.detections, len(names))
    html = environment.get_template("report.html.jinja").render(
        title=title,
        findings=findings(analysis),
        sizes=sizes_line(analysis.scored.metrics.protocol),
        headline=headline(analysis),
        sections=sections(evaluation),
        fates=fate_table(analysis),
        gains=[["kind", "AP50 gained"], *([name, f"+{gains[key]:.3f}"] for key, name in GAINS.items())],
        confidence=analysis.confidence,
        figures={name: (caption, _png_uri(file.parent / name)) for name, caption in FIGURES.items()},
        galleries=galleries(analysis, read_image) if read_image else [],
        config=config,
    )
    file.write_text(html, encoding="utf-8")


def headline(analysis: Analysis) -> list[tuple[str, str]]:
    """Return the numbers that stand at the top."""
    metrics = analysis.scored.metrics
    keys = ["AP", "AP50", f"AP_{metrics.protocol.sizes[0].name}", f"AR{metrics.protocol.max_dets[-1]}"]
    cells = [(key, shown(metrics.values.get(key))) for key in keys]
    return [*cells, ("best confidence", f"{analysis.confidence:.2f}")]


def findings(analysis: Analysis) -> list[str]:
    """Say in words how small objects fare beside larger ones, and what they are lost to."""
    truth, errors = analysis.scored.truth, analysis.errors
    small = truth.areas < SMALL**2
    lines = []
    for mask, what in ((small, f"under {SMALL:g} px"), (~small, f"of {SMALL:g} px and more")):
        objects = mask & ~truth.crowd
        if objects.any():
            share = errors.found[objects].mean()
            lines.append(f"{share:.0%} of the {objects.sum():,} objects {what} (√area) are found")
    text = " and ".join(lines) or "There are no objects"
    result = [f"At confidence {analysis.confidence:.2f}, where F1 is best, {text}."]
    counts = error_counts(errors, small.astype(int), (box_areas(analysis.working) < SMALL**2).astype(int), 2)
    ranked = sorted(((int(count[1]), name) for name, count in counts.items()), reverse=True)
    total = sum(count for count, _ in ranked)
    if total:
        parts = ", ".join(f"{count / total:.0%} {name}" for count, name in ranked[:3] if count)
        result.append(f"Of the {total:,} errors about small objects, {parts}.")
    return result


def sections(evaluation: EvaluationResult) -> list[Section]:
    """Return the tables of the inputs and, where they are tiles, of the full images."""
    if evaluation.merged is None:
        return [_section("Images", evaluation.inputs)]
    return [
        _section("Full images, tiles merged", evaluation.merged),
        _section("Tiles", evaluation.inputs),
    ]


def _section(title: str, scored: ScoringResult) -> Section:
    metrics = scored.metrics
    per_class = len(metrics.names) > 1
    return Section(title, [class_table(metrics, per_class), size_table(metrics)], limit_notes(scored))


def fate_table(analysis: Analysis) -> Table:
    """One row a size class: how many of its objects were found, and its errors of each kind.

    A false detection belongs to the size of the object it is about; one on background to its own.
    """
    truth, errors, working = analysis.scored.truth, analysis.errors, analysis.working
    rows = []
    for size in analysis.scored.metrics.protocol.sizes:
        place, own = (
            ((areas >= size.low) & (areas <= size.high)).astype(int)
            for areas in (truth.areas, box_areas(working))
        )
        counts = error_counts(errors, place, own, 2)
        objects = int((place.astype(bool) & ~truth.crowd).sum())
        found = int((place.astype(bool) & errors.found).sum())
        share = f"{found / objects:.0%}" if objects else "-"
        rows.append([str(size), str(objects), share, *(str(count[1]) for count in counts.values())])
    kinds = list(error_counts(errors, np.zeros(len(truth.areas), int), np.zeros(len(working.image), int), 1))
    return [["size", "objects", "found", *kinds], *rows]


def galleries(analysis: Analysis, read_image: ReadImage) -> list[tuple[str, str, list[Crop]]]:
    """Return heading, explanation and crops of each gallery."""
    return [
        (
            "Small objects that were missed",
            f"Objects under {SMALL:g} px that nothing of confidence {analysis.confidence:.2f} or more found; "
            "those that nothing was detected near come first.",
            crops(analysis, missed_small(analysis, MOST_CROPS), read_image),
        ),
        (
            "False detections the detector was sure of",
            "The most confident detections that are wrong, and in which way.",
            crops(analysis, sure_mistakes(analysis, MOST_CROPS), read_image),
        ),
    ]


def _png_uri(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
