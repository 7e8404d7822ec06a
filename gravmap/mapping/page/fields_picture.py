"""A picture of ``fields.nc``: the Bouguer anomaly and its residuals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gravmap.mapping.page.figures import FieldPanel, Panel, draw
from gravmap.units import parse_length_m

MOST_RESIDUALS = 5
LONGEST_NODES = 900
PANEL_WIDTH_IN = 6.0


def draw_fields(fields: xr.Dataset, path: Path) -> None:
    """Draw the Bouguer anomaly and the residual of every height, five at most, with what the edges may add to errors.

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
    lat, lon = fields["lat"].values.astype(float), fields["lon"].values.astype(float)
    half_y, half_x = abs(lat[1] - lat[0]) / 2, abs(lon[1] - lon[0]) / 2
    bounds = (lon[0] - half_x, lat.min() - half_y, lon[-1] + half_x, lat.max() + half_y)
    step = max(1, -(-max(lat.size, lon.size) // LONGEST_NODES))

    def values(name: str) -> NDArray[np.float64]:
        return np.asarray(fields[name].sortby("lat", ascending=False).values[::step, ::step], np.float64)

    bouguer = values("bouguer")
    panels: list[Panel] = [FieldPanel("Bouguer gravity anomaly", "mGal", bouguer, bounds)]
    names = [str(name) for name in fields.data_vars if str(name).startswith("residual_")]
    for name in sorted(names, key=lambda each: parse_length_m(each.removeprefix("residual_")))[:MOST_RESIDUALS]:
        field, height = values(name), name.removeprefix("residual_")
        rms = float(np.sqrt(np.nanmean(field**2))) if np.isfinite(field).any() else 0.0
        title = f"Residual of {height.removesuffix('km')} km, rms {rms:.1f} mGal" if height.endswith("km") else name
        panels.append(FieldPanel(title, "mGal", field, bounds, diverging=True))
    notes = [
        "A residual is the Bouguer anomaly less its upward continuation: the part whose sources are shallow. Colours"
        " end at the 1st and 99th percentile."
    ]
    notes += [str(fields.attrs["edge_note"])] if "edge_note" in fields.attrs else []
    columns = 1 if len(panels) == 1 else 2
    draw(path, panels, [], title="Gravity", notes=notes, columns=columns, panel_width_in=PANEL_WIDTH_IN)
