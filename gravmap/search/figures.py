"""Figures of a search: entropies and losses by epoch, and the diagram of an architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gravmap.files import atomic_path
from gravmap.network.architecture import Architecture
from gravmap.network.cost import cost_by_part
from gravmap.network.operators import OPERATORS
from gravmap.plotting import BACKGROUND, BLUE, GREEN, GREY, INK, ORANGE, PANEL, SKY, VERMILLION

QUANTITIES = {"alpha": ("operators", BLUE), "ratio": ("widths", VERMILLION), "beta": ("paths", GREEN)}
WEIGHTS, ARCHITECTURE = BLUE, VERMILLION


def draw_entropies(history: list[dict[str, Any]], path: Path, title: str = "") -> None:
    """Draw the mean entropies of the architecture parameters, relative to uniform, above the losses.

    Parameters
    ----------
    history : list of dict
        One row per epoch: epoch, phase, loss_weights, loss_choice (None in the first phase), and for alpha, ratio and
        beta ``entropy_NAME`` and ``entropy_NAME_uniform``, nats.
    path : Path
        The PNG to write.
    title : str
        Title of the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.5, 6.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(history) < 30 else None
    relative: list[float] = [1.0]
    for name, (words, colour) in QUANTITIES.items():
        entropy = [row[f"entropy_{name}"] / row[f"entropy_{name}_uniform"] for row in history]
        relative += entropy
        above.plot(epochs, entropy, color=colour, lw=1.6, marker=marker, ms=3, label=words)
    above.axhline(1.0, color=GREY, lw=0.8, ls="--")
    above.set_ylabel("relative entropy (1: uniform)")
    above.set_ylim(0, 1.05)
    if min(relative) > 0.9:
        # Most searches end near uniform: zoom in.
        above.set_ylim(min(relative) - 0.1 * (1 - min(relative)) - 1e-6, 1 + 0.15 * (1 - min(relative)) + 1e-6)
    below.plot(
        epochs, [row["loss_weights"] for row in history], color=WEIGHTS, marker=marker, ms=3, label="weights half"
    )
    chosen = [(row["epoch"], row["loss_choice"]) for row in history if row["loss_choice"] is not None]
    if chosen:
        below.plot(*zip(*chosen, strict=True), color=ARCHITECTURE, marker=marker, ms=3, label="architecture half")
    # Rises early: the OHEM keep fraction decreases from 1 to 0.15.
    below.set_ylabel("OHEM loss, all heads")
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
            "weights only, then both", (first - 0.5, 0.03), xycoords=("data", "axes fraction"), xytext=(4, 0),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    if title:
        figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


COLOURS = dict(zip(OPERATORS, ("white", SKY, BLUE, ORANGE, VERMILLION), strict=True))
WORDS = {
    "skip": "skip",
    "conv": "conv",
    "conv2": "conv2: two",
    "zoom": "zoom: at half size",
    "zoom2": "zoom2: two at half size",
}
COLUMN, LANE, BLOCK = 0.55, 0.72, 0.38  # inches: between cells, between lanes, a block's width
MAX_BLOCK_HEIGHT = 0.56
"""Height of the widest block, inches; others are proportional to their expansion ratio."""


