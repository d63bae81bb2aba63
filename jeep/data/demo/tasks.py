"""Small multiple-choice tasks of the project's own data: what a model could do before an edit, and should do after it.

None needs a download. They are probes of damage, not benchmarks, and have signal in small models: of 200 questions each
SmolLM2 (135M) answers 53 % about facts, 81 % of next words, 95 % of agreement (by chance 50) and 62 % of sums.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from jeep.data.choices import Choice
from jeep.data.facts import Fact
from jeep.data.neighbours import relation_of

CHOICES = 4


def fact_choices(facts: Sequence[Fact], count: int, seed: int) -> list[Choice]:
    """Facts that are not edited, each as its prompt with its true object and three others of its relation.

    Facts of a relation with fewer objects have fewer choices. At most `count`, drawn without replacement.
    """
    objects: dict[str, set[str]] = defaultdict(set)
    for fact in facts:
        objects[relation_of(fact)].add(_true(fact))
    generator, found = random.Random(seed), []
    for fact in generator.sample(list(facts), len(facts)):
        others = sorted(objects[relation_of(fact)] - {_true(fact)})
        if others and len(found) < count:
            drawn = generator.sample(others, min(CHOICES - 1, len(others)))
            found.append(_shuffled(fact.prompt, _true(fact), drawn, generator))
    return found


def _true(fact: Fact) -> str:
    return fact.target_new if fact.target_true is None else fact.target_true


def _shuffled(text: str, right: str, wrong: Sequence[str], generator: random.Random) -> Choice:
    choices = [right, *wrong]
    generator.shuffle(choices)
    return Choice(text, tuple(choices), choices.index(right))


_WORD = re.compile(r"[a-z]{4,}")


def next_words(texts: Iterable[str], count: int, seed: int, *, shown: int = 25) -> list[Choice]:
    """The beginnings of articles, with the word that follows and three others: words of the same article, where it has
    them further on, so that the topic alone does not tell.

    The word is the first one of at least four lower-case letters behind `shown` words that was not among them. Articles
    without enough such words are passed over; the first `count` others are taken.
    """
    generator, found = random.Random(seed), []
    for text in texts:
        if len(found) == count:
            break
        words = text.split()
        place = next((n for n in range(shown, len(words)) if _is_new(words, n)), None)
        if place is None:
            continue
        right = words[place]
        later = Counter(words[n] for n in range(place + 1, len(words)) if _is_new(words, n))
        wrong = sorted(later.keys() - {right})
        if len(wrong) >= CHOICES - 1:
            text = " ".join(words[:place])
            found.append(_shuffled(text, right, generator.sample(wrong, CHOICES - 1), generator))
    return found


def _is_new(words: Sequence[str], place: int) -> bool:
    return bool(_WORD.fullmatch(words[place])) and words[place] not in words[:place]


_NOUNS = (
    "author authors", "pilot pilots", "surgeon surgeons", "farmer farmers", "manager managers", "teacher teachers",
    "senator senators", "dancer dancers", "officer officers", "guard guards", "skater skaters",
)  # fmt: skip
_LINKS = ("near", "behind", "beside", "in front of", "next to", "across from")
_VERBS = ("is are", "was were", "has have", "does do")


def agreement(count: int, seed: int) -> list[Choice]:
    """English verbs that agree with a subject and not with the noun beside them: "The authors near the pilot" are.

    Two choices. Of every four, one has each combination of singular and plural. After Marvin and Linzen (2018).
    """
    generator, found = random.Random(seed), []
    numbers = [(subject, other) for subject in (0, 1) for other in (0, 1)]
    while len(found) < count:
        subject, other = generator.sample([noun.split() for noun in _NOUNS], 2)
        link, verb = generator.choice(_LINKS), generator.choice(_VERBS).split()
        its, others = numbers[len(found) % len(numbers)]
        text = f"The {subject[its]} {link} the {other[others]}"
        found.append(_shuffled(text, verb[its], [verb[1 - its]], generator))
    return found


def arithmetic(count: int, seed: int) -> list[Choice]:
    """Sums of two numbers up to 50, behind two worked ones, with three wrong results that are near."""
    generator, found = random.Random(seed), []
    while len(found) < count:
        one, other = generator.randint(2, 50), generator.randint(2, 50)
        right = one + other
        near = {right - 10, right - 2, right - 1, right + 1, right + 2, right + 10}
        wrong = generator.sample(sorted(each for each in near if each > 0), CHOICES - 1)
        text = f"3 + 4 = 7\n12 + 9 = 21\n{one} + {other} ="
        found.append(_shuffled(text, str(right), list(map(str, wrong)), generator))
    return found
