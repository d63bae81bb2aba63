"""The one exception a user is meant to see: its text says what is wrong, where, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError


class UserError(Exception):
    """Bad input or configuration. The command line prints its message in one line and exits with status 2."""


class NotFinite(UserError):
    """What a method makes has left the finite numbers: a model may have broken down, and no input is to blame."""


def one_line(error: BaseException, most: int | None = 200) -> str:
    """The beginning of what an error says, without its line breaks."""
    return " ".join(str(error).split())[:most]


@contextmanager
def blamed_on(what: object) -> Iterator[None]:
    """Whatever others' code raises over a user's file in a block is a UserError in one line, beginning with `what`."""
    try:
        yield
    except (UserError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust code is no Exception
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            raise UserError(f"out of memory ({one_line(error)})") from error
        plain = isinstance(error, OSError | ValueError | RuntimeError)
        reason = "" if plain and str(error) else f"{type(error).__name__}: "
        raise UserError(f"{what}: {reason}{one_line(error)}") from error


def complaint(error: ValidationError) -> str:
    """What is wrong with a configuration, in one line: where, and what. Unknown keys come first: most are misspelt."""
    first = min(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")
    parts = map(str, first["loc"])
    where = ".".join(part if part.isprintable() else repr(part) for part in parts)
    message = " ".join(first["msg"].removeprefix("Value error, ").split())
    what = "unknown key" if first["type"] == "extra_forbidden" else message
    return f"{where}: {what}" if where else what