def draw_architecture(
    architecture: Architecture,
    path: Path,
    *,
    in_channels: int = 1,
    classes: int = 10,
    size: int = 1024,
    title: str = "",
) -> None:
    """Draw every cell of an architecture once, by scale and number, as a PNG; shared cells are one line.

    Parameters
    ----------
    architecture : Architecture
        Of any depth.
    path : Path
        The PNG to write.
    in_channels, classes, size : int
        For the parameters and multiply-adds in the title (of one size x size image).
    title : str
        Prefix of the title.

    Examples
    --------
    >>> import tempfile
    >>> from gravmap.search.space import SearchSpace
    >>> space = SearchSpace(depth=3)
    >>> architecture = space.architecture(((), (0,), (0, 1)), [["conv"] * 3] * 3, [[2] * 3] * 3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     draw_architecture(architecture, Path(folder) / "architecture.png", size=64)
    ...     Path(folder, "architecture.png").exists()
    True
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    a = architecture
    lanes = _lanes(a)
    left, right, above, below = 1.5, 1.15, 0.85, 0.85
    width = max(left + a.depth * COLUMN + right, 7.6)
    left += (width - left - a.depth * COLUMN - right) / 2  # centre a short architecture
    height = above + len(lanes) * LANE + below
    figure = Figure(figsize=(width, height), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-left, width - left)  # in inches: cell 0 is at 0
    axes.set_ylim(-(height - above), above)
    axes.axis("off")

    # The middle of a lane, and x of a cell's middle.
    place = {lane: -(i + 0.5) * LANE for i, lane in enumerate(lanes)}
    _draw_scales(axes, lanes, place, a.depth)
    _draw_cells(axes, a, place)
    for cell in range(a.depth):
        axes.text((cell + 0.5) * COLUMN, 0.06, str(cell), ha="center", va="bottom", fontsize=7, color=GREY)
    axes.text(-0.12, 0.06, "cell", ha="right", va="bottom", fontsize=7, color=GREY)
    _draw_legend(axes, a, width / 2 - left, -len(lanes) * LANE)

    whole = cost_by_part(a, in_channels, classes, size)[-1]
    cost = f"{whole.parameters / 1e6:.2f} million parameters, {whole.macs / 1e9:.1f} GMAC at {size} x {size}"
    axes.text(
        width / 2 - left, above - 0.25, f"{title}: {cost}" if title else cost, ha="center", va="center", fontsize=11
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _owners(a: Architecture) -> list[list[int]]:
    """For each branch, the branch that computes each of its cells: itself, or an earlier one with the same prefix."""
    owners: list[list[int]] = []
    for branch in range(len(a.paths)):
        shared, earlier = max(((a.shared_cells(branch, other), -other) for other in range(branch)), default=(0, 0))
        owners.append([*(owners[-earlier][:shared] if shared else []), *[branch] * (a.depth - shared)])
    return owners


def _lanes(a: Architecture) -> list[tuple[int, int]]:
    """Rows of the figure, (scale, branch that computes the cells), from the finest scale down."""
    return sorted({(a.scale(b, cell), owner) for b, row in enumerate(_owners(a)) for cell, owner in enumerate(row)})


def _draw_scales(axes: Any, lanes: list[tuple[int, int]], place: dict[tuple[int, int], float], depth: int) -> None:
    """A band behind the lanes of each scale, with its name."""
    from matplotlib.patches import Rectangle

    for scale in sorted({scale for scale, _ in lanes}):
        middles = [y for (s, _), y in place.items() if s == scale]
        top, bottom = max(middles) + LANE / 2, min(middles) - LANE / 2
        shade = BACKGROUND if scale % 2 == 0 else PANEL
        axes.add_patch(Rectangle((-0.05, bottom), depth * COLUMN + 0.1, top - bottom, fc=shade, ec="none", zorder=0))
        axes.text(-1.4, (top + bottom) / 2, f"1/{8 << scale}", ha="left", va="center", fontsize=10, color=INK)


def _draw_cells(axes: Any, a: Architecture, place: dict[tuple[int, int], float]) -> None:
    """Blocks, and the lines through them from the encoder to the ends of the branches."""
    from matplotlib.patches import FancyBboxPatch

    first = place[0, 0] if (0, 0) in place else max(place.values())
    axes.text(
        -0.62, first, "encoder", ha="center", va="center", fontsize=8, color=INK, zorder=4,
        bbox={"boxstyle": "round,pad=0.3", "fc": "white", "ec": GREY},
    )  # fmt: skip
    drawn = set()
    most = max(8, *(chi for row in a.chis for chi in row))
    for branch, owners in enumerate(_owners(a)):
        x, y = -0.62, first
        for cell, owner in enumerate(owners):
            here = (cell + 0.5) * COLUMN, place[a.scale(branch, cell), owner]
            if (cell, owner) not in drawn:
                drawn.add((cell, owner))
                _draw_transition(axes, x, y, *here)
                operator, tall = a.ops[branch][cell], MAX_BLOCK_HEIGHT * a.chis[branch][cell] / most
                corner = here[0] - BLOCK / 2, here[1] - tall / 2
                axes.add_patch(
                    FancyBboxPatch(
                        corner, BLOCK, tall, boxstyle="round,pad=0,rounding_size=0.05", zorder=3,
                        fc=COLOURS[operator], ec=INK, lw=0.8, ls="--" if operator == "skip" else "-",
                    )
                )  # fmt: skip
                axes.text(
                    *here, str(a.width(branch, cell)), ha="center", va="center_baseline", fontsize=6.5, zorder=4,
                    color="white" if operator in ("conv2", "zoom2") else INK,
                )  # fmt: skip
            x, y = here
        axes.annotate(
            f"branch {branch}", (x, y), xytext=(a.depth * COLUMN + 0.4, y), ha="left", va="center", fontsize=8,
            color=INK, arrowprops={"arrowstyle": "<-", "color": GREY, "lw": 1.6, "shrinkA": 2, "shrinkB": 0}, zorder=1,
        )  # fmt: skip


def _draw_transition(axes: Any, x: float, y: float, x_to: float, y_to: float) -> None:
    """A line from one block to the next; a downward line runs between the columns."""
    if y == y_to:
        axes.plot((x, x_to), (y, y_to), color=GREY, lw=1.6, zorder=1)
        return
    turn = x_to - COLUMN / 2
    axes.plot((turn, turn), (y - 0.08, y_to + 0.08), color="white", lw=5, zorder=1.5, solid_capstyle="butt")
    axes.plot((x, turn, turn, x_to), (y, y, y_to, y_to), color=GREY, lw=1.6, zorder=2, solid_joinstyle="round")


def _draw_legend(axes: Any, a: Architecture, middle: float, top: float) -> None:
    """Legend of colours, heights and numbers."""
    from matplotlib.patches import Patch

    handles = [
        Patch(fc=COLOURS[name], ec=INK, lw=0.8, ls="--" if name == "skip" else "-", label=WORDS[name])
        for name in OPERATORS
    ]
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(middle, top - 0.08), bbox_transform=axes.transData,
        ncols=len(handles), frameon=False, fontsize=8, handlelength=1.4, columnspacing=1.4,
    )  # fmt: skip
    ratios = ", ".join(str(chi) for chi in sorted({chi for row in a.chis for chi in row}))
    caption = f"Height of a block: its expansion ratio ({ratios}). Number: its channels. Shared cells are drawn once."
    axes.text(middle, top - 0.55, caption, ha="center", va="center", fontsize=8, color=INK)
