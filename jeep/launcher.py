"""The `snakemake` command of this environment: Snakemake, with targets allowed behind --resources.

Snakemake's own command takes every word behind `--resources gpu=4` for another resource, and stops at `all`. Installed
after Snakemake, this entry point puts such words in front, where Snakemake reads them as targets.
"""

import sys

_TAKES_ASSIGNMENTS = ("--resources", "--res")


def targets_first(arguments: list[str]) -> list[str]:
    """The arguments with the targets that stand behind resources moved to the front."""
    targets: list[str] = []
    others: list[str] = []
    inside = False
    for argument in arguments:
        if argument.startswith("-"):
            inside = argument in _TAKES_ASSIGNMENTS
        elif inside and "=" not in argument:
            targets.append(argument)
            continue
        others.append(argument)
    return targets + others


def main() -> None:
    """Run Snakemake on this process's arguments."""
    from snakemake.cli import main as snakemake

    snakemake(targets_first(sys.argv[1:]))
