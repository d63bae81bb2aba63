"""The one exception a user is meant to see: its text says what is wrong, where, and what to do."""


class UserError(Exception):
    """Bad input or configuration. The command line prints its message in one line and exits with status 2."""
