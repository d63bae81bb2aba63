"""What the paper says of its probes, on made-up results: each claim can come out either way."""

import numpy as np
import pandas as pd
import pytest

from jeep.report.probe_claims import contrast_claims, word_claims


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


def test_words_follow_the_original_over_the_upper_half_by_pearsons_r(tmp_path):
    """Five layers, of which the last three count, the topmost among them; two records by numpy's own correlation."""
    levels = {
        "original": [[0, 9, -1, -2, -4], [0, 9, -1, -3, -4]],
        "factual": [[9, 0, -2, -2, -5], [9, 0, -1, -2, -2]],
        "stop words": [[1, 5, -3, -1, -2], [2, 5, -2, -1, -3]],
        "unrelated": [[-1] * 5] * 2,
    }
    rows = [
        (case, layer, name, 10.0 ** (level - 10))
        for name, records in levels.items()
        for case, its in enumerate(records)
        for layer, level in enumerate(its)
    ]
    path = tmp_path / "words.parquet"
    pd.DataFrame(rows, columns=["case_id", "layer", "set", "probability"]).to_parquet(path)
    *_, follows = word_claims(path)

    def along(name):
        return [np.corrcoef(levels[name][case][2:], levels["original"][case][2:])[0, 1] for case in (0, 1)]

    expected = np.subtract(along("factual"), along("stop words"))
    assert follows[4].value == pytest.approx(expected.mean())
    half = 12.706205 * expected.std(ddof=1) / np.sqrt(2)  # t of 97.5 % with one degree of freedom
    assert (follows[4].low, follows[4].high) == pytest.approx((expected.mean() - half, expected.mean() + half))
