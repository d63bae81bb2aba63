"""The paper's claims tested on made-up results: each can come out either way."""

import numpy as np
import pandas as pd
import pytest
from test_artifacts import records_of

from jeep.measure.metrics import summarize
from jeep.report.claims import COLUMNS, _growth, find_claims, write_claims
from jeep.report.intervals import of_mean, resampled, score, values_of
from jeep.report.probe_claims import contrast_claims, word_claims

GRID = {"model": ["m"], "dataset": ["d"]}
LOW_HIGH = [["wo_high_delta_and_step3", "wo_low_delta_and_step2"], ["wo_step3", "wo_step2"]]
ROLES = {"jeep": "jeep", "memit": "memit", "low_high": LOW_HIGH}


def claims(tmp_path, parts, grids, sweep=None, edits=40, seed=0):
    pd.concat(parts).to_parquet(tmp_path / "records.parquet")
    return find_claims([tmp_path / "records.parquet"], edits, grids, ROLES, sweep or {}, {}, {}, seed)


def difference(means):
    return score(means[0]) - score(means[1])


# Intervals


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


def test_a_single_record_says_nothing(tmp_path):
    parts = [records_of("jeep", [1]), records_of("memit", [0.5])]
    (row,) = claims(tmp_path, parts, {"main": GRID | {"method": ["memit", "jeep"]}}, edits=1).to_dict("records")
    assert row["value"] == pytest.approx(25)
    assert row["verdict"] == "undecided"
    assert of_mean(pd.Series([3.0])).p == 1


# Tables


def test_what_always_wins_is_supported_what_is_equal_is_not_and_what_loses_is_refuted(tmp_path):
    half = [0, 1] * 20
    parts = [
        records_of("jeep", [0.8] * 40),
        records_of("memit", half),
        records_of("pmet", [0.8] * 40),
        records_of("rome", [1] * 40),
        records_of("none", [0] * 40),
        records_of("alone", half).query("metric == 'ES'").assign(dataset="no-locality"),
    ]
    grid = {"model": ["m"], "dataset": ["d", "no-locality"], "method": ["none", "memit", "pmet", "rome", "jeep"]}
    table = claims(tmp_path, parts, {"main": grid}).set_index("other")
    assert table.verdict.to_dict() == {"memit": "supported", "pmet": "undecided", "rome": "refuted"}
    assert table.value["memit"] == pytest.approx(3 / (1 / 80 + 2 / 100) - 75)


def test_the_order_of_the_regions_is_that_of_the_paper(tmp_path):
    """The low region alone wins here, so the claim is supported, for both ways of leaving the other one out."""
    wins = {"wo_high_delta_and_step3": 0.9, "wo_low_delta_and_step2": 0.1, "wo_step3": 0.9, "wo_step2": 0.1}
    parts = [records_of(name, [value] * 20) for name, value in {"jeep": 0.8, **wins}.items()]
    table = claims(tmp_path, parts, {"ablations": GRID | {"method": ["jeep", *wins]}}, edits=20)
    alone = table[table.claim.str.contains("low region alone")]
    assert list(zip(alone.one, alone.other, strict=True)) == [
        ("wo_high_delta_and_step3", "wo_low_delta_and_step2"),
        ("wo_step3", "wo_step2"),
    ]
    assert set(alone.verdict) == {"supported"}
    whole = table[table.claim.str.contains("than its variant")].set_index("other").verdict
    assert whole.to_dict() == {name: "refuted" if value == 0.9 else "supported" for name, value in wins.items()}


# Figure 4


