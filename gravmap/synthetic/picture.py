"""Figure of a crust: geological map, bedrock below the cover, gravity, and a vertical section."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from gravmap.files import atomic_path
from gravmap.geology import load_legend
from gravmap.lattice import EARTH_RADIUS_KM
from gravmap.plotting import (
    BASEMENT_COLOUR,
    BLUE,
    GREEN,
    GREY,
    INK,
    MESOZOIC_COLOUR,
    MUTED,
    PANEL,
    VERMILLION,
    decorate_map,
    legend_patches,
    map_aspect,
)
from gravmap.synthetic.bedrock import PERMIAN
from gravmap.synthetic.crust import LEGEND, Crust
from gravmap.synthetic.geometry import FloatArray
from gravmap.synthetic.pool import crust_arrays
from gravmap.synthetic.stack import UNITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEEPEST_KM = 14.0
BASEMENT, MESOZOIC = 11, 12
"""Values of the crust below the belts, and of the lower layer of the cover, in sections; 0 is the upper layer of the
cover and 1..10 are the bedrock classes."""


@dataclass(frozen=True, eq=False)
class Section:
    """A vertical section.

    Attributes
    ----------
    lon, lat : ndarray, shape (n,)
        Points along the line, evenly spaced, from its western end (of a line due north: southern end).
    distance_km : ndarray, shape (n,)
        Distance from the start of the line.
    depth_km : ndarray, shape (m,)
        Depth of the middle of every row, evenly spaced, positive down.
    rock : ndarray, shape (m, n), uint8
        0 Cenozoic, 12 Mesozoic, 1..10 bedrock, 11 the crust below the belts.
    density : ndarray, shape (m, n)
        kg/m3.
    belt : ndarray, shape (n,), int16
        Number of the belt; belts meet at faults.
    mapped : ndarray, shape (n,), uint8
        Class of the geological map along the line.
    position : tuple of two ndarrays, shape (n,)
        Row and column (fractional) of the points, rows ascending in latitude.
    """

    lon: FloatArray
    lat: FloatArray
    distance_km: FloatArray
    depth_km: FloatArray
    rock: NDArray[np.uint8]
    density: FloatArray
    belt: NDArray[np.int16]
    mapped: NDArray[np.uint8]
    position: tuple[FloatArray, FloatArray]

    def profile(self, field: NDArray[np.float32]) -> FloatArray:
        """Values of a field (ny, nx), rows ascending in latitude, along the line: shape (n,)."""
        values: FloatArray = map_coordinates(field.astype(np.float64), self.position, order=1, mode="nearest")
        return values


def vertical_section(crust: Crust, *, columns: int = 2400, rows: int = 480) -> Section:
    """Vertical section through the middle of a crust, across the strike of its belts.

    Parameters
    ----------
    crust : Crust
        See `draw_crust`.
    columns, rows : int
        Number of points along the line, and of depths down to 14 km.
    """
    lat, lon = crust.gravity["lat"].values, crust.gravity["lon"].values
    row, column = _line(lat, lon, _across_strike(crust, lat), columns)
    nearest = np.rint(row).astype(int), np.rint(column).astype(int)
    depth = (np.arange(rows) + 0.5) * DEEPEST_KM / rows

    # Between cell centres depths are interpolated linearly; rocks are those of the nearest cell.
    base = np.stack([map_coordinates(unit, (row, column), order=1, mode="nearest") for unit in crust.stack.base_km])
    thickness = np.diff(crust.stack.base_km[:, nearest[0], nearest[1]], axis=0, prepend=0)
    # A unit that is absent from the nearest column is absent here too; the unit below takes its thickness.
    base[:-1] = np.where(thickness[:-1] > 0, base[:-1], np.concatenate([np.zeros_like(base[:1]), base[:-2]]))
    base = np.maximum.accumulate(base, axis=0)
    unit = np.minimum((base[:, None, :] <= depth[None, :, None]).sum(axis=0), len(UNITS) - 1)
    belt, pluton = crust.stack.belt_class[nearest], crust.stack.pluton_class[nearest]
    cover_and_basins = [np.full_like(belt, kind) for kind in (0, MESOZOIC, PERMIAN)]
    rock = np.take_along_axis(np.stack([*cover_and_basins, pluton, belt, np.full_like(belt, BASEMENT)]), unit, axis=0)
    contrast = np.take_along_axis(crust.stack.contrast[:, nearest[0], nearest[1]].astype(np.float64), unit, axis=0)
    density = crust.stack.reference + contrast * crust.stack.compaction(unit, depth[:, None])
    places_lat, places_lon = lat[0] + row * (lat[1] - lat[0]), lon[0] + column * (lon[1] - lon[0])
    return Section(
        places_lon,
        places_lat,
        np.linspace(0, _length_km(lat, row, column, lon), columns),
        depth,
        rock.astype(np.uint8),
        density,
        crust.belt[nearest],
        crust.surface[nearest],
        (row, column),
    )


def _line(lat: FloatArray, lon: FloatArray, angle: float, count: int) -> tuple[FloatArray, FloatArray]:
    """Rows and columns of `count` points on a line through the middle, at `angle` from east, from side to side."""
    ny, nx = lat.size, lon.size
    shrink = np.cos(np.radians(lat.mean()))
    # Change of row and of column per unit of length.
    d_row, d_column = np.sin(angle), np.cos(angle) / shrink
    half = min(
        (ny - 1) / 2 / max(abs(d_row), 1e-9),
        (nx - 1) / 2 / max(abs(d_column), 1e-9),
    )
    along = np.linspace(-half, half, count) * (-1 if d_column < -1e-9 else 1)
    return (ny - 1) / 2 + along * d_row, (nx - 1) / 2 + along * d_column


def _length_km(lat: FloatArray, row: FloatArray, column: FloatArray, lon: FloatArray) -> float:
    north = np.radians(lat[1] - lat[0]) * (row[-1] - row[0])
    east = np.radians(lon[1] - lon[0]) * (column[-1] - column[0]) * np.cos(np.radians(lat.mean()))
    return float(EARTH_RADIUS_KM * np.hypot(north, east))


def _across_strike(crust: Crust, lat: FloatArray) -> float:
    """The direction, radians anticlockwise from east, in which the belt number changes fastest."""
    slope_y, slope_x = np.gradient(gaussian_filter(crust.belt.astype(np.float64), 2.0))
    slope_x /= np.cos(np.radians(lat))[:, None]
    return float(0.5 * np.arctan2(2 * (slope_x * slope_y).sum(), (slope_x**2).sum() - (slope_y**2).sum()))


# Inches: width of a map, left margin, distance between maps, space above and below each, title, section and legend.
_PANEL, _LEFT, _STEP, _ABOVE, _BELOW, _TITLE, _FOOT = 4.3, 0.85, 5.3, 0.42, 0.58, 0.92, 6.5
_PARTS = {"colour": INK, "moho": BLUE, "cover": GREEN, "bedrock": VERMILLION}


def draw_crust_picture(crust: Crust, path: Path, *, title: str, more: str = "", dpi: int = 160) -> None:
    """Write a figure of a crust.

    Its panels show the geological map, the bedrock below the cover and the thickness of the cover; the Bouguer
    anomaly, its residual and the density at 3 km; and a section across the strike with the gravity of its parts.

    Parameters
    ----------
    crust : Crust
        With `Crust.components` and `Crust.around`, if available.
    path : Path
        A ``.png``.
    title, more : str
        Title of the figure, and one or two lines below it.
    dpi : int
        Pixels per inch.
    """
    from matplotlib.figure import Figure

    section = vertical_section(crust)
    tall = _PANEL * map_aspect(crust.bounds_wsen)
    width = _LEFT + 2 * _STEP + _PANEL + 0.85
    height = _TITLE + 2 * (tall + _ABOVE + _BELOW) + _FOOT
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    figure.text(_LEFT / width, 1 - 0.14 / height, title, va="top", fontsize=18, weight="bold", color=INK)
    figure.text(_LEFT / width, 1 - 0.52 / height, textwrap.fill(more, 165), va="top", fontsize=10, color=GREY)
    panels = []
    for index in range(6):
        bottom = height - _TITLE - (index // 3) * (tall + _ABOVE + _BELOW) - _ABOVE - tall
        box = (_LEFT + (index % 3) * _STEP) / width, bottom / height, _PANEL / width, tall / height
        panels.append(figure.add_axes(box))
    _draw_rocks(panels[:3], crust)
    _draw_fields(panels[3:], crust)
    for axes in panels:
        decorate_map(axes, crust.bounds_wsen, _PANEL)
        _mark_line(axes, section)
    # Bottom and height in inches of: gravity along the section, mapped classes, rocks, densities.
    boxes = ((4.55, 1.4), (4.33, 0.13), (2.43, 1.85), (1.05, 1.1))
    _draw_section(
        figure,
        [
            figure.add_axes((_LEFT / width, bottom / height, (2 * _STEP + _PANEL) / width, part / height))
            for bottom, part in boxes
        ],
        crust,
        section,
    )
    _legend(figure, crust)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", metadata={"Title": title}, pil_kwargs={"compress_level": 4})


def _draw_rocks(panels: list[Axes], crust: Crust) -> None:
    """Geological map, bedrock below the cover, and thickness of the cover."""
    colours = _colours()
    extent = _extent(crust)
    hidden = (crust.surface == 0)[::-1]
    panels[0].imshow(colours[crust.surface[::-1]], extent=extent, interpolation="nearest")
    _faults(panels[0], crust, crust.surface > 0)
    _title(panels[0], "Geological map", f"cover hides {100 * hidden.mean():.0f} %; black: faults")
    panels[1].imshow(colours[crust.truth[::-1]], extent=extent, interpolation="nearest")
    _faults(panels[1], crust, np.ones_like(crust.surface, dtype=bool))
    _shore(panels[1], crust, "white", 1.1)
    _title(panels[1], "Bedrock below the cover", "white: the cover's edge")
    deep = np.where(hidden, crust.cover_thickness_m[::-1] / 1000, np.nan)
    image = panels[2].imshow(deep, extent=extent, cmap="YlOrBr", vmin=0, interpolation="nearest")
    panels[2].set_facecolor(PANEL)
    _bar(panels[2], image, "km")
    mean = f"mean {np.nanmean(deep):.1f} km; " if hidden.any() else ""
    _title(panels[2], "Thickness of the cover", f"{mean}grey: outcrop")


def _draw_fields(panels: list[Axes], crust: Crust) -> None:
    """Bouguer anomaly, residual, and density at depth."""
    gravity = crust.gravity.values.astype(np.float64)[::-1]
    _relief(panels[0], gravity, crust, diverging=False)
    lat, lon = crust.gravity["lat"].values[::-1], crust.gravity["lon"].values
    step = next((step for step in (2, 5, 10, 20, 50) if np.ptp(gravity) / step < 16), 100)
    levels = np.arange(np.floor(gravity.min() / step), np.ceil(gravity.max() / step) + 1) * step
    panels[0].contour(lon, lat, gravity, levels, colors="black", linewidths=0.35, alpha=0.7, linestyles="solid")
    _title(panels[0], "Bouguer anomaly", f"contours every {step} mGal")
    residual = crust_arrays(crust, ["residual_10km"])["fields"][0].astype(np.float64)
    _relief(panels[1], residual, crust, diverging=True)
    _shore(panels[1], crust, "black", 0.5)
    _title(panels[1], "Residual, 10 km", f"std {residual.std():.1f} mGal; line: cover")
    density = crust.stack.density_at(3.0)[::-1]
    low, high = np.percentile(density, (1, 99))
    image = panels[2].imshow(
        density, extent=_extent(crust), cmap="cividis", vmin=low, vmax=high, interpolation="nearest"
    )
    _bar(panels[2], image, "kg/m³")
    _title(panels[2], "Density at 3 km depth", "the source of the anomalies")


def _relief(axes: Axes, values: NDArray[np.float64], crust: Crust, *, diverging: bool) -> None:
    """A field in colour with shaded relief, lit from the north-west."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LightSource, Normalize

    low, high = np.percentile(values, (0.5, 99.5))
    if diverging:
        high = max(-low, high)
        low = -high
    norm, colours = Normalize(low, high), colormaps["RdYlBu_r" if diverging else "Spectral_r"]
    # Normalised by the rms slope, so that shading does not depend on the amplitude of the field.
    slope = float(np.sqrt(np.mean(np.square(np.gradient(values)))))
    light = LightSource(azdeg=315, altdeg=45)
    picture = light.shade(values, colours, norm=norm, vert_exag=0.8 / max(slope, 1e-9), blend_mode="soft")
    axes.imshow(picture, extent=_extent(crust), interpolation="bilinear")
    _bar(axes, ScalarMappable(norm, colours), "mGal")


