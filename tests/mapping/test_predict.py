"""A network whose answer is known, put through the whole of prediction."""

import json

import numpy as np
import pytest
import rasterio
import torch

from gravmap.errors import DeviceError, InputError, OptionError
from gravmap.files import sha256
from gravmap.geology import write_index_raster
from gravmap.gravity import residual_fields, write_fields
from gravmap.learning.checkpoint import save_model
from gravmap.mapping import Predictor, predict
from gravmap.mapping.predict import mapped_classes
from gravmap.mapping.raster import map_grid
from gravmap.network import build
from gravmap.regions import Region
from toy_map import LEGEND, gravity, spec_for

BOX = Region(81, 44, 84, 46)


@pytest.fixture
def project(tmp_path):
    fields = residual_fields(gravity(), [10_000.0])
    write_fields(fields, tmp_path / "fields.nc")
    torch.manual_seed(0)
    network = build("unet", in_channels=1, classes=10)
    save_model(tmp_path / "run", network, spec_for(fields, network))
    return tmp_path


def test_the_files_of_a_map_lie_on_one_grid(project):
    made = predict(project / "fields.nc", project / "run", BOX, project / "map", name="box", command="gravmap predict")
    assert sorted(entry.name for entry in (project / "map").iterdir()) == [
        "item.json",
        "lithology.tif",
        "lithology.tif.aux.xml",
        "probability.tif",
        "provenance.json",
        "quicklook.png",
    ]
    with rasterio.open(made.files["lithology.tif"]) as classes, rasterio.open(made.files["probability.tif"]) as shares:
        assert classes.crs.to_epsg() == shares.crs.to_epsg() == 4326
        assert classes.transform.almost_equals(shares.transform, 1e-9)
        assert classes.shape == shares.shape == (21, 31)
        assert np.allclose(classes.bounds, (80.95, 43.95, 84.05, 46.05))
        assert classes.nodata == 255
        values, bands = classes.read(1), shares.read()
        assert classes.colormap(1)[1][:3] == (0xF0, 0x04, 0x7F)  # Archean, as in the legend
        assert shares.descriptions == tuple(entry.name for entry in LEGEND.bedrock)
        assert classes.tags()["GRAVMAP_CONTENT"] == "bedrock class predicted everywhere"
    # The class is the likeliest one, and the shares add up to one (each is rounded to 1/200).
    assert (np.take_along_axis(bands, values[None].astype(int) - 1, 0)[0] == bands.max(0)).all()
    assert np.abs(bands.astype(int).sum(0) - 200).max() <= 5
    assert set(np.unique(values)) <= set(range(1, 11))


def test_provenance_names_what_went_in_and_what_came_out(project):
    made = predict(
        project / "fields.nc", project / "run", BOX, project / "map", name="box", command="gravmap predict -x"
    )
    record = json.loads(made.files["provenance.json"].read_text())
    assert record["command"] == "gravmap predict -x"
    assert record["inputs"]["fields"]["sha256"] == sha256(project / "fields.nc")
    assert record["inputs"]["model"]["sha256"] == sha256(project / "run" / "model.safetensors")
    assert record["outputs"]["lithology.tif"]["sha256"] == sha256(made.files["lithology.tif"])
    assert record["sources"][0]["name"] == "a synthetic field"


def test_prediction_is_the_networks_own_answer_where_one_window_is_alone(project):
    """A window that covers all is the network applied once: compare with doing that by hand."""
    predictor = Predictor(project / "fields.nc", project / "run", "cpu")
    region = Region(80, 43, 85, 47)
    plan = predictor.plan(region, [5.0])
    field = predictor.dataset["residual_10km"].values[::-1].copy()
    centre = plan.windows[5.0][np.abs(plan.windows[5.0].mean(axis=1) - (80 + 42.5 + 85 + 47.5) / 4).argmin()]
    one = type(plan)(plan.region, plan.grid, {5.0: centre[None]}, "cpu", 64)
    found = predictor.probability(one)
    west, south, east, north = centre
    # Pixel centres of the window, sampled bilinearly from the nodes by scipy.
    from scipy.interpolate import RegularGridInterpolator

    lat = north - (np.arange(64) + 0.5) * (north - south) / 64
    lon = west + (np.arange(64) + 0.5) * (east - west) / 64
    sample = RegularGridInterpolator((predictor.lat, predictor.lon), field[::-1], bounds_error=False, fill_value=None)
    pixels = sample(np.stack(np.meshgrid(lat, lon, indexing="ij"), axis=-1)).astype(np.float32)
    with torch.inference_mode():
        logits = predictor.network(torch.as_tensor(pixels)[None, None] / 10.0)[0].numpy()
    # A cell's logits are the mean over the cell of the bilinear surface between pixel centres; away from the rim.
    rows = np.flatnonzero((plan.grid.lat_deg > south + 0.5) & (plan.grid.lat_deg < north - 0.5))
    cols = np.flatnonzero((plan.grid.lon_deg > west + 0.5) & (plan.grid.lon_deg < east - 0.5))
    within = (np.arange(16) + 0.5) / 16 * 0.1 - 0.05
    fine_lat = (plan.grid.lat_deg[rows][:, None] + within).ravel()
    fine_lon = (plan.grid.lon_deg[cols][:, None] + within).ravel()
    targets = np.stack(np.meshgrid(fine_lat, fine_lon, indexing="ij"), axis=-1)
    fine = np.stack([RegularGridInterpolator((lat[::-1], lon), band[::-1])(targets) for band in logits])
    hand = fine.reshape(len(fine), rows.size, 16, cols.size, 16).mean(axis=(2, 4))
    shares = np.exp(hand - hand.max(0)) / np.exp(hand - hand.max(0)).sum(0)
    assert np.abs(found[:, rows[:, None], cols[None, :]] - shares).max() < 1e-3


