"""Evaluation: one evaluator for tiles, full images and results files; metrics; report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.evaluation.classification.metrics import ClassificationResult
    from engine.evaluation.evaluator import EvaluationResult

__all__ = ["score", "validate"]


def validate(
    weights: str | Path | Sequence[str | Path] = (), **options: Any
) -> EvaluationResult | ClassificationResult:
    """Evaluate weights on a data set, as val.py does; a number: `result.metrics.values["AP_S"]`.

    Args:
        weights: .pt, .onnx, .torchscript or OpenVINO; several are an ensemble; none: the newest run's best.
        options: those of val.py, by the same names: `validate("best.pt", data="mine.yaml", tile="auto")`.

    Returns:
        Ground truth, detections and metrics of a detector; probabilities and accuracies of a classifier. The
        run folder holds the same as after the command.

    Raises:
        UserError: an unknown option, a bad value, or data that do not fit the weights.
    """
    from engine.evaluation.command import run_evaluation
    from engine.evaluation.config import ValConfig

    files = (weights,) if isinstance(weights, str | Path) else tuple(weights)
    return run_evaluation(ValConfig.of(weights=tuple(map(Path, files)), **options))


def score(predictions: str | Path, annotations: str | Path, **options: Any) -> EvaluationResult:
    """Score a COCO results file of any detector against its annotations; needs neither a network nor torch.

    Args:
        predictions: the results file.
        annotations: COCO's file with the ground truth.
        options: those of val.py, such as `protocol="aitod"`.

    Raises:
        UserError: an unknown option, or a file that cannot be used.
    """
    from engine.evaluation.command import score_file
    from engine.evaluation.config import ValConfig

    return score_file(ValConfig.of(predictions=predictions, annotations=annotations, **options))