def _draw_section(figure: Figure, parts: list[Axes], crust: Crust, section: Section) -> None:
    profile, strip, rocks, weights = parts
    colours = _colours()
    extent = (0.0, section.distance_km[-1], DEEPEST_KM, 0.0)
    curves = {"Bouguer anomaly": ("colour", crust.gravity.values)}
    if crust.components is not None:
        curves |= {name: (name, crust.components[name]) for name in ("moho", "cover", "bedrock")}
    for number, (name, (colour, field)) in enumerate(curves.items()):
        along = section.profile(field)
        label = f"contribution of the {name.replace('moho', 'Moho')}" if number else name
        profile.plot(
            section.distance_km,
            along - along.mean(),
            color=_PARTS[colour],
            linewidth=1.1 if number else 2.0,
            zorder=3 if number else 4,
            label=label,
        )
    profile.axhline(0, color=MUTED, linewidth=0.5, zorder=0)
    profile.set_ylabel("mGal minus\nthe mean", fontsize=9)
    profile.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 0.97), frameon=False, fontsize=9.5)
    strip.imshow(colours[section.mapped][None], extent=(*extent[:2], 0, 1), aspect="auto", interpolation="nearest")
    strip.set_yticks([0.5], ["map"], fontsize=9)
    picture = colours[section.rock]
    picture[_contacts(section)] *= 0.4
    rocks.imshow(picture, extent=extent, aspect="auto", interpolation="antialiased")
    rocks.set_ylabel("rock\ndepth, km", fontsize=9)
    image = weights.imshow(
        section.density, extent=extent, aspect="auto", cmap="cividis", vmin=2350, vmax=2850, interpolation="antialiased"
    )
    weights.set_ylabel("density\ndepth, km", fontsize=9)
    _bar(weights, image, "kg/m³")
    for axes in parts:
        axes.set_xlim(*extent[:2])
        axes.tick_params(labelsize=8.5, length=3, width=0.6, labelbottom=axes is weights)
        for side in axes.spines.values():
            side.set_linewidth(0.6)
    rocks.set_yticks([0, 2, 4, 6, 8, 10, 12])
    weights.set_yticks([0, 4, 8, 12])
    strip.tick_params(length=0)
    box, (wide, tall) = rocks.get_position(), figure.get_size_inches()
    steep = (box.height * tall / DEEPEST_KM) / (box.width * wide / section.distance_km[-1])
    weights.set_xlabel(f"km from A (vertical exaggeration of the rocks: {steep:.0f})", fontsize=9)
    for letter, place in (("A", 0.0), ("A′", 1.0)):
        profile.text(
            place, 1.06, letter, transform=profile.transAxes, ha="center", va="bottom", fontsize=15, weight="bold"
        )


