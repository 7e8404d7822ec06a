"""The examples of docstrings run in a small workspace: data/fields.nc, data/labels.tif and data/tiles.

The modules are those that `import gravmap` finds, installed or not: `pytest --doctest-modules` would import the files
of a checkout beside an installed copy of them.
"""

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import gravmap
from gravmap.geology.labels import write_index_raster
from gravmap.geology.legend_file import load_legend, write_legend
from gravmap.gravity import residual_fields, write_fields
from gravmap.tiling.tileset import make_tiles

FOLDER = Path(gravmap.__file__).parent


def modules_with_examples():
    """Dotted names of the modules that have examples, found without importing them."""
    for path in sorted(FOLDER.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            yield ".".join(["gravmap", *path.relative_to(FOLDER).with_suffix("").parts]).removesuffix(".__init__")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """80-88 E, 43-48 N: gravity at 6 arc-minutes, labels of 0.02 degrees with one class in each square of a degree."""
    folder = tmp_path_factory.mktemp("workspace")
    data = folder / "data"
    lat, lon = np.round(np.arange(43, 48.01, 0.1), 9), np.round(np.arange(80, 88.01, 0.1), 9)
    x, y = np.meshgrid(lon - 80, lat - 43)
    gravity = (20 * np.sin(1.1 * x + 0.7 * y) + 12 * np.cos(1.3 * y - 0.8 * x)).astype(np.float32)
    grid = xr.DataArray(gravity, dims=("lat", "lon"), coords={"lat": lat, "lon": lon}, attrs={"units": "mGal"})
    write_fields(residual_fields(grid, [10_000.0]), data / "fields.nc")
    labels = np.random.default_rng(0).integers(0, 4, (5, 8)).repeat(50, 0).repeat(50, 1).astype(np.uint8)
    legend = load_legend("basement10")
    write_index_raster(data / "labels.tif", labels, (80, 43, 88, 48), legend)
    write_legend(legend, data / "labels.legend.toml")
    make_tiles(data / "fields.nc", data / "labels.tif", data / "tiles", sizes_deg=[2.5, 5], size_px=64)
    return folder


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_examples_of_docstrings(name, workspace, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    module = importlib.import_module(name)
    found = [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]
    assert found, f"{name} has examples that doctest does not find"
    report = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    for test in found:
        report.run(test)
    assert report.failures == 0, capsys.readouterr().out
