"""The search for hyper-parameters on a tiny model: one protocol, noted trial by trial."""

import random

import pytest
import torch
from conftest import ROOT

from jeep.common.errors import UserError
from jeep.common.nested import with_value, with_values
from jeep.common.settings import Protocol
from jeep.common.storage import read_jsonl, write_jsonl
from jeep.config.config import load_config
from jeep.editors import load_editor
from jeep.report.searches import write_searches
from jeep.tuning import bench as bench_module
from jeep.tuning.bench import Bench, DevelopmentSet
from jeep.tuning.search import search
from jeep.tuning.space import divide, draw_points

SETTINGS = {
    "optimization": {"steps": 4, "learning_rate": 0.1},
    "region": {"spread": "even", "weight_decay": 0.0},
}
SPACE = {
    "region.prior": [1.0, 1e6],
    "region.clamp": [0.5, 2.0],
    "region.layers": [[0, 1], [0]],
}
PROTOCOL = Protocol(facts=4, draws=2, variants=2, finalists=2)


@pytest.fixture(scope="module")
def bench(trained, facts, prefixes):
    width = trained.projection(0).weight.shape[1]
    covariance = {(layer, "mlp"): torch.eye(width) for layer in range(3)}
    return Bench(trained, [DevelopmentSet("cities", facts[:9], "counterfact")], prefixes, covariance, 512)


