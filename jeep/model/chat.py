"""Facts asked as an instruct model is: each prompt the user's turn of a conversation, its answer the model's."""

from dataclasses import dataclass, replace

from jeep.common.errors import UserError, blamed_on
from jeep.data.facts import Fact, InvalidFact, Question

_TURN, _ANSWER = "jeep's turn", "jeep's answer"
_DAY = "26 Jul 2024"
_OF_A_DAY = f"{{% macro strftime_now(format) %}}{_DAY}{{% endmacro %}}"
"""In front of a template that asks for the day: the same files come of every day."""


@dataclass(frozen=True)
class Chat:
    """What a chat template puts in front of the user's turn, and between it and the answer."""

    opening: str
    closing: str

    @classmethod
    def of(cls, tokenizer) -> "Chat":
        """The tokenizer's template, as it shows an answer: behind what a generation begins with, or without it.

        Raises UserError where there is no template, or none that a user's turn can be told from.
        """
        turns = [{"role": "user", "content": _TURN}]
        with blamed_on("chat: the tokenizer has no chat template that can be used"):
            template = _OF_A_DAY + tokenizer.get_chat_template()
            given = {"tokenize": False, "chat_template": template, "date_string": _DAY}
            asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, **given)
            turns.append({"role": "assistant", "content": _ANSWER})
            answered = tokenizer.apply_chat_template(turns, **given)
        opening, turn, closing = asked.partition(_TURN)
        front, answer, _ = answered.partition(_ANSWER)
        if not turn or _TURN in closing:
            raise UserError("chat: the tokenizer's chat template does not show a user's turn once and as it is")
        if answer and front.startswith(opening + turn):
            closing = front[len(opening + turn) :]
        if "{}" in opening + closing:
            raise UserError("chat: the tokenizer's chat template has {} in it, which stands for subjects here")
        return cls(opening, closing)

    def ask(self, prompt: str) -> str:
        """A prompt as the user's turn, up to where the answer begins."""
        return self.opening + prompt.strip() + self.closing

    def framed(self, fact: Fact) -> Fact:
        """A fact all of whose prompts are a user's turn. Raises InvalidFact for one that says what joins its answer."""
        if fact.opening:
            raise InvalidFact(fact.case_id, "it is asked in a chat already: it has an opening")
        if fact.joiner is not None:
            raise InvalidFact(fact.case_id, "a joiner of its own, where the chat template says what joins")
        return replace(
            fact,
            template=self.ask(fact.template),
            paraphrases=tuple(map(self.ask, fact.paraphrases)),
            unrelated=tuple(Question(self.ask(each.prompt), each.answer) for each in fact.unrelated),
            joiner="",
            opening=self.opening,
        )
