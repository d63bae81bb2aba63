"""Facts as a conversation: the tokens are those of the tokenizer's own template, and positions hold."""

import copy
from dataclasses import replace

import pytest

from jeep.common.errors import UserError
from jeep.data.facts import Fact, InvalidFact, Question
from jeep.model.chat import Chat
from jeep.model.selection import Asking, checked, sort_out
from jeep.model.tokens import encode, encode_pair, locate, locate_subject

FACT = Fact(
    "1",
    "Lyon",
    "{} is a city in ",
    "",
    "Italy",
    "France",
    ("The city of Lyon lies in",),
    (Question("Paris?", "France"),),
)
TURNS = "{% for turn in messages %}[{{ turn.role }}] {{ turn.content }}\n{% endfor %}"
ASKED = TURNS + "{% if add_generation_prompt %}[assistant] {% endif %}"
IN_BRACKETS = (
    "{{ bos_token }}{% for turn in messages %}{% if turn.role == 'user' %}[INST] {{ turn.content }} [/INST]"
    "{% else %} {{ turn.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
THINKING = (
    "{{ bos_token }}{% for turn in messages %}<{{ turn.role }}>\n"
    "{% if turn.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ turn.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
OPEN_THOUGHT = (
    "{{ bos_token }}{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
)
OF_THE_DAY = "{{ bos_token }}{{ strftime_now('%d %B %Y') }}\n" + ASKED
TODAY = "{% if date_string is not defined %}{{ 1 / 0 }}{% endif %}{{ date_string }}\n" + ASKED


def own(tokenizer, prompt, answer=None):
    """Token ids of a conversation as the tokenizer makes them."""
    turns = [{"role": "user", "content": prompt}] + [{"role": "assistant", "content": answer}] * (answer is not None)
    given = {"add_generation_prompt": answer is None, "return_dict": False, "date_string": "26 Jul 2024"}
    return tokenizer.apply_chat_template(turns, tokenize=True, **given)


@pytest.mark.parametrize("template", [ASKED, IN_BRACKETS, THINKING, TODAY, OPEN_THOUGHT])
@pytest.mark.parametrize("style", ["byte_level", "sentencepiece"])
def test_prompt_and_answer_are_the_conversation_of_the_template(request, style, template):
    tokenizer = copy.deepcopy(request.getfixturevalue(style))
    tokenizer.bos_token = tokenizer.bos_token or "<|endoftext|>"
    tokenizer.chat_template = template
    unsaid = encode(tokenizer, "x")[:1] if style == "sentencepiece" and "bos_token" not in template else []
    fact = Chat.of(tokenizer).framed(FACT)
    asked = [fact.prompt, *fact.paraphrases, fact.unrelated[0].prompt]
    for prompt, bare in zip(asked, ["Lyon is a city in", FACT.paraphrases[0], "Paris?"], strict=True):
        ids, answer = encode_pair(tokenizer, prompt, "Italy", fact.joiner)
        whole = own(tokenizer, bare, "Italy")
        assert [*ids, *answer][len(unsaid) :] == whole[: len(ids) + len(answer) - len(unsaid)]
        assert tokenizer.decode(answer).strip() == "Italy"
        if template not in (THINKING, OPEN_THOUGHT):  # whose answer has an empty thought in front
            assert [*unsaid, *own(tokenizer, bare)][: len(ids)] == list(ids)


def test_a_prefix_stands_in_the_users_turn_and_positions_hold(monkeypatch, byte_level):
    monkeypatch.setattr(byte_level, "chat_template", ASKED)
    fact = Chat.of(byte_level).framed(FACT)
    prompt = locate(byte_level, fact, "The city is old. {}")
    assert byte_level.decode(prompt.ids) == "[user] The city is old. Lyon is a city in\n[assistant]"
    assert byte_level.decode(prompt.ids[: prompt.subject_last + 1]) == "[user] The city is old. Lyon"
    assert byte_level.decode(locate_subject(byte_level, fact).ids) == "[user] Lyon"


def test_a_template_that_asks_for_the_day_is_told_the_same_one_every_day(sentencepiece):
    tokenizer = copy.deepcopy(sentencepiece)
    tokenizer.chat_template = OF_THE_DAY
    assert Chat.of(tokenizer).opening == "<s>26 Jul 2024\n[user] "


def test_the_answer_stands_where_a_conversation_has_it_and_not_in_an_open_thought(sentencepiece):
    tokenizer = copy.deepcopy(sentencepiece)
    tokenizer.chat_template = OPEN_THOUGHT
    assert Chat.of(tokenizer).closing == "<assistant>"


def test_bos_is_the_templates_where_it_has_one_and_the_tokenizers_elsewhere(sentencepiece):
    tokenizer = copy.deepcopy(sentencepiece)
    bos = tokenizer.bos_token_id
    for template in (IN_BRACKETS, ASKED):
        tokenizer.chat_template = template
        ids, _ = encode_pair(tokenizer, Chat.of(tokenizer).framed(FACT).prompt, "Italy", "")
        assert ids.count(bos) == 1
        assert ids[0] == bos


def test_a_framed_fact_survives_its_file(monkeypatch, byte_level):
    monkeypatch.setattr(byte_level, "chat_template", ASKED)
    fact = Chat.of(byte_level).framed(FACT)
    assert Fact.from_json(fact.to_json()) == fact
    with pytest.raises(InvalidFact, match="does not begin with its opening"):
        replace(fact, opening="[system]")


def test_without_a_template_a_chat_is_refused(byte_level):
    with pytest.raises(UserError, match="no chat template"):
        Chat.of(byte_level)


def test_a_template_with_the_place_of_a_subject_in_it_is_refused(monkeypatch, byte_level):
    monkeypatch.setattr(byte_level, "chat_template", "tools: {'{}'} " + ASKED)
    with pytest.raises(UserError, match=r"has \{\} in it"):
        Chat.of(byte_level)


def test_a_fact_is_framed_once(monkeypatch, byte_level):
    monkeypatch.setattr(byte_level, "chat_template", ASKED)
    chat = Chat.of(byte_level)
    with pytest.raises(InvalidFact, match="asked in a chat already"):
        chat.framed(chat.framed(FACT))


@pytest.mark.parametrize("template", ["nothing", "{{ messages[0].content | upper }}", TURNS + TURNS])
def test_a_template_that_hides_the_turn_is_refused(monkeypatch, byte_level, template):
    monkeypatch.setattr(byte_level, "chat_template", template)
    with pytest.raises(UserError, match="does not show a user's turn once"):
        Chat.of(byte_level)


def test_a_record_with_a_joiner_of_its_own_is_named(monkeypatch, byte_level):
    monkeypatch.setattr(byte_level, "chat_template", ASKED)
    facts = [replace(FACT, joiner=": "), replace(FACT, case_id="2")]
    kept, refused = sort_out(checked(facts, None, Asking(byte_level, chat=True)))
    assert [fact.case_id for fact in kept] == ["2"]
    assert refused[0]["case_id"] == "1"
    assert "the chat template says what joins" in refused[0]["reason"]
