"""Comparisons of two networks over the same seeds and the same images.

The difference of two means over seeds is uncertain for two reasons. *Seeds*: another training would have
ended elsewhere. *Images*: other images would have scored otherwise. Both are simulated together. For the
images, every run was scored on the same resamples of the images (with replacement), so a draw of a resample
gives the difference of the two networks on it. For the seeds, a plain bootstrap of three or five values is
much too narrow, so the error of their mean is drawn from Student's t with the standard error of the
differences, seed by seed, which is exact where these are normally distributed.

From the draws of the difference: the 95% interval is between its percentiles, p is twice the smaller share
beyond zero. The p-values of a table are Holm-adjusted for the number of its comparisons. What is not
significant at .05 is called noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.study_table import holm

DRAWS = 20_000
LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """A network against another.

    Attributes:
        difference: of the means over seeds, other - reference.
        low: end of the 95% interval; None with a single seed, or where all seeds differ by the same.
        high: likewise.
        p: two-sided; None likewise.
        p_holm: adjusted for the comparisons of the table.
        seeds: pairs.
        images: images that were resampled; 0: the interval is of the seeds alone.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    seeds: int
    images: int = 0

    @property
    def verdict(self) -> str:
        """'better', 'worse', 'noise', 'one seed', or 'no spread', from which nothing follows."""
        if self.p_holm is None:
            return "one seed" if self.seeds == 1 else "no spread"
        if self.p_holm > LEVEL:
            return "noise"
        return "better" if self.difference > 0 else "worse"


def compare(
    other: ArrayLike,
    reference: ArrayLike,
    resampled_other: ArrayLike | None = None,
    resampled_reference: ArrayLike | None = None,
    images: int = 0,
) -> Comparison:
    """Compare two networks on a metric.

    Args:
        other: (S,) value of each seed.
        reference: (S,) of the same seeds.
        resampled_other: (S, R) value of each seed on each resample of the images, NaN where there is none;
            None: images do not count.
        resampled_reference: (S, R) on the same resamples.
        images: how many there are.

    Raises:
        ValueError: the arrays do not fit together.
    """
    gaps = np.asarray(other, float) - np.asarray(reference, float)
    if gaps.ndim != 1 or not len(gaps):
        raise ValueError(f"seeds must be paired, got {np.shape(other)} and {np.shape(reference)}")
    difference, seeds = float(gaps.mean()), len(gaps)
    if np.ptp(gaps) < 1e-9:  # one seed, or several that say nothing of others
        return Comparison(difference, None, None, None, None, seeds)
    rng = np.random.default_rng(0)
    draws = difference + rng.standard_t(seeds - 1, DRAWS) * gaps.std(ddof=1) / np.sqrt(seeds)
    counted = resampled_other is not None and resampled_reference is not None and images > 1
    if counted:
        on_resamples = np.asarray(resampled_other, float) - np.asarray(resampled_reference, float)
        if on_resamples.shape[:1] != gaps.shape:
            raise ValueError(f"{len(on_resamples)} seeds with resampled images, {seeds} without")
        errors = on_resamples.mean(0) - difference
        errors = errors[np.isfinite(errors)]
        counted = len(errors) > 1
        if counted:
            draws += rng.choice(errors - errors.mean(), DRAWS)
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2]).tolist()
    p = _two_sided(draws)
    return Comparison(difference, low, high, p, p, seeds, images if counted else 0)


def _two_sided(draws: NDArray[np.float64]) -> float:
    """Return twice the smaller share of draws beyond zero, at least one draw's."""
    beyond = min(float((draws <= 0).mean()), float((draws >= 0).mean()))
    return min(1.0, max(2 * beyond, 1 / len(draws)))


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons of one table with their p-values adjusted for their number (Holm 1979)."""
    values = holm([one.p for one in comparisons])
    return [replace(one, p_holm=p) for one, p in zip(comparisons, values, strict=True)]


def resamples(images: int, count: int) -> NDArray[np.int64]:
    """(count, images) numbers of images, drawn with replacement; the same for every run on as many images."""
    return np.random.default_rng(images).integers(0, images, (count, images))
