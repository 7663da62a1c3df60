"""Outputs of an evaluation: tables, metrics.json, predictions, label files, figures."""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from data.detection.yolo_labels import label_text
from engine.evaluation.analysis import Analysis, analyze
from engine.evaluation.evaluator import MATCH_IOU, EvaluationResult
from engine.evaluation.limits import limit_notes
from engine.evaluation.metrics.tables import (
    align,
    class_table,
    metrics_dict,
    point_line,
    size_table,
    sizes_line,
)
from engine.evaluation.report.plots import (
    plot_batch,
    plot_confidence_curve,
    plot_confusion,
    plot_precision_recall,
)
from engine.evaluation.report.size_plots import plot_by_size, plot_errors_by_size
from engine.inference.outputs.coco import CocoWriter
from engine.inference.outputs.labels import corner_text
from engine.options import LabelOptions
from utils.files import write_atomically
from utils.unique_names import UniqueNames

LOG = logging.getLogger(__name__)


def report(evaluation: EvaluationResult, per_class: bool = True) -> str:
    """Return the tables for the terminal."""
    inputs, merged = evaluation.inputs, evaluation.merged
    with_classes = per_class and len(inputs.metrics.names) > 1
    lines = [sizes_line(inputs.metrics.protocol)]
    for scored, what in ((inputs, "tile" if merged else "image"), (merged, "full image, tiles merged")):
        if scored is None:
            continue
        limit = scored.metrics.protocol.max_dets[-1]
        lines += ["", f"per {what}, at most {limit} detections per class in each:"]
        point = scored.operating_point
        lines += [align(class_table(scored.metrics, point, with_classes)), point_line(point)]
        if scored.metrics.protocol.ap_of_sizes_at_each_iou:
            lines += ["", align(size_table(scored.metrics))]
        lines += limit_notes(scored)
    if evaluation.seconds:
        speed = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in evaluation.seconds.items())
        lines += ["", f"per {'tile' if merged else 'image'}: {speed}"]
    return "\n".join(lines)


def write_metrics(evaluation: EvaluationResult, path: Path) -> None:
    """Write metrics.json; for tiled data, the numbers of the full images are under "whole"."""
    content = metrics_dict(evaluation.metrics, evaluation.inputs.operating_point)
    if evaluation.merged:
        content["whole"] = metrics_dict(evaluation.merged.metrics, evaluation.merged.operating_point)
    if evaluation.seconds:
        content["seconds_per_image"] = evaluation.seconds
    with write_atomically(path) as file:
        file.write(json.dumps(content, indent=2) + "\n")


def write_json(evaluation: EvaluationResult, path: Path, category_ids: Sequence[int] | None) -> None:
    """Write predictions.json, in pixels of the full images.

    Args:
        evaluation: whose detections are written.
        path: the file.
        category_ids: of each class; None numbers the classes from 0.
    """
    scored = evaluation.full_images
    ids = [record.image_id for record in scored.records]
    with closing(CocoWriter(path, category_ids)) as writer:
        for image_id, detections in zip(ids, scored.predicted.per_image(), strict=True):
            writer.write(image_id, detections)
    LOG.info("%d detections in %s", writer.count, path)


def write_labels(evaluation: EvaluationResult, folder: Path, options: LabelOptions) -> None:
    """Write a label file for each full image, named like it.

    Where names are equal, all images keep their subfolders, and in each of these a.jpg and a.png become 'a'
    and 'a-2'.
    """
    scored = evaluation.full_images
    paths = [Path(record.path) for record in scored.records]
    names = [Path(path.stem) for path in paths]
    if len({str(name).lower() for name in names}) < len(names):  # some file systems ignore case
        root = os.path.commonpath([path.parent for path in paths])
        name_in: defaultdict[Path, UniqueNames] = defaultdict(UniqueNames)
        names = [path.parent.relative_to(root) / name_in[path.parent](path) for path in paths]
    for name, record, detections in zip(names, scored.records, scored.predicted.per_image(), strict=True):
        file = folder / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        if options.save_format == 1:  # corners, as detect.py writes them
            text = corner_text(detections, options.save_conf)
        else:
            scores = detections.scores if options.save_conf else None
            text = label_text(detections.class_ids, detections.xyxy, record.width, record.height, scores)
        with write_atomically(file) as stream:
            stream.write(text)
    LOG.info("%d label files in %s", len(names), folder)


def plot(evaluation: EvaluationResult, folder: Path) -> Analysis:
    """Draw the analysis of the full images, and the first batch, as PNG files; return the analysis."""
    analysis = analyze(evaluation.full_images)
    metrics, curves, best = analysis.scored.metrics, analysis.curves, analysis.confidence
    names = metrics.names
    plot_by_size(analysis.sizes, metrics.protocol, best, folder / "size_curve.png")
    plot_errors_by_size(analysis.sizes, metrics.protocol, best, folder / "size_errors.png")
    plot_precision_recall(metrics, folder / "PR_curve.png", MATCH_IOU)
    for values, label, png in (
        (curves.f1, "F1", "F1_curve.png"),
        (curves.precision, "precision", "P_curve.png"),
        (curves.recall, "recall", "R_curve.png"),
    ):
        plot_confidence_curve(curves, values, label, names, folder / png)
    plot_confusion(analysis.confusion, names, best, MATCH_IOU, folder / "confusion_matrix.png")

    batch = evaluation.first_batch
    if batch is not None:
        plot_batch(batch.images, batch.targets, names, folder / "val_batch0_labels.png", "ground truth")
        title = f"detections with confidence ≥ {best:.3f}, where F1 is best"
        plot_batch(batch.images, batch.detection_targets(best), names, folder / "val_batch0_pred.png", title)
    return analysis