@pytest.mark.parametrize(("late", "verdict"), [(0.1, "supported"), (0.9, "refuted")])
def test_the_lead_over_memit_may_grow_or_shrink(late, verdict, tmp_path):
    """JEEP has 0.5 throughout; MEMIT the same at 10 edits, and more or less at 100."""
    jitter = np.tile([-0.05, 0.05], 50)
    parts = [records_of("jeep", 0.5 + jitter[:count], 0.5, 0.5) for count in (3, 10, 100)]
    parts += [
        records_of("memit", value + jitter[:count], value, value) for count, value in ((3, 1), (10, 0.5), (100, late))
    ]
    table = claims(tmp_path, parts, {"curve": GRID | {"method": ["memit", "jeep"]}}).set_index("claim")
    row = table.loc["Figure 4: JEEP's lead over MEMIT grows"]
    assert row.verdict == verdict
    assert row.value == pytest.approx((50 - 100 * late) / np.log(10), abs=0.5), "3 edits are too few to count"
    near = table.loc["Figure 4: JEEP is within 2 points of the best"]
    assert near.value.tolist() == pytest.approx([2, 2 + 50 - 100 * late], abs=0.5)
    assert near.verdict.tolist() == ["supported", verdict]


def test_the_growth_is_the_slope_of_weighted_least_squares_in_every_draw():
    """Against numpy's own weighted fit: three counts, two draws, one of which has no record of the smallest count."""
    counts = [10, 40, 160]
    leads = np.array([[1.0, 2.0], [4.0, 5.0], [3.0, 9.0]])
    means = np.concatenate([np.repeat((50 + leads)[..., None], 3, -1), np.full((3, 2, 3), 50.0)])
    means[0, 1] = np.nan
    fits = [
        np.polyfit(np.log(counts[start:]), leads[start:, draw], 1, w=np.sqrt(counts[start:]))[0]
        for draw, start in ((0, 0), (1, 1))
    ]
    assert _growth(means, counts) == pytest.approx(fits)
    assert _growth(means[:, 0], counts) == pytest.approx(fits[0])


def said(table):
    return list(table[["claim", "one", "other", "statistic"]].itertuples(index=False, name=None))


def test_a_curve_says_what_it_compares_and_compares_no_more_than_there_is(tmp_path):
    parts = [records_of(name, [0.5] * count) for name in ("jeep", "memit", "none") for count in (10, 20, 40)]
    grid = {"curve": GRID | {"method": ["none", "memit", "jeep"]}}
    grows = (
        "Figure 4: JEEP's lead over MEMIT grows",
        "jeep",
        "memit",
        "points of lead for each factor e of edits, 10 to 40",
    )
    near = [
        ("Figure 4: JEEP is within 2 points of the best", "jeep", "best other", f"Score, paired, {n} edits, plus 2")
        for n in (10, 20, 40)
    ]
    assert said(claims(tmp_path, parts, grid)) == [grows, *near]
    assert said(claims(tmp_path, parts[::3], grid)) == near[:1], "one number of edits: nothing can grow"
    without = [part for part in parts if part["method"].iloc[0] != "memit"]
    assert said(claims(tmp_path, without, grid)) == [], "nobody to compare with"
    without = [part for part in parts if part["method"].iloc[0] != "jeep"]
    assert said(claims(tmp_path, without, grid)) == []


def test_intervals_are_the_same_each_time(tmp_path):
    generator = np.random.default_rng(0)
    values = {"memit": 0.5, "jeep": 0.6, "inner": 0.7, "end": 0.5}
    parts = [
        records_of(name, np.clip(generator.normal(value, 0.2, 40)[:count], 0, 1))
        for name, value in values.items()
        for count in (20, 40)
    ]
    grid = GRID | {"method": list(values)}
    grids = {"main": grid, "curve": grid, "sweep": GRID | {"method": ["jeep", "inner", "end"]}}
    found = [claims(tmp_path, parts, grids, {"jeep": 0.1, "inner": 0.5, "end": 1.0}) for _ in range(2)]
    pd.testing.assert_frame_equal(*found)


# Figure 6


