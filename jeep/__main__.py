"""The command line: one sub-command for each stage of the pipeline, each usable on its own."""

import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

from jeep.common.devices import make_repeatable, own_device
from jeep.common.errors import UserError, complaint
from jeep.stages import STAGES

app = App(
    "jeep",
    help="Joint knowledge editing: the stages of the pipeline.",
    default_parameter=Parameter(negative=()),
    result_action="return_value",
)
for stage in STAGES:
    app.command(stage)


def _run(arguments: Sequence[str] | None) -> None:
    """Run one stage, on a device of its own."""
    command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    # A device named by the user is taken as named; "auto" and "cuda" mean any free one.
    given = (getattr(value, "device", None) for value in bound.arguments.values())
    asked = next(filter(None, given), bound.arguments.get("device"))
    device = own_device() if asked in ("auto", "cuda") else nullcontext(asked if asked and asked != "cpu" else None)
    with device as accelerator:
        if accelerator is not None:
            make_repeatable()
        command(*bound.args, **bound.kwargs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage. Returns the exit status: 2 after an error that the user can mend, told in one line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "datasets", "transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        _run(arguments)
    except (UserError, OSError, ValidationError, CycloptsError) as error:
        text = complaint(error) if isinstance(error, ValidationError) else str(error)
        sys.stderr.write(f"error: {text}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
