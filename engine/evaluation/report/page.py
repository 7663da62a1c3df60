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
from engine.evaluation.limits import limit_notes
from engine.evaluation.metrics import error_gains
from engine.evaluation.metrics.by_size import box_areas, error_counts
from engine.evaluation.metrics.tables import Table, class_table, point_line, shown, size_table, sizes_line
from engine.evaluation.report.gallery import SMALL, Crop, ReadImage, confident_mistakes, crops, missed_small
from utils.files import write_atomically

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
    """Tables of the metrics of tiles or of full images."""

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
    """Write the report; the figures of `outputs.plot` must be in the file's folder.

    Args:
        file: the HTML file.
        title: what was evaluated on what.
        evaluation: its result.
        analysis: of its full images.
        config: the run's options.
        read_image: reads the images for the galleries; None leaves these out.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    names = analysis.scored.metrics.names
    gains = error_gains(analysis.scored.ground_truth, analysis.scored.detections, len(names))
    html = environment.get_template("report.html.jinja").render(
        title=title,
        findings=findings(analysis),
        sizes=sizes_line(analysis.scored.metrics.protocol),
        headline=headline(analysis),
        sections=sections(evaluation),
        outcomes=outcome_table(analysis),
        gains=[["kind", "AP50 gained"], *([name, f"+{gains[key]:.3f}"] for key, name in GAINS.items())],
        confidence=analysis.confidence,
        figures={name: (caption, _png_uri(file.parent / name)) for name, caption in FIGURES.items()},
        galleries=galleries(analysis, read_image) if read_image else [],
        config=config,
    )
    with write_atomically(file) as stream:
        stream.write(html)


def headline(analysis: Analysis) -> list[tuple[str, str]]:
    """Return names and values of the numbers at the top."""
    metrics = analysis.scored.metrics
    keys = ["AP", "AP50", f"AP_{metrics.protocol.sizes[0].name}", f"AR{metrics.protocol.max_dets[-1]}"]
    cells = [(key, shown(metrics.values.get(key))) for key in keys]
    return [*cells, ("best confidence", f"{analysis.confidence:.2f}")]


def findings(analysis: Analysis) -> list[str]:
    """Say in words how many small and larger objects are detected, and what small ones are lost to."""
    ground_truth, errors = analysis.scored.ground_truth, analysis.errors
    small = ground_truth.areas < SMALL**2
    lines = []
    for mask, what in ((small, f"under {SMALL:g} px"), (~small, f"of {SMALL:g} px and more")):
        objects = mask & ~ground_truth.crowd
        if objects.any():
            share = errors.detected[objects].mean()
            lines.append(f"{share:.0%} of the {objects.sum():,} objects {what} (√area) are detected")
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
    point = scored.operating_point
    tables = [class_table(metrics, point, per_class), size_table(metrics)]
    return Section(title, tables, [point_line(point), *limit_notes(scored)])


def outcome_table(analysis: Analysis) -> Table:
    """Return a row for each size class: objects, share detected, errors of each kind.

    A false detection counts at the size of its object; a detection on background at its own size.
    """
    ground_truth, errors, working = analysis.scored.ground_truth, analysis.errors, analysis.working
    rows = []
    for size in analysis.scored.metrics.protocol.sizes:
        place, own = (
            ((areas >= size.low) & (areas <= size.high)).astype(int)
            for areas in (ground_truth.areas, box_areas(working))
        )
        counts = error_counts(errors, place, own, 2)
        objects = int((place.astype(bool) & ~ground_truth.crowd).sum())
        detected = int((place.astype(bool) & errors.detected).sum())
        share = f"{detected / objects:.0%}" if objects else "-"
        rows.append([str(size), str(objects), share, *(str(count[1]) for count in counts.values())])
    kinds = list(
        error_counts(errors, np.zeros(len(ground_truth.areas), int), np.zeros(len(working.image), int), 1)
    )
    return [["size", "objects", "detected", *kinds], *rows]


def galleries(analysis: Analysis, read_image: ReadImage) -> list[tuple[str, str, list[Crop]]]:
    """Return heading, explanation and crops of each gallery."""
    return [
        (
            "Small objects that were missed",
            f"Objects under {SMALL:g} px without a detection of confidence {analysis.confidence:.2f} or "
            "more; those with no detection nearby at any confidence come first.",
            crops(analysis, missed_small(analysis, MOST_CROPS), read_image),
        ),
        (
            "False detections with high confidence",
            "The most confident false detections, and the kind of their error.",
            crops(analysis, confident_mistakes(analysis, MOST_CROPS), read_image),
        ),
    ]


def _png_uri(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
