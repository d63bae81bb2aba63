"""A search of settings on one's own facts: what it needs, what it gives, and that it finds what is better."""

import json

import pandas as pd
import pytest
from own_model import SETTINGS, cache, model, same, text, weights  # noqa: F401 (fixtures)
from test_commands import files  # noqa: F401 (fixtures)

import jeep
from jeep.__main__ import main
from jeep.api import tuning
from jeep.common.errors import UserError
from jeep.common.nested import with_values
from jeep.data.facts import Fact, Question, dump_facts

TRIAL = {"round": 1, "draw": 0, "settings": {}, "Score": 1.0, "sets": {"facts": {"Score": 1.0}}}
SPACE = {"low.layers": [[0], [1]], "high.layers": [[2]], "low.prior": [0.2, 1e9], "high.prior": [0.2, 1e9]}


def tuned(model, facts, text, **more):
    given = {"space": SPACE, "draws": 2, "variants": 4, "finalists": 2, "text": text, "tokens": 12000}
    return jeep.tune(model, facts[:8], **given | more)


def test_the_best_settings_are_those_to_edit_with(model, facts, text):
    """Priors of 1e9 forbid every change, so that they lose; the settings found make an edit that takes."""
    before = weights(model)
    found = tuned(model, facts, text)
    assert same(before, weights(model)), "the model stays as it is"
    assert len(found.trials) == 2 * 4 + 2
    assert set(found.trials.columns) >= {"round", "draw", *SPACE, "Score", "ES", "GS", "LS"}
    chosen, second = found.trials.iloc[-1], found.trials[found.trials["round"] == 2]
    assert chosen["Score"] == second["Score"].max()
    assert (chosen["low.prior"], chosen["high.prior"]) != (1e9, 1e9)
    assert found.settings == with_values(found.settings, {path: chosen[path] for path in SPACE})
    assert f"Score {chosen['Score']:.1f} with the chosen settings; of 8 drawn ones" in str(found)
    edit = jeep.edit(model, facts[8:12], settings=found.settings, text=text, tokens=12000)
    assert edit.settings == found.settings
    rows = edit.outcome.query("kind == 'edited'")
    assert rows["p_after"].mean() > rows["p_before"].mean()


def test_rounds_edit_different_facts_at_most_sixty(model, facts, text, monkeypatch):
    asked = []

    def search(bench, name, settings, space, protocol, *rest):
        asked.append((len(bench.sets[0].facts), protocol.facts, protocol.rounds, bench.sets[0].metrics))
        return [{}, TRIAL]

    monkeypatch.setattr(tuning, "search", search)
    many = [Fact(**facts[n % 8].__dict__ | {"case_id": str(n)}) for n in range(150)]
    for given, finalists in ((many, 2), (many[:9], 2), (many[:9], 0)):
        tuning.tune(model, given, space=SPACE, finalists=finalists, text=text, tokens=12000)
    assert asked == [(120, 60, 2, "zsre"), (8, 4, 2, "zsre"), (9, 9, 1, "zsre")]


def test_only_unrelated_answers_that_the_model_gives_can_be_lost(model, facts, text, monkeypatch):
    unknown = Question("Nobody has ever been to", "Atlantis")
    given = [Fact(**fact.__dict__ | {"unrelated": (*fact.unrelated, unknown)}) for fact in facts[:4]]
    seen = []
    monkeypatch.setattr(tuning, "search", lambda bench, *_: seen.extend(bench.sets[0].facts) or [{}, TRIAL])
    tuning.tune(model, given, space=SPACE, text=text, tokens=12000)
    assert {fact.case_id: fact.unrelated for fact in seen} == {fact.case_id: fact.unrelated for fact in facts[:4]}
    alone = [Fact(**fact.__dict__ | {"unrelated": (unknown,)}) for fact in given]
    with pytest.raises(UserError, match="unrelated prompts that the model answers"):
        tuning.tune(model, alone, space=SPACE, text=text, tokens=12000)


def test_every_round_has_facts_that_can_be_measured_whole(model, facts, text, monkeypatch):
    """Four of eight have unrelated prompts, the first four: two of them are in each half."""
    given = [*facts[:4], *(Fact(**fact.__dict__ | {"unrelated": ()}) for fact in facts[4:8])]
    seen = []
    monkeypatch.setattr(tuning, "search", lambda bench, *_: seen.extend(bench.sets[0].facts) or [{}, TRIAL])
    tuning.tune(model, given, space=SPACE, text=text, tokens=12000)
    assert [bool(fact.unrelated) for fact in seen] == [True, True, False, False] * 2
    assert sorted(fact.case_id for fact in seen) == sorted(fact.case_id for fact in given)


def test_in_one_round_the_best_of_all_trials_is_chosen(model, facts, text):
    found = tuned(model, facts, text, finalists=0)
    assert len(found.trials) == 8
    assert found.trials.iloc[-1]["Score"] == found.trials["Score"].max() > found.trials["Score"].min()


@pytest.mark.parametrize("kind", ["paraphrases", "unrelated"])
def test_without_paraphrases_or_unrelated_prompts_there_is_nothing_to_choose_by(model, facts, text, kind):
    bare = [Fact(**fact.__dict__ | {kind: ()}) for fact in facts[:8]]
    with pytest.raises(UserError, match="a search needs at least 2 facts with paraphrases and unrelated"):
        tuned(model, bare, text)


def test_layers_that_the_model_lacks_are_one_line(model, facts, text):
    with pytest.raises(UserError, match="space of jeep: layer 9 of a model that has 4"):
        tuned(model, facts, text, space={"low.layers": [[0]], "high.layers": [[9], [2]]})


def test_a_space_that_the_method_does_not_know_is_one_line(model, facts, text):
    with pytest.raises(UserError, match=r"space of jeep: low.lyers: unknown key"):
        tuned(model, facts, text, space={"low.lyers": [[0]]})


def test_a_search_in_which_nothing_could_be_written_says_why(model, facts, text):
    with pytest.raises(UserError, match=r"no settings of the space could be tried: the covariance .* over more tokens"):
        tuned(model, facts, ["a" * 99], space=SPACE | {"low.layers": [[0]]}, draws=1)


def test_one_command_searches_and_its_settings_edit(files, facts, caplog, capsys):
    caplog.set_level("INFO")
    (files / "development.jsonl").write_text(dump_facts(facts[:8]))
    (files / "space.json").write_text(json.dumps({"high.layers": [[2]], "low.layers": [[0]], "low.prior": [0.2, 1e9]}))
    out, text = files / "tuned.json", ["--device", "cpu", "--text", str(files / "text.txt"), "--tokens", "12000"]
    assert (
        main(
            [
                *("tune", str(files / "model"), str(files / "development.jsonl"), "--out", str(out)),
                *("--space", str(files / "space.json"), "--draws", "1", "--variants", "2", "--finalists", "1", *text),
            ]
        )
        == 0
    ), capsys.readouterr().err
    settings = json.loads(out.read_text())
    assert settings["low"]["layers"] == [0]
    assert len(pd.read_csv(out.with_suffix(".csv"))) == 3
    assert not list(files.glob(".*")), "notes are gone when the search is whole"
    assert (
        main(
            [
                "edit-facts",
                str(files / "model"),
                str(files / "facts.jsonl"),
                "--settings",
                str(out),
                *text,
                "--out",
                str(files / "edited"),
            ]
        )
        == 0
    )
    assert json.loads((files / "edited" / "jeep.json").read_text())["settings"] == settings
