"""The `snakemake` command of this environment: Snakemake, with targets allowed behind options that take a list.

Snakemake's own command takes every word behind `--resources gpu=4` or `--configfile FILE` for one more of the list, and
stops at `all`. Installed after Snakemake, this entry point puts words that cannot be of the list in front, where
Snakemake reads them as targets.
"""

import argparse
import sys
from collections.abc import Callable, Mapping

_ASSIGNED = ("groups", "group_components")
"""Lists of assignments whose help does not say so."""


def _form(action: argparse.Action) -> Callable[[str], bool] | None:
    """Whether a word can be of an option's list; None where any can, or where the option takes no list."""
    if action.nargs not in ("+", "*") or not action.option_strings:
        return None
    if action.dest == "configfile":
        return lambda word: word.endswith((".yaml", ".yml", ".json"))
    if action.choices:
        return lambda word: word in action.choices
    assigned = "=" in str(action.metavar) or action.dest in _ASSIGNED
    return (lambda word: "=" in word) if assigned else None


def _lists(parser: argparse.ArgumentParser) -> Mapping[str, Callable[[str], bool]]:
    """The parser's options that take a list of words of a form of their own, by every way to write them."""
    forms = {name: _form(action) for action in parser._actions for name in action.option_strings}
    return {name: form for name, form in forms.items() if form is not None}


def targets_first(arguments: list[str], parser: argparse.ArgumentParser | None = None) -> list[str]:
    """The arguments with the targets that stand behind such lists moved to the front."""
    if parser is None:
        from snakemake.cli import get_argument_parser

        parser = get_argument_parser()
    lists = _lists(parser)
    targets: list[str] = []
    others: list[str] = []
    belongs = None
    for number, argument in enumerate(arguments):
        if argument == "--":
            others += arguments[number:]
            break
        if argument.startswith("-"):
            belongs = lists.get(argument)
        elif belongs and not belongs(argument):
            targets.append(argument)
            continue
        others.append(argument)
    return targets + others


def main() -> None:
    """Run Snakemake on this process's arguments."""
    from snakemake.cli import main as snakemake

    snakemake(targets_first(sys.argv[1:]))