def test_scales_default_to_what_a_cpu_can_do(project):
    predictor = Predictor(project / "fields.nc", project / "run", "cpu")
    assert sorted(predictor.plan(BOX).windows) == [2.5, 5.0]
    assert sorted(predictor.plan(BOX, [1.0]).windows) == [1.0]
    with pytest.raises(OptionError, match=r"1deg, 2\.5deg, 5deg"):
        predictor.plan(BOX, [7.0])
    assert predictor.seconds_per_pass() > 0


def test_the_batch_size_changes_nothing(project):
    predictor = Predictor(project / "fields.nc", project / "run", "cpu")
    plan = predictor.plan(BOX, [2.5])
    one, three = predictor.probability(plan, batch_size=1), predictor.probability(plan, batch_size=3)
    assert np.abs(one - three).max() < 1e-5


def test_mapped_outcrop_is_shown_as_mapped(project):
    grid = map_grid(np.arange(42, 48.01, 0.1), np.arange(79, 86.01, 0.1), BOX)
    mapped = np.zeros((800, 1200), np.uint8)  # 80-86E 43-47N in cells of 0.005 degrees
    mapped[:, :400] = 4  # 80-82E
    mapped[:, 1000:] = 255
    write_index_raster(project / "labels.tif", mapped, (80, 43, 86, 47), LEGEND)
    LEGEND.write(project / "labels.legend.toml")
    made = predict(project / "fields.nc", project / "run", BOX, project / "map", labels_path=project / "labels.tif")
    west = grid.lon_deg < 82 - 1e-6
    assert (made.lithology[:, west] == 4).all()
    assert made.outcrop[:, west].all()
    assert not made.outcrop[:, ~west].any()
    everywhere = predict(
        project / "fields.nc",
        project / "run",
        BOX,
        project / "map",
        labels_path=project / "labels.tif",
        everywhere=True,
        overwrite=True,
    )
    assert everywhere.outcrop is None
    assert (everywhere.lithology[:, ~west] == made.lithology[:, ~west]).all()
    # A cell of the map takes the class at its centre, and none from outside the label raster.
    far = map_grid(np.arange(42, 48.01, 0.1), np.arange(79, 86.01, 0.1), Region(79, 42, 86, 48))
    found = mapped_classes(project / "labels.tif", far)
    assert (found[far.lat_deg > 47.001] == 255).all()
    assert (found[:, far.lon_deg < 79.999] == 255).all()
    inside = (far.lat_deg > 43.05) & (far.lat_deg < 46.95)
    assert (found[inside][:, (far.lon_deg > 80.01) & (far.lon_deg < 81.99)] == 4).all()


def test_where_gravity_is_unknown_there_is_no_data(project):
    grid = gravity()
    grid.loc[{"lat": slice(44.45, 45.05), "lon": slice(82.15, 82.85)}] = np.nan
    fields = residual_fields(grid, [10_000.0])
    write_fields(fields, project / "holes.nc")
    made = predict(project / "holes.nc", project / "run", BOX, project / "map")
    hole = made.lithology == 255
    known = fields["residual_10km"].sel(lat=slice(44 - 1e-6, 46 + 1e-6), lon=slice(81 - 1e-6, 84 + 1e-6)).values[::-1]
    assert hole.sum() == np.isnan(known).sum() > 20
    with rasterio.open(made.files["probability.tif"]) as raster:
        assert (raster.read(1) == 255).sum() == hole.sum()


def test_fields_of_another_recipe_are_refused(project):
    higher = gravity().assign_attrs(height_m=10_000.0)
    write_fields(residual_fields(higher, [10_000.0]), project / "higher.nc")
    with pytest.raises(InputError, match=r"input_height_m: trained on 0.0, found 10000.0"):
        Predictor(project / "higher.nc", project / "run")
    # A second height in the file changes nothing of the first: that is no other recipe.
    write_fields(residual_fields(gravity(), [10_000.0, 20_000.0]), project / "both.nc")
    Predictor(project / "both.nc", project / "run")
    write_fields(residual_fields(gravity(), [20_000.0]), project / "other.nc")
    with pytest.raises(InputError, match="residual_10km"):
        Predictor(project / "other.nc", project / "run")


def test_an_earlier_map_is_kept(project):
    predict(project / "fields.nc", project / "run", BOX, project / "map")
    before = sha256(project / "map" / "lithology.tif")
    with pytest.raises(InputError, match="--overwrite"):
        predict(project / "fields.nc", project / "run", BOX, project / "map")
    assert sha256(project / "map" / "lithology.tif") == before


def test_a_region_beyond_the_fields_is_refused_before_anything_is_written(project):
    with pytest.raises(InputError, match="beyond the gravity fields"):
        predict(project / "fields.nc", project / "run", Region(60, 44, 84, 46), project / "map")
    assert not (project / "map").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a CUDA device")
def test_a_missing_device_is_said(project):
    with pytest.raises(DeviceError, match="CUDA"):
        Predictor(project / "fields.nc", project / "run", "cuda")
