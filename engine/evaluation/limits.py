"""Detection limits: where an image holds more objects than detections count."""

from __future__ import annotations

import numpy as np

from engine.evaluation.evaluator import ScoringResult


def limit_notes(scored: ScoringResult) -> list[str]:
    """Return a warning if an image holds more objects of a class than detections count."""
    ground_truth, limit = scored.ground_truth, scored.metrics.protocol.max_dets[-1]
    key = ground_truth.image * len(scored.metrics.names) + ground_truth.classes
    counts = np.bincount(key[~ground_truth.crowd], minlength=1)
    over = int((counts > limit).sum())
    if not over:
        return []
    return [
        f"warning: {over} image{'s hold' if over > 1 else ' holds'} up to {counts.max()} objects of a class, "
        f"but only {limit} detections count: perfect boxes would not score 1; see --max-dets"
    ]
