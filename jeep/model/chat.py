"""Facts asked as an instruct model is: each prompt the user's turn of a conversation, its answer the model's."""

from dataclasses import dataclass, replace

from jeep.common.errors import UserError, blamed_on
from jeep.data.facts import Fact, InvalidFact, Question
from jeep.model.tokens import encode

_TURN, _ANSWER = "jeep's turn", "jeep's answer"
_DATE = "26 Jul 2024"
"""What a template is told that asks for the day: the same files come of every day."""


@dataclass(frozen=True)
class Chat:
    """What a chat template puts in front of the user's turn, and between it and the answer."""

    opening: str
    closing: str

    @classmethod
    def of(cls, tokenizer) -> "Chat":
        """The tokenizer's template, without the tokens that the tokenizer itself puts in front of every text.

        Raises UserError where it has none, or none that a user's turn can be told from.
        """
        turns = [{"role": "user", "content": _TURN}]
        with blamed_on("chat: the tokenizer has no chat template that can be used"):
            asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, date_string=_DATE)
            turns.append({"role": "assistant", "content": _ANSWER})
            answered = tokenizer.apply_chat_template(turns, tokenize=False, date_string=_DATE)
        opening, turn, closing = asked.partition(_TURN)
        if not turn or _TURN in closing:
            raise UserError("chat: the tokenizer's chat template does not show a user's turn once and as it is")
        front, answer, _ = answered.partition(_ANSWER)
        if answer and front.startswith(asked):  # such as the space, or an empty thought, in front of the answer
            closing += front[len(asked) :]
        return cls(_undoubled(tokenizer, opening), closing)

    def ask(self, prompt: str) -> str:
        """A prompt as the user's turn, up to where the answer begins."""
        return self.opening + prompt.strip() + self.closing

    def framed(self, fact: Fact) -> Fact:
        """A fact all of whose prompts are a user's turn. Raises InvalidFact for one that says what joins its answer."""
        if fact.joiner is not None or fact.opening:
            raise InvalidFact(fact.case_id, "a joiner of its own, where the chat template says what joins")
        return replace(
            fact,
            template=self.ask(fact.template),
            paraphrases=tuple(map(self.ask, fact.paraphrases)),
            unrelated=tuple(Question(self.ask(each.prompt), each.answer) for each in fact.unrelated),
            joiner="",
            opening=self.opening,
        )


def _undoubled(tokenizer, opening: str) -> str:
    """The beginning of a text without the special tokens that the tokenizer adds there anyway."""
    ids = encode(tokenizer, opening)
    bare = tokenizer(opening, add_special_tokens=False, return_offsets_mapping=True)
    own, added = bare["input_ids"], len(ids) - len(bare["input_ids"])
    if added <= 0 or ids[:added] != own[:added]:
        return opening
    return opening[bare["offset_mapping"][added - 1][1] :]