@pytest.mark.parametrize(("inner", "verdict"), [(0.9, "supported"), (0.3, "refuted")])
def test_the_shape_over_gamma_was_fixed_before_and_can_be_refuted(inner, verdict, tmp_path):
    """Every metric is better inside, or worse, than at both ends; two inner values count by their mean."""
    sweep = {"z": 0.05, "b": 0.3, "c": 0.5, "d": 1.0}  # in the order of the values, not of the names
    jitter = np.tile([-0.05, 0.05], 10)
    parts = [records_of(name, value + jitter, value, value) for name, value in (("d", 0.6), ("z", 0.5))]
    parts += [records_of("b", [inner - 0.1] * 20, inner - 0.1, inner - 0.1)]
    parts += [records_of("c", [inner + 0.1] * 20, inner + 0.1, inner + 0.1)]
    table = claims(tmp_path, parts, {"sweep": GRID | {"method": list(sweep)}}, sweep, edits=20).set_index("claim")
    assert len(table) == 4 * 2
    assert set(table.verdict) == {verdict}
    for metric in ("Score", "ES", "GS", "LS"):
        assert table.value[f"Figure 6: {metric} increases at first"] == pytest.approx(100 * inner - 50, abs=0.2)
        assert table.other[f"Figure 6: {metric} increases at first"] == "γ* 0.05"
        assert table.value[f"Figure 6: {metric} decreases at last"] == pytest.approx(100 * inner - 60, abs=0.2)
        assert table.other[f"Figure 6: {metric} decreases at last"] == "γ* 1"
        assert set(table.one) == {"inner"}
        assert table.statistic[f"Figure 6: {metric} decreases at last"] == f"{metric}, mean of inner values, paired"
    assert table.low["Figure 6: ES increases at first"] < table.value["Figure 6: ES increases at first"] - 1


def test_each_metric_of_the_sweep_is_its_own(tmp_path):
    sweep = {"a": 0.05, "b": 0.3, "c": 1.0}
    parts = [records_of("a", [0.2] * 20, 0.5, 1.0), records_of("b", [0.6] * 20, 0.7, 0.9), records_of("c", [1.0] * 20)]
    table = claims(tmp_path, parts, {"sweep": GRID | {"method": list(sweep)}}, sweep, edits=20).set_index("claim")
    first = {name: table.value[f"Figure 6: {name} increases at first"] for name in ("ES", "GS", "LS")}
    assert first == pytest.approx({"ES": 40, "GS": 20, "LS": -10})


def test_a_shape_needs_three_values_and_every_one_of_them(tmp_path):
    """The first data set lacks a value; the second has all."""
    sweep = {"a": 0.05, "b": 0.3, "c": 1.0}
    parts = [records_of(name, [0.5] * 5) for name in ("a", "b")]
    parts += [records_of(name, [0.5] * 5, dataset="e") for name in sweep]
    grid = {"model": ["m"], "dataset": ["d", "e"], "method": list(sweep)}
    table = claims(tmp_path, parts, {"sweep": grid}, sweep, edits=5)
    assert set(table.dataset) == {"e"}
    assert len(claims(tmp_path, parts, {"sweep": grid}, {"a": 0.05, "b": 0.3}, edits=5)) == 0


# The probes


def contrast_of(path, gains):
    """Four layers. An answer that gains does so tenfold a layer: by rank at the subject, by probability behind it."""
    rows = [
        (
            case,
            position,
            layer,
            "state",
            answer,
            0.001 * 10.0 ** (min(layer, 3) * up * (position == "prediction")),
            10.0 ** (4 - layer * up * (position == "subject_last")) - 1,
        )
        for case in range(20)
        for position in ("subject_last", "prediction")
        for layer in range(5)
        for answer, up in (("original", gains), ("new", 1 - gains))
    ]
    columns = ["case_id", "position", "layer", "part", "answer", "probability", "rank"]
    pd.DataFrame(rows, columns=columns).to_parquet(path)
    return path


@pytest.mark.parametrize("gains", [0, 1])
def test_stages_are_read_from_each_half_of_the_layers(gains, tmp_path):
    """By hand: two layers of a factor ten below; above, one, since the topmost block does not count."""
    low, high = contrast_claims(contrast_of(tmp_path / "contrast.parquet", gains))
    assert low[:3] == ("Figure 2: enrichment at the subject's last token", "original", "new")
    assert high[:3] == ("Figure 2: promotion at the prediction position", "original", "new")
    assert low[3] == "gain from layer 0 to 2, log10 rank"
    assert high[3] == "gain from layer 2 to 3, log10 probability"
    sign = 2 * gains - 1
    assert low[4].value == pytest.approx(2 * sign)
    assert high[4].value == pytest.approx(sign)


