"""The two errors that the scripts turn into one line, and what is no error yet."""

ROUNDING = 1e-4  # how far beyond [0, 1] a value may be by rounding


class InputError(ValueError):
    """Something that the user gave us cannot be used; the message says what to do."""


class Failure(RuntimeError):
    """Something went wrong while running; the message says what to do."""
