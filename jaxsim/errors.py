"""The error for every mistake of a user."""


class InputError(ValueError):
    """Something that the user supplied cannot be used; the message is one line that says what to do."""
