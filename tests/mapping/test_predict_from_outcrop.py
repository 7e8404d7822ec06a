"""Maps of a network that reads outcrop context, which is computed once from the labels."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import xarray as xr

from gravmap.errors import InputError
from gravmap.geology.labels import LabelFile
from gravmap.lattice import spacing_yx_km
from gravmap.learning import RegionDataset
from gravmap.learning.data.label_diffusion import class_probabilities
from gravmap.learning.data.outcrop_context import distance_to_outcrop_km, outcrop_context, with_context
from gravmap.learning.evaluation.held_out import node_logits
from gravmap.learning.training.checkpoint import load_model
from gravmap.mapping import Options, predict
from gravmap.mapping import outcrop_file as outcrop_module
from gravmap.mapping.explain import explain
from gravmap.mapping.outcrop_file import write_outcrop_context
from gravmap.mapping.predictor import Predictor
from gravmap.regions import Region
from toys.map import BOX, LEGEND, layers, make_run, same
from toys.outcrop import LABEL_BOX, NAMES, make_labels, make_outcrop_project


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return make_outcrop_project(tmp_path_factory.mktemp("outcrop"))


@pytest.fixture
def project(shared, tmp_path):
    shutil.copytree(shared, tmp_path, dirs_exist_ok=True)
    return tmp_path


def run(project, network="trained", folder="map", labels="labels.tif", **options):
    return predict(
        project / "fields.nc",
        project / network,
        BOX,
        project / folder,
        labels_path=None if labels is None else project / labels,
        options=Options(device="cpu", **options),
    )


def test_an_untrained_network_maps_the_label_diffusion(project, rasters_only):
    """Under cover the map is that of label diffusion; probabilities are the softmax of 0.6 times its logarithms."""
    run(project, "null", everywhere=True, scales_deg=(2.5,))
    found = layers(project / "map")
    with LabelFile(project / "labels.tif") as labels:
        lat, lon = np.arange(48, 42 - 1e-9, -0.1), np.arange(79, 86 + 1e-9, 0.1)
        known = np.where(labels.sample(lat, lon) == 255, 0, labels.sample(lat, lon)).astype(np.uint8)
    logs = 0.6 * outcrop_context(known, lat, lon, 10)[:10]
    inside = (slice(None), slice(20, 41), slice(20, 51))  # 44 to 46 N, 81 to 84 E
    expected = np.exp(logs) / np.exp(logs).sum(axis=0)
    assert known[inside[1:]].astype(bool).mean() < 0.9
    ranked = np.sort(expected[inside], axis=0)
    sure = ranked[-1] - ranked[-2] > 0.2  # pixels lie between nodes
    assert sure.mean() > 0.3
    assert (found["lithology"][0] == expected[inside].argmax(axis=0) + 1)[sure].mean() > 0.98
    assert np.abs(found["probability"] / 200 - expected[inside])[:, sure].mean() < 0.03


def test_distance_to_outcrop_and_null_model_are_stored_with_the_map(project, rasters_only):
    run(project, "trained", scales_deg=(2.5,))
    found = layers(project / "map")
    with LabelFile(project / "labels.tif") as labels:
        lat, lon = np.arange(48, 42 - 1e-9, -0.1), np.arange(79, 86 + 1e-9, 0.1)
        known = np.where(labels.sample(lat, lon) == 255, 0, labels.sample(lat, lon)).astype(np.uint8)
    inside = slice(20, 41), slice(20, 51)  # 44 to 46 N, 81 to 84 E
    with rasterio.open(project / "map" / "outcrop_distance.tif") as raster:
        assert raster.units == ("km",)
        distance = raster.read(1) * raster.scales[0]
    np.testing.assert_allclose(distance, distance_to_outcrop_km(known, lat, lon)[inside], atol=0.03)
    with rasterio.open(project / "map" / "null_model.tif") as raster:
        nothing = raster.read(1)
        assert raster.colormap(1)[1][:3] == (0xF0, 0x04, 0x7F)  # Archean, as in the legend
    expected = class_probabilities(known, spacing_yx_km(lat, lon), 10).argmax(axis=0)[inside] + 1
    shown = found["lithology"][0] != 255
    assert (nothing[shown] == expected[shown]).all()
    assert (nothing[~shown] == 255).all()
    mapped = known[inside] > 0
    assert (nothing[mapped & shown] == found["lithology"][0][mapped & shown]).all()


def test_outcrop_of_one_class_gives_a_network_without_context_no_null_model(project, rasters_only):
    make_run(project / "gravity-only", xr.load_dataset(project / "fields.nc"))
    one = np.where(make_labels(project / "one.tif") > 0, 6, 0).astype(np.uint8)
    make_labels(project / "one.tif", values=one)
    run(project, "gravity-only", "one", "one.tif", scales_deg=(2.5,))
    assert not (project / "one" / "null_model.tif").exists()
    run(project, "gravity-only", "several", scales_deg=(2.5,))
    run(project, "trained", "context", scales_deg=(2.5,))
    with (
        rasterio.open(project / "several" / "null_model.tif") as one,
        rasterio.open(project / "context" / "null_model.tif") as other,
    ):
        assert (one.read() == other.read()).all()


def test_the_context_of_a_map_is_that_of_a_dataset_with_the_same_outcrop(project, rasters_only):
    """Training and prediction read the same context."""
    with Predictor(project / "fields.nc", project / "trained", "cpu") as predictor:
        fields = predictor.fields
        plan = predictor.plan(Region(79, 42, 86, 48), [5.0])
        fields.outcrop = write_outcrop_context(
            project / "o.npy", fields.lat, fields.lon, project / "labels.tif", plan.windows, 10
        )
        everything = slice(0, fields.lat.size), slice(0, fields.lon.size)
        read = fields.read(["residual_10km", *NAMES], *everything)
        part = fields.read([NAMES[3], "residual_10km"], slice(7, 20), slice(11, 15))
    assert (part == read[[4, 0], 7:20, 11:15]).all()
    with LabelFile(project / "labels.tif") as labels:
        mapped = labels.sample(fields.lat, fields.lon)
        raster = labels.read(slice(0, 120), slice(0, 140)).values
    area = RegionDataset(
        fields=read[:1],
        field_valid=np.isfinite(read[0]),
        field_nodes_wsen=np.array([79.0, 42.0, 86.0, 48.0]),
        labels=raster,
        label_bounds_wsen=np.array(LABEL_BOX),
        small=np.zeros_like(raster),
        role=np.zeros_like(raster),
        windows=np.array([LABEL_BOX]),
        window_scale_deg=np.array([7.0]),
        window_role=np.zeros(1, np.uint8),
        meta={"channels": ["residual_10km"], "classes": [{"index": k, "name": str(k)} for k in range(1, 11)]},
    )
    known = area.node_truth()[0]
    assert (known == mapped).all()
    there = with_context(area, known)
    assert np.allclose(there.fields, read, atol=1e-5)  # nodes differ in the last bit
    # And so the network predicts the same from both.
    network, spec = load_model(project / "trained")
    how = {"inputs": spec.input, "tile_size_px": 64, "scale_deg": 5.0}
    wanted = np.zeros(known.shape, bool)
    wanted[20:41, 20:51] = True
    run(project, everywhere=True, scales_deg=(5.0,))
    logits = node_logits(network, there, wanted, **how)[:, 20:41, 20:51]
    assert (layers(project / "map")["lithology"][0] == logits.argmax(axis=0) + 1).mean() > 0.995


def test_only_outcrop_near_the_windows_matters(project, monkeypatch, rasters_only):
    monkeypatch.setattr(outcrop_module, "MARGIN_KM", 30.0)
    small = Region(81, 44, 81.5, 44.5)

    def mapped(folder, labels):
        options = Options(everywhere=True, scales_deg=(2.5,), device="cpu")
        predict(
            project / "fields.nc", project / "trained", small, project / folder, labels_path=labels, options=options
        )
        return layers(project / folder)

    values = make_labels(project / "labels.tif")
    as_it_is = mapped("one", project / "labels.tif")
    far, near = values.copy(), values.copy()
    far[:, 115:] = 0  # east of 84.75
    near[60:90, 30:60] = 1  # 43.5 to 45 N, 80.5 to 82 E
    make_labels(project / "far.tif", values=far)
    make_labels(project / "near.tif", values=near)
    assert same(as_it_is, mapped("two", project / "far.tif"))
    assert not same(as_it_is, mapped("three", project / "near.tif"))


@pytest.mark.slow  # test_same_map.py tests a network without context by default
def test_two_processes_make_the_map_of_one(project, rasters_only):
    run(project, folder="one")
    run(project, folder="two", processes=2)
    assert same(layers(project / "one"), layers(project / "two"))
    assert not list((project / "two").glob("windows*"))


def test_a_stopped_map_is_resumed_only_with_the_same_outcrop(project, monkeypatch, rasters_only):
    stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        run(project, scales_deg=(2.5,))
    monkeypatch.undo()
    shutil.copytree(project / "map.partial", project / "other.partial")
    make_labels(project / "other.tif", seed=5)
    assert run(project, folder="other", labels="other.tif", scales_deg=(2.5,)).resumed == 0
    made = run(project, scales_deg=(2.5,))
    assert made.resumed == 3
    run(project, folder="whole", scales_deg=(2.5,))
    assert same(layers(project / "map"), layers(project / "whole"))


def stop_after(monkeypatch, count):
    import sys

    module = sys.modules["gravmap.mapping.inference"]
    write, done = module._write, []

    def stopping(path, values):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(path)
        return write(path, values)

    monkeypatch.setattr(module, "_write", stopping)


def test_without_labels_it_is_refused(project):
    with pytest.raises(InputError, match=r"(?s)starts from mapped outcrop.*rasterize"):
        run(project, labels=None, everywhere=True)
    assert not (project / "map.partial").exists()
    with (
        Predictor(project / "fields.nc", project / "trained", "cpu") as predictor,
        pytest.raises(InputError, match="starts from mapped outcrop"),
    ):
        explain(predictor, predictor.plan(BOX, (2.5,)), project / "why", steps=2)


@pytest.mark.parametrize(("values", "words"), [([0, 0], "shows no outcrop between"), ([0, 4], "of one class")])
def test_cover_alone_and_a_single_class_are_refused(project, values, words):
    mapped = np.array(values, np.uint8)[(np.arange(140) < 70).astype(int)][None].repeat(120, axis=0)
    make_labels(project / "labels.tif", values=mapped)
    with pytest.raises(InputError, match=words):
        run(project)
    assert not (project / "map.partial").exists()


def test_labels_of_another_legend_are_refused_even_everywhere(project):
    other = replace(LEGEND, classes=(*LEGEND.classes[:-1], replace(LEGEND.classes[-1], name="basalt")))
    make_labels(project / "labels.tif", legend=other)
    with pytest.raises(InputError, match=r"run trained was trained on other classes than .*labels\.tif has: class 10"):
        run(project, everywhere=True)
