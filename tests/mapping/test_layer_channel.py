"""Networks that read layers, with fields whose layers are others, or are missing in part."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from shapely.geometry import LineString

from gravmap.errors import InputError
from gravmap.geology.layers import FAULT_DISTANCE, DistanceLayer
from gravmap.geology.layers_file import add_layer
from gravmap.gravity import open_fields, residual_fields, write_fields
from gravmap.gravity.fields_file import field_recipe
from gravmap.learning.training.checkpoint import save_model
from gravmap.mapping import Options, predict
from gravmap.mapping.predictor import Predictor
from gravmap.network import build
from toys.map import BOX, gravity, spec_for


def add_fault_distance(fields, files, cap_km=100.0):
    return add_layer(fields, DistanceLayer(tuple(files), cap_km), overwrite=True)


def faults(folder, name, lon):
    line = LineString([(lon, 44), (lon + 1, 46)])
    geopandas.GeoDataFrame({"n": [1]}, geometry=[line], crs="EPSG:4326").to_file(folder / name)
    return folder / name


@pytest.fixture
def project(tmp_path):
    """Fields with faults, a run that reads them, and a run that reads gravity alone."""
    fields = residual_fields(gravity(), [10_000.0])
    write_fields(fields, tmp_path / "fields.nc")
    add_fault_distance(tmp_path / "fields.nc", [faults(tmp_path, "one.gpkg", 82)])
    recipe = field_recipe(open_fields(tmp_path / "fields.nc"))
    for name, channels in (("both", ["residual_10km", FAULT_DISTANCE]), ("plain", ["residual_10km"])):
        network = build("unet", in_channels=len(channels), classes=10)
        torch.manual_seed(0)
        units = ["km" if channel == FAULT_DISTANCE else "mGal" for channel in channels]
        inputs = [
            {"kind": "field", "field": channel, "unit": unit, "spread": 10.0}
            for channel, unit in zip(channels, units, strict=True)
        ]
        shaped = {"inputs": inputs, "field_recipe": recipe}
        spec = spec_for(fields, network, **shaped)
        save_model(tmp_path / name, network, spec)
    return tmp_path


def test_only_a_network_that_reads_faults_refuses_other_faults(project):
    Predictor(project / "fields.nc", project / "both", "cpu")
    for file, cap in (("two.gpkg", 100.0), ("one.gpkg", 50.0)):
        path = project / file if (project / file).exists() else faults(project, file, 83)
        add_fault_distance(project / "fields.nc", [path], cap)
        with pytest.raises(InputError, match=r"fault_distance.*another recipe"):
            Predictor(project / "fields.nc", project / "both", "cpu")
        Predictor(project / "fields.nc", project / "plain", "cpu")


def test_fields_without_faults_are_refused_with_the_command_that_adds_them(project):
    write_fields(residual_fields(gravity(), [10_000.0]), project / "bare.nc")
    with pytest.raises(InputError, match="gravmap layer add"):
        Predictor(project / "bare.nc", project / "both", "cpu")
    Predictor(project / "bare.nc", project / "plain", "cpu")


def test_where_a_layer_is_missing_only_a_network_that_has_learned_this_predicts(tmp_path):
    """A network without the mask has no data there; one with it has, and the fill is no number of the layer."""
    fields = residual_fields(gravity(), [10_000.0])
    lon = fields["lon"].values
    values = np.where(lon < 82.45, 500 + lon, np.nan) * np.ones((fields.sizes["lat"], 1))
    fields["magnetic"] = (("lat", "lon"), values.astype(np.float32), {"units": "nT"})
    recipe = {**field_recipe(fields), "by_channel": {"magnetic": {"version": 1}}}
    fields.attrs["gravmap_recipe"] = json.dumps(recipe)
    write_fields(fields, tmp_path / "fields.nc")
    found = {}
    for masked in (False, True):
        network = build("unet", in_channels=3 if masked else 2, classes=10)
        gravity_channel = {"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 10.0}
        layer = {"kind": "layer", "field": "magnetic", "unit": "nT", "spread": 1.0, "centre": 581.0, "masked": masked}
        spec = spec_for(fields, network, inputs=[gravity_channel, layer], field_recipe=recipe, scales_deg=[2.5])
        save_model(tmp_path / str(masked), network, spec)
        made = predict(
            tmp_path / "fields.nc", tmp_path / str(masked), BOX, tmp_path / f"map {masked}", labels_path=None,
            options=Options(device="cpu"),
        )  # fmt: skip
        with rasterio.open(made.files["lithology.tif"]) as raster:
            found[masked] = raster.read(1) != 255
    columns = np.linspace(BOX.west, BOX.east, found[True].shape[1])
    assert found[True].all()
    assert np.array_equal(found[False].all(axis=0), columns < 82.45)
    assert not found[False][:, columns > 82.45].any()
