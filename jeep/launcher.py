"""The `snakemake` command of this environment: Snakemake, with targets allowed behind options that take a list.

Snakemake's own command takes every word behind `--resources gpu=4` or `--configfile FILE` for one more of the list, and
stops at `all`. Installed after Snakemake, this entry point puts words that cannot be of the list in front, where
Snakemake reads them as targets. Jobs run the Python of this environment, also where none is activated.
"""

import argparse
import logging
import os
import re
import sys
from pathlib import Path

_ASSIGNED = ("groups", "group_components")
"""Lists of assignments whose help does not say so."""


def _belongs(action: argparse.Action, word: str) -> bool:
    """Whether a word can be of an option's list: by its choices, or by the form that its values have."""
    if action.dest == "configfile":
        return word.endswith((".yaml", ".yml", ".json")) and not word.startswith("results/")
    if action.choices:
        return word in action.choices
    assigned = "=" in str(action.metavar) or action.dest in _ASSIGNED
    return "=" in word or not assigned


def targets_first(arguments: list[str], parser: argparse.ArgumentParser | None = None) -> list[str]:
    """The arguments with all targets moved to the front, where one stands behind a list that would swallow it."""
    if parser is None:
        from snakemake.cli import get_argument_parser

        parser = get_argument_parser()
    options = {name: action for action in parser._actions for name in action.option_strings}
    end = arguments.index("--") if "--" in arguments else len(arguments)
    targets: list[str] = []
    others: list[str] = []
    action, taken, swallowed = None, False, False
    for word in arguments[:end]:
        if word.startswith("-"):
            action, taken = options.get(word), False
            others.append(word)
            continue
        if action is not None and action.nargs in ("+", "*"):
            if not _belongs(action, word):
                swallowed = True
                targets.append(word)
                continue
        elif action is None or action.nargs == 0 or taken:
            targets.append(word)
            continue
        taken = True
        others.append(word)
    return targets + others + arguments[end:] if swallowed else list(arguments)


def with_lines(arguments: list[str]) -> list[str]:
    """The arguments with the project's own log lines, unless others are asked for or nothing is run."""
    options = [word.partition("=")[0] for word in arguments]
    end = options.index("--") if "--" in options else len(options)
    dry = any(re.fullmatch(r"-[a-zA-Z]*n[a-zA-Z]*|--dry.*", word) for word in options[:end])
    if dry or {"--logger", "--verbose", "--help", "-h"} & {*options[:end]}:
        return arguments
    return [*arguments[:end], "--logger", "jeep", *arguments[end:]]


def main() -> None:
    """Run Snakemake on this process's arguments."""
    from snakemake.cli import main as snakemake
    from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

    from jeep import console

    if not os.environ.get("CONDA_PREFIX"):  # where one is active, a job's own takes its place on the PATH
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    logging.raiseExceptions = False  # of a log file that cannot be written; its lines are on the terminal too
    LoggerPluginRegistry().register_plugin("snakemake_logger_plugin_jeep", console)
    snakemake(with_lines(targets_first(sys.argv[1:])))
