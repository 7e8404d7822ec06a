"""The figures of ``explore.html``, as Bokeh models: the map, and a profile through it.

The page's own script (``templates/explore.js``) finds the models by name and fills them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.transform import from_bounds

from gravmap.mapping.page.sheet import Sheet
from gravmap.plotting import BLUE, GREY, INK, MUTED, NODATA_COLOUR, UNMAPPED_COLOUR

_UNSEEN = 0.004  # opacity of polygons that are only a pattern: Bokeh draws none without a fill
_RULING = {
    "hatch_pattern": "right_diagonal_line",
    "hatch_color": "white",
    "hatch_alpha": 0.5,
    "hatch_scale": 9,
}


def map_figure(sheet: Sheet) -> Any:
    """The map: an image that the page's script paints, with ruling, outlines, and the track of the profile."""
    from bokeh.models import ColumnDataSource, MetricLength, PrintfTickFormatter, Range1d, ScaleBar
    from bokeh.plotting import figure

    west, south, east, north = sheet.bounds_wsen
    plot = figure(
        name="map",
        sizing_mode="stretch_both",
        x_range=Range1d(west, east),
        y_range=Range1d(south, north),
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll="wheel_zoom",
        toolbar_location="above",
        background_fill_color=NODATA_COLOUR,
        lod_threshold=None,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = False
    plot.xaxis.formatter = PrintfTickFormatter(format="%.7g°")
    plot.yaxis.formatter = PrintfTickFormatter(format="%.7g°")
    plot.xaxis.axis_label, plot.yaxis.axis_label = "Longitude, east", "Latitude, north"
    plot.axis.axis_label_text_font_style = "normal"
    plot.grid.grid_line_alpha = 0.15
    plot.grid.grid_line_color = "black"
    plot.grid.level = "overlay"
    image = ColumnDataSource({"image": [np.zeros((2, 2), np.uint32)]}, name="image")
    plot.image_rgba("image", source=image, x=west, y=south, dw=east - west, dh=north - south, level="image")
    if sheet.unmapped is not None:
        dots: dict[str, Any] = {"hatch_pattern": "dot", "hatch_color": MUTED, "hatch_scale": 10, "line_color": None}
        alpha = _UNSEEN if sheet.fills_unmapped else 1.0
        source = ColumnDataSource(_polygons(sheet, sheet.unmapped))
        plot.multi_polygons(
            "xs", "ys", source=source, fill_color=UNMAPPED_COLOUR, fill_alpha=alpha, name="unmapped", **dots
        )
    if sheet.predicted is not None:
        ruled: dict[str, Any] = {**_RULING, "fill_color": "white", "fill_alpha": _UNSEEN}
        source = ColumnDataSource(_polygons(sheet, sheet.predicted))
        plot.multi_polygons("xs", "ys", source=source, line_color=None, name="ruled", **ruled)
    if sheet.outcrop is not None:
        source = ColumnDataSource(_rings(sheet, sheet.outcrop))
        plot.multi_line("xs", "ys", source=source, line_color="black", line_width=0.8, name="outlines")
    track = ColumnDataSource({"x": [], "y": [], "name": []}, name="track")
    plot.line("x", "y", source=track, line_color="white", line_width=4)
    plot.line("x", "y", source=track, line_color=INK, line_width=2)
    plot.scatter("x", "y", source=track, size=9, fill_color="white", line_color=INK, line_width=2)
    label: dict[str, Any] = {"text_font_style": "bold", "text_outline_color": "white", "x_offset": 8, "y_offset": 8}
    plot.text("x", "y", "name", source=track, text_color=INK, **label)
    spot = ColumnDataSource({"x": [], "y": []}, name="spot")
    plot.scatter("x", "y", source=spot, size=11, marker="cross", line_color="black", line_width=2)
    # A scale bar knows lengths alone: the page's script gives it the width of the view in kilometres.
    lengths = MetricLength(ticks=[1, 2, 5, 10, 20, 50, 100, 200, 500], include=["m", "km"])
    width = Range1d(0, 1, name="kilometres")
    bar = ScaleBar(range=width, unit="km", dimensional=lengths, location="bottom_left", bar_line_width=3)
    bar.bar_length = 0.1  # at least; the next longer round length is drawn
    bar.background_fill_alpha = 0.85
    plot.add_layout(bar)
    return plot


def profile_figures() -> Any:
    """The profile: gravity above, classes below, over the same kilometres; empty until two places are clicked."""
    from bokeh.layouts import gridplot
    from bokeh.models import ColumnDataSource, FactorRange, LinearAxis, Range1d
    from bokeh.plotting import figure

    common: dict[str, Any] = {
        "tools": "",
        "toolbar_location": None,
        "sizing_mode": "stretch_width",
        "min_border_right": 55,
    }
    distance = Range1d(0, 1)
    plot = figure(name="profile", height=165, x_range=distance, y_range=Range1d(0, 1), **common)
    curves = ColumnDataSource({"km": [], "residual": [], "bouguer": []}, name="curves")
    plot.extra_y_ranges = {"bouguer": Range1d(0, 1)}
    plot.line("km", "bouguer", source=curves, y_range_name="bouguer", line_color=MUTED, line_width=1.6)
    plot.line("km", "residual", source=curves, line_color=BLUE, line_width=2)
    plot.yaxis.axis_label, plot.yaxis.axis_label_text_color = "residual, mGal", BLUE
    axis = LinearAxis(y_range_name="bouguer", axis_label="Bouguer, mGal", axis_label_text_color=GREY)
    plot.add_layout(axis, "right")
    plot.xaxis.visible = False
    strips = figure(name="strips", height=105, x_range=distance, y_range=FactorRange("null model", "map"), **common)
    runs = ColumnDataSource({"y": [], "left": [], "right": [], "colour": [], "hatch": []}, name="runs")
    strips.hbar(
        "y",
        left="left",
        right="right",
        height=0.82,
        source=runs,
        fill_color="colour",
        line_color=None,
        hatch_pattern="hatch",
        hatch_color="white",
        hatch_alpha=0.6,
        hatch_scale=9,
    )
    strips.xaxis.axis_label = "km from A to B"
    strips.ygrid.visible = False
    for each in (plot, strips):
        each.axis.axis_label_text_font_style = "normal"
    return gridplot([[plot], [strips]], sizing_mode="stretch_width", toolbar_location=None)


def _polygons(sheet: Sheet, mask: NDArray[np.bool_]) -> dict[str, list[Any]]:
    """The cells of a mask as polygons with holes, in the nested lists that Bokeh takes."""
    found = [geometry["coordinates"] for geometry in _geometries(sheet, mask)]
    return {
        axis: [[[[round(point[at], 6) for point in ring[:-1]] for ring in polygon]] for polygon in found]
        for at, axis in enumerate(("xs", "ys"))
    }


def _rings(sheet: Sheet, mask: NDArray[np.bool_]) -> dict[str, list[Any]]:
    """The outlines of a mask as closed lines."""
    rings = [ring for geometry in _geometries(sheet, mask) for ring in geometry["coordinates"]]
    return {axis: [[round(point[at], 6) for point in ring] for ring in rings] for at, axis in enumerate(("xs", "ys"))}


def _geometries(sheet: Sheet, mask: NDArray[np.bool_]) -> list[dict[str, Any]]:
    transform = from_bounds(*sheet.bounds_wsen, mask.shape[1], mask.shape[0])
    return [geometry for geometry, _ in shapes(mask.astype(np.uint8), mask=mask, connectivity=4, transform=transform)]
