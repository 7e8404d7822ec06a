"""Map of a layer at the nodes of the fields; grey where it has no data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gravmap.files import atomic_path
from gravmap.geology.layers_file import LayerSummary
from gravmap.gravity import open_fields
from gravmap.plotting import NODATA_COLOUR, decorate_map, legend_patches, map_aspect

_WIDTH_IN, _MAX_NODES = 7.0, 1500


def draw_layer(fields_path: Path, layer: LayerSummary, path: Path) -> None:
    """Write a PNG of a layer.

    Parameters
    ----------
    fields_path : Path
        The file of fields.
    layer : LayerSummary
        A layer in it.
    path : Path
        The PNG to write.
    """
    from matplotlib.figure import Figure

    with open_fields(fields_path, lazily=True) as fields:
        step = max(1, -(-max(fields[layer.name].shape) // _MAX_NODES))
        values = fields[layer.name].values[::step, ::step]
        (west, east), (south, north) = (
            (float(axis[0]) - half, float(axis[-1]) + half)
            for axis, half in (
                (fields[dim].values, float(np.diff(fields[dim].values[:2])[0]) / 2) for dim in ("lon", "lat")
            )
        )
        label = str(fields[layer.name].attrs.get("long_name", layer.name))
    bounds = (west, south, east, north)
    tall = _WIDTH_IN * map_aspect(bounds)
    figure = Figure(figsize=(_WIDTH_IN + 2.2, tall + 1.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor(NODATA_COLOUR)
    drawn = axes.imshow(
        values, origin="lower", extent=(west, east, south, north), vmin=layer.low, vmax=layer.high, cmap="viridis"
    )
    figure.colorbar(drawn, ax=axes, label=layer.unit, extend="both", shrink=0.8)
    decorate_map(axes, bounds, _WIDTH_IN)
    axes.set_title(
        f"{layer.name}: {label}" if label != layer.name.replace("_", " ") else label, fontsize=10, loc="left"
    )
    if layer.missing_fraction:
        named = legend_patches([(f"no data: {100 * layer.missing_fraction:.1f} % of the nodes", NODATA_COLOUR)])
        figure.legend(handles=named, loc="outside lower center", fontsize=9, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")
