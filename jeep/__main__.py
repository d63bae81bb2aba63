"""The command line: one sub-command for each stage of the pipeline, each usable on its own."""

import logging
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import get_args, get_type_hints

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

from jeep.common.devices import cards, make_repeatable, own_devices
from jeep.common.errors import UserError, complaint, one_line
from jeep.common.locks import held
from jeep.common.stopping import stoppable
from jeep.common.storage import clear_scratch
from jeep.stages import STAGES
from jeep.stages.options import WRITES

app = App(
    "jeep",
    help="Joint knowledge editing: the stages of the pipeline. --traceback shows where an unexpected error came from.",
    default_parameter=Parameter(negative=()),
    result_action="return_value",
)
for stage in STAGES:
    app.command(stage)


def written(stage: Callable) -> list[str]:
    """The arguments of a stage that name what it writes."""
    return [name for name, kind in get_type_hints(stage, include_extras=True).items() if _marked(kind)]


def _marked(kind: object) -> bool:
    return kind is WRITES or any(map(_marked, get_args(kind)))


def _run(arguments: Sequence[str] | None) -> None:
    """Run one stage, on a device of its own."""
    command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    if command not in STAGES:  # --help, --version
        command(*bound.args, **bound.kwargs)
        return
    # A device named by the user is taken as named; "auto" and "cuda" mean any free one, "balanced:2" any two.
    given = (getattr(value, "device", None) for value in bound.arguments.values())
    asked = next(filter(None, given), bound.arguments.get("device")) or "cpu"
    own = own_devices(cards(asked)) if cards(asked) else nullcontext(None if asked == "cpu" else asked)
    out = bound.arguments.get("out")
    with own as accelerator, held(out) if out else nullcontext():
        for path in filter(None, map(bound.arguments.get, written(command))):
            clear_scratch(path)
        if accelerator is not None:
            make_repeatable()
        command(*bound.args, **bound.kwargs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage. Returns the exit status: 2 after an error that the user can mend, told in one line.

    1 after any other, also in one line, with the file that has its traceback; --traceback shows it at once.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    shown = "--traceback" in arguments
    arguments = [word for word in arguments if word != "--traceback"]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "datasets", "transformers", "fontTools"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with stoppable():
            _run(arguments)
    except (UserError, OSError, ValidationError, CycloptsError) as error:
        text = complaint(error) if isinstance(error, ValidationError) else str(error)
        _say(f"error: {text}")
        return 2
    except Exception as error:
        if shown:
            raise
        reason, traceback_is = one_line(error), "shown with --traceback"
        with suppress(OSError):  # the disk may be full
            traceback_is = f"in {_keep_traceback(arguments)}"
        _say(f"error: unexpected {type(error).__name__} ({reason}); its traceback is {traceback_is}")
        return 1
    return 0


def _say(line: str) -> None:
    """A line of its own on stderr, also where a progress bar stands."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


def _keep_traceback(arguments: Sequence[str]) -> Path:
    """The traceback of the error that is being handled in a file: among the logs, where there are some."""
    folder = Path("logs/tracebacks") if Path("logs").is_dir() else Path(tempfile.mkdtemp(prefix="jeep-"))
    folder.mkdir(exist_ok=True)
    path = folder / f"{arguments[0] if arguments else 'jeep'}-{os.getpid()}.txt"
    path.write_text(f"jeep {shlex.join(arguments)}\n\n{traceback.format_exc()}", encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
