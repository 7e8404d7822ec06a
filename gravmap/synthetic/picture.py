"""A crust to look at: what is mapped, what lies below, its gravity, and a section through it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gravmap.files import atomic_path
from gravmap.geology import load_legend
from gravmap.map_frame import furnish
from gravmap.synthetic.crust import Crust
from gravmap.synthetic.pool import LEGEND, crust_arrays
from gravmap.synthetic.section import BASEMENT, Section, cut_section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASEMENT_COLOUR = "#A39B94"
_INK = "#1A1A1A"
_DPI = 160
_PANEL_IN = 4.3
_LEFT, _BETWEEN, _BAR, _ABOVE, _BELOW = 0.65, 0.62, 0.62, 0.42, 0.38


def draw_crust_picture(crust: Crust, path: Path, *, title: str) -> None:
    """Write a picture of a crust.

    The map, the bedrock below the cover, the thickness of the cover; the Bouguer anomaly, its residual and the density
    at 3 km; and a section across the strike with what its rocks attract.

    Parameters
    ----------
    crust : Crust
        Best with `Crust.components` and `Crust.around`.
    path : Path
        A ``.png``.
    title : str
        Of the whole picture.
    """
    from matplotlib.figure import Figure

    section = cut_section(crust)
    west, south, east, north = crust.bounds_wsen
    tall = _PANEL_IN * (north - south) / ((east - west) * np.cos(np.radians((south + north) / 2)))
    width = _LEFT + 3 * (_PANEL_IN + _BAR) + 2 * (_BETWEEN - _BAR + 0.45) + 0.35
    below = 6.6
    height = 0.75 + 2 * (tall + _ABOVE + _BELOW) + below
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    figure.text(_LEFT / width, 1 - 0.16 / height, title, va="top", fontsize=17, weight="bold", color=_INK)
    panels = []
    for index in range(6):
        left = _LEFT + (index % 3) * (_PANEL_IN + _BAR + 0.45)
        bottom = height - 0.75 - (index // 3) * (tall + _ABOVE + _BELOW) - _ABOVE - tall
        panels.append(figure.add_axes((left / width, bottom / height, _PANEL_IN / width, tall / height)))
    _maps(figure, panels, crust)
    for axes in panels:
        furnish(axes, crust.bounds_wsen, _PANEL_IN)
        _mark_line(axes, section)
    whole = width - _LEFT - 0.35 - _BAR
    boxes = [(4.55, 1.45), (4.32, 0.13), (2.42, 1.85), (0.95, 1.2)]
    parts = [
        figure.add_axes((_LEFT / width, bottom / height, whole / width, part / height)) for bottom, part in boxes
    ]
    _section(figure, parts, crust, section)
    _legend(figure, crust, section, height)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", metadata={"Title": title})


def _maps(figure: Figure, panels: list[Axes], crust: Crust) -> None:
    colours = _colours()
    west, south, east, north = crust.bounds_wsen
    extent = (west, east, south, north)
    hidden = (crust.surface == 0)[::-1]
    panels[0].imshow(colours[crust.surface[::-1]], extent=extent, interpolation="nearest")
    _title(panels[0], "Geological map", f"cover hides {100 * hidden.mean():.0f} %")
    panels[1].imshow(colours[crust.truth[::-1]], extent=extent, interpolation="nearest")
    _shore(panels[1], crust, "black", 0.55)
    _title(panels[1], "Bedrock below the cover", "line: where the cover begins")
    deep = np.where(hidden, crust.cover_thickness_m[::-1] / 1000, np.nan)
    image = panels[2].imshow(deep, extent=extent, cmap="YlOrBr", vmin=0, interpolation="nearest")
    panels[2].set_facecolor("#E9E9E6")
    _bar(figure, panels[2], image, "km")
    _title(panels[2], "Thickness of the cover", f"mean {np.nanmean(deep) if hidden.any() else 0:.1f} km; grey: outcrop")
    gravity = crust.gravity.values.astype(np.float64)[::-1]
    residual = crust_arrays(crust, ["residual_10km"])["fields"][0].astype(np.float64)
    _relief(figure, panels[3], gravity, crust, "mGal", diverging=False)
    _title(panels[3], "Bouguer anomaly", f"range {np.ptp(gravity):.0f} mGal")
    _relief(figure, panels[4], residual, crust, "mGal", diverging=True)
    _shore(panels[4], crust, "black", 0.45)
    _title(panels[4], "Residual, 10 km", f"std {residual.std():.1f} mGal")
    density = crust.stack.density_at(3.0)[::-1]
    low, high = np.percentile(density, (1, 99))
    image = panels[5].imshow(density, extent=extent, cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
    _bar(figure, panels[5], image, "kg/m³")
    _title(panels[5], "Density at 3 km depth", "what gravity would have to tell")


def _relief(
    figure: Figure, axes: Axes, values: NDArray[np.float64], crust: Crust, unit: str, *, diverging: bool
) -> None:
    """A field in colour, lit from the north-west as if it were a landscape."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LightSource, Normalize

    low, high = np.percentile(values, (0.5, 99.5))
    if diverging:
        high = max(-low, high)
        low = -high
    norm, colours = Normalize(low, high), colormaps["RdYlBu_r" if diverging else "Spectral_r"]
    # As steep whatever the strength of the field: its usual slope is one of 35 degrees.
    slope = float(np.sqrt(np.mean(np.square(np.gradient(values)))))
    light = LightSource(azdeg=315, altdeg=50)
    picture = light.shade(values, colours, norm=norm, vert_exag=0.7 / max(slope, 1e-9), blend_mode="soft")
    west, south, east, north = crust.bounds_wsen
    axes.imshow(picture, extent=(west, east, south, north), interpolation="bilinear")
    if not diverging:
        lat, lon = crust.gravity["lat"].values[::-1], crust.gravity["lon"].values
        step = next((step for step in (5, 10, 20, 50, 100) if np.ptp(values) / step < 16), 200)
        levels = np.arange(np.floor(values.min() / step), np.ceil(values.max() / step) + 1) * step
        axes.contour(lon, lat, values, levels=levels, colors="black", linewidths=0.35, alpha=0.7, linestyles="solid")
    _bar(figure, axes, ScalarMappable(norm, colours), unit)


