"""Layers of which the truth is known: one that tells classes apart, one at random, one that is the longitude.

Gravity repeats every degree and classes are assigned to patches at random: gravity alone tells neither the class
nor the place.
"""

import json

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.transform import from_origin

from gravmap.geology.labels import write_index_raster
from gravmap.geology.layers import RasterLayer
from gravmap.geology.layers_file import add_layer
from gravmap.geology.legend_file import write_legend
from gravmap.gravity import write_fields
from gravmap.learning import RegionDataset
from gravmap.learning.evaluation.null_models import null_scores
from gravmap.tiling import load_arrays, make_tiles
from gravmap.tiling.location import _r2, location_r2
from toys.workspace import legend

pytest.importorskip("sklearn")

WEST, SOUTH, EAST, NORTH = 80.0, 44.0, 92.0, 46.0
LAT, LON = np.linspace(SOUTH, NORTH, 21), np.linspace(WEST, EAST, 121)
SIDE = 0.5
PATCHES = np.random.default_rng(4).permutation(np.arange(4 * 24) % 2).reshape(4, 24) + 1


def truth(lat, lon):
    row = np.clip(((NORTH - lat) / SIDE).astype(int), 0, 3)
    column = np.clip(((lon - WEST) / SIDE).astype(int), 0, 23)
    return PATCHES[row, column]


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    lat, lon = np.meshgrid(LAT, LON, indexing="ij")
    field = xr.DataArray(
        (10 * np.sin(2 * np.pi * lat) * np.sin(2 * np.pi * lon)).astype(np.float32),
        coords={"lat": LAT, "lon": LON},
        dims=("lat", "lon"),
        attrs={"units": "mGal"},
    )
    attrs = {"gravmap_recipe": json.dumps({"quantity": "bouguer"}), "gravmap_sources": "[]"}
    write_fields(xr.Dataset({"bouguer": field, "residual_10km": field}, attrs=attrs), root / "fields.nc")
    rng = np.random.default_rng(0)
    layers = {
        "telling": truth(lat, lon) + rng.normal(0, 0.3, lat.shape),
        "random": rng.normal(0, 1, lat.shape),
        "longitude": lon,
    }
    for name, values in layers.items():
        half = 0.05
        with rasterio.open(
            root / f"{name}.tif", "w", driver="GTiff", count=1, height=LAT.size, width=LON.size, dtype="float32",
            crs="EPSG:4326", transform=from_origin(WEST - half, NORTH + half, 0.1, 0.1),
        ) as raster:  # fmt: skip
            raster.write(values[::-1].astype(np.float32), 1)
        add_layer(root / "fields.nc", RasterLayer(name, root / f"{name}.tif", units="1", resampling="nearest"))
    at_lat = NORTH - (np.arange(40) + 0.5) * 0.05
    at_lon = WEST + (np.arange(240) + 0.5) * 0.05
    labels = truth(at_lat[:, None], at_lon[None, :]).astype(np.uint8)
    write_index_raster(root / "labels.tif", labels, (WEST, SOUTH, EAST, NORTH), legend())
    write_legend(legend(), root / "labels.legend.toml")
    make_tiles(
        root / "fields.nc", root / "labels.tif", root / "tiles", sizes_deg=[1.0], strides_deg=[0.5], size_px=32,
        index_only=True, splits=["blocks", "random"], block_deg=1.0, buffer_deg=0.1, folds=4,
    )  # fmt: skip
    return root / "tiles"


def forest_accuracy(tiles, split, *layers):
    """Accuracy of a forest on held-out nodes, mean over two folds."""
    found = []
    for fold in (0, 1):
        arrays = load_arrays(tiles, channels=["residual_10km", *layers], split=split, fold=fold)
        scores = null_scores(RegionDataset.from_arrays(arrays), which=["gravity_forest"])
        found.append(scores["gravity_forest"]["pa"])
    return float(np.mean(found))


@pytest.fixture(scope="module")
def without(tiles):
    return {split: forest_accuracy(tiles, split) for split in ("blocks", "random")}


def test_a_layer_that_tells_the_classes_apart_raises_the_score_on_held_out_blocks(tiles, without):
    assert without["blocks"] < 0.6
    assert forest_accuracy(tiles, "blocks", "telling") > 0.85


def test_a_random_layer_does_not(tiles, without):
    assert abs(forest_accuracy(tiles, "blocks", "random") - without["blocks"]) < 0.08


def test_the_longitude_raises_the_score_of_the_random_split_alone(tiles, without):
    assert forest_accuracy(tiles, "random", "longitude") > without["random"] + 0.1
    assert forest_accuracy(tiles, "blocks", "longitude") < without["blocks"] + 0.05


def test_the_report_finds_the_longitude_and_nothing_else(tiles):
    found = {each.channel: each for each in location_r2(tiles.parent / "fields.nc")}
    assert {name: each.predicts for name, each in found.items() if each.predicts} == {"longitude": "longitude"}
    assert found["longitude"].lon > 0.95
    assert max(found["random"].lon, found["telling"].lat, found["residual_10km"].lon) < 0.1


def test_a_small_layer_within_one_fold_says_nothing_of_the_place():
    noise, place = np.random.default_rng(0).normal(size=(2, 500))
    assert _r2(noise, place, np.zeros(500, int)) is None
    assert abs(_r2(noise, place, np.arange(500) % 5)) < 0.2
