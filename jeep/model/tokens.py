"""Where things are in a tokenised prompt: the subject's last token, the prediction position, the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from jeep.common.errors import UserError, blamed_on
from jeep.data.facts import Fact, InvalidFact
from jeep.data.joining import join


def load_tokenizer(folder: Path | str):
    """The fast tokenizer of a checkpoint. Raises UserError without one: positions need its offset mapping."""
    with blamed_on(f"{folder}: no tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokenizer("a")  # some settings are read but not used before
    if not tokenizer.is_fast:
        raise UserError(f"{folder}: no fast tokenizer (tokenizer.json), which positions are read from")
    return tokenizer


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt; `subject_last` indexes its tokens, and the prediction position is the last of them."""

    ids: tuple[int, ...]
    subject_last: int

    @property
    def prediction(self) -> int:
        """Index of the prompt's last token, where the answer's first token is predicted."""
        return len(self.ids) - 1

    def position(self, name: str) -> int:
        """Index of the lookup position `name`: "subject_last" or "prediction"."""
        return self.subject_last if name == "subject_last" else self.prediction


def _encode(tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids and character spans, with the tokens the model expects in front (BOS) and none behind (EOS).

    A text that begins with a special token, as a conversation does, is taken as it is.
    """
    own = text.startswith(tuple(tokenizer.all_special_tokens))
    encoding = tokenizer(text, return_offsets_mapping=True, add_special_tokens=not own)
    ids, spans = list(encoding["input_ids"]), list(encoding["offset_mapping"])
    while ids and spans[-1][0] == spans[-1][1] and ids[-1] in tokenizer.all_special_ids:
        ids.pop(), spans.pop()
    return ids, spans


def encode(tokenizer, text: str) -> list[int]:
    """Token ids of a prompt: BOS in front where the tokenizer adds one and the text has none, never EOS behind."""
    return _encode(tokenizer, text)[0]


def locate(tokenizer, fact: Fact, prefix: str = "{}") -> Prompt:
    """Tokenise `prefix` with the fact's prompt in its `{}` (behind its opening) and find the subject's last token.

    The position is read off the tokenizer's offset mapping: the last token that covers the subject's last character
    (with byte-level tokens, several may). Raises InvalidFact when no token covers it.
    """
    before, after = (part for part in prefix.split("{}", 1))
    prompt = fact.opening + before + fact.prompt.removeprefix(fact.opening) + after
    front, continuation = join(prompt, fact.target_new, fact.joiner)
    ids, spans, _ = _split(tokenizer, front, continuation)
    end = len(before) + fact.template.index("{}") + len(fact.subject.rstrip())
    return _covering(fact.case_id, ids, spans, end, front)


def locate_subject(tokenizer, fact: Fact) -> Prompt:
    """The prompt "{subject} is a", where the KL term of Eq. 11 is measured, cut after the subject's last token."""
    text = f"{fact.opening}{fact.subject} is a"
    end = len(fact.opening) + len(fact.subject.rstrip())
    prompt = _covering(fact.case_id, *_encode(tokenizer, text), end, text)
    return Prompt(prompt.ids[: prompt.subject_last + 1], prompt.subject_last)


def _covering(case_id: str, ids: Sequence[int], spans: Sequence[tuple[int, int]], end: int, text: str) -> Prompt:
    """A prompt with the last token that covers the character in front of `end`."""
    covering = [index for index, (start, stop) in enumerate(spans) if start <= end - 1 < stop]
    if not covering:
        raise InvalidFact(case_id, f"no token covers the subject's last character in {text!r}")
    return Prompt(tuple(ids), covering[-1])


def _split(tokenizer, front: str, continuation: str) -> tuple[list[int], list[tuple[int, int]], list[int]]:
    """Token ids and spans of a text's front, and the ids behind. Raises UserError where a token holds parts of both."""
    ids, spans = _encode(tokenizer, front + continuation)
    behind = next((index for index, (_, stop) in enumerate(spans) if stop > len(front)), len(ids))
    if behind < len(ids) and spans[behind][0] < len(front):
        seam = f"{front[-12:]}|{continuation[:12]}"
        raise UserError(f"no token ends where the prompt does ({seam!r}): another prompt or joiner is needed")
    return ids[:behind], spans[:behind], ids[behind:]


_ANCHOR = "a"


def encode_pair(
    tokenizer, prompt: str, answer: str, joiner: str | None = None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of a prompt, and of an answer that continues it: of the whole text, split where the answer begins.

    `join` says what stands between them. Raises UserError for an answer without tokens, and where a token would hold
    the end of the prompt and the beginning of the answer.
    """
    front, continuation = join(prompt, answer, joiner)
    ids, _, rest = _split(tokenizer, front, continuation)
    if not answer.strip() or not rest:
        raise UserError(f"the answer {answer!r} has no tokens")
    return tuple(ids), tuple(rest)


def encode_answers(
    tokenizer, prompt: str, answers: Sequence[str], joiner: str | None = None
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """As `encode_pair`, for several answers of one prompt. Raises UserError where its tokens change with the answer."""
    pairs = [encode_pair(tokenizer, prompt, answer, joiner) for answer in answers]
    if len({ids for ids, _ in pairs}) > 1:
        raise UserError(f"the tokens of {prompt[-40:]!r} change with the answer behind it: another prompt is needed")
    return pairs[0][0], [answer for _, answer in pairs]


def end_of_text(tokenizer) -> int:
    """The token that ends a text. Raises UserError where the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-text token (eos_token)")
    return tokenizer.eos_token_id


def encode_word(tokenizer, word: str) -> tuple[int, ...]:
    """Token ids of a word behind a space, as text has it."""
    return encode_pair(tokenizer, _ANCHOR, word, " ")[1]


def first_tokens(tokenizer, word: str) -> set[int]:
    """The tokens that are a word, in every way that text has it: with and without a space in front, as it is written,
    in lower case and capitalised (of single letters a and i alone: any other capital is an initial). The first token
    behind a space where none is all of it.
    """
    found = set()
    for form in {word, word.lower(), word.capitalize() if len(word) > 1 or word in ("a", "i") else word}:
        anchor = '"' if form[0].isalnum() else _ANCHOR  # what does not merge with the word behind it
        encoding = tokenizer(f"{anchor}{form}", return_offsets_mapping=True, add_special_tokens=False)
        spans = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        glued = [(token, start) for token, (start, stop) in spans if stop > len(anchor)]
        spaced = encode_word(tokenizer, form)
        found |= {spaced[0]} if len(spaced) == 1 else set()
        found |= {glued[0][0]} if len(glued) == 1 and glued[0][1] == len(anchor) else set()
    return found or {encode_word(tokenizer, word)[0]}


@dataclass(frozen=True)
class Request:
    """A fact with its rewriting prompts (the first one bare) and its KL prompt, tokenised."""

    case_id: str
    prompts: tuple[Prompt, ...]
    kl_prompt: Prompt
    answer: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all prompts, with all but the answer's last behind those that are rewritten."""
        return len(self.kl_prompt.ids) + sum(len(prompt.ids) + len(self.answer) - 1 for prompt in self.prompts)

    @property
    def suffix(self) -> int:
        """Tokens of the bare prompt from the subject's last on."""
        return len(self.prompts[0].ids) + len(self.answer) - 1 - self.prompts[0].subject_last

    @classmethod
    def of(cls, tokenizer, fact: Fact, prefixes: Sequence[str]) -> "Request":
        """Tokenise a fact under every prefix. Raises InvalidFact where the subject cannot be located."""
        return cls(
            fact.case_id,
            tuple(locate(tokenizer, fact, prefix) for prefix in prefixes),
            locate_subject(tokenizer, fact),
            encode_pair(tokenizer, fact.prompt, fact.target_new, fact.joiner)[1],
        )
