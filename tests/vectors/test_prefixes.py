"""The random prefixes: how many, how long, from which openers."""

import pytest

from jeep.__main__ import main
from jeep.common.settings import prefix_kind
from jeep.editors import load_editor
from jeep.vectors import prefixes as module
from jeep.vectors.prefixes import OPENERS, sample_prefixes


def test_the_bare_prompt_comes_first_and_each_text_ends_before_the_prompt(trained):
    found = sample_prefixes(trained, seed=0)
    assert found[0] == "{}"
    assert len(found) == 1 + 5
    for opener, text in zip(OPENERS, found[1:], strict=True):
        assert text.startswith(opener)
        assert text.endswith(". {}")
        assert text.count("{") == 1


def test_romes_own_are_ten_of_five_tokens_and_ten_of_ten(trained, monkeypatch):
    """Appendix D.3; counted by the tokens drawn for each text."""
    drawn = []
    original = module.torch.multinomial
    monkeypatch.setattr(module.torch, "multinomial", lambda *a, **k: drawn.append(1) or original(*a, **k))
    kinds = load_editor("rome", {"layer": 0, "optimization": {"steps": 2}}).prefixes
    assert kinds == ("10x5", "10x10")
    found = sample_prefixes(trained, 0, [prefix_kind(kind) for kind in kinds])
    assert len(found) == 1 + 20
    assert len(drawn) == 10 * 5 + 10 * 10
    assert [text.split()[0].rstrip(".") in OPENERS for text in found[1:]] == [True] * 20


def test_the_seed_decides(trained):
    one, two, other = (sample_prefixes(trained, seed) for seed in (0, 0, 1))
    assert one == two
    assert one != other


@pytest.mark.parametrize("kind", ["5", "x10", "0x5", "5x", "axb"])
def test_a_kind_that_is_none_is_one_line(kind, capsys):
    assert main(["prefixes", "--model", "m", "--kinds", kind, "--out", "o"]) == 2
    assert f"{kind!r}: expected the number of texts and of tokens, such as 5x10" in capsys.readouterr().err
