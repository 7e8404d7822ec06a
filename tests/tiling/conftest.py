"""A small field file and label raster to tile."""

import json

import numpy as np
import pytest
import xarray as xr

from gravmap.geology import load_legend
from gravmap.geology.labels import write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.gravity import write_fields

LEGEND = load_legend("bedrock10")


def field_dataset(lat, lon, seed=0):
    """Smooth random fields at nodes, in the shape that `gravmap residual` writes."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(lon, lat)
    fields = {}
    for name in ("bouguer", "regional_10km", "residual_10km"):
        values = sum(
            10 * np.sin(a * x + b * y + c)
            for a, b, c in zip(*rng.uniform((-3, -3, 0), (3, 3, 6), (5, 3)).T, strict=True)
        )
        attributes = {"units": "mGal", "height_m": 0.0}
        fields[name] = xr.DataArray(values.astype(np.float32), dims=("lat", "lon"), attrs=attributes)
    recipe = {"quantity": "bouguer", "heights_m": [10000.0], "channels": list(fields)}
    sources = [{"path": "made.nc", "sha256": "0" * 64, "source": "a test", "citation": "", "licence": "none"}]
    attrs = {"gravmap_recipe": json.dumps(recipe), "gravmap_sources": json.dumps(sources)}
    return xr.Dataset(fields, coords={"lat": lat, "lon": lon}, attrs=attrs)


def patchy_labels(shape, seed=0, cover=0.3):
    """Bodies of many sizes: the nearest of scattered seeds gives the class; some of it cover, some unusable."""
    rng = np.random.default_rng(seed)
    count = 120
    centres = rng.uniform((0, 0), shape, (count, 2))
    classes = rng.integers(1, 11, count)
    classes[rng.random(count) < cover] = 0
    classes[rng.random(count) < 0.05] = 255
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    away = (rows[..., None] - centres[:, 0]) ** 2 + (columns[..., None] - centres[:, 1]) ** 2
    return classes[away.argmin(axis=-1)].astype(np.uint8)


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """fields.nc (6 arc-minutes) and labels.tif (0.02 degrees) of 80-88 E, 43-48 N."""
    folder = tmp_path_factory.mktemp("sources") / "data"
    fields = field_dataset(np.round(np.arange(43, 48.01, 0.1), 9), np.round(np.arange(80, 88.01, 0.1), 9))
    write_fields(fields, folder / "fields.nc")
    write_index_raster(folder / "labels.tif", patchy_labels((250, 400)), (80, 43, 88, 48), LEGEND)
    write_legend(LEGEND, folder / "labels.legend.toml")
    return folder