def test_a_value_is_set_at_its_path():
    settings = {"a": {"b": 1, "c": 2}}
    assert with_value(settings, "a.b", 3) == {"a": {"b": 3, "c": 2}}
    assert with_value(settings, "d.e", 4) == {"a": {"b": 1, "c": 2}, "d": {"e": 4}}
    assert settings == {"a": {"b": 1, "c": 2}}
    assert with_values({}, {"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


def test_every_trial_is_within_the_budget_and_the_chosen_one_comes_last(bench, trained, monkeypatch):
    calls = []
    original = bench_module.optimize_facts
    monkeypatch.setattr(bench_module, "optimize_facts", lambda *args: calls.append(args[1]) or original(*args))
    before = {name: value.clone() for name, value in trained.network.state_dict().items()}
    about, *trials = search(bench, "memit", SETTINGS, SPACE, PROTOCOL, seed=0)
    assert about["protocol"] == {"facts": 4, "draws": 2, "variants": 2, "finalists": 2}
    first, second = ([trial for trial in trials if trial["round"] == number] for number in (1, 2))
    assert [trial["draw"] for trial in first] == [0, 0, 1, 1]
    assert len(calls) == 2 + 2, "target vectors once for all variants of a draw, once for each finalist"
    facts = bench.sets[0].facts
    assert [list(given) for given in calls] == [list(facts[:4])] * 2 + [list(facts[4:8])] * 2
    finalists = sorted(first, key=lambda trial: -trial["Score"])[:2]
    assert sorted(str(trial["settings"]) for trial in second) == sorted(str(t["settings"]) for t in finalists)
    assert second[-1]["Score"] == max(trial["Score"] for trial in second)
    assert all(torch.equal(before[name], value) for name, value in trained.network.state_dict().items())


def test_a_prior_that_forbids_every_change_scores_worst(bench):
    settings = SETTINGS | {"region": SETTINGS["region"] | {"layers": [0, 1], "clamp": 2.0}}
    protocol = Protocol(facts=4, draws=1, variants=2, finalists=1)
    _, *trials = search(bench, "memit", settings, {"region.prior": [1.0, 1e6]}, protocol, seed=0)
    found = {trial["settings"]["region.prior"]: trial["sets"]["cities"]["ES"] for trial in trials[:2]}
    assert found[1.0] > found[1e6]
    assert trials[-1]["settings"] == {"region.prior": 1.0}


def test_the_same_seed_tries_the_same_and_another_seed_something_else(bench):
    protocol = Protocol(facts=4, draws=2, variants=1, finalists=0)
    one, two, other = (search(bench, "memit", SETTINGS, SPACE, protocol, seed) for seed in (3, 3, 4))
    assert one == two
    assert [trial["settings"] for trial in one[1:]] != [trial["settings"] for trial in other[1:]]


def test_dear_is_what_target_vectors_depend_on_or_everything_without_them():
    assert divide("memit", SETTINGS, SPACE) == (
        {"region.clamp": [0.5, 2.0], "region.layers": [[0, 1], [0]]},
        {"region.prior": [1.0, 1e6]},
    )
    space = {"layer": [0, 1], "learning_rate": [1e-3]}
    assert divide("ft_wd", {}, space) == (space, {})


def test_points_are_distinct_and_such_as_the_editor_accepts():
    """Of JEEP's two places for each region, one pair overlaps."""
    region = {"clamp": 1, "prior": 1, "spread": "even"}
    settings = {"optimization": {"steps": 2}, "low": region, "high": region}
    space = {"low.layers": [[0], [2]], "high.layers": [[2], [3]]}
    points = draw_points("jeep", settings, space, 9, random.Random(0))
    found = {(point["low.layers"][0], point["high.layers"][0]) for point in points}
    assert found == {(0, 2), (0, 3), (2, 3)}
    assert len(points) == 3
    assert len(draw_points("jeep", settings, space, 2, random.Random(0))) == 2


def test_a_killed_search_goes_on_from_its_notes(bench, tmp_path, monkeypatch):
    whole = search(bench, "memit", SETTINGS, SPACE, PROTOCOL, 0)
    score, asked = Bench.score, []

    def dies(self, *arguments):
        asked.append(arguments)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return score(self, *arguments)

    monkeypatch.setattr(Bench, "score", dies)
    notes = tmp_path / "notes.jsonl"
    with pytest.raises(KeyboardInterrupt):
        search(bench, "memit", SETTINGS, SPACE, PROTOCOL, 0, notes)
    assert len(list(read_jsonl(notes))) == 1 + 3
    with notes.open("a") as file:
        file.write('{"round": 1, "dr')  # the kill came in the middle of a line
    assert search(bench, "memit", SETTINGS, SPACE, PROTOCOL, 0, notes) == whole
    assert len(asked) == 4 + 3, "only what was missing"
    search(bench, "memit", SETTINGS, SPACE, PROTOCOL, 1, notes)
    assert len(asked) > 4 + 3, "notes of another search are not used"


def test_notes_of_another_search_are_kept_aside(bench, tmp_path, caplog):
    notes = tmp_path / "notes.jsonl"
    protocol = Protocol(facts=4, draws=1, variants=1, finalists=0)
    search(bench, "memit", SETTINGS, SPACE, protocol, 0, notes)
    text = notes.read_text()
    search(bench, "memit", SETTINGS, SPACE, protocol, 1, notes)
    assert (tmp_path / "notes.jsonl.other").read_text() == text
    assert "is of another search" in caplog.text


def test_settings_that_cannot_work_score_nothing_and_the_search_goes_on(bench, monkeypatch):
    """The first draw's target vectors do not stay finite; the second's do."""
    original, calls = bench_module.optimize_facts, []

    def spoils(*args):
        targets = original(*args)
        calls.append(1)
        for target in targets if len(calls) == 1 else ():
            target.values[:] = float("nan")
        return targets

    monkeypatch.setattr(bench_module, "optimize_facts", spoils)
    _, *trials = search(bench, "memit", SETTINGS, SPACE, Protocol(facts=4, draws=2, variants=1, finalists=1), 0)
    assert trials[0]["sets"]["cities"] == {"Score": 0.0, "failed": "no target vector stayed finite"}
    assert "failed" not in trials[1]["sets"]["cities"]
    assert trials[2]["round"] == 2


def test_a_layer_whose_covariance_is_singular_scores_nothing_with_the_reason(bench, trained, facts, monkeypatch):
    original = bench_module.summarize
    width = trained.projection(0).weight.shape[1]
    covariance = {(0, "mlp"): torch.zeros(width, width), (1, "mlp"): torch.eye(width)}
    part = Bench(trained, bench.sets, bench.prefixes, covariance, 512)
    space = {"region.layers": [[0], [1]], "region.clamp": [2.0], "region.prior": [1.0]}
    monkeypatch.setattr(bench_module, "summarize", lambda *_: original(*_).assign(value=0.0))
    _, *trials = search(part, "memit", SETTINGS, space, Protocol(facts=4, draws=2, variants=1, finalists=1), seed=0)
    found = {trial["settings"]["region.layers"][0]: trial["sets"]["cities"] for trial in trials}
    assert trials[-1]["settings"]["region.layers"] == [1], "of two that score nothing, what can be written"
    assert found[0]["Score"] == 0
    assert "not positive definite" in found[0]["failed"]
    assert found[1]["Score"] == 0
    assert "failed" not in found[1]


def test_an_edit_behind_which_the_model_overflows_scores_nothing(trained, facts):
    part = Bench(trained, [DevelopmentSet("one", facts[:4], "counterfact")], (), {}, 512)
    space = {"learning_rate": [1e20, 1e-3]}
    settings = {"layer": 2, "weight_decay": 0.0, "epochs": 1}
    _, *trials = search(part, "ft_wd", settings, space, Protocol(facts=4, draws=2, variants=1, finalists=0), 0)
    found = {trial["settings"]["learning_rate"]: trial["sets"]["one"] for trial in trials}
    assert "the model answers NaN" in found[1e20]["failed"]
    assert "failed" not in found[1e-3]


def test_a_network_that_does_not_train_scores_nothing(trained, facts, monkeypatch):
    bench = Bench(trained, [DevelopmentSet("one", facts[:4], "counterfact")], (), {}, 512, facts[8:14])
    editor = type(load_editor("malmen", {"layers": [1], "training": {"edits": 2}}))

    def fails(self, *rest):
        raise UserError("the hyper-network did not train")

    monkeypatch.setattr(editor, "train", fails)
    settings = {"layers": [1, 2], "rank": 4, "training": {"edits": 3}}
    space = {"training.learning_rate": [1e-4]}
    _, trial = search(bench, "malmen", settings, space, Protocol(facts=4, draws=1, variants=1, finalists=0), 0)
    assert trial["Score"] == 0
    assert trial["sets"]["one"]["failed"] == "the hyper-network did not train"


def test_a_network_is_trained_once_for_all_data_sets(trained, facts, monkeypatch):
    sets = [DevelopmentSet(name, facts[:8], "counterfact") for name in ("one", "two")]
    bench = Bench(trained, sets, (), {}, 512, facts[8:14])
    trainings = []
    editor = type(load_editor("malmen", {"layers": [1], "training": {"edits": 2}}))
    original = editor.train
    monkeypatch.setattr(editor, "train", lambda self, *rest: trainings.append(self) or original(self, *rest))
    settings = {"layers": [1, 2], "rank": 4, "training": {"edits": 3, "meta_learning_rate": 1e-3}}
    space = {"training.learning_rate": [1e-4, 1e-3]}
    _, *trials = search(bench, "malmen", settings, space, PROTOCOL, 0)
    assert len(trainings) == 2
    assert len(trials) == 2 + 2
    for trial in trials:
        assert trial["Score"] == pytest.approx(sum(found["Score"] for found in trial["sets"].values()) / 2, abs=0.01)


def test_too_few_facts_are_refused(bench):
    protocol = Protocol(facts=5, draws=1, variants=1, finalists=1)
    with pytest.raises(UserError, match="cities: 9 usable facts, 10 are needed"):
        search(bench, "memit", SETTINGS, SPACE, protocol, 0)


def trial(number, draw, prior, **scores):
    sets = {name: {"Score": score, "ci95": 1.0} for name, score in scores.items()}
    mean = sum(scores.values()) / len(scores)
    return {"round": number, "draw": draw, "settings": {"region.prior": prior}, "Score": mean, "sets": sets}


def test_searches_are_tabulated_with_budget_and_spread(tmp_path):
    about = {"editor": "memit", "seed": 0}
    rows = [
        trial(1, 0, 1, d=70),
        trial(1, 0, 2, d=80),
        trial(1, 1, 3, d=60),
        trial(2, 0, 1, d=71),
        trial(2, 0, 2, d=75),
    ]
    write_jsonl(tmp_path / "m/d/memit.jsonl", [about, *rows])
    write_jsonl(tmp_path / "m/d+e/mend.jsonl", [about, trial(1, 0, 4, d=50, e=30), trial(2, 0, 4, d=40, e=20)])
    paths = [tmp_path / "m/d/memit.jsonl", tmp_path / "m/d+e/mend.jsonl"]
    write_searches(paths, tmp_path / "searches.csv")
    lines = (tmp_path / "searches.csv").read_text().splitlines()
    assert lines[1] == "m,d,memit,2,3,80,70.0,10.0,75,1.0"
    assert lines[2].startswith("m,d,mend,1,1,50,50.0,,40")
    assert lines[3].startswith("m,e,mend,1,1,30,30.0,,20")
    text = (tmp_path / "settings.yaml").read_text()
    assert "m/d:\n    region: {prior: 2}" in text
    assert "m:\n    region: {prior: 4}" in text


RECORD = sorted((ROOT / "config" / "search").glob("*/*/*.jsonl"))


@pytest.mark.parametrize("path", RECORD, ids=lambda path: "/".join(path.parts[-3:]))
def test_the_demos_settings_are_those_that_the_recorded_search_chose(path):
    config = load_config(ROOT / "config" / "config.yaml")
    model, sets, method = path.parts[-3], path.parts[-2].split("+"), path.stem
    about, *trials = read_jsonl(path)
    assert about["protocol"] == config.tuning.protocol.model_dump()
    space = config.tuning.space[model][method]
    assert all(t["settings"][p] in values for t in trials for p, values in space.items()), "of another space"
    settings = with_values(config.searched_settings(method, model, sets[0]), trials[-1]["settings"])
    chosen = load_editor(config.editor_name(method), settings)
    for dataset in sets:
        assert config.editor(method, model, dataset) == chosen


def test_the_page_of_the_searches_shows_the_record(tmp_path):
    write_searches(RECORD, tmp_path / "searches.csv")
    rows = [line for line in (tmp_path / "searches.md").read_text().splitlines() if line.startswith("|")]
    page = (ROOT / "docs" / "searches.md").read_text()
    assert len(rows) > len(RECORD)
    assert [row for row in rows if row not in page] == []
