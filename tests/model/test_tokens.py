"""Positions from offset mappings, for three styles of tokenizer."""

import dataclasses
import json

import pytest
from conftest import DATA, SHARED

from jeep.common.errors import UserError
from jeep.data.facts import Fact, InvalidFact
from jeep.data.formats import read_facts
from jeep.measure.evaluate import score
from jeep.model.tokens import encode, encode_pair, encode_word, first_tokens, locate, locate_subject

CASES = [
    ("Paris", "The city of {} lies in"),
    ("São Paulo", "{} is a city in"),
    ("東京", "{} is a city in"),
    ("Zoë", "Who is {}?"),
    ("Paris", "People love {}"),
    ("St. John's", "Where is {}, exactly?"),
    ("Apollo 11", "The crew of {} was"),
    ("1999", "{} was the year of"),
    ("Rome", "Rome, they say, is not {} but"),
    ("AT&T", "({}) was founded in"),
    ("naïve café", 'The "{}" opened in'),
    ("x", "{}"),
]


@pytest.fixture(params=["byte_level", "sentencepiece"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def make(subject, template):
    return Fact("1", subject, template, "", "new")


def check(tokenizer, text, end, prompt):
    """The tokens up to the position cover the subject's last character, and one token fewer does not."""
    wanted = text[:end].rstrip()

    def covered(ids):
        decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return decoded.replace("\N{REPLACEMENT CHARACTER}", "")

    assert covered(prompt.ids[: prompt.subject_last + 1]).strip().startswith(wanted.strip())
    assert not covered(prompt.ids[: prompt.subject_last]).strip().startswith(wanted.strip())


@pytest.mark.parametrize(("subject", "template"), CASES)
@pytest.mark.parametrize("prefix", ["{}", "The old times are gone. {}"])
def test_subject_last_is_the_token_that_completes_the_subject(tokenizer, subject, template, prefix):
    fact = make(subject, template)
    prompt = locate(tokenizer, fact, prefix)
    text = prefix.replace("{}", fact.prompt)
    end = text.index(fact.prompt) + template.index("{}") + len(subject)
    check(tokenizer, text, end, prompt)
    assert prompt.prediction == len(encode(tokenizer, text)) - 1


def test_a_subject_that_occurs_twice_is_where_the_template_has_it(tokenizer):
    first, second = make("Rome", "{} is Rome and"), make("Rome", "Rome is {} and")
    assert locate(tokenizer, first).ids == locate(tokenizer, second).ids
    assert locate(tokenizer, first).subject_last < locate(tokenizer, second).subject_last


def test_bos_is_in_front_and_eos_never_behind(sentencepiece):
    prompt = locate(sentencepiece, make("Paris", "{} is"))
    assert prompt.ids[0] == sentencepiece.bos_token_id
    assert sentencepiece.eos_token_id not in prompt.ids


def test_the_kl_prompt_ends_with_the_subject(tokenizer):
    prompt = locate_subject(tokenizer, make("São Paulo", "{} is"))
    assert prompt.subject_last == len(prompt.ids) - 1
    check(tokenizer, "São Paulo is a", len("São Paulo"), prompt)


@pytest.mark.parametrize("answer", ["France", "New York", "42", "Málaga"])
def test_an_answer_continues_its_prompt_after_one_space(tokenizer, answer):
    prompt = "The city of Paris lies in"
    ids = [*encode(tokenizer, prompt), *encode_word(tokenizer, answer)]
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert text == f"The city of Paris lies in {answer}"
    for asked, given in ((prompt, answer), (f"{prompt} ", f" {answer} ")):
        assert encode_pair(tokenizer, asked, given) == (
            tuple(encode(tokenizer, prompt)),
            encode_word(tokenizer, answer),
        )


@pytest.mark.parametrize(
    ("prompt", "answer", "joiner"),
    [
        ("He said (", "Paris", None),
        ("Paris\n", "lies\nin", None),
        ("Paris\n\n", "lies", None),
        ("法国的首都是", "巴黎", None),
        ("Paris is", "in", " - "),
    ],
)
def test_the_tokens_are_those_of_the_whole_text(byte_level, prompt, answer, joiner):
    """What joins, such as a line break or a dash, belongs to the prompt: no token of it is one of the answer."""
    asked, wanted = encode_pair(byte_level, prompt, answer, joiner)
    assert [*asked, *wanted] == encode(byte_level, prompt + (joiner or "") + answer)
    assert byte_level.decode(wanted).strip() == answer
    fact = Fact("1", "Paris", "{}" + prompt.removeprefix("Paris"), "", answer, joiner=joiner)
    if prompt.startswith("Paris"):
        assert locate(byte_level, fact).ids == asked


def test_a_token_across_the_end_of_the_prompt_is_refused(byte_level):
    """ "Pari" and "s" are one token together, or two others."""
    with pytest.raises(UserError, match=r"no token ends where the prompt does \('The city Par\|is lies in'\)"):
        encode_pair(byte_level, "The city Par", "is lies in", "")


def test_first_tokens_are_those_of_running_text(byte_level):
    """A stop word begins a sentence or follows a space; a comma follows its word."""
    text = "The city, the old"
    ids = byte_level(text).input_ids
    found = first_tokens(byte_level, "the")
    ways = [byte_level(part).input_ids for part in ("The", " The", "the", " the")]
    assert found == {part[0] for part in ways if len(part) == 1}
    assert found & set(ids)
    assert first_tokens(byte_level, ",") == {byte_level(",").input_ids[0]}, "with a space it is two tokens"
    assert byte_level(",").input_ids[0] in ids
    assert first_tokens(byte_level, "Zanzibar") == {byte_level(" Zanzibar").input_ids[0]}, "no form is a single token"


def test_first_tokens_of_metaspaces(sentencepiece):
    words = {sentencepiece.convert_ids_to_tokens(token) for token in first_tokens(sentencepiece, "in")}
    assert "▁in" in words
    assert any(not word.startswith("▁") for word in words)


def test_an_answer_without_tokens_is_an_error(tokenizer):
    with pytest.raises(UserError, match="has no tokens"):
        encode_pair(tokenizer, "Paris is", "  ")


RECORDS = DATA / "records"


def real_facts():
    files = {"counterfact_original_300.json": "counterfact", "zsre_mend_300.json": "zsre"}
    for name, form in files.items():
        path = SHARED / "data" / name
        if not path.is_file():
            pytest.skip(f"the real records ({name}) are not beside the checkout")
        yield from read_facts(path, form)


def test_positions_on_recorded_files(tokenizer):
    for name, form in (("counterfact.json", "counterfact"), ("zsre.json", "zsre"), ("facts.jsonl", "jsonl")):
        for fact in read_facts(RECORDS / name, form):
            if isinstance(fact, Fact):
                end = fact.template.index("{}") + len(fact.subject.rstrip())
                check(tokenizer, fact.prompt, end, locate(tokenizer, fact))


def test_positions_on_real_records(tokenizer):
    facts = list(real_facts())
    assert len(facts) == 600
    assert not [fact for fact in facts if isinstance(fact, InvalidFact)]
    for fact in facts:
        end = fact.template.index("{}") + len(fact.subject)
        check(tokenizer, fact.prompt, end, locate(tokenizer, fact))


@pytest.mark.slow
def test_positions_on_real_records_with_the_demo_models_tokenizers(demo_tokenizers):
    facts = list(real_facts())
    for tokenizer in demo_tokenizers:
        for fact in facts:
            end = fact.template.index("{}") + len(fact.subject)
            check(tokenizer, fact.prompt, end, locate(tokenizer, fact))


def test_real_records_survive_our_own_schema(tmp_path):
    facts = list(real_facts())
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(fact.to_json()) + "\n" for fact in facts))
    assert list(read_facts(path, "jsonl")) == facts
    assert all(dataclasses.is_dataclass(fact) for fact in facts)


def test_the_real_records_are_joined_by_a_space_as_they_always_were(tokenizer):
    for fact in real_facts():
        if isinstance(fact, Fact):
            for prompt in (fact.prompt, *fact.paraphrases):
                expected = tuple(encode(tokenizer, prompt.rstrip(" "))), encode_word(tokenizer, fact.target_new)
                assert encode_pair(tokenizer, prompt, fact.target_new) == expected


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", " ", "\n", ' "'])
def test_a_real_model_expects_the_answer_as_it_is_joined(smollm2, end):
    """Its probability hardly depends on how the prompt ends; behind a space with a second one it would fall by e⁷."""
    prompt, answer = encode_pair(smollm2.tokenizer, f"The capital of France is the city of{end}", "Paris")
    ((scored,),) = score(smollm2, [prompt], [[answer]], 512)
    assert scored.log_probabilities.sum() > -2
