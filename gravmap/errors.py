"""The errors gravmap raises on purpose; each carries the exit status of the command line.

A message says what was found and where; the hint says what to do next. A bug is never one of these.
"""

from __future__ import annotations


class GravmapError(Exception):
    """Something went wrong that the user can understand and act on.

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
        # The default would rebuild from args alone and lose the hint between training processes.
        return type(self), (self.message, self.hint)


class OptionError(GravmapError):
    """An option's value makes no sense (a box with west >= east, a height without a unit)."""

    exit_status = 2


class InputError(GravmapError):
    """An input is missing, unreadable or not what it should be; or a leak check failed."""

    exit_status = 3


class DownloadError(GravmapError):
    """A download failed, or what came is not what was asked for."""

    exit_status = 4


class DeviceError(GravmapError):
    """The device asked for is not there, or its memory is too small."""

    exit_status = 5


def out_of_memory_message(error: BaseException) -> str | None:
    """How memory ran out, in a line; None when that is not what an error says.

    torch has an error for a GPU, told by its name here as the data wing does not load torch, and none for a CPU.
    """
    said = str(error)
    _, found, wanted = said.partition("can't allocate memory")
    if found or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return next(iter((wanted.lstrip(": ") or said).splitlines()), "allocation failed")
    return None
