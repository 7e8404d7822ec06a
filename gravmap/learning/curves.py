"""The course of a run as a picture: loss and score over the epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gravmap.files import atomic_path


def draw_curves(history: list[dict[str, Any]], path: Path, title: str = "") -> None:
    """Draw loss, learning rate and scores on the tuning blocks into a PNG.

    Parameters
    ----------
    history : list of dict
        One per epoch: epoch, loss, lr, tune_pa, tune_mpa, tune_miou, tune_fwiou (None where not taken).
    path : Path
        The PNG to write.
    title : str
        Over the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(7.5, 6.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    marker = "o" if len(epochs) < 30 else None
    above.plot(epochs, [row["loss"] for row in history], color="#1b5e8c", marker=marker, ms=3, label="training loss")
    # Rises early in a run: the share of pixels counted falls from all to the worst 15 %.
    above.set_ylabel("loss of the worst pixels", color="#1b5e8c")
    above.grid(alpha=0.3)
    rate = above.twinx()
    rate.plot(epochs, [row["lr"] for row in history], color="#999999", lw=1, ls="--")
    rate.set_ylabel("learning rate", color="#777777")
    rate.set_ylim(bottom=0)
    for name, label, colour in (
        ("tune_fwiou", "FWIoU", "#b5442a"),
        ("tune_pa", "pixel accuracy", "#d9a441"),
        ("tune_mpa", "mean pixel accuracy", "#5a8f4e"),
        ("tune_miou", "mean IoU", "#7a5aa6"),
    ):
        scored = [(row["epoch"], row[name]) for row in history if row[name] is not None]
        if scored:
            wide = 2.2 if name == "tune_fwiou" else 1.2
            below.plot(*zip(*scored, strict=True), color=colour, lw=wide, marker=marker, ms=3, label=label)
    scored = [(row["tune_fwiou"], row["epoch"]) for row in history if row["tune_fwiou"] is not None]
    if scored:
        score, epoch = max(scored, key=lambda pair: (pair[0], -pair[1]))
        below.axvline(epoch, color="#b5442a", lw=0.8, ls=":")
        # Below the axes' top, on the side with more room.
        right = epoch < (epochs[0] + epochs[-1]) / 2
        below.annotate(
            f"kept: epoch {epoch}, FWIoU {score:.3f}",
            (epoch, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(4 if right else -4, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="top",
            fontsize=8,
        )
        below.legend(loc="lower center", bbox_to_anchor=(0.5, -0.33), ncols=4, frameon=False, fontsize=8)
    else:
        below.text(0.5, 0.5, "no labelled tuning blocks", ha="center", transform=below.transAxes, color="#777777")
    below.set_ylabel("score on tuning blocks")
    below.set_ylim(0, 1)
    below.set_xlabel("epoch")
    below.grid(alpha=0.3)
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    if title:
        figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
