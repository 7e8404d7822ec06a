"""Training curves as PNG, CSV and TensorBoard event files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from gravmap.errors import OptionError
from gravmap.files import atomic_path
from gravmap.plotting import BLUE, GREY, INK, MUTED, VERMILLION

TRAINING, TUNING, RATE = BLUE, VERMILLION, MUTED


def draw_curves(history: list[dict[str, Any]], path: Path, title: str = "") -> None:
    """Plot loss, learning rate and FWIoU; mark the best epoch and the switch of the optimizer.

    Parameters
    ----------
    history : list of dict
        One row per epoch: epoch, phase, loss, lr, train_fwiou, tune_loss, tune_fwiou (None if not evaluated).
    path : Path
        The PNG to write.
    title : str
        Title of the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.5, 6.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    marker = "o" if len(history) < 30 else None
    for axes, quantity in ((above, "loss"), (below, "fwiou")):
        names = ("loss" if quantity == "loss" else "train_fwiou", f"tune_{quantity}")
        for name, colour, width in zip(names, (TRAINING, TUNING), (1.4, 1.8), strict=True):
            taken = [(row["epoch"], row[name]) for row in history if row.get(name) is not None]
            if taken:
                axes.plot(*zip(*taken, strict=True), color=colour, lw=width, marker=marker, ms=3, label=_LABELS[name])
        axes.grid(alpha=0.3)
    # Under hard example mining that of the hardest pixels, which rises early in a run, while the keep fraction falls.
    above.set_ylabel("loss")
    above.set_ylim(bottom=0)
    rate = above.twinx()
    rate.plot([row["epoch"] for row in history], [row["lr"] for row in history], color=RATE, lw=1, ls="--")
    rate.set_ylabel("learning rate (dashed)", color=RATE)
    _scale_rate(rate, [row["lr"] for row in history])
    _mark_switch(above, below, history)
    _mark_kept(below, history)
    below.set_ylabel("FWIoU")
    if len(history) == 1:
        # Inside the axes: above them is the legend.
        above.text(0.02, 0.05, "One epoch: points, no curves yet", transform=above.transAxes, fontsize=8, color=GREY)
        below.set_xlim(0, 2)
    reached = [row[name] for row in history for name in ("train_fwiou", "tune_fwiou") if row[name] is not None]
    below.set_ylim(0, min(1.0, 1.3 * max([*reached, 0.1])))
    below.set_xlabel("epoch")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (above, below):
        # Above the axes, clear of the curves.
        if axes.lines:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


_LABELS = {
    "loss": "training crops",
    "tune_loss": "tuning blocks (bodies of all sizes alike)",
    "train_fwiou": "training crops, as changed, while learning",
    "tune_fwiou": "tuning blocks",
}


def _scale_rate(axes: Any, rates: list[float]) -> None:
    """Set a linear axis from zero, or a logarithmic one if the learning rate falls by more than a factor of 150."""
    positive = [rate for rate in rates if rate > 0]
    if positive and max(positive) > 150 * min(positive):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def _mark_switch(above: Any, below: Any, history: list[dict[str, Any]]) -> None:
    """Draw a line between the last epoch of Adam and the first of SGD."""
    first = next((row["epoch"] for row in history if row.get("phase") == "sgd"), None)
    if first is None:
        return
    for axes in (above, below):
        axes.axvline(first - 0.5, color=INK, lw=1)
    _write_beside(above, first - 0.5, "Adam, then SGD", history, height=0.03)


def _mark_kept(axes: Any, history: list[dict[str, Any]]) -> None:
    """Draw a dotted line at the best epoch."""
    scored = [(row["tune_fwiou"], row["epoch"]) for row in history if row["tune_fwiou"] is not None]
    if not scored:
        axes.text(0.5, 0.5, "no labelled tuning blocks", ha="center", transform=axes.transAxes, color=GREY)
        return
    score, epoch = max(scored, key=lambda pair: (pair[0], -pair[1]))
    axes.axvline(epoch, color=TUNING, lw=0.8, ls=":")
    _write_beside(axes, epoch, f"kept: epoch {epoch}, FWIoU {score:.3f}", history)


def _write_beside(axes: Any, epoch: float, text: str, history: list[dict[str, Any]], height: float = 0.97) -> None:
    """Write text at a height of the axes, on the side of a vertical line with more space."""
    right = epoch < (history[0]["epoch"] + history[-1]["epoch"]) / 2
    axes.annotate(
        text,
        (epoch, height),
        xycoords=("data", "axes fraction"),
        xytext=(4 if right else -4, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top" if height > 0.5 else "bottom",
        fontsize=8,
    )


def history_csv(history: list[dict[str, Any]]) -> str:
    """Return the history as the text of metrics.csv, one row per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


FOLDER = "tensorboard"


class TensorBoardWriter:
    """Writes one point per curve and epoch to TensorBoard event files.

    Parameters
    ----------
    folder : Path
        Folder of the run; files are written to its subfolder `tensorboard`.
    epoch : int
        First epoch to write; points of an interrupted run from there on are purged.

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
        """Write the values of an epoch, named training/..., tuning/... and lr."""
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in ("epoch", "seconds"):
                self._writer.add_scalar(_curve(name), value, row["epoch"])
        self._writer.flush()


def require_tensorboard() -> None:
    """Check that TensorBoard is installed.

    Raises
    ------
    OptionError
        TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise OptionError(
            "--tensorboard needs the package tensorboard.", "Install it: pip install 'gravmap[tensorboard]'."
        ) from None


def _curve(name: str) -> str:
    group, _, quantity = name.partition("_")
    if group == "tune":
        return f"tuning/{quantity}"
    return f"training/{quantity or name}" if name != "lr" else name