def _section(figure: Figure, parts: list[Axes], crust: Crust, section: Section) -> None:
    profile, strip, rocks, weights = parts
    colours = _colours()
    length, deepest = section.distance_km[-1], 14.0
    total = section.profile(crust.gravity.values)
    if crust.components is not None:
        own = {"bedrock": "#C0392B", "cover": "#C98B00", "moho": "#2471A3"}
        names = {"bedrock": "of it bedrock", "cover": "cover", "moho": "Moho"}
        for name, colour in own.items():
            part = section.profile(crust.components[name])
            profile.plot(section.distance_km, part - part.mean(), color=colour, linewidth=1.1, label=names[name])
    profile.plot(section.distance_km, total - total.mean(), color=_INK, linewidth=1.9, label="Bouguer anomaly")
    profile.axhline(0, color="#888888", linewidth=0.5, zorder=0)
    profile.set_ylabel("mGal less\nthe mean", fontsize=9)
    handles, labels = profile.get_legend_handles_labels()
    profile.legend(handles[::-1], labels[::-1], ncols=4, loc="lower left", bbox_to_anchor=(0, 0.98), frameon=False, fontsize=9)
    strip.imshow(
        colours[section.mapped][None], extent=(0, length, 0, 1), aspect="auto", interpolation="nearest"
    )
    strip.set_yticks([0.5], ["map"], fontsize=9)
    picture = colours[section.rock]
    picture[_contacts(section.rock)] *= 0.45
    rocks.imshow(picture, extent=(0, length, deepest, 0), aspect="auto", interpolation="antialiased")
    weigh = weights.imshow(
        section.density,
        extent=(0, length, deepest, 0),
        aspect="auto",
        cmap="cividis",
        vmin=2350,
        vmax=2850,
        interpolation="antialiased",
    )
    bar = figure.colorbar(weigh, cax=figure.add_axes(_beside(weights)))
    bar.set_label("kg/m³", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_linewidth(0.5)
    for axes, name in ((rocks, "Rock"), (weights, "Density")):
        axes.set_ylabel(f"{name}\ndepth, km", fontsize=9)
        axes.set_yticks([0, 2, 4, 6, 8, 10, 12] if axes is rocks else [0, 4, 8, 12])
    for axes in parts:
        axes.set_xlim(0, length)
        axes.tick_params(labelsize=8, length=3, width=0.6)
        axes.tick_params(axis="x", labelbottom=axes is weights)
        for side in axes.spines.values():
            side.set_linewidth(0.6)
    strip.tick_params(length=0)
    weights.set_xlabel(f"km from A        vertical scale of the rocks {_exaggeration(figure, rocks, length, deepest):.0f} times the horizontal", fontsize=9)
    for letter, place, side in (("A", 0, "left"), ("A′", length, "right")):
        profile.text(place, 1.04, letter, transform=profile.get_xaxis_transform(), ha=side, fontsize=14, weight="bold") if side == "right" else profile.text(place, 1.2, letter, transform=profile.get_xaxis_transform(), ha=side, fontsize=14, weight="bold")


def _exaggeration(figure: Figure, axes: Axes, length_km: float, deepest_km: float) -> float:
    box = axes.get_position()
    wide, tall = figure.get_size_inches()
    return float((box.height * tall / deepest_km) / (box.width * wide / length_km))


def _contacts(rock: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a rock meets another one."""
    line = np.zeros(rock.shape, dtype=bool)
    line[1:] |= rock[1:] != rock[:-1]
    line[:, 1:] |= rock[:, 1:] != rock[:, :-1]
    return line


def _legend(figure: Figure, crust: Crust, section: Section, height: float) -> None:
    from matplotlib.patches import Patch

    width = figure.get_size_inches()[0]
    shares = 100 * np.bincount(crust.truth.ravel(), minlength=11) / crust.truth.size
    names = {entry.index: entry.name for entry in load_legend(LEGEND).classes}
    colours = _colours()
    handles = [
        Patch(
            facecolor=colours[index],
            edgecolor="#555555",
            linewidth=0.5,
            label=names[index] if index == 0 else f"{names[index]} {shares[index]:.0f} %",
        )
        for index in range(11)
    ]
    handles.append(Patch(facecolor=BASEMENT_COLOUR, edgecolor="#555555", linewidth=0.5, label="basement (section)"))
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=((_LEFT - 0.1) / width, 0.02 / height),
        ncols=7,
        frameon=False,
        fontsize=9,
        borderpad=0.2,
    )


def _colours() -> NDArray[np.float64]:
    """Red, green and blue of the cover, the ten classes and the basement, shape (12, 3)."""
    from matplotlib.colors import to_rgb

    colours = {entry.index: entry.colour for entry in load_legend(LEGEND).classes}
    return np.array([to_rgb(colours[index]) for index in range(BASEMENT)] + [to_rgb(BASEMENT_COLOUR)])


def _mark_line(axes: Axes, section: Section) -> None:
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.6, foreground="white")]
    ends = [section.lon[0], section.lon[-1]], [section.lat[0], section.lat[-1]]
    axes.plot(*ends, color="black", linewidth=1.1, path_effects=halo, zorder=6)
    middle = np.array([section.lon.mean(), section.lat.mean()])
    for letter, end in (("A", 0), ("A′", -1)):
        place = np.array([section.lon[end], section.lat[end]])
        inside = place + 0.05 * (middle - place)
        axes.text(
            *inside, letter, fontsize=12, weight="bold", ha="center", va="center", path_effects=halo, zorder=7
        )


def _shore(axes: Axes, crust: Crust, colour: str, width: float) -> None:
    lat, lon = crust.gravity["lat"].values, crust.gravity["lon"].values
    if 0 < np.count_nonzero(crust.surface == 0) < crust.surface.size:
        axes.contour(lon, lat, (crust.surface == 0).astype(float), levels=[0.5], colors=colour, linewidths=width)


def _title(axes: Axes, words: str, more: str) -> None:
    axes.set_title(words, loc="left", fontsize=11.5, weight="bold", pad=5, color=_INK)
    axes.set_title(more, loc="right", fontsize=8.5, pad=5, color="#555555")


def _beside(axes: Axes) -> tuple[float, float, float, float]:
    box = axes.get_position()
    wide = axes.figure.get_size_inches()[0]
    return box.x1 + 0.1 / wide, box.y0, 0.13 / wide, box.height


def _bar(figure: Figure, axes: Axes, image: Any, unit: str) -> None:
    bar = figure.colorbar(image, cax=figure.add_axes(_beside(axes)))
    bar.set_label(unit, fontsize=8.5, labelpad=1)
    bar.ax.tick_params(labelsize=7.5, length=2)
    bar.outline.set_linewidth(0.5)