def words_of(path, flip):
    """Ten layers: factual goes with the original, which falls a tenth in the last; stop words rise tenfold there.

    Below the upper half it is the other way round, which does not count.
    """
    generator = np.random.default_rng(0)
    sign = -1 if flip else 1
    rows = []
    for case in range(20):
        noise = generator.normal(0, 0.01, 11)
        original = np.linspace(-4, -1, 11) - sign * np.eye(11)[10]
        of = {
            "original": original,
            "factual": np.where(np.arange(11) < 5, -1, 1) * sign * (original + noise),
            "stop words": np.where(np.arange(11) < 5, -1, 1) * sign * (-original + noise),
            "unrelated": np.full(11, -2) + sign * 0.5 * np.eye(11)[10],
        }
        rows += [(case, layer, name, 10.0 ** levels[layer]) for name, levels in of.items() for layer in range(11)]
    pd.DataFrame(rows, columns=["case_id", "layer", "set", "probability"]).to_parquet(path)
    return path


@pytest.mark.parametrize("flip", [False, True])
def test_what_appendix_a_says_of_words_can_come_out_either_way(flip, tmp_path):
    rows = list(word_claims(words_of(tmp_path / "words.parquet", flip)))
    found = {claim: interval for claim, *_, interval in rows}
    values = {
        claim.removeprefix("Figure 5: in the topmost layers "): interval.value for claim, interval in found.items()
    }
    sign = -1 if flip else 1
    assert values["non-relevant tokens resurge"] == pytest.approx(sign * 0.5)
    assert values["the original's probability falls"] == pytest.approx(sign * (1 - sign * 0.3), abs=0.01)
    assert values["that of stop words rises"] == pytest.approx(1.3 if flip else 0.7, abs=0.05)
    assert values["they resurge less than stop words"] == pytest.approx(1.8 if flip else 0.2, abs=0.05)
    follows = values["Figure 5: factual words follow the original"]
    assert follows == pytest.approx(2 * sign, abs=0.05), "r of 1 and of -1 over the upper half alone"
    top = "log10 probability, layer 9 to 10"
    along = "Pearson's r with the original over layers 5 to 10, log10 probability"
    assert [row[1:4] for row in rows] == [
        ("9", "10", top),
        ("10", "9", top),
        ("10", "9", top),
        ("stop words", "unrelated", top),
        ("factual", "stop words", along),
    ]


def test_a_tenth_of_the_layers_is_the_topmost_and_no_probability_is_too_small_to_compare(tmp_path):
    """Forty layers, of which four are the topmost; a probability that underflowed counts as 1e-30."""
    levels = {"original": 0.1, "stop words": 0.1, "unrelated": 0.1, "factual": 0.1}
    rows = [
        (case, layer, name, 0.0 if (name, layer) == ("original", 40) else p + 0.01 * (layer + case) / 50)
        for case in range(5)
        for layer in range(41)
        for name, p in levels.items()
    ]
    path = tmp_path / "words.parquet"
    pd.DataFrame(rows, columns=["case_id", "layer", "set", "probability"]).to_parquet(path)
    falls = next(word_claims(path))
    assert falls[1:4] == ("36", "40", "log10 probability, layer 36 to 40")
    assert falls[4].value == pytest.approx(29, abs=0.1)


# All together


def test_the_number_of_comparisons_is_corrected_for(tmp_path):
    """Holm by hand: p-values times the number of those that are not smaller, never falling."""
    values = {"a": 1.0, "b": 0.95, "c": 0.9, "jeep": 0.8}
    generator = np.random.default_rng(0)
    parts = [records_of(name, (generator.random(60) < value).astype(float)) for name, value in values.items()]
    table = claims(tmp_path, parts, {"main": GRID | {"method": list(values)}}, edits=60)
    ordered = table.sort_values("p")
    expected = np.minimum(np.maximum.accumulate(ordered.p.to_numpy() * [3, 2, 1]), 1)
    assert ordered.p_holm.to_numpy() == pytest.approx(expected)
    assert (table.p_holm >= table.p).all()
    assert set(table.verdict[table.p_holm < 0.05]) == set(table.corrected[table.p_holm < 0.05])
    assert set(table.statistic) == {"Score, paired"}


