"""Intervals of means and of what is made of several runs' metrics, against plain computations."""

import numpy as np
import pandas as pd
import pytest
from test_artifacts import records_of

from jeep.measure.metrics import summarize
from jeep.report.intervals import of_mean, resampled, score, values_of


def difference(means):
    return score(means[0]) - score(means[1])


def test_score_is_the_tables():
    results = records_of("jeep", [1, 0, 1, 1], [1, 1, 0, 0], [1, 0.5, 1, 1])
    expected = summarize(results).set_index("metric").value["Score"]
    assert score(values_of(results, [("jeep", 4)])[0, 0].mean(0)) == pytest.approx(expected)
    assert score(np.array([50.0, 0.0, 50.0])) == 0


def test_the_interval_of_a_paired_difference_is_the_plain_bootstraps():
    generator = np.random.default_rng(1)
    values = np.stack(
        [[np.column_stack([generator.random(40) ** power, [0.5] * 40, [0.9] * 40])] for power in (0.5, 2)]
    )
    found = resampled(values, difference, 0)
    drawn = []
    for _ in range(4000):
        rows = generator.integers(0, 40, 40)
        drawn.append(difference(values[:, 0, rows].mean(1)))
    assert found.value == pytest.approx(difference(values[:, 0].mean(1)))
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)


def test_with_several_seeds_the_interval_covers_seeds_too():
    """One seed gains 20 points, the other nothing, for every record alike: over records alone there is no doubt."""
    both = pd.concat(
        [records_of("jeep", [0.5] * 30, 0.5, 0.5, seed=0), records_of("jeep", [0.9] * 30, 0.5, 0.5, seed=1)]
    )
    other = pd.concat([records_of("memit", [0.5] * 30, 0.5, 0.5, seed=seed) for seed in (0, 1)])
    values = values_of(pd.concat([both, other]), [("jeep", 30), ("memit", 30)])
    found = resampled(values, difference, 0)
    assert found.low == pytest.approx(0), "both draws of the seed that gains nothing"
    assert found.p > 0.05
    one_seed = resampled(values[:, 1:], difference, 0)
    assert one_seed.low > 0
    assert one_seed.p < 0.001


def test_a_p_value_is_twice_the_lesser_share_of_draws_on_the_other_side_of_zero():
    """Ten records, of which one is better by one and nine are equal: a draw without it differs by nothing."""
    values = np.full((2, 1, 10, 3), 50.0)
    values[0, 0, 0] = 60.0
    one, again, other = (resampled(values, difference, seed) for seed in (0, 0, 1))
    assert one.p == pytest.approx(2 * 0.9**10, abs=0.02)
    assert (one.value, one.low) == pytest.approx((1, 0))
    assert one == again != other
    better = resampled(values + [[[[1]]], [[[0]]]], difference, 0)
    assert better.p == pytest.approx(2 / 10_001), "no draw at or below zero: the least p there is"
    assert resampled(values[[1, 1]], difference, 0).p == 1


def test_only_records_that_both_have_are_compared_and_the_unedited_model_stands_for_all_seeds():
    jeep = pd.concat([records_of("jeep", [1, 0, 0, 0], seed=seed) for seed in (0, 1)]).query("case_id != 'f3'")
    less = records_of("none", [1, 1, 1, 1]).query("case_id != 'f1'")
    for parts in ([jeep, less], [less, jeep]):
        values = values_of(pd.concat(parts), [("jeep", 4), ("none", 4)])
        assert values.shape == (2, 2, 2, 3)
        assert values[0, :, :, 0].tolist() == [[100, 0]] * 2
        assert values[1, :, :, 0].tolist() == [[100, 100]] * 2
    other_way = values_of(pd.concat([jeep, less]), [("none", 4), ("jeep", 4)])
    assert np.array_equal(other_way[::-1], values)


def test_a_record_of_a_larger_count_is_missing_in_a_smaller_one():
    parts = [records_of("jeep", [1] * count) for count in (2, 4)]
    values = values_of(pd.concat(parts), [("jeep", 2), ("jeep", 4)])
    assert np.isnan(values[0, 0, :, 0]).tolist() == [False, False, True, True]
    assert not np.isnan(values[1]).any()


def test_a_mean_has_students_interval():
    found = of_mean(pd.Series([1.0, 2.0, 3.0]))
    assert found.value == 2
    half = 4.302653 / np.sqrt(3)  # t of 97.5 % with two degrees of freedom, and a standard deviation of one
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert of_mean(pd.Series([0.0, 0.0, 0.0])).p == 1
    alone = of_mean(pd.Series([3.0]))
    assert (alone.value, alone.p) == (3, 1)
    assert np.isnan([alone.low, alone.high]).all(), "a single record says nothing"