def _contacts(section: Section) -> NDArray[np.bool_]:
    """Pixels of contacts between rocks, and of faults, which are drawn thicker."""
    rock = section.rock
    line = np.zeros(rock.shape, dtype=bool)
    line[1:] |= rock[1:] != rock[:-1]
    line[:, 1:] |= rock[:, 1:] != rock[:, :-1]
    faults = np.flatnonzero(np.diff(section.belt))
    # Cover, basins and intrusives are younger than the faults, which do not cut them.
    broken = (rock >= 1) & (rock <= 7)
    for shift in (-1, 0, 1, 2):
        line[:, np.clip(faults + shift, 0, rock.shape[1] - 1)] |= broken[:, faults]
    return line


def _legend(figure: Figure, crust: Crust) -> None:
    width, height = figure.get_size_inches()
    percent = 100 * np.bincount(crust.truth.ravel(), minlength=BASEMENT) / crust.truth.size
    names = {entry.index: entry.name for entry in load_legend(LEGEND).classes}
    bedrock = [f"{names[index]} {percent[index]:.0f} %" for index in range(1, BASEMENT)]
    labels = ["cover (in the section: Cenozoic)", *bedrock, "crust below the belts", "Mesozoic cover"]
    figure.legend(
        handles=legend_patches(zip(labels, _class_colours(), strict=True)),
        loc="lower left",
        bbox_to_anchor=((_LEFT - 0.1) / width, 0.05 / height),
        columnspacing=1.2,
        ncols=7,
        frameon=False,
        fontsize=9.5,
        borderpad=0.1,
        title="Percent of all bedrock, mapped and under cover",
        title_fontsize=9.5,
        alignment="left",
    )


