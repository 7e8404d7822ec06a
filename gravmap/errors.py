"""Exceptions for errors that the user can correct, each with the exit status of the command line.

The message says what was found and where; the hint says what to do next. Bugs raise other exceptions.
"""

from __future__ import annotations

import re


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


def out_of_memory(
    error: BaseException,
    hint: str = "Reduce the --batch-size, the --size or the number of --window options, or choose a smaller region.",
) -> DeviceError | None:
    """Return the DeviceError that says what an out-of-memory error says; None for any other error.

    Parameters
    ----------
    error : BaseException
        Of Python, or of torch on a CPU or a GPU. torch has an exception for its own allocator of GPU memory only. The
        libraries that allocate beside it (CUDA, cuBLAS, cuDNN, NCCL) and the CPU raise a RuntimeError, which is
        recognised by its text.
    hint : str
        What to do next.

    Examples
    --------
    >>> from gravmap.errors import out_of_memory
    >>> out_of_memory(RuntimeError("CUDA error: out of memory")).message
    'Not enough memory: CUDA error: out of memory.'
    >>> out_of_memory(RuntimeError("shapes do not match")) is None
    True
    """
    if not isinstance(error, RuntimeError | MemoryError):
        return None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if _OUT_OF_MEMORY.search(line)]
    if not said and not isinstance(error, MemoryError):
        return None
    text = next(iter(said or lines), "allocation failed")
    request = text.partition("can't allocate memory")[2].lstrip(": ")
    return DeviceError(f"Not enough memory: {(request or text).rstrip('.')}.", hint)


_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|_STATUS_ALLOC_FAILED", re.IGNORECASE)
