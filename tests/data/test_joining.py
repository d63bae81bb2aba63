"""What stands between a prompt and its answer."""

import pytest

from jeep.data.joining import join


@pytest.mark.parametrize(
    ("prompt", "answer", "text"),
    [
        ("Paris lies in", "France", "Paris lies in France"),
        ("Where is Paris?", "France", "Where is Paris? France"),
        ("Answer:", "42", "Answer: 42"),
        ("Paris lies in ", "France", "Paris lies in France"),
        ("Paris lies in  ", " France ", "Paris lies in  France"),
        ("Paris\n", "France", "Paris\nFrance"),
        ("Paris:\t", "France", "Paris:\tFrance"),
        ('He said "', "France", 'He said "France'),
        ('He said "yes"', "loudly", 'He said "yes" loudly'),
        ("It's Ann's", "dog", "It's Ann's dog"),
        ("« ", "oui", "« oui"),
        ("(", "France", "(France"),
        ("„", "ja", "„ja"),
        ("„Faust“", "lesen", "„Faust“ lesen"),
        ("»Faust«", "lesen", "»Faust« lesen"),
        ("He said “", "yes", "He said “yes"),
        ("«oui» et «", "non", "«oui» et «non"),
        ("Paris\n\n", "France", "Paris\n\nFrance"),
        ("¿", "Dónde", "¿Dónde"),
        ("法国的首都是", "巴黎", "法国的首都是巴黎"),
        ("フランスの首都は", "パリ", "フランスの首都はパリ"),
        ("答案：", "Paris", "答案：Paris"),
        ("The capital is", "巴黎", "The capital is巴黎"),
        ("ปารีสอยู่ใน", "ฝรั่งเศส", "ปารีสอยู่ในฝรั่งเศส"),
        ("파리는", "프랑스", "파리는 프랑스"),
        ("Париж находится в", "Франции", "Париж находится в Франции"),
        ("I feel 😀", "today", "I feel 😀 today"),
        ("Poem:", "one\ntwo", "Poem: one\ntwo"),
        ("", "France", "France"),
    ],
)
def test_the_join_is_that_of_the_language(prompt, answer, text):
    bare, continuation = join(prompt, answer)
    assert bare + continuation == text
    assert bare == prompt.rstrip(" ")


@pytest.mark.parametrize(
    ("joiner", "text"), [("", "Paris isFrance"), (" ", "Paris is France"), (" — ", "Paris is — France")]
)
def test_a_record_may_say_what_joins(joiner, text):
    assert "".join(join("Paris is", "France", joiner)) == text


def test_spaces_at_the_end_of_a_prompt_stand_before_the_answers_tokens():
    assert join("Paris is ", "France") == ("Paris is", " France")
    assert join("Paris is ", "France", "") == ("Paris is", " France")
