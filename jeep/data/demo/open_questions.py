"""Open questions with their answers, made from the first sentences of Wikipedia articles.

zsRE measures locality on questions of another kind and source than the edited ones (Natural Questions): lower-case,
about anything, answered by a name or a term. The demo's are of that kind: "who was an English theologian?".
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from jeep.common.storage import read_json
from jeep.data.facts import Question

_ADDITIONS = (
    "who|which|where|known|usually|often|with|and (?:is|was|the|an?)|an?|the|located|born|best|considered|generally|"
    "typically|commonly|especially|including|such|used|made|found|native|based|founded|formed|one|in|from|having|whose|as"
)
"""A definition ends with its sentence, or before what only adds to it: a list is not cut in two."""
_FIRST_SENTENCE = re.compile(
    r"(?:(?:An?|The) )?(?P<term>[^,.;()]{3,40}?) (?P<verb>is|was|are|were) "
    rf"(?P<definition>(?:an?|the) [^,.;:()\n]{{15,90}})(?=[.;(]| \(|, (?:{_ADDITIONS})\b)"
)
_PLACES = re.compile(r"\b(?:capital|city|town|country|county|state|province|republic|airport|element)\b")
"""Words of the edited questions: a definition that has one would ask what an edit asks."""


def _question(title: str, entry: Mapping[str, str]) -> Question | None:
    """What an article's first sentence defines, as a question; None where it defines something else, or a place."""
    match = _FIRST_SENTENCE.match(entry["extract"])
    if match is None or match["term"].lower() != title.lower() or _PLACES.search(match["definition"]):
        return None
    given_away = any(word.lower() in match["definition"].lower() for word in re.findall(r"\w{4,}", title))
    if given_away:
        return None
    asks = "who" if entry.get("topic") == "People" else "what"
    return Question(f"{asks} {match['verb']} {match['definition'].strip()}?", match["term"])


def open_questions(path: Path) -> list[Question]:
    """The questions that a file of articles (title: extract, topic) answers, each with one answer, in its order."""
    found = [question for title, entry in read_json(path).items() if (question := _question(title, entry))]
    answers: dict[str, set[str]] = defaultdict(set)
    for question in found:
        answers[question.prompt].add(question.answer)
    return [question for question in found if len(answers[question.prompt]) == 1]


def mentions(question: Question, names: Sequence[str]) -> bool:
    """Whether a question or its answer has one of these names in it, as whole words."""
    text = f"{question.prompt} {question.answer}"
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) for name in names)
