"""Comparisons of benchmarks/reproduce: planted differences, noise, Holm."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from benchmarks.reproduce.statistics import Comparison, adjusted, compare, resamples

SETS = 300  # simulated comparisons


def simulated(rng: np.random.Generator, seeds: int, images: int, gap: float) -> Comparison:
    """Two networks whose score on an image is a gap, an effect of seed and image each, and noise."""
    drawn = resamples(images, 100)

    def scores(mean: float) -> np.ndarray:
        effect = rng.normal(0, 0.01, (seeds, 1)) + rng.normal(0, 0.05, images)
        return mean + effect + rng.normal(0, 0.02, (seeds, images))

    a, b = scores(0.5 + gap), scores(0.5)
    return compare(a.mean(1), b.mean(1), a[:, drawn].mean(2), b[:, drawn].mean(2), images)


def test_a_planted_difference_is_detected() -> None:
    rng = np.random.default_rng(0)
    assert all(simulated(rng, 5, 70, 0.1).verdict == "better" for _ in range(20))
    assert all(simulated(rng, 5, 70, -0.1).verdict == "worse" for _ in range(20))


@pytest.mark.parametrize("seeds", [3, 5])
def test_no_difference_is_called_noise_at_about_the_nominal_rate(seeds: int) -> None:
    rng = np.random.default_rng(0)
    wrong = np.mean([simulated(rng, seeds, 40, 0.0).verdict != "noise" for _ in range(SETS)])
    assert 0.005 <= wrong <= 0.09  # .05 nominal


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_holds_the_true_difference_at_about_the_nominal_rate(seeds: int) -> None:
    rng = np.random.default_rng(1)
    intervals = [simulated(rng, seeds, 40, 0.03) for _ in range(SETS)]
    inside = np.mean([one.low <= 0.03 <= one.high for one in intervals])  # type: ignore[operator]
    assert 0.91 <= inside <= 0.995


def test_over_seeds_alone_it_is_the_paired_t_test() -> None:
    a, b = np.array([0.31, 0.33, 0.30, 0.36]), np.array([0.29, 0.32, 0.31, 0.30])
    one, reference = compare(a, b), ttest_rel(a, b)
    assert one.difference == pytest.approx(0.02)
    assert one.p == pytest.approx(reference.pvalue, abs=0.015)
    interval = reference.confidence_interval()
    assert (one.low, one.high) == pytest.approx((interval.low, interval.high), abs=0.004)
    assert one.images == 0


def test_uncertain_images_widen_the_interval() -> None:
    a, b = np.array([0.31, 0.33, 0.32]), np.array([0.30, 0.31, 0.31])
    errors = np.random.default_rng(0).normal(0, 0.05, 200)
    narrow, wide = compare(a, b), compare(a, b, a[:, None] + errors, b[:, None] + 0 * errors, 50)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)  # type: ignore[operator]
    assert wide.images == 50 and wide.verdict == "noise"


def test_errors_that_both_networks_share_do_not_widen_it() -> None:
    a, b = np.array([0.31, 0.33, 0.32]), np.array([0.30, 0.31, 0.31])
    errors = np.random.default_rng(0).normal(0, 0.05, 200)
    alone, shared = compare(a, b), compare(a, b, a[:, None] + errors, b[:, None] + errors, 50)
    assert (shared.low, shared.high) == pytest.approx((alone.low, alone.high), abs=1e-9)


def test_one_seed_has_no_interval() -> None:
    one = compare([0.3], [0.2])
    assert one.verdict == "one seed" and one.low is None and one.difference == pytest.approx(0.1)


def test_seeds_that_all_differ_by_the_same_say_nothing_of_others() -> None:
    same = compare([0.3, 0.4], [0.2, 0.3])
    assert (same.p, same.low, same.verdict) == (None, None, "no spread")
    assert adjusted([same, compare([0.3, 0.4, 0.5], [0.1, 0.3, 0.2])])[0].verdict == "no spread"


def test_resamples_without_a_value_are_left_out() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 0.01, 3), rng.normal(0.4, 0.01, 3)
    drawn_a, drawn_b = (side[:, None] + rng.normal(0, 0.02, (3, 400)) for side in (a, b))
    plain = compare(a, b, drawn_a, drawn_b, 12)
    drawn_a[1, ::3] = np.nan
    left = compare(a, b, drawn_a, drawn_b, 12)
    assert left.images == 12
    assert left.low == pytest.approx(plain.low, abs=0.01) and left.high == pytest.approx(plain.high, abs=0.01)
    assert compare(a, b, np.full((3, 400), np.nan), drawn_b, 12).images == 0


def test_seeds_must_be_paired() -> None:
    with pytest.raises(ValueError, match="paired"):
        compare([], [])


def test_p_values_of_a_table_are_adjusted_as_in_holms_example() -> None:
    # by hand: sorted .01 .02 .03 .04 -> .01*4, .02*3, .03*2, .04*1 -> .04 .06 .06 .06 (never falling)
    given = [Comparison(0.1, 0.0, 0.2, p, p, 3) for p in (0.03, 0.01, 0.04, 0.02)]
    final = adjusted(given)
    assert [one.p_holm for one in final] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert [one.verdict for one in final] == ["noise", "better", "noise", "noise"]


def test_every_run_is_scored_on_the_same_resamples() -> None:
    assert np.array_equal(resamples(12, 50), resamples(12, 50))
    assert resamples(12, 50).shape == (50, 12)
    assert set(np.unique(resamples(12, 50))) == set(range(12))
