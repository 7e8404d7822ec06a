"""The examples of docstrings run in a small workspace: data/fields.nc, data/labels.tif and data/tiles."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def workspace_of_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80-88 E, 43-48 N: gravity at 6 arc-minutes, labels of 0.02 degrees with one class in each square of a degree."""
    import numpy as np
    import xarray as xr

    from gravmap.geology import load_legend, write_index_raster
    from gravmap.geology.legend_file import write_legend
    from gravmap.gravity import write_fields
    from gravmap.tiling import make_tiles

    folder = tmp_path_factory.mktemp("workspace")
    data = folder / "data"
    lat, lon = np.round(np.arange(43, 48.01, 0.1), 9), np.round(np.arange(80, 88.01, 0.1), 9)
    x, y = np.meshgrid(lon - 80, lat - 43)
    gravity = (20 * np.sin(1.1 * x + 0.7 * y) + 12 * np.cos(1.3 * y - 0.8 * x)).astype(np.float32)
    grid = xr.DataArray(gravity, dims=("lat", "lon"), coords={"lat": lat, "lon": lon}, attrs={"units": "mGal"})
    attrs = {"gravmap_recipe": json.dumps({"quantity": "bouguer"}), "gravmap_sources": "[]"}
    write_fields(xr.Dataset({"bouguer": grid, "residual_10km": grid}, attrs=attrs), data / "fields.nc")
    labels = np.random.default_rng(0).integers(0, 4, (5, 8)).repeat(50, 0).repeat(50, 1).astype(np.uint8)
    legend = load_legend("bedrock10")
    write_index_raster(data / "labels.tif", labels, (80, 43, 88, 48), legend)
    write_legend(legend, data / "labels.legend.toml")
    make_tiles(data / "fields.nc", data / "labels.tif", data / "tiles", sizes_deg=[2.5, 5], size_px=64)
    return folder


@pytest.fixture(autouse=True)
def _examples_run_in_a_workspace(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(request.getfixturevalue("workspace_of_examples"))
