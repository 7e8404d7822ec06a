"""Prediction with a network whose output is known."""

import json
import xml.etree.ElementTree as ElementTree
import zipfile
from html import unescape

import geopandas
import numpy as np
import pytest
import rasterio
import torch
import xarray as xr

from gravmap.errors import DeviceError
from gravmap.files import sha256
from gravmap.geology.labels import LabelFile, write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.gravity import residual_fields, write_fields
from gravmap.mapping import Options, inference, predict
from gravmap.mapping.blend import Blender
from gravmap.mapping.inference import InferenceTask, run_inference
from gravmap.mapping.map_grid import map_grid
from gravmap.mapping.predictor import Predictor
from gravmap.network.window_pass import window_logits
from gravmap.regions import Region
from toys.map import BOX, LEGEND, gravity, layers, make_project


@pytest.fixture
def project(tmp_path):
    make_project(tmp_path)
    return tmp_path


def run(project, region=BOX, folder="map", **more):
    return predict(project / "fields.nc", project / "run", region, project / folder, **more)


def test_the_rasters_of_a_map_lie_on_one_grid(project):
    made = run(project, name="box", command="gravmap predict")
    assert {path.name for path in (project / "map").iterdir()} == set(made.files)
    assert not (project / "map.partial").exists()
    with (
        rasterio.open(made.files["lithology.tif"]) as classes,
        rasterio.open(made.files["probability.tif"]) as shown,
    ):
        assert classes.crs.to_epsg() == shown.crs.to_epsg() == 4326
        assert classes.transform.almost_equals(shown.transform, 1e-9)
        assert classes.shape == shown.shape == (21, 31)
        assert np.allclose(classes.bounds, (80.95, 43.95, 84.05, 46.05))
        assert classes.nodata == 255
        values, bands = classes.read(1), shown.read()
        assert classes.colormap(1)[1][:3] == (0xF0, 0x04, 0x7F)  # Archean, as in the legend
        assert shown.descriptions == tuple(entry.name for entry in LEGEND.bedrock)
        assert classes.tags()["GRAVMAP_CONTENT"] == "bedrock class predicted everywhere"
    # The class is the most probable one, and the probabilities sum to one (each is rounded to 1/200).
    assert (np.take_along_axis(bands, values[None].astype(int) - 1, 0)[0] == bands.max(0)).all()
    assert np.abs(bands.astype(int).sum(0) - 200).max() <= 5
    assert set(np.unique(values)) <= set(range(1, 11))
    assert sum(each.cells for each in made.summary.classes) == made.summary.cells == 21 * 31


def test_uncertainty_is_computed_from_the_probabilities(project, rasters_this_time):
    from scipy.stats import entropy

    run(project)
    found = layers(project / "map")
    ranked = np.sort(found["probability"] / 200.0, axis=0)
    with rasterio.open(project / "map" / "uncertainty.tif") as raster:
        names = raster.descriptions
        measured = {name: raster.read(band + 1) * raster.scales[band] for band, name in enumerate(names)}
    # One run, without an area of applicability.
    assert names == ("entropy", "margin", "agreement", "probability")
    own = np.take_along_axis(found["probability"], found["lithology"].astype(int) - 1, 0)[0]
    np.testing.assert_allclose(measured["probability"], own / 200, atol=1e-6)
    np.testing.assert_allclose(measured["entropy"], entropy(ranked, axis=0) / np.log(10), atol=0.01)
    np.testing.assert_allclose(measured["margin"], ranked[-1] - ranked[-2], atol=0.011)
    with rasterio.open(project / "map" / "second_class.tif") as raster:
        named = raster.read(1).astype(int)
    second = np.take_along_axis(found["probability"], named[None] - 1, 0)[0]
    assert (second == np.sort(found["probability"], axis=0)[-2]).all()
    assert (named != found["lithology"][0]).all()
    assert 0 <= measured["agreement"].min() < measured["agreement"].max() <= 1


def test_gravity_is_stored_with_the_map(project, rasters_this_time):
    run(project)
    with rasterio.open(project / "map" / "gravity.tif") as raster:
        assert raster.descriptions == ("residual_10km", "bouguer")
        assert set(raster.units) == {"mGal"}
        values = [raster.read(band + 1) * raster.scales[band] + raster.offsets[band] for band in range(2)]
        lat, lon = 46 - 0.1 * np.arange(21), 81 + 0.1 * np.arange(31)
    with xr.open_dataset(project / "fields.nc") as fields:
        at = fields.sel(lat=xr.DataArray(lat), lon=xr.DataArray(lon, dims="x"), method="nearest")
        for name, found in zip(("residual_10km", "bouguer"), values, strict=True):
            np.testing.assert_allclose(found, at[name].values, atol=0.0101)
    # Without a geological map there is neither outcrop nor a null model.
    assert not (project / "map" / "null_model.tif").exists()
    assert not (project / "map" / "outcrop_distance.tif").exists()