def test_every_claim_of_a_run_is_in_one_table(tmp_path):
    """All that is compared, at the number of edits asked for: others have more edits, and say the opposite."""
    generator = np.random.default_rng(0)
    sweep = {"s1": 0.1, "s2": 0.5, "s3": 1.0}
    names = ["jeep", "memit", "wo_step2", "wo_step3", *sweep]
    parts = [records_of(name, np.clip(generator.normal(0.5, 0.1, 20), 0, 1)) for name in names]
    parts += [records_of(name, [float(name != "jeep")] * 30) for name in names]
    of = {name: GRID | {"method": methods} for name, methods in {
        "main": ["memit", "jeep"], "ablations": ["jeep", "wo_step2", "wo_step3"], "curve": ["memit", "jeep"],
        "sweep": list(sweep),
    }.items()}  # fmt: skip
    pd.concat(parts).to_parquet(tmp_path / "records.parquet")
    contrast, words = contrast_of(tmp_path / "contrast.parquet", 1), words_of(tmp_path / "words.parquet", False)
    probes = ({"probed": contrast}, {"probed": words, "again": words})
    table, again = (find_claims([tmp_path / "records.parquet"], 20, of, ROLES, sweep, *probes, 0) for _ in range(2))
    pd.testing.assert_frame_equal(table, again)
    assert list(table.columns) == COLUMNS
    claims_found = list(dict.fromkeys(table.claim))
    assert claims_found[:5] == [
        "Tables 2, 3: JEEP has the greatest Score",
        "Table 4: JEEP has a greater Score than its variant",
        "Table 4: the low region alone beats the high one alone",
        "Figure 4: JEEP's lead over MEMIT grows",
        "Figure 4: JEEP is within 2 points of the best",
    ]
    counts = table.claim.str.split(":").str[0].value_counts().to_dict()
    assert counts == {"Tables 2, 3": 1, "Table 4": 3, "Figure 4": 3, "Figure 6": 8, "Figure 2": 2, "Figure 5": 10}
    probed = table[table.claim.str.startswith(("Figure 2", "Figure 5"))]
    assert list(probed.model) == ["probed"] * 7 + ["again"] * 5
    assert set(probed.dataset) == {""}
    edited = table[table.claim.str.startswith(("Table", "Figure 6"))]
    assert edited.value.abs().max() < 30, "of 20 edits: at 30 all differ by 100"
    small = table[(table.value > 0) & (table.value < 1) & (table.p < 0.05)]
    assert set(small.verdict) == {"supported"}


def test_a_run_without_a_comparison_has_an_empty_table(tmp_path):
    table = claims(tmp_path, [records_of("jeep", [1, 0])], {})
    assert list(table.columns) == COLUMNS
    assert len(table) == 0


def test_the_written_table_is_rounded_and_says_how_it_is_read(tmp_path):
    row = dict.fromkeys(COLUMNS, "x") | {"value": 1.23456, "low": -0.98765, "high": 2.34567, "p": 0.012345}
    write_claims(pd.DataFrame([row | {"p_holm": 0.234567}] * 3), tmp_path / "claims.csv")
    found = pd.read_csv(tmp_path / "claims.csv")
    assert list(found.columns) == COLUMNS
    assert found.loc[0, ["value", "low", "high", "p", "p_holm"]].tolist() == [1.23, -0.99, 2.35, 0.0123, 0.2346]
    text = (tmp_path / "claims.md").read_text()
    assert text.startswith("Claims\n")
    assert "Supported: above zero with p < 0.05; refuted: below it; undecided: neither. Corrected: the same" in text
    assert "by Holm's method for all 3 comparisons." in text
