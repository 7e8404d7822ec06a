"""Figures of maps for print: class maps and fields with legend, graticule and scale bar."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from gravmap.files import atomic_path
from gravmap.geology.legend import Legend
from gravmap.mapping.layers import ENTROPY, EVIDENCE_COLOURS, NODATA, THICKNESS_COLOURS, UNMAPPED
from gravmap.mapping.page.paint import border, draw_unmapped, paint_classes, upsampled
from gravmap.mapping.page.sheet import Sheet, read_sheet
from gravmap.plotting import GREY, MUTED, NODATA_COLOUR, NOTE, UNMAPPED_COLOUR, decorate_map, legend_patches, map_aspect

matplotlib.use("Agg")  # writes files without a display, e.g. on a server

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

# Inches around a map: degree labels to its left, its title above, degree labels and scale bar below; the title of all.
_LEFT, _ABOVE, _BELOW, _TITLE = 0.55, 0.3, 0.55, 0.5
_NARROWEST = 6.5  # least width of a figure, for its title and notes
_RULED_PERIODS = 200  # number of white lines across a map over predicted cells, or of dots over unmapped ones

PRINT_DPI = 300

# A landscape page of A4 or Letter without its margins.
_WIDEST_IN, _TALLEST_IN = 9.6, 6.6
_DRAWN_PX = 2880  # 9.6 inches at 300 dpi


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
    ruled : (ny, nx) bool, optional
        Marked with thin white lines (cells predicted under cover).
    unmapped : (ny, nx) bool, optional
        Marked with dots (cells that no geological map covers); blank where `values` has no data.
    blank : str
        What the legend calls the grey of no data.
    """

    title: str
    values: NDArray[np.uint8]
    bounds_wsen: tuple[float, float, float, float]
    outline: NDArray[np.bool_] | None = None
    ruled: NDArray[np.bool_] | None = None
    unmapped: NDArray[np.bool_] | None = None
    blank: str = "no data"


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
    colours : str
        Name of a matplotlib colour map that is safe for colour-blind readers; a diverging one is always red and blue.
    outline : (ny, nx) bool, optional
        Its border is drawn as a thin line (the mapped outcrop).
    unmapped : (ny, nx) bool, optional
        As in :class:`ClassPanel`.
    """

    title: str
    unit: str
    values: NDArray[Any]
    bounds_wsen: tuple[float, float, float, float]
    diverging: bool = False
    limits: tuple[float, float] | None = None
    colours: str = "viridis"
    outline: NDArray[np.bool_] | None = None
    unmapped: NDArray[np.bool_] | None = None


Panel = ClassPanel | FieldPanel


def classes_of_legend(legend: Legend) -> list[dict[str, Any]]:
    """Index, name and colour of every class, as :func:`draw` takes them."""
    return [{"index": entry.index, "name": entry.name, "colour": entry.colour} for entry in legend.classes]


def draw(
    paths: Path | Sequence[Path],
    panels: Sequence[Panel],
    classes: Sequence[dict[str, Any]],
    *,
    title: str,
    notes: Sequence[str] = (),
    columns: int = 1,
    panel_width_in: float = 9.0,
    dpi: int = 130,
) -> None:
    """Write a figure of several maps with a common legend.

    Parameters
    ----------
    paths : Path or sequence of Path
        The files to write, ``.png`` or ``.pdf``: the same figure in each.
    panels : sequence of ClassPanel or FieldPanel
        Panels in reading order.
    classes : sequence of dict
        ``index``, ``name``, ``colour`` of each class; the legend shows those that occur.
    title : str
        Title of the figure.
    notes : sequence of str
        Text below the figure, wrapped.
    columns : int
        Number of panels in a row.
    panel_width_in : float
        Width of one panel, inches.
    dpi : int
        Pixels per inch.
    """
    # Laid out in inches, so that all maps of a figure have the same size.
    rows = -(-len(panels) // columns)
    bar_width = 0.85 if any(isinstance(panel, FieldPanel) for panel in panels) else 0.2
    cell_width = _LEFT + panel_width_in + bar_width
    map_height = panel_width_in * map_aspect(panels[0].bounds_wsen)
    across = max(12, int((cell_width - _LEFT) * 10.5))
    titles = [[line for part in panel.title.split("\n") for line in textwrap.wrap(part, across)] for panel in panels]
    above = _ABOVE + 0.19 * (max(map(len, titles)) - 1)
    cell_height = map_height + above + _BELOW
    width = max(columns * cell_width + 0.1, _NARROWEST)
    shown = _classes_shown(panels, classes)
    legend_columns = _legend_columns([str(patch.get_label()) for patch in shown], width - _LEFT)
    legend_height = 0.2 * -(-len(shown) // legend_columns) + 0.2 if shown else 0.0
    lines = [line for note in notes for line in textwrap.wrap(note, int((width - _LEFT - 0.2) * 15))]
    notes_height = 0.17 * len(lines) + 0.15
    height = rows * cell_height + legend_height + notes_height + _TITLE
    figure = Figure(figsize=(width, height), dpi=dpi)
    for index, panel in enumerate(panels):
        left = (index % columns) * cell_width + _LEFT
        bottom = height - _TITLE - (index // columns) * cell_height - above - map_height
        axes = figure.add_axes((left / width, bottom / height, panel_width_in / width, map_height / height))
        if isinstance(panel, ClassPanel):
            _draw_classes(axes, panel, classes, round(panel_width_in * dpi))
        else:
            image = _draw_field(axes, panel, round(panel_width_in * dpi))
            beside = ((left + panel_width_in + 0.1) / width, bottom / height, 0.14 / width, map_height / height)
            bar = figure.colorbar(image, cax=figure.add_axes(beside))
            bar.set_label(panel.unit, fontsize=8)
            bar.ax.tick_params(labelsize=7)
            bar.outline.set_linewidth(0.5)
        _draw_outline(axes, panel)
        decorate_map(axes, panel.bounds_wsen, panel_width_in)
        axes.set_title("\n".join(titles[index]), fontsize=11, loc="left", pad=4)
    figure.text(_LEFT / width, 1 - 0.12 / height, title, ha="left", va="top", fontsize=15, weight="bold")
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
    for number, line in enumerate(lines):
        at = (notes_height - 0.17 * (number + 1)) / height
        figure.text(_LEFT / width, at, line, fontsize=8, color=NOTE)
    for path in [paths] if isinstance(paths, Path) else paths:
        # Without a date, so that the same map gives the same file.
        metadata = {"CreationDate": None, "Title": title} if path.suffix == ".pdf" else {"Title": title}
        with atomic_path(path) as partial:
            figure.savefig(partial, format=path.suffix.removeprefix("."), metadata=metadata)


def _legend_columns(names: Sequence[str], width_in: float) -> int:
    """The largest number of columns of a legend that fits; each is as wide as its longest name."""
    for columns in range(len(names), 1, -1):
        parts = np.array_split(np.array([len(name) for name in names]), columns)  # as matplotlib fills them
        if sum(0.55 + 0.08 * int(part.max()) for part in parts) <= width_in:
            return columns
    return 1


def _classes_shown(panels: Sequence[Panel], classes: Sequence[dict[str, Any]]) -> list[Patch]:
    present: set[int] = set()
    blank_names: list[str] = []
    for panel in panels:
        if isinstance(panel, ClassPanel):
            found = set(np.unique(panel.values[~_blank(panel)]).tolist())
            blank_names += [panel.blank] if NODATA in found else []
            present |= found
    shown = [(entry["name"], entry["colour"]) for entry in classes if entry["index"] in present]
    patches = legend_patches([*shown, *((name, NODATA_COLOUR) for name in dict.fromkeys(blank_names))])
    if any(isinstance(panel, ClassPanel) and panel.ruled is not None for panel in panels):
        ruled = Patch(facecolor=MUTED, edgecolor="white", hatch="/////", linewidth=0, label="ruled: predicted")
        patches.append(ruled)
    dotted = [panel for panel in panels if isinstance(panel, ClassPanel) and panel.unmapped is not None]
    if dotted:
        blank = any(_blank(panel).any() for panel in dotted)
        patches.append(
            Patch(
                facecolor=UNMAPPED_COLOUR if blank else MUTED,
                edgecolor=GREY,
                hatch="....",
                linewidth=0.5,
                label=f"dotted: unmapped, {'not predicted' if blank else 'predicted'}",
            )
        )
    return patches


def _blank(panel: Panel) -> NDArray[np.bool_]:
    """Unmapped cells without a value."""
    if panel.unmapped is None:
        return np.zeros(panel.values.shape, np.bool_)
    known = panel.values != NODATA if isinstance(panel, ClassPanel) else np.isfinite(panel.values)
    return np.asarray(panel.unmapped & ~known)


def _draw_classes(axes: Axes, panel: ClassPanel, classes: Sequence[dict[str, Any]], width_px: int) -> None:
    west, south, east, north = panel.bounds_wsen
    colours = {int(entry["index"]): entry["colour"] for entry in classes}
    picture = paint_classes(
        panel.values,
        colours,
        width_px=width_px,
        ruled=panel.ruled,
        unmapped=panel.unmapped,
        period_px=max(4, round(width_px / _RULED_PERIODS)),
    )
    axes.imshow(picture, extent=(west, east, south, north), interpolation="nearest")


def _draw_outline(axes: Axes, panel: Panel) -> None:
    if panel.outline is None or not panel.outline.any() or panel.outline.all():
        return
    # A thick line would cover outcrop that consists of many small bodies.
    pieces = _edges(panel.outline, panel.bounds_wsen)
    width = 0.6 if len(pieces) < 4000 else 0.35
    axes.add_collection(LineCollection(pieces, colors="black", linewidths=width, capstyle="projecting"))


def _edges(mask: NDArray[np.bool_], bounds_wsen: tuple[float, float, float, float]) -> list[list[tuple[float, float]]]:
    """The border of a mask as segments (lon, lat) along the sides of its cells."""
    west, south, east, north = bounds_wsen
    lat = np.linspace(north, south, mask.shape[0] + 1)
    lon = np.linspace(west, east, mask.shape[1] + 1)
    level, upright = border(mask)
    across = [[(lon[first], lat[row]), (lon[last], lat[row])] for row, first, last in level]
    along = [[(lon[column], lat[first]), (lon[column], lat[last])] for column, first, last in upright]
    return across + along


def _draw_field(axes: Axes, panel: FieldPanel, width_px: int) -> Any:
    west, south, east, north = panel.bounds_wsen
    finite = panel.values[np.isfinite(panel.values)]
    low, high = panel.limits or (tuple(np.percentile(finite, (1, 99))) if finite.size else (0.0, 1.0))
    if panel.diverging:
        high = max(abs(low), abs(high))
        low = -high
    image = axes.imshow(
        panel.values,
        cmap="RdBu_r" if panel.diverging else panel.colours,
        vmin=low,
        vmax=high,
        extent=(west, east, south, north),
        interpolation="nearest",
    )
    axes.set_facecolor(NODATA_COLOUR)
    if panel.unmapped is not None:
        factor = max(1, -(-width_px // panel.values.shape[1]))
        mask = upsampled(panel.unmapped, factor)
        pattern = np.zeros((*mask.shape, 4), np.uint8)
        drawn = draw_unmapped(
            pattern[..., :3], mask, upsampled(_blank(panel), factor), max(4, round(width_px / _RULED_PERIODS))
        )
        pattern[drawn, 3] = 255
        axes.imshow(pattern, extent=(west, east, south, north), interpolation="nearest")
    return image


def draw_pictures(folder: Path, legend: Legend, *, title: str, notes: Sequence[str] = ()) -> list[Path]:
    """Draw the layers of a map as PNG and PDF at 300 dpi.

    ``map``: the classes, with the mapped outcrop outlined. ``comparison``: a map made without gravity, and where it
    differs; not written without ``null_model.tif``. ``uncertainty``: the entropy of the probabilities, and the
    evidence; not written if the folder has neither layer. ``cover_thickness``: its median, and the width of its
    interval, of a map that has it.

    Parameters
    ----------
    folder : Path
        Folder of the map: ``lithology.tif`` and, if available, ``evidence.tif``, ``uncertainty.tif`` and
        ``cover_thickness.tif``.
    legend : Legend
        Names and colours of the classes.
    title : str
        Title of the map, such as the name of the region.
    notes : sequence of str
        Text below each figure: networks, data and credits.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    InputError
        A layer is missing or cannot be read.
    """
    sheet = read_sheet(folder, _DRAWN_PX)
    width = _panel_width(sheet, 1)
    outcrop, ruled = sheet.outcrop, sheet.predicted
    if outcrop is None:
        shown = "Bedrock lithology"
    elif ruled is None:
        shown = "Predicted everywhere; mapped outcrop is outlined"
    else:
        shown = "As mapped inside the outlines; predicted under cover where ruled in white"
    if sheet.unmapped is not None:
        shown += f"; unmapped where dotted{', predicted too' if sheet.fills_unmapped else ''}"
    draw(
        [folder / "map.png", folder / "map.pdf"],
        [ClassPanel(shown, sheet.lithology, sheet.bounds_wsen, outcrop, ruled, sheet.unmapped)],
        classes_of_legend(legend),
        title=f"{title}: bedrock lithology",
        notes=notes,
        panel_width_in=width,
        dpi=PRINT_DPI,
    )
    written = [folder / "map.png", folder / "map.pdf"]
    if sheet.diffusion is not None:
        columns = 1 if map_aspect(sheet.bounds_wsen) < 0.8 else 2
        written += [folder / "comparison.png", folder / "comparison.pdf"]
        differing = sheet.differs_from_diffusion
        blank = np.where(differing, sheet.lithology, np.uint8(NODATA))
        draw(
            written[-2:],
            [
                ClassPanel(
                    "Made without gravity: classes diffused from the outcrop",
                    sheet.diffusion,
                    sheet.bounds_wsen,
                    outcrop,
                    ruled,
                    sheet.unmapped,
                ),
                ClassPanel(
                    "Where the network differs from it: the network's class",
                    np.asarray(blank, np.uint8),
                    sheet.bounds_wsen,
                    outcrop,
                    None,
                    sheet.unmapped,
                    "grey: the same class",
                ),
            ],
            classes_of_legend(legend),
            title=f"{title}: what gravity changes",
            notes=notes,
            columns=columns,
            panel_width_in=_panel_width(sheet, columns),
            dpi=PRINT_DPI,
        )
    panels = _uncertainty_panels(sheet)
    if panels:
        written += [folder / "uncertainty.png", folder / "uncertainty.pdf"]
        # The two maps of a wide region are stacked, those of a tall one placed side by side.
        columns = 1 if len(panels) == 1 or map_aspect(sheet.bounds_wsen) < 0.8 else 2
        draw(
            written[-2:],
            panels,
            evidence_classes(sheet.evidence_names),
            title=f"{title}: uncertainty and evidence",
            notes=notes,
            columns=columns,
            panel_width_in=_panel_width(sheet, columns),
            dpi=PRINT_DPI,
        )
    if sheet.thickness_m:
        written += [folder / "cover_thickness.png", folder / "cover_thickness.pdf"]
        columns = 1 if map_aspect(sheet.bounds_wsen) < 0.8 else 2
        draw(
            written[-2:],
            _thickness_panels(sheet),
            [],
            title=f"{title}: thickness of the cover",
            notes=notes,
            columns=columns,
            panel_width_in=_panel_width(sheet, columns),
            dpi=PRINT_DPI,
        )
    return written


def evidence_classes(names: dict[int, str]) -> list[dict[str, Any]]:
    """Index, name and colour of the evidence values, as :func:`draw` takes them."""
    return [
        {"index": value, "name": names.get(value, str(value)), "colour": colour}
        for value, colour in EVIDENCE_COLOURS.items()
        if value != UNMAPPED  # has a pattern of its own
    ]


def thickness_width_m(sheet: Sheet) -> NDArray[np.float32]:
    """Width of the 80 % interval of the thickness of the cover, metres; NaN no data."""
    return np.asarray(sheet.thickness_m["p90"] - sheet.thickness_m["p10"])


def thickness_limits_m(values: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Ends of a colour scale of thicknesses: zero, and the next 100 m above 99 % of them."""
    known = values[np.isfinite(values)]
    highest = float(np.percentile(known, 99)) if known.size else 0.0
    return 0.0, max(1, math.ceil(highest / 100)) * 100.0