def test_provenance_lists_inputs_and_outputs(project):
    made = run(project, name="box", command="gravmap predict -x", options=Options(device="cpu", explore=True))
    record = json.loads(made.files["provenance.json"].read_text())
    assert record["command"] == "gravmap predict -x"
    assert record["inputs"]["fields"]["sha256"] == sha256(project / "fields.nc")
    assert record["inputs"]["model"]["sha256"] == sha256(project / "run" / "model.safetensors")
    assert record["outputs"]["lithology.tif"]["sha256"] == sha256(made.files["lithology.tif"])
    assert record["sources"][0]["name"] == "a synthetic field"
    assert record["settings"]["precision"] == ["float32"]
    assert record["outputs"]["map.qgz"]["sha256"] == sha256(made.files["map.qgz"])
    # How far to trust the map is where a reader looks: in the raster, in QGIS, and in the page to explore.
    said = f"{record['verdict']['sentence']} {record['verdict']['reason']}".strip()
    with rasterio.open(made.files["lithology.tif"]) as raster:
        assert raster.tags()["GRAVMAP_VERDICT"] == said
        assert raster.tags()["GRAVMAP_CONTENT"], "the tags of the TIFF are still there"
    with zipfile.ZipFile(made.files["map.qgz"]) as archive:
        layers = ElementTree.fromstring(archive.read("map.qgs"))
    assert layers.findtext("projectMetadata/abstract") == said
    noted = {each.findtext("layername") for each in layers.iter("maplayer") if each.find("customproperties")}
    assert noted == {"Bedrock", "Predicted (ruled)"}
    head = unescape(made.files["explore.html"].read_text(encoding="utf-8").split("</header>")[0])
    assert record["verdict"]["sentence"] in head
    assert record["verdict"]["reason"] in head


def test_with_a_single_window_prediction_is_that_window_passed_through_the_network(project):
    """A single window covers the map: compare with applying the network directly."""
    predictor = Predictor(project / "fields.nc", project / "run", "cpu")
    plan = predictor.plan(Region(80, 43, 85, 47), [5.0])
    field = predictor.fields.read(["residual_10km"], slice(0, 61), slice(0, 71))[0]
    centre = plan.windows[5.0][np.abs(plan.windows[5.0].mean(axis=1) - (80 + 42.5 + 85 + 47.5) / 4).argmin()]
    one = type(plan)(plan.region, plan.grid, {5.0: centre[None]}, "cpu", (64,), 10)
    task = InferenceTask(
        project / "fields.nc", (project / "run",), one.jobs, plan.grid.lat_deg, plan.grid.lon_deg, project
    )
    run_inference(task, predictor, lambda name, sums: None)
    rows, columns = plan.grid.shape
    found = Blender(one, project, [1.0]).block(slice(0, rows), slice(0, columns)).probability
    west, south, east, north = centre
    # Pixel centres of the window, sampled bilinearly from the nodes by scipy.
    from scipy.interpolate import RegularGridInterpolator

    lat = north - (np.arange(64) + 0.5) * (north - south) / 64
    lon = west + (np.arange(64) + 0.5) * (east - west) / 64
    nodes = (predictor.fields.lat[::-1], predictor.fields.lon)
    sample = RegularGridInterpolator(nodes, field[::-1], bounds_error=False, fill_value=None)
    pixels = sample(np.stack(np.meshgrid(lat, lon, indexing="ij"), axis=-1)).astype(np.float32)
    with torch.inference_mode():
        logits = window_logits(predictor.members[0].network, torch.as_tensor(pixels)[None, None] / 10.0)[0].numpy()
    # A cell's logits are the mean over the cell of the bilinear surface between pixel centres; away from the rim.
    rows = np.flatnonzero((plan.grid.lat_deg > south + 0.5) & (plan.grid.lat_deg < north - 0.5))
    cols = np.flatnonzero((plan.grid.lon_deg > west + 0.5) & (plan.grid.lon_deg < east - 0.5))
    within = (np.arange(16) + 0.5) / 16 * 0.1 - 0.05
    fine_lat = (plan.grid.lat_deg[rows][:, None] + within).ravel()
    fine_lon = (plan.grid.lon_deg[cols][:, None] + within).ravel()
    targets = np.stack(np.meshgrid(fine_lat, fine_lon, indexing="ij"), axis=-1)
    fine = np.stack([RegularGridInterpolator((lat[::-1], lon), band[::-1])(targets) for band in logits])
    hand = fine.reshape(len(fine), rows.size, 16, cols.size, 16).mean(axis=(2, 4))
    expected = np.exp(hand - hand.max(0)) / np.exp(hand - hand.max(0)).sum(0)
    assert np.abs(found[:, rows[:, None], cols[None, :]] - expected).max() < 1e-3
    # A temperature makes the probabilities less extreme.
    warm = Blender(one, project, [3.0]).block(slice(0, plan.grid.shape[0]), slice(0, plan.grid.shape[1])).probability
    expected = np.exp((hand - hand.max(0)) / 3) / np.exp((hand - hand.max(0)) / 3).sum(0)
    assert np.abs(warm[:, rows[:, None], cols[None, :]] - expected).max() < 1e-3


