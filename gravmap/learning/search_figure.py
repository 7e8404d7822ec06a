"""How decided a search is, epoch by epoch, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gravmap.files import atomic_path
from gravmap.plotting import BLUE, GREEN, GREY, INK, VERMILLION

QUANTITIES = {"alpha": ("operators", BLUE), "ratio": ("widths", VERMILLION), "beta": ("paths", GREEN)}
WEIGHTS, ARCHITECTURE = BLUE, VERMILLION


def draw_entropies(history: list[dict[str, Any]], path: Path, title: str = "") -> None:
    """Draw the mean entropies of the architecture's parameters, as shares of the uniform ones, over the losses.

    Parameters
    ----------
    history : list of dict
        One per epoch: epoch, phase, loss_weights, loss_choice (None before the second phase), and of alpha, ratio and
        beta ``entropy_NAME`` and ``entropy_NAME_uniform``, nats.
    path : Path
        The PNG to write.
    title : str
        Over the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.5, 6.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(history) < 30 else None
    shares: list[float] = [1.0]
    for name, (words, colour) in QUANTITIES.items():
        share = [row[f"entropy_{name}"] / row[f"entropy_{name}_uniform"] for row in history]
        shares += share
        above.plot(epochs, share, color=colour, lw=1.6, marker=marker, ms=3, label=words)
    above.axhline(1.0, color=GREY, lw=0.8, ls="--")
    above.set_ylabel("entropy (1: nothing is decided)")
    above.set_ylim(0, 1.05)
    if min(shares) > 0.9:
        # Most searches end near uniform; the little that is decided is to be seen all the same.
        above.set_ylim(min(shares) - 0.1 * (1 - min(shares)) - 1e-6, 1 + 0.15 * (1 - min(shares)) + 1e-6)
    below.plot(
        epochs, [row["loss_weights"] for row in history], color=WEIGHTS, marker=marker, ms=3, label="half that teaches"
    )
    chosen = [(row["epoch"], row["loss_choice"]) for row in history if row["loss_choice"] is not None]
    if chosen:
        below.plot(*zip(*chosen, strict=True), color=ARCHITECTURE, marker=marker, ms=3, label="half that chooses")
    # Rises early: the share of pixels counted falls from all to the worst 15 %.
    below.set_ylabel("loss of the worst pixels, all heads")
    below.set_xlabel("epoch")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    first = next((row["epoch"] for row in history if row["phase"] != history[0]["phase"]), None)
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
        if first is not None:
            axes.axvline(first - 0.5, color=INK, lw=1)
    if first is not None:
        below.annotate(
            "weights alone, then both", (first - 0.5, 0.03), xycoords=("data", "axes fraction"), xytext=(4, 0),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    if title:
        figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
