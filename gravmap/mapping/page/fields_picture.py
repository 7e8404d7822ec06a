"""Pictures of ``fields.nc``: Bouguer gravity with its residuals, and a layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gravmap.geology.layers_file import LayerSummary
from gravmap.gravity import open_fields
from gravmap.gravity.quantity import bouguer_name
from gravmap.mapping.page.figures import FieldPanel, Panel, draw
from gravmap.units import parse_length_m

MOST_RESIDUALS = 5
LONGEST_NODES = 900
PANEL_WIDTH_IN = 6.0


def draw_fields(fields: xr.Dataset, path: Path) -> None:
    """Draw Bouguer gravity and the residual of every height, five at most, with what the edges may add to errors.

    Parameters
    ----------
    fields : xr.Dataset
        From :func:`gravmap.gravity.residual_fields`.
    path : Path
        The ``.png`` to write.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gravmap.gravity import open_fields
    >>> from gravmap.mapping.page.fields_picture import draw_fields
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     draw_fields(open_fields(Path("data/fields.nc")), Path(folder, "fields.png"))
    ...     Path(folder, "fields.png").stat().st_size > 10_000
    True
    """
    bounds = _bounds(fields)
    name = bouguer_name(str(fields["bouguer"].attrs.get("long_name", "")))
    panels: list[Panel] = [FieldPanel(name, "mGal", _values(fields, "bouguer"), bounds)]
    names = [str(name) for name in fields.data_vars if str(name).startswith("residual_")]
    for name in sorted(names, key=lambda each: parse_length_m(each.removeprefix("residual_")))[:MOST_RESIDUALS]:
        field, height = _values(fields, name), name.removeprefix("residual_")
        rms = float(np.sqrt(np.nanmean(field**2))) if np.isfinite(field).any() else 0.0
        title = f"Residual of {height.replace('km', ' km')}, rms {rms:.1f} mGal"
        panels.append(FieldPanel(title, "mGal", field, bounds, diverging=True))
    notes = [
        "A residual is the Bouguer gravity less its upward continuation: the part whose sources are shallow. Colours"
        " end at the 1st and 99th percentile."
    ]
    notes += [str(fields.attrs["edge_note"])] if "edge_note" in fields.attrs else []
    draw(path, panels, [], title="Gravity", notes=notes, columns=min(2, len(panels)), panel_width_in=PANEL_WIDTH_IN)


def draw_layer(fields_path: Path, layer: LayerSummary, path: Path) -> None:
    """Draw a layer at the nodes of the fields; grey where it has no data.

    Parameters
    ----------
    fields_path : Path
        The file of fields.
    layer : LayerSummary
        A layer in it.
    path : Path
        The ``.png`` to write.
    """
    with open_fields(fields_path, lazily=True) as fields:
        label = str(fields[layer.name].attrs.get("long_name", layer.name))
        title = label if label == layer.name.replace("_", " ") else f"{layer.name}: {label}"
        panel = FieldPanel(
            title, layer.unit, _values(fields, layer.name), _bounds(fields), limits=(layer.low, layer.high)
        )
    missing = 100 * layer.missing_fraction
    notes = [f"Grey: no data, {missing:.1f} % of the nodes."] if missing else []
    draw(path, [panel], [], title=f"Layer {layer.name}", notes=notes, panel_width_in=PANEL_WIDTH_IN)


def _bounds(fields: xr.Dataset) -> tuple[float, float, float, float]:
    """Outer edges of the cells around the nodes, degrees."""
    lat, lon = fields["lat"].values.astype(float), fields["lon"].values.astype(float)
    half_y, half_x = abs(lat[1] - lat[0]) / 2, abs(lon[1] - lon[0]) / 2
    return (lon[0] - half_x, lat.min() - half_y, lon[-1] + half_x, lat.max() + half_y)


def _values(fields: xr.Dataset, name: str) -> NDArray[np.float64]:
    """A field, north up, thinned to at most `LONGEST_NODES` along a side."""
    step = max(1, -(-max(fields[name].shape) // LONGEST_NODES))
    return np.asarray(fields[name].sortby("lat", ascending=False).values[::step, ::step], np.float64)