def test_the_memory_estimate_is_of_what_the_device_runs(project, monkeypatch):
    def estimate(network, in_channels, size, batch, **options):
        estimated.append((size, batch, options))
        return 1

    estimated = []
    monkeypatch.setattr("gravmap.mapping.predictor.peak_bytes", estimate)
    monkeypatch.setattr("gravmap.mapping.predictor.backend", {"cpu": "native", "cuda": "torchvision"}.get)
    with Predictor(project / "fields.nc", project / "run", "cpu") as predictor:
        predictor.network_bytes(2)
        predictor.device = "cuda"
        predictor.members[0].network.scoring_precision = "bfloat16"
        predictor.network_bytes(2)
    assert estimated == [
        (64, 2, {"precision": "float32", "deformable": "native"}),
        (64, 2, {"precision": "bfloat16", "deformable": "torchvision"}),
    ]


def test_memory_errors_of_a_prediction_say_that_windows_are_kept(project, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(inference, "_logits", fail)
    with pytest.raises(DeviceError, match="Not enough memory: CUDA error: out of memory") as caught:
        run(project, options=Options(device="cpu"))
    assert "Finished windows are kept" in caught.value.hint


def test_on_a_cpu_small_windows_are_not_used_by_default(project):
    predictor = Predictor(project / "fields.nc", project / "run", "cpu")
    plan = predictor.plan(BOX)
    assert sorted(plan.windows) == [2.5, 5.0]
    assert sorted(predictor.plan(BOX, [1.0]).windows) == [1.0]
    costs = {cost.scale_deg: cost for cost in predictor.estimate_costs(plan)}
    assert [scale for scale, cost in costs.items() if cost.chosen] == [2.5, 5.0]
    assert set(costs) == {1.0, 2.5, 5.0}
    assert costs[1.0].seconds / costs[2.5].seconds == pytest.approx(costs[1.0].windows / costs[2.5].windows)
    assert costs[2.5].windows == len(plan.windows[2.5])


@pytest.mark.slow
def test_the_estimated_disk_space_is_that_of_the_files(project, monkeypatch, rasters_this_time):
    taken = {}

    def note(self, *args, **more):
        taken["bytes"] = sum(path.stat().st_size for path in (project / "map.partial" / "windows").iterdir())
        return block(self, *args, **more)

    from gravmap.mapping.assemble import Assembler

    block = Assembler.block
    monkeypatch.setattr(Assembler, "block", note)
    for flips in (False, True):
        plan = run(project, options=Options(flips=flips), overwrite=True).plan
        headers = 128 * len(plan.jobs) * (1 + flips)
        assert taken["bytes"] == sum(map(plan.window_bytes, plan.windows)) + headers


def test_mapped_outcrop_is_shown_as_mapped(project, rasters_this_time):
    mapped = np.zeros((800, 1200), np.uint8)  # 80-86E 43-47N in cells of 0.005 degrees
    mapped[:, :400] = 4  # 80-82E
    mapped[:, 1000:] = 255
    write_index_raster(project / "labels.tif", mapped, (80, 43, 86, 47), LEGEND)
    write_legend(LEGEND, project / "labels.legend.toml")
    labels = project / "labels.tif"
    shown = run(project, labels_path=labels)
    west = shown.plan.grid.lon_deg < 82 - 1e-6
    found = layers(project / "map")
    assert (found["lithology"][0][:, west] == 4).all()
    assert (found["evidence"][0][:, west] == 1).all()
    # 25 km at 45 N are 0.32 degrees; the run has no area of applicability, so that all other cells are extrapolated.
    near = ~west & (shown.plan.grid.lon_deg < 82.29)
    assert (found["evidence"][0][:, near] == 2).all()
    assert (found["evidence"][0][:, shown.plan.grid.lon_deg > 82.37] == 4).all()
    run(project, folder="all", labels_path=labels, options=Options(everywhere=True))
    everywhere = layers(project / "all")
    assert (everywhere["lithology"][0][:, ~west] == found["lithology"][0][:, ~west]).all()
    assert (everywhere["lithology"][0][:, west] != 4).any()
    assert not (everywhere["evidence"] == 1).any()
    assert np.array_equal(everywhere["probability"], found["probability"])
    # A cell of the map takes the class at its centre, and none from outside the label raster.
    far = map_grid(np.arange(42, 48.01, 0.1), np.arange(79, 86.01, 0.1), Region(79, 42, 86, 48))
    with LabelFile(labels) as file:
        at = file.sample(far.lat_deg, far.lon_deg)
    assert (at[far.lat_deg > 47.001] == 255).all()
    assert (at[:, far.lon_deg < 79.999] == 255).all()
    inside = (far.lat_deg > 43.05) & (far.lat_deg < 46.95)
    assert (at[inside][:, (far.lon_deg > 80.01) & (far.lon_deg < 81.99)] == 4).all()


def test_unmapped_ground_is_blank_and_predicted_on_request(project, rasters_this_time):
    mapped = np.zeros((200, 300), np.uint8)  # 80-86E 43-47N in cells of 0.02 degrees
    mapped[:, :80] = 4  # 80-81.6E
    mapped[:, 151:] = 255  # beyond 83.02E
    write_index_raster(project / "labels.tif", mapped, (80, 43, 86, 47), LEGEND)
    write_legend(LEGEND, project / "labels.legend.toml")
    options = {"scales_deg": (5.0,), "near_km": 300.0}
    made = run(project, labels_path=project / "labels.tif", options=Options(**options))
    unmapped = np.broadcast_to(made.plan.grid.lon_deg > 83.02, made.plan.grid.shape)
    outcrop = np.broadcast_to(made.plan.grid.lon_deg < 81.6 - 1e-6, made.plan.grid.shape)
    blank = layers(project / "map")
    for name in ("lithology", "probability", "uncertainty"):
        assert ((blank[name] == 255) == unmapped).all(), name
    assert ((blank["evidence"][0] == 5) == unmapped).all()
    assert set(np.unique(blank["evidence"])) == {1, 2, 5}  # though all of it lies within 300 km of outcrop
    polygons = geopandas.read_file(project / "map" / "lithology.gpkg", layer="lithology")
    assert polygons.total_bounds[2] == pytest.approx(83.05)
    assert made.plan.unmapped == pytest.approx(made.summary.unmapped, rel=1e-6)
    assert made.plan.unmapped == pytest.approx(unmapped.mean(), rel=1e-6)

    filled = run(
        project, folder="f", labels_path=project / "labels.tif", options=Options(**options, fill_unmapped=True)
    )
    run(project, folder="no_labels", options=Options(**options))
    found, free = layers(project / "f"), layers(project / "no_labels")
    assert np.array_equal(found["evidence"], blank["evidence"])
    assert np.array_equal(found["probability"], free["probability"])
    assert (found["lithology"] == np.where(outcrop, 4, free["lithology"])).all()
    assert 5 not in free["evidence"], "without labels every cell is predicted as before"
    assert filled.summary.unmapped == pytest.approx(made.summary.unmapped)
    polygons = geopandas.read_file(project / "f" / "lithology.gpkg", layer="lithology")
    beyond = polygons[polygons.evidence.str.startswith("unmapped")]
    assert beyond.total_bounds[0] == pytest.approx(83.05)
    assert beyond.area_km2.sum() == pytest.approx(filled.summary.evidence[4].km2, rel=1e-9)
    assert not beyond.mapped.any()
    tags = []
    for folder in ("map", "f", "no_labels"):
        with rasterio.open(project / folder / "evidence.tif") as raster:
            tags.append(raster.tags().get("GRAVMAP_UNMAPPED"))
    assert tags == ["blank", "predicted", None]


def test_where_gravity_is_unknown_there_is_no_data(project, rasters_this_time):
    grid = gravity()
    grid.loc[{"lat": slice(44.45, 45.05), "lon": slice(82.15, 82.85)}] = np.nan
    fields = residual_fields(grid, [10_000.0])
    write_fields(fields, project / "holes.nc")
    predict(project / "holes.nc", project / "run", BOX, project / "map")
    found = layers(project / "map")
    hole = found["lithology"][0] == 255
    known = fields["residual_10km"].sel(lat=slice(44 - 1e-6, 46 + 1e-6), lon=slice(81 - 1e-6, 84 + 1e-6)).values[::-1]
    assert hole.sum() == np.isnan(known).sum() > 20
    assert (np.isnan(known) == hole).all()
    for name in ("probability", "uncertainty", "evidence"):
        assert ((found[name] == 255) == hole).all()