def _colours() -> NDArray[np.float64]:
    """Red, green and blue of the values of a section, shape (13, 3)."""
    from matplotlib.colors import to_rgb

    return np.array([to_rgb(colour) for colour in _class_colours()])


def _class_colours() -> list[str]:
    colours = {entry.index: entry.colour for entry in load_legend(LEGEND).classes}
    return [*(colours[index] for index in range(BASEMENT)), BASEMENT_COLOUR, MESOZOIC_COLOUR]


def _extent(crust: Crust) -> tuple[float, float, float, float]:
    west, south, east, north = crust.bounds_wsen
    return west, east, south, north


def _mark_line(axes: Axes, section: Section) -> None:
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.8, foreground="white")]
    ends = [section.lon[0], section.lon[-1]], [section.lat[0], section.lat[-1]]
    axes.plot(*ends, color="black", linewidth=1.2, path_effects=halo, zorder=6)
    middle = np.array([section.lon.mean(), section.lat.mean()])
    for letter, end in (("A", 0), ("A′", -1)):
        place = np.array([section.lon[end], section.lat[end]])
        inside = place + 0.055 * (middle - place)
        axes.text(
            inside[0],
            inside[1],
            letter,
            fontsize=13,
            weight="bold",
            ha="center",
            va="center",
            path_effects=halo,
            zorder=7,
        )


