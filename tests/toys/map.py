"""A small gravity field, untrained networks that use it, and readers of the maps, for the tests of prediction."""

import json

import numpy as np
import rasterio
import torch
import xarray as xr

from gravmap.geology import load_legend
from gravmap.gravity import residual_fields, write_fields
from gravmap.learning.training.checkpoint import ModelSpec, save_model
from gravmap.network import build
from gravmap.regions import Region

LEGEND = load_legend("bedrock10")
BOX = Region(81, 44, 84, 46)
RASTERS = ("lithology", "probability", "uncertainty", "evidence")


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


def make_run(folder, fields, seed=0, model="unet", **changes):
    """Write a run with an untrained network, and return the network; `changes` of the model's description."""
    torch.manual_seed(seed)
    network = build(model, in_channels=1, classes=10)
    save_model(folder, network, spec_for(fields, network, model=model, **changes))
    return network


def make_project(folder, grid=None):
    """Write ``fields.nc`` and a run called ``run``; return the fields."""
    fields = residual_fields(gravity() if grid is None else grid, [10_000.0])
    write_fields(fields, folder / "fields.nc")
    make_run(folder / "run", fields)
    return fields


def layers(folder):
    """The values of every raster of a map: name to (bands, rows, columns)."""
    found = {}
    for name in RASTERS:
        with rasterio.open(folder / f"{name}.tif") as raster:
            found[name] = raster.read()
    return found


def same(one, other):
    """Whether two maps hold the same values, cell by cell."""
    return all(np.array_equal(one[name], other[name]) for name in RASTERS)


def nearly(one, other, cells=0.002):
    """Whether two maps differ by rounding alone: one step at most, or another class on a few cells."""
    steps = max(int(np.abs(one["probability"].astype(int) - other["probability"]).max()), 0)
    return steps <= 1 and bool((one["lithology"] != other["lithology"]).mean() <= cells)
