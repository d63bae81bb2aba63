"""The one exception a user is meant to see: its text says what is wrong, where, and what to do."""

from pydantic import ValidationError


class UserError(Exception):
    """Bad input or configuration. The command line prints its message in one line and exits with status 2."""


def complaint(error: ValidationError) -> str:
    """What is wrong with a configuration, in one line: where, and what. Unknown keys come first: most are misspelt."""
    first = min(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
