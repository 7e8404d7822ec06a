"""A network that reads the distance to faults, with fields computed from other faults."""

import geopandas
import pytest
import torch
from shapely.geometry import LineString

from gravmap.errors import InputError
from gravmap.geology.layers import FAULT_DISTANCE
from gravmap.geology.layers_file import add_fault_distance
from gravmap.gravity import open_fields, residual_fields, write_fields
from gravmap.gravity.fields_file import field_recipe
from gravmap.learning.training.checkpoint import save_model
from gravmap.mapping.predictor import Predictor
from gravmap.network import build
from toys.map import gravity, spec_for


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
