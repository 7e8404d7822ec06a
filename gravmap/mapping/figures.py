"""Pictures a geologist can read: class maps and fields with legend, graticule and scale bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from gravmap.files import atomic_path
from gravmap.geology import Legend
from gravmap.map_frame import furnish

matplotlib.use("Agg")  # files only: no display is needed, on a server or under ssh

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

NODATA_COLOUR = "#D9D9D9"

# Inches around a map: degree labels to its left, its title above, degree labels below; the picture's own title.
_LEFT, _ABOVE, _BELOW, _TITLE = 0.55, 0.3, 0.35, 0.5


@dataclass(frozen=True)
class ClassPanel:
    """A map of classes.

    Attributes
    ----------
    title : str
        Above the panel.
    values : (ny, nx) uint8
        Class indices, north up; 255 = no data.
    bounds_wsen : tuple of float
        Outer edges, degrees.
    outline : (ny, nx) bool, optional
        Its border is drawn as a thin line (the mapped outcrop).
    """

    title: str
    values: NDArray[np.uint8]
    bounds_wsen: tuple[float, float, float, float]
    outline: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class FieldPanel:
    """A map of numbers with a colour bar.

    Attributes
    ----------
    title, unit : str
        Above the panel, and beside its colour bar.
    values : (ny, nx) float
        North up; NaN = no data.
    bounds_wsen : tuple of float
        Outer edges, degrees.
    diverging : bool
        Colours about zero (a residual) instead of from low to high.
    limits : (float, float), optional
        Colour limits; the 1st and 99th percentile without.
    """

    title: str
    unit: str
    values: NDArray[Any]
    bounds_wsen: tuple[float, float, float, float]
    diverging: bool = False
    limits: tuple[float, float] | None = None


Panel = ClassPanel | FieldPanel


def classes_of_legend(legend: Legend) -> list[dict[str, Any]]:
    """Index, name and colour of every class, as :func:`draw` takes them."""
    return [{"index": entry.index, "name": entry.name, "colour": entry.colour} for entry in legend.classes]


def draw(
    path: Path,
    panels: Sequence[Panel],
    classes: Sequence[dict[str, Any]],
    *,
    title: str,
    notes: Sequence[str] = (),
    columns: int = 1,
    panel_width_in: float = 9.0,
) -> None:
    """Write a picture of several maps with one common legend.

    Parameters
    ----------
    path : Path
        The PNG to write.
    panels : sequence of ClassPanel or FieldPanel
        Drawn row by row.
    classes : sequence of dict
        ``index``, ``name``, ``colour`` of each class; only those that occur come into the legend.
    title : str
        Of the whole picture.
    notes : sequence of str
        Lines under the picture.
    columns : int
        Panels side by side.
    panel_width_in : float
        Width of one panel, inches.
    """
    # Everything is laid out in inches, so that maps of one picture are of one size whatever stands beside them.
    rows = -(-len(panels) // columns)
    west, south, east, north = panels[0].bounds_wsen
    bar_width = 0.85 if any(isinstance(panel, FieldPanel) for panel in panels) else 0.2
    cell_width = _LEFT + panel_width_in + bar_width
    map_height = panel_width_in * (north - south) / ((east - west) * np.cos(np.radians((south + north) / 2)))
    cell_height = map_height + _ABOVE + _BELOW
    width = columns * cell_width + 0.1
    shown = _classes_shown(panels, classes)
    legend_columns = max(1, int((width - _LEFT) // 2.1))
    legend_height = 0.24 * -(-len(shown) // legend_columns) + 0.2 if shown else 0.0
    notes_height = 0.19 * len(notes) + 0.15
    height = rows * cell_height + legend_height + notes_height + _TITLE
    figure = Figure(figsize=(width, height), dpi=130)
    for index, panel in enumerate(panels):
        left = (index % columns) * cell_width + _LEFT
        bottom = height - _TITLE - (index // columns) * cell_height - _ABOVE - map_height
        axes = figure.add_axes((left / width, bottom / height, panel_width_in / width, map_height / height))
        if isinstance(panel, ClassPanel):
            _draw_classes(axes, panel, classes)
        else:
            image = _draw_field(axes, panel)
            beside = ((left + panel_width_in + 0.1) / width, bottom / height, 0.14 / width, map_height / height)
            bar = figure.colorbar(image, cax=figure.add_axes(beside))
            bar.set_label(panel.unit, fontsize=8)
            bar.ax.tick_params(labelsize=7)
        furnish(axes, panel.bounds_wsen, panel_width_in)
        axes.set_title(panel.title, fontsize=11, loc="left", pad=4)
    figure.text(_LEFT / width, 1 - 0.12 / height, title, ha="left", va="top", fontsize=14, weight="bold")
    if shown:
        figure.legend(
            handles=shown,
            loc="lower left",
            bbox_to_anchor=((_LEFT - 0.1) / width, notes_height / height),
            ncols=legend_columns,
            frameon=False,
            fontsize=9,
            handlelength=1.6,
            handleheight=1.1,
            borderpad=0,
        )
    for line, text in enumerate(notes):
        figure.text(_LEFT / width, (notes_height - 0.19 * (line + 1)) / height, text, fontsize=8, color="#444444")
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png")


def _classes_shown(panels: Sequence[Panel], classes: Sequence[dict[str, Any]]) -> list[Patch]:
    present: set[int] = set()
    for panel in panels:
        if isinstance(panel, ClassPanel):
            present |= set(np.unique(panel.values).tolist())
    patches = [
        Patch(facecolor=entry["colour"], edgecolor="#555555", linewidth=0.5, label=entry["name"])
        for entry in classes
        if entry["index"] in present
    ]
    if 255 in present:
        patches.append(Patch(facecolor=NODATA_COLOUR, edgecolor="#555555", linewidth=0.5, label="no data"))
    return patches


def _draw_classes(axes: Axes, panel: ClassPanel, classes: Sequence[dict[str, Any]]) -> None:
    west, south, east, north = panel.bounds_wsen
    colours = {int(entry["index"]): entry["colour"] for entry in classes} | {255: NODATA_COLOUR}
    indices = sorted(colours)
    edges = [indices[0] - 0.5, *(index + 0.5 for index in indices)]
    axes.imshow(
        panel.values,
        cmap=ListedColormap([colours[index] for index in indices]),
        norm=BoundaryNorm(edges, len(indices)),
        extent=(west, east, south, north),
        interpolation="nearest",
    )
    if panel.outline is not None and panel.outline.any() and not panel.outline.all():
        border = LineCollection(_edges(panel.outline, panel.bounds_wsen), colors="black", linewidths=0.5)
        axes.add_collection(border)


def _edges(mask: NDArray[np.bool_], bounds_wsen: tuple[float, float, float, float]) -> list[list[tuple[float, float]]]:
    """The sides of cells where a mask begins or ends, as segments (lon, lat): true to the cells, however coarse."""
    west, south, east, north = bounds_wsen
    lat = np.linspace(north, south, mask.shape[0] + 1)
    lon = np.linspace(west, east, mask.shape[1] + 1)
    across = [
        [(lon[col], lat[row + 1]), (lon[col + 1], lat[row + 1])] for row, col in np.argwhere(mask[1:] ^ mask[:-1])
    ]
    along = [
        [(lon[col + 1], lat[row]), (lon[col + 1], lat[row + 1])] for row, col in np.argwhere(mask[:, 1:] ^ mask[:, :-1])
    ]
    return across + along


def _draw_field(axes: Axes, panel: FieldPanel) -> Any:
    west, south, east, north = panel.bounds_wsen
    finite = panel.values[np.isfinite(panel.values)]
    low, high = panel.limits or (tuple(np.percentile(finite, (1, 99))) if finite.size else (0.0, 1.0))
    if panel.diverging:
        high = max(abs(low), abs(high))
        low = -high
    image = axes.imshow(
        panel.values,
        cmap="RdBu_r" if panel.diverging else "viridis",
        vmin=low,
        vmax=high,
        extent=(west, east, south, north),
        interpolation="nearest",
    )
    axes.set_facecolor(NODATA_COLOUR)
    return image
