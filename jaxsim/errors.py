"""The error that every mistake of a user becomes."""


class InputError(ValueError):
    """Something the user supplied cannot be used; the message is one line that says what to do."""
