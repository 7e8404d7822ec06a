"""A small gravity field and the description of a network trained on it, for the tests of prediction."""

import json

import numpy as np
import xarray as xr

from gravmap.geology import load_legend
from gravmap.learning.checkpoint import ModelSpec

LEGEND = load_legend("bedrock10")


def gravity(north=48.0):
    lat, lon = np.arange(42, north + 1e-9, 0.1), np.arange(79, 86 + 1e-9, 0.1)
    rng = np.random.default_rng(0)
    values = 30 * np.sin(lon)[None, :] + 20 * np.cos(1.3 * lat)[:, None] + rng.normal(0, 2, (lat.size, lon.size))
    return xr.DataArray(
        values.astype(np.float32),
        dims=("lat", "lon"),
        coords={"lat": lat, "lon": lon},
        attrs={"units": "mGal", "height_m": 0.0, "long_name": "Bouguer anomaly"},
    )


def spec_for(fields, network, **changes):
    values = {
        "model": "unet",
        "architecture": network.architecture.to_dict(),
        "inputs": [{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 10.0}],
        "classes": [
            {"index": entry.index, "name": entry.name, "colour": entry.colour, "age": entry.age}
            for entry in LEGEND.bedrock
        ],
        "tile_size_px": 64,
        "scales_deg": [1.0, 2.5, 5.0],
        "field_recipe": json.loads(fields.attrs["gravmap_recipe"]),
        "split": {"name": "blocks"},
        "seed": 0,
        "sources": [{"name": "a synthetic field", "licence": "none needed"}],
    }
    return ModelSpec(**(values | changes))
