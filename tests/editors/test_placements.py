"""Where each method optimises and what it writes, by hand."""

import pytest
from editing import SETTINGS, jeep
from pydantic import ValidationError

from jeep.common.settings import Optimization, Placement, Region, Site, TargetSpec
from jeep.editors import load_editor
from jeep.editors.jeep import HighRegion


def region(layers, **settings):
    """Settings of which none is a default or another one's."""
    return {"layers": layers, "clamp": 0.7, "prior": 30.0, "spread": "sqrt", "weight_decay": 0.2} | settings


def site(layer, place, position="subject_last", clamp=0.7, weight_decay=0.2, follow=False):
    return Site(layer=layer, place=place, position=position, clamp=clamp, weight_decay=weight_decay, follow=follow)


def placement(layers, edited, measured, number, position="subject_last", kind=Region, settings=None):
    written = kind.model_validate(region(layers) | (settings or {}))
    return Placement(region=written, edited=edited, position=position, measured=measured, site=number)


def of_region(name, **settings):
    return load_editor(name, {"optimization": {"steps": 2}, "region": region([3, 4]), **settings})


def test_memit_writes_one_region_against_its_last_layers_output():
    editor = of_region("memit")
    assert editor.sites == (site(4, "output"),)
    assert editor.placements == (placement([3, 4], "mlp", "output", 0),)
    assert editor.target_spec == TargetSpec(sites=editor.sites, optimization=Optimization(steps=2))
    attention = of_region("memit", region=region([3, 4], edited="attention"))
    assert attention.placements == (placement([3, 4], "attention", "output", 0, settings={"edited": "attention"}),)


def test_pmet_optimises_both_sub_layers_and_writes_one_or_both():
    editor, both = of_region("pmet"), of_region("pmet", write="both")
    assert editor.sites == both.sites == (site(4, "attention"), site(4, "mlp"))
    assert editor.placements == (placement([3, 4], "mlp", "mlp", 1),)
    assert both.placements == (placement([3, 4], "attention", "attention", 0), *editor.placements)
    assert both.covariances == ((3, "attention"), (4, "attention"), (3, "mlp"), (4, "mlp"))
    assert editor.written == (3, 4)


HIGH = {"clamp": 0.1, "prior": 50.0, "spread": "even", "weight_decay": 0.4}


@pytest.mark.parametrize(
    ("settings", "low", "high", "measured"),
    [
        ({}, "output", "output", ("output", "output")),
        ({"high": region([6], **HIGH, edited="attention")}, "output", "attention", ("output", "attention")),
        ({"preset": "release"}, "mlp", "attention", ("mlp", "mlp")),
    ],
    ids=["paper", "attention", "release"],
)
def test_jeep_writes_two_regions(settings, low, high, measured):
    """h* is read with δ′ in place in the paper's; the released code adds δ* to attention and measures the MLP."""
    known = {"optimization": {"steps": 2}, "low": region([3, 4]), "high": region([6], **HIGH)} | settings
    editor = load_editor("jeep", known)
    paper = "preset" not in settings
    sites = (site(4, low), site(6, high, "prediction", 0.1, 0.4, follow=paper))
    edited = known["high"].get("edited", "mlp")
    placements = (
        placement([3, 4], "mlp", measured[0], 0),
        placement([6], edited, measured[1], 1, "prediction", HighRegion, HIGH | {"edited": edited}),
    )
    assert editor.sites == sites
    assert editor.placements == placements
    assert load_editor("jeep", known | {"write": ["high"]}).placements == placements[1:]
    assert load_editor("jeep", known | {"write": ["low"]}).placements == placements[:1]


def test_rome_optimises_its_layers_output_as_it_goes():
    editor = load_editor("rome", {"optimization": {"steps": 2}, "layer": 5, "clamp": 0.7, "weight_decay": 0.2})
    assert editor.spec == TargetSpec(sites=(site(5, "mlp"),), optimization=Optimization(steps=2))
    assert editor.target_spec is None
    assert editor.covariances == ((5, "mlp"),)


def test_regions_of_jeep_stand_apart_and_something_is_written():
    low, high = region([3, 4]), region([5])
    assert jeep(low=low, high=high).written == (3, 4, 5), "the next layer is high enough"
    with pytest.raises(ValidationError, match=", the low region must lie below the high region"):
        jeep(low=low, high=region([4]))
    with pytest.raises(ValidationError, match=", a low or a high region is needed"):
        jeep(low=None, high=None)
    for settings in ({"high": None}, {"write": ["low"]}):
        with pytest.raises(ValidationError, match=", together: false needs two regions, and writes both"):
            jeep(together=False, **settings)


def test_fine_tuning_and_hyper_networks_write_their_layers_and_need_no_covariance():
    for name, layers in (("ft_wd", (2,)), ("mend", (1, 2, 3)), ("malmen", (1, 2, 3)), ("ultraedit", (2, 3))):
        editor = load_editor(name, SETTINGS[name])
        assert (editor.written, editor.covariances, editor.target_spec) == (layers, (), None)
        assert editor.searched_covariances({"layer": [1, 2]}) == []
    space = {"layer": [0, 7]}
    assert load_editor("rome", SETTINGS["rome"]).searched_covariances(space) == [(0, "mlp"), (1, "mlp"), (7, "mlp")]


def test_small_changes_are_not_added_up_in_half_precision():
    rome, memit = load_editor("rome", SETTINGS["rome"]), load_editor("memit", SETTINGS["memit"])
    assert [rome.precision(dtype) for dtype in ("float16", "bfloat16", "float32")] == ["float32", "bfloat16", "float32"]
    assert memit.precision("float16") == "float16"
    assert load_editor("rome", SETTINGS["rome"] | {"dtype": "bfloat16"}).precision("float32") == "bfloat16"
    with pytest.raises(ValidationError, match=", dtype: float16 loses this method's small changes; take bfloat16 or"):
        load_editor("rome", SETTINGS["rome"] | {"dtype": "float16"})
    assert load_editor("memit", SETTINGS["memit"] | {"dtype": "float16"}).precision("float32") == "float16"


def test_prefixes_are_numbers_of_texts_and_tokens():
    assert load_editor("memit", SETTINGS["memit"]).prefix_kinds == [(5, 10)]
    assert load_editor("rome", SETTINGS["rome"]).prefix_kinds == [(10, 5), (10, 10)]
