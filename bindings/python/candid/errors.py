"""Exceptions, one class per status of the C library; the message is the library's sentence, unchanged."""

from __future__ import annotations


class CandidError(Exception):
    """A call into the library failed.

    Attributes
    ----------
    status : int
        The ``candid_status`` of ``candid.h``.
    message : str
        The sentence that says what was expected, what was found and where.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[CandidError], tuple[int, str]]:
        return type(self), (self.status, self.message)


class ArgumentError(CandidError, ValueError):
    """A parameter is out of range or does not fit the model."""


class FileError(CandidError, OSError):
    """A file cannot be opened, read or written."""


class FormatError(CandidError, ValueError):
    """A file or a configuration is damaged, contradicts itself or is not what it should be."""


class UnsupportedError(CandidError):
    """Well-formed, but this build cannot run it."""


class OutOfMemoryError(CandidError, MemoryError):
    """An allocation failed."""


class ContextLengthError(CandidError):
    """Prompt and requested tokens do not fit in the context window."""


class CancelledError(CandidError):
    """The call was stopped: its stream or its model was closed."""


class InternalError(CandidError, RuntimeError):
    """A bug or a failing third-party library; please report it."""


BY_STATUS: dict[int, type[CandidError]] = {
    1: ArgumentError,
    2: FileError,
    3: FormatError,
    4: UnsupportedError,
    5: OutOfMemoryError,
    6: ContextLengthError,
    7: CancelledError,
    8: InternalError,
}


def argument_error(message: str) -> ArgumentError:
    return ArgumentError(1, message)
