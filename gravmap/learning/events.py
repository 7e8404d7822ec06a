"""TensorBoard's event files, for those who have it: the rows of metrics.csv as curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gravmap.errors import OptionError

FOLDER = "tensorboard"


class Events:
    """Writes one point per curve and epoch.

    Parameters
    ----------
    folder : Path
        The run's folder; files go to `tensorboard` in it.
    epoch : int
        The first epoch to be written: points an earlier attempt left from there on are taken back.

    Raises
    ------
    OptionError
        TensorBoard is not installed.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / FOLDER), purge_step=epoch)

    def write(self, row: dict[str, Any]) -> None:
        """Add an epoch's numbers, named training/..., tuning/... and lr."""
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in ("epoch", "seconds"):
                self._writer.add_scalar(_curve(name), value, row["epoch"])
        self._writer.flush()


def require_tensorboard() -> None:
    """Refuse to begin what could not be written.

    Raises
    ------
    OptionError
        TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise OptionError(
            "--tensorboard needs the package tensorboard.", "pip install 'gravmap[tensorboard]' gets it."
        ) from None


def _curve(name: str) -> str:
    group, _, quantity = name.partition("_")
    if group == "tune":
        return f"tuning/{quantity}"
    return f"training/{quantity or name}" if name != "lr" else name