def _shore(axes: Axes, crust: Crust, colour: str, width: float) -> None:
    """The outline of the cover."""
    if 0 < np.count_nonzero(crust.surface == 0) < crust.surface.size:
        lat, lon = crust.gravity["lat"].values, crust.gravity["lon"].values
        axes.contour(lon, lat, (crust.surface == 0).astype(float), levels=[0.5], colors=colour, linewidths=width)


def _faults(axes: Axes, crust: Crust, shown: NDArray[np.bool_]) -> None:
    """Boundaries between belts, where `shown` is True."""
    lat, lon = crust.gravity["lat"].values, crust.gravity["lon"].values
    for number in np.unique(crust.belt)[1:]:
        beyond = np.where(shown, (crust.belt >= number).astype(float), np.nan)
        axes.contour(lon, lat, beyond, levels=[0.5], colors="black", linewidths=0.9)


def _title(axes: Axes, words: str, more: str) -> None:
    axes.set_title(words, loc="left", fontsize=11.5, weight="bold", pad=5, color=INK)
    axes.set_title(more, loc="right", fontsize=8.5, pad=5, color=GREY)


def _bar(axes: Axes, image: Any, unit: str) -> None:
    figure: Any = axes.figure
    box, wide = axes.get_position(original=True), figure.get_size_inches()[0]
    bar = figure.colorbar(image, cax=figure.add_axes((box.x1 + 0.1 / wide, box.y0, 0.13 / wide, box.height)))
    bar.ax.text(0, 1.012, unit, transform=bar.ax.transAxes, ha="left", va="bottom", fontsize=8)
    bar.ax.tick_params(labelsize=7.5, length=2)
    bar.outline.set_linewidth(0.5)
