"""The paper's claims tested on made-up results: each can come out either way."""

import numpy as np
import pandas as pd
import pytest
from test_artifacts import records_of
from test_probe_claims import contrast_of, words_of

from jeep.report.claims import COLUMNS, _growth, families, find_claims, write_claims
from jeep.report.intervals import of_mean

GRID = {"model": ["m"], "dataset": ["d"]}
LOW_HIGH = [["wo_high_delta_and_step3", "wo_low_delta_and_step2"], ["wo_step3", "wo_step2"]]
ROLES = {"jeep": "jeep", "memit": "memit", "low_high": LOW_HIGH, "added": {"ours": ["ours"], "later": []}, "twins": []}


def claims(tmp_path, parts, grids, sweep=None, edits=40, seed=0):
    pd.concat(parts).to_parquet(tmp_path / "records.parquet")
    return find_claims([tmp_path / "records.parquet"], edits, grids, ROLES, sweep or {}, {}, {}, seed)


# Tables


def test_a_single_record_says_nothing(tmp_path):
    parts = [records_of("jeep", [1]), records_of("memit", [0.5])]
    (row,) = claims(tmp_path, parts, {"main": GRID | {"method": ["memit", "jeep"]}}, edits=1).to_dict("records")
    assert row["value"] == pytest.approx(25)
    assert row["verdict"] == "undecided"
    assert of_mean(pd.Series([3.0])).p == 1


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


# Methods of ours


def test_a_method_of_ours_is_in_no_claim_of_the_papers_and_has_its_own_at_every_number_of_edits(tmp_path):
    """It beats MEMIT at 40 edits and loses to JEEP at 80; each family is corrected for its own number of claims."""
    values = {"jeep": (0.5, 0.9), "memit": (0.1, 0.5), "ours": (0.5, 0.5)}
    jitter = np.tile([-0.05, 0.05], 40)
    parts = [
        records_of(name, value + jitter[:count], value, value)
        for name, pair in values.items()
        for count, value in zip((40, 80), pair, strict=True)
    ]
    grid = GRID | {"method": ["memit", "jeep", "ours"]}
    table = claims(tmp_path, parts, {"main": grid, "curve": grid}, edits=None)
    own = table[table.claim == "Ours: a greater Score than the paper's"]
    assert not table.drop(own.index)[["one", "other"]].isin(["ours"]).any(axis=None)
    found = {(row.other, row.statistic): row.verdict for row in own.itertuples()}
    assert found == {
        ("jeep", "Score, paired, 40 edits"): "undecided",
        ("memit", "Score, paired, 40 edits"): "supported",
        ("jeep", "Score, paired, 80 edits"): "refuted",
        ("memit", "Score, paired, 80 edits"): "undecided",
    }
    assert own.set_index(["other", "statistic"]).value["memit", "Score, paired, 40 edits"] == pytest.approx(40, abs=1)
    least = own.sort_values("p").iloc[0]
    assert least.p_holm == pytest.approx(4 * least.p), "of four claims, whatever the paper's are"


# Later methods


def test_two_regions_are_held_against_one_with_the_same_terms(tmp_path):
    """At once at 40 edits, where the pair is equal, and behind the last batch of a sequence, where two regions win."""
    roles = ROLES | {"added": {"ours": [], "later": ["seq", "two"]}, "twins": [["two", "seq", "history"]]}
    grid = GRID | {"method": ["memit", "jeep", "seq", "two"]}
    at_once = [records_of(name, [0.5, 0.7] * 20) for name in grid["method"]]
    wins = {"memit": 0.3, "jeep": 0.5, "seq": 0.5, "two": 0.9}
    in_sequence = [
        records_of(name, np.full(count, value) + np.tile([-0.05, 0.05], count // 2), value, value)
        for name, last in wins.items()
        for count, value in ((20, 0.1), (40, last))
    ]
    pd.concat(at_once).to_parquet(tmp_path / "records.parquet")
    pd.concat(in_sequence).to_parquet(tmp_path / "sequence.parquet")
    files = [tmp_path / "records.parquet"], [tmp_path / "sequence.parquet"]
    grids = {"main": grid, "sequence": grid}
    table = find_claims(files[0], 40, grids, roles, {}, {}, {}, 0, files[1])
    twins = table[table.claim == "Later: two regions beat one, both with history, each as tuned"].set_index("statistic")
    assert twins.verdict.to_dict() == {
        "Score, paired, 40 edits": "undecided",
        "Score, paired, 40 edits in sequence": "supported",
    }
    assert twins.value["Score, paired, 40 edits in sequence"] == pytest.approx(40, abs=1)
    known = table[table.claim == "Later: JEEP has a greater Score than MEMIT, in sequence"]
    assert known.verdict.tolist() == ["supported"]
    later = families(table) == "later"
    assert later.sum() == 2 * (2 * 2 + 1) + 1
    assert not table[~later][["one", "other"]].isin(["seq", "two"]).any(axis=None)
    least = table[later].sort_values("p").iloc[0]
    assert least.p_holm == pytest.approx(min(1, later.sum() * least.p)), "of their own number"


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
    more = [records_of("jeep", [0.5] * 30), records_of("memit", [0.5] * 15)]
    assert said(claims(tmp_path, [*parts, *more], grid)) == [grows, *near], "numbers that not every method has"
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
