"""Evaluation: one evaluator for tiles, full images and results files; metrics; report.

`validate` and `score` are val.py in Python. Nothing heavy is imported before they are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.evaluation.classification.metrics import ClassificationResult
    from engine.evaluation.evaluator import EvaluationResult

__all__ = ["score", "validate"]


def validate(
    weights: str | Path | Sequence[str | Path] = (), data: str | Path | None = None, **options: Any
) -> EvaluationResult | ClassificationResult:
    """Evaluate a detector or a classifier on a data set, as `val.py` does, and write its run folder.

    Args:
        weights: .pt, .onnx or another exported file; several are an ensemble;
            none: the newest run's best.pt, or what ships.
        data: data-set YAML; None is the one that the weights were trained on.
        options: those of `val.py` by name, such as `imgsz=640, tile="auto", plots=False`.

    Returns:
        Of a detector: `metrics.values` holds AP and AR, `metrics.per_class` those of each class,
        `inputs.operating_point` precision, recall and F1; with tiled data, `merged` is of the full images.
        Of a classifier: `values` holds top-1 and top-5 accuracy and the loss, `per_class()` the accuracy of
        each class.

    Raises:
        UserError: an option, the weights or the data set cannot be used.
    """
    from engine.evaluation.command import run_evaluation
    from engine.evaluation.config import ValConfig

    files = (weights,) if isinstance(weights, str | Path) else tuple(weights)
    return run_evaluation(ValConfig.of(weights=files, data=data, **options))


def score(predictions: str | Path, annotations: str | Path, **options: Any) -> EvaluationResult:
    """Score a results file in COCO's format against its annotations, as `val.py --predictions` does.

    Args:
        predictions: the results, a list of {"image_id", "category_id", "bbox", "score"}.
        annotations: COCO file with the ground truth.
        options: those of `val.py` by name, such as `protocol="aitod", images="photos/"`.

    Returns:
        `metrics.values` holds AP and AR, `metrics.per_class` those of each class, `inputs.operating_point`
        precision, recall and F1.

    Raises:
        UserError: an option or a file cannot be used.
    """
    from engine.evaluation.command import score_file
    from engine.evaluation.config import ValConfig

    return score_file(ValConfig.of(predictions=predictions, annotations=annotations, **options))
