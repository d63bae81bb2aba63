"""What models write: against the model's own forward pass, token by token, and by hand."""

import math
import random
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import torch
from test_evaluate import plain_network
from tiny import random_network

from jeep.common.errors import UserError
from jeep.measure import generation
from jeep.measure.evaluate import evaluate
from jeep.measure.generation import (
    Stopping,
    answers,
    encode_front,
    end_tokens,
    greedy_texts,
    matched,
    sampled,
)
from jeep.measure.metrics import ARGMAX, GENERATED, by_argmax, summarize
from jeep.model.editable import EditableModel
from jeep.model.tokens import encode


@torch.no_grad()
def plain_text(model, prompt, limit, stops):
    """Written out: one prompt, the whole sequence for every token."""
    network, ids, new = plain_network(model), list(encode(model.tokenizer, prompt)), []
    text = ""
    while len(new) < limit and not any(stop in text for stop in stops):
        new.append(int(network(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax()))
        if new[-1] == model.tokenizer.eos_token_id:
            break
        text = model.tokenizer.decode(new)
    for stop in stops:
        text = text.split(stop)[0]
    return text.strip()


@pytest.mark.parametrize("rule", [Stopping(12), Stopping(7, ()), Stopping(12, ("an", "i"))])
def test_texts_are_those_of_the_plain_way_whatever_the_batch(trained, facts, rule):
    asked = ["Bonn", *(prompt for fact in facts[:4] for prompt in (fact.prompt, *fact.paraphrases))]
    prompts = [encode_front(trained.tokenizer, prompt) for prompt in asked]
    expected = [plain_text(trained, prompt, rule.limit, rule.stops) for prompt in asked]
    assert len(set(expected)) > 1
    for budget in (1000, 40):
        assert greedy_texts(trained, prompts, budget, rule) == expected
    backwards = greedy_texts(trained, prompts[::-1], 1000, [rule] * len(prompts))
    assert backwards[::-1] == expected


def test_each_prompt_may_have_its_own_rule(trained, facts):
    prompts = [encode_front(trained.tokenizer, fact.prompt) for fact in facts[:4]]
    long, short = Stopping(9, ()), Stopping(2, ())
    mixed = greedy_texts(trained, prompts, 1000, [long, short, long, short])
    assert mixed[::2] == greedy_texts(trained, prompts, 1000, long)[::2]
    assert mixed[1::2] == greedy_texts(trained, prompts, 1000, short)[1::2]
    assert greedy_texts(trained, [], 1000) == []


def test_the_end_of_text_ends_it_and_is_no_part_of_it(byte_level):
    """A model made to answer with the same tokens: a word, the end of text, and more."""
    model = EditableModel(random_network("llama"), byte_level)
    word, end = byte_level(" city").input_ids, byte_level.eos_token_id
    script = [*word, end, *word]
    head = model.network.get_output_embeddings()
    asked = []

    def written(module, args, output):
        asked.append(len(output))
        return (
            torch.nn.functional.one_hot(torch.tensor(script[len(asked) - 1]), output.shape[-1])
            .float()
            .expand_as(output)
        )

    with torch.no_grad():
        handle = head.register_forward_hook(written)
    found = greedy_texts(model, [(1, 2)], 1000, Stopping(50, ()))
    handle.remove()
    assert found == ["city"]
    assert len(asked) == len(word) + 1
    assert end_tokens(model) == {end} | {model.network.generation_config.eos_token_id}


def test_a_prompt_is_asked_as_its_answer_joins(byte_level):
    assert encode_front(byte_level, "Who? ") == tuple(encode(byte_level, "Who?"))
    assert encode_front(byte_level, "Who?", "\nA: ") == tuple(encode(byte_level, "Who?\nA:"))


def test_what_is_asked_and_wanted_of_a_fact(trained, facts):
    """CounterFact: the new answer, ten neighbours by five tokens; zsRE: each question's own answer, to its end."""
    fact = replace(facts[0], unrelated=facts[0].unrelated[:1])
    rows = answers(trained, [fact], "counterfact", 500)
    assert list(zip(rows.case_id, rows.metric, rows.number, rows.answer, strict=True)) == [
        ("city-0", "ES_g", 0, "Italy"),
        ("city-0", "GS_g", 0, "Italy"),
        ("city-0", "LS_g", 0, "France"),
    ]
    assert rows.text.tolist() == [
        *(plain_text(trained, prompt, 50, (".", "\n")) for prompt in (fact.prompt, fact.paraphrases[0])),
        plain_text(trained, fact.unrelated[0].prompt, 5, ()),
    ]
    rows = answers(trained, [replace(fact, target_true=None)], "zsre", 500)
    assert rows.answer.tolist() == ["Italy", "Italy", "France"]
    assert rows.text[2] == plain_text(trained, fact.unrelated[0].prompt, 50, (".", "\n"))


def test_a_question_may_be_framed(trained, facts):
    fact = replace(facts[0], template="Where is {}?", paraphrases=(), unrelated=(), target_true=None, joiner="\n")
    (row,) = answers(trained, [fact], "zsre", 500, "qa").itertuples()
    assert row.text == plain_text(trained, "Please answer the question:\n\nQ: Where is Paris?\nA:", 50, (".", "\n"))


def test_texts_that_are_empty_are_counted(trained, facts, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(generation, "greedy_texts", lambda *_: ["", "Rome", ""])
    answers(trained, [replace(facts[0], unrelated=facts[0].unrelated[:1])], "counterfact", 500)
    assert "2 of 3 texts are empty" in caplog.text


def texts(*rows):
    return pd.DataFrame(rows, columns=["case_id", "metric", "number", "answer", "text"])


def test_matches_by_hand():
    before = texts(
        ("a", "ES_g", 0, "Rome", "Paris"), ("a", "LS_g", 0, "Oslo", "Oslo, in"), ("a", "LS_g", 1, "Oslo", "a town"),
        ("b", "ES_g", 0, "Rome", "Paris"),
    )  # fmt: skip
    after = texts(
        ("b", "ES_g", 0, "Rome", "the Rome!"),
        ("a", "ES_g", 0, "Rome", "Rome, in Italy"),
        ("a", "LS_g", 0, "Oslo", "Oslo, in"),
        ("a", "LS_g", 1, "Oslo", "Oslo"),
    )
    found = matched(after, before)
    assert found.exact.tolist() == [1, 0, 1, 0]
    assert found.prefix.tolist() == [1, 1, 1, 0]
    summary = summarize(found.assign(value=found.exact), GENERATED).set_index("metric").value
    assert summary.to_dict() == {"ES_g": 50, "LS_g": 50}
    assert list(matched(after[:0], before).columns) == [*after.columns, "exact", "prefix"]
    with pytest.raises(UserError, match="record a: no text of the unedited model for prompt 1 of LS_g"):
        matched(after, before[before.number == 0])


def test_the_unedited_model_keeps_all_it_says(trained, facts):
    rows = answers(trained, facts[:4], "counterfact", 500)
    found = matched(rows, rows)
    summary = summarize(found.assign(value=found.prefix), GENERATED).set_index("metric").value
    assert summary["LS_g"] == 100
    assert summary["ES_g"] == 0, "it says the true answers"


def test_argmax_is_what_greedy_decoding_begins_with(trained, facts):
    """Known answers and others: an answer whose tokens are all the argmax is what a text begins with."""
    mixed = [
        replace(fact, target_new=fact.target_true, target_true="Peru") if n % 2 else fact
        for n, fact in enumerate(facts[:6])
    ]
    rows = evaluate(trained, mixed, "counterfact", 500)
    said = by_argmax(rows)
    written = answers(trained, mixed, "counterfact", 500)
    found = written.query("metric != 'LS_g'")
    assert said.metric.str.replace("_a", "_g").tolist() == found.metric.tolist()
    begun = [text.startswith(answer) for text, answer in zip(found.text, found.answer, strict=True)]
    assert said.value.tolist() == begun
    assert 0 < said.value.mean() < 1
    assert list(summarize(said, ARGMAX).metric) == list(ARGMAX), "no Score"
    original = rows.query("metric == 'LS'")
    assert original.argmax.mean() > 0.9, "of an unrelated prompt it is about the original answer"
    plain_summary = summarize(rows)
    pd.testing.assert_frame_equal(plain_summary, summarize(pd.concat([rows, said])))


def test_argmax_of_an_answer_of_several_tokens_needs_each(trained, facts):
    """zsRE's value is the share of tokens that are the argmax."""
    rows = evaluate(trained, [replace(f, target_new=f"{f.target_true} and Peru") for f in facts], "zsre", 500)
    asked = rows[rows.metric != "LS"]
    assert (asked.value > 0).all()
    assert ((asked.value == 1) == (asked.argmax == 1)).all()
    assert (asked.argmax == 0).all()


@pytest.mark.parametrize("name", ["llama", "gptj"])
def test_samples_depend_on_their_own_seed_alone(name, byte_level, facts):
    model = EditableModel(random_network(name), byte_level)
    prompts = [encode_front(byte_level, fact.prompt) for fact in facts[:3]] * 2
    seeds = [f"0/{number}" for number in range(len(prompts))]
    whole = sampled(model, prompts, seeds, 1000, length=20)
    assert sampled(model, prompts, seeds, 30, length=20) == whole
    assert sampled(model, prompts[::-1], seeds[::-1], 60, length=20)[::-1] == whole
    assert sampled(model, prompts[2:3], seeds[2:3], 60, length=20) == whole[2:3]
    assert all(one != other for one, other in zip(whole[:3], whole[3:], strict=True)), "the same under other seeds"
    for fact, text in zip([*facts[:3], *facts[:3]], whole, strict=True):
        assert text.startswith(fact.prompt)


def test_a_text_has_as_many_tokens_as_asked_and_its_prompt_stays_whole(trained):
    prompts = [tuple(range(5, 9)), tuple(range(5, 25)), (5,)]
    words = [len(trained.tokenizer(text).input_ids) for text in sampled(trained, prompts, "abc", 500, length=12)]
    decoded = trained.tokenizer.decode(prompts[1])
    assert sampled(trained, prompts, "abc", 500, length=12)[1] == decoded
    assert max(words) >= 10


def test_samples_have_the_models_probabilities_among_the_best(byte_level):
    """One token behind one prompt, 4000 times: its five most probable tokens, each as often as it should be."""
    model = EditableModel(random_network("llama"), byte_level)
    prompt = (7, 3, 11)
    with torch.no_grad():
        logits = model.network(input_ids=torch.tensor([prompt])).logits[0, -1]
    best = logits.topk(5)
    expected = dict(
        zip((byte_level.decode([*prompt, int(t)]) for t in best.indices), best.values.softmax(0).tolist(), strict=True)
    )
    seeds = [str(number) for number in range(4000)]
    counts = Counter(sampled(model, [prompt] * len(seeds), seeds, 100_000, length=4))
    assert set(counts) <= set(expected)
    for text, share in expected.items():
        assert counts[text] / len(seeds) == pytest.approx(
            share, abs=4 * math.sqrt(share * (1 - share) / len(seeds)) + 1e-9
        )
    ordered = dict(zip(expected, torch.tensor(list(expected.values())).cumsum(0).tolist(), strict=True))
    draw = random.Random("17").random()
    by_hand = next(text for text, below in ordered.items() if draw < below)
    assert sampled(model, [prompt], ["17"], 100, length=4) == [by_hand]


@pytest.mark.slow
def test_a_real_model_writes_what_transformers_generates(smollm2):
    """Of a real model, padded at the left as `generate` wants it."""
    tokenizer = smollm2.tokenizer
    asked = ["The capital of France is", "Q: Who wrote Hamlet?\nA:", "Two plus two is", "Water boils at"]
    prompts = [encode_front(tokenizer, prompt) for prompt in asked]
    width, end = max(map(len, prompts)), tokenizer.eos_token_id
    padded = torch.tensor([[end] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    network = plain_network(smollm2)
    rows = network.generate(input_ids=padded, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=end)
    expected = [tokenizer.decode(row[width:], skip_special_tokens=True).strip() for row in rows]
    for budget in (1000, 30):
        assert greedy_texts(smollm2, prompts, budget, Stopping(20, ())) == expected
    assert greedy_texts(smollm2, prompts[:1], 1000) == [expected[0].split(".")[0].split("\n")[0].strip()]
