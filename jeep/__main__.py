"""The command line: one sub-command for each stage of the pipeline, each usable on its own."""

import argparse
import logging
import sys
from contextlib import nullcontext

from pydantic import ValidationError

from jeep.common.devices import make_repeatable, own_device
from jeep.common.errors import UserError, complaint
from jeep.stages import STAGES
from jeep.stages.options import add_command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jeep", description="Joint knowledge editing: the stages of the pipeline.")
    commands = parser.add_subparsers(required=True, metavar="STAGE")
    for function in STAGES:
        add_command(commands, function)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one stage. Returns the exit status: 2 after an error that the user can mend, told in one line."""
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "datasets", "transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A device named by the user is taken as named; "auto" and "cuda" mean any free one.
    asked = getattr(args, "device", None)
    device = own_device() if asked in ("auto", "cuda") else nullcontext(asked if asked and asked != "cpu" else None)
    try:
        with device as accelerator:
            if accelerator is not None:
                make_repeatable()
            args.run(args)
    except (UserError, OSError, ValidationError) as error:
        text = complaint(error) if isinstance(error, ValidationError) else str(error)
        sys.stderr.write(f"error: {text}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