def _thickness_panels(sheet: Sheet) -> list[Panel]:
    shown = (
        (
            "Median thickness of the cover (grey: outcrop; dotted: unmapped)",
            sheet.thickness_m["median"],
            THICKNESS_COLOURS,
        ),
        ("Width of the 80 % interval", thickness_width_m(sheet), "cividis"),
    )
    return [
        FieldPanel(
            title,
            "m",
            values,
            sheet.bounds_wsen,
            limits=thickness_limits_m(values),
            colours=colours,
            outline=sheet.outcrop,
            unmapped=sheet.unmapped,
        )
        for title, values, colours in shown
    ]


def _uncertainty_panels(sheet: Sheet) -> list[Panel]:
    panels: list[Panel] = []
    entropy = sheet.measures.get(ENTROPY.name)
    if entropy is not None:
        panels.append(
            FieldPanel(
                "Uncertainty: entropy of the class probabilities",
                "0 one class is certain, 1 all are equal",
                entropy,
                sheet.bounds_wsen,
                limits=(0, 1),
                colours="cividis",
                outline=sheet.outcrop,
                unmapped=sheet.unmapped,
            )
        )
    if sheet.evidence is not None and (sheet.evidence != NODATA).any():
        values, unmapped = sheet.evidence, sheet.unmapped
        if unmapped is not None and not sheet.fills_unmapped:
            values = np.where(unmapped, np.uint8(NODATA), values)
        title = "Evidence: the basis of each cell's class"
        panels.append(ClassPanel(title, values, sheet.bounds_wsen, unmapped=unmapped))
    return panels


def _panel_width(sheet: Sheet, columns: int) -> float:
    """Width of a map that fits a landscape page, alone or in two columns; inches."""
    widest = _WIDEST_IN if columns == 1 else 5.6
    return min(
        widest, _TALLEST_IN / map_aspect(sheet.bounds_wsen) if math.isfinite(map_aspect(sheet.bounds_wsen)) else widest
    )
