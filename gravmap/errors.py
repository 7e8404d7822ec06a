"""Exceptions for errors that the user can correct, each with the exit status of the command line.

The message says what was found and where; the hint says what to do next. Bugs raise other exceptions.
"""

from __future__ import annotations


class GravmapError(Exception):
    """Base class of the errors that the user can correct.

    Parameters
    ----------
    message : str
        What was found, and where: one plain sentence.
    hint : str, optional
        What to do next: one plain sentence or a command.
    """

    exit_status = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type[GravmapError], tuple[str, str | None]]:
        # The default rebuilds from args alone, which loses the hint between training processes.
        return type(self), (self.message, self.hint)


class OptionError(GravmapError):
    """The value of an option is invalid (a box with west >= east, a height without a unit)."""

    exit_status = 2


class InputError(GravmapError):
    """An input is missing, unreadable or invalid; or a leak check failed."""

    exit_status = 3


class DownloadError(GravmapError):
    """A download failed, or the downloaded file is not the expected one."""

    exit_status = 4


class DeviceError(GravmapError):
    """The requested device is not available, or its memory is too small."""

    exit_status = 5


def out_of_memory_message(error: BaseException) -> str | None:
    """One line that describes an out-of-memory error; None for any other error.

    torch has an exception for GPU memory, recognised by its name here because this module does not import torch, and
    none for CPU memory.
    """
    message = str(error)
    _, found, request = message.partition("can't allocate memory")
    if found or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return next(iter((request.lstrip(": ") or message).splitlines()), "allocation failed")
    return None
