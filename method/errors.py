"""The two errors that the scripts turn into one line."""


class InputError(ValueError):
    """Something that the user gave us cannot be used; the message says what to do."""


class Failure(RuntimeError):
    """Something went wrong while running; the message says what to do."""
