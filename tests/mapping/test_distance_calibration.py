"""Maps calibrated by the distance to mapped outcrop, compared with distances computed independently."""

import json
import sys

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from gravmap.geology.labels import LabelFile
from gravmap.gravity.field_reader import FieldReader
from gravmap.mapping import Options, predict
from gravmap.mapping.layers import COVERED
from gravmap.mapping.options import Checks
from gravmap.mapping.record.raster_content import read_attribute_table
from gravmap.regions import Region
from toys.map import BOX, layers, make_project
from toys.outcrop import make_context_run, make_labels

CURVE = {"km": [4.0, 80.0], "temperature": [0.5, 6.0]}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated")
    fields = make_project(folder)
    make_labels(folder / "labels.tif")
    make_context_run(folder / "run", fields, trained=True)
    return folder


def calibrate_run(project, **more):
    model = json.loads((project / "run/model.json").read_text())
    record = {"format": 1, "model_sha256": model["weights_sha256"], "scales": [5.0], "temperatures": {"5deg": 1.0}}
    (project / "run/calibration.json").write_text(json.dumps(record | more))


def mapped(project, folder, region=BOX, **options):
    return predict(
        project / "fields.nc",
        project / "run",
        region,
        project / folder,
        labels_path=project / "labels.tif",
        options=Options(device="cpu", everywhere=True, scales_deg=(5.0,), **options),
    )


def outcrop_distance_km(project):
    """Great-circle distance of every node to the nearest one on outcrop, by comparing all pairs."""
    with FieldReader(project / "fields.nc") as fields, LabelFile(project / "labels.tif") as labels:
        lat, lon = np.meshgrid(np.radians(fields.lat), np.radians(fields.lon), indexing="ij")
        known = labels.sample(fields.lat, fields.lon)
    rock = (known > 0) & (known < 255)
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    cosine = points.reshape(-1, 3) @ points[rock].T
    return 6371.0088 * np.arccos(np.clip(cosine.max(axis=1), -1, 1)).reshape(rock.shape)


def test_logits_are_divided_by_the_temperature_at_their_distance(project, rasters_only):
    calibrate_run(project)
    mapped(project, "plain")
    calibrate_run(project, by_distance={"5deg": CURVE})
    mapped(project, "warm")
    plain, warm = (layers(project / name)["probability"] / 200.0 for name in ("plain", "warm"))
    away = outcrop_distance_km(project)[20:41, 20:51]  # 44 to 46 N, 81 to 84 E: cells are nodes
    at = np.log1p(away / 10)
    low, high = np.log1p(0.4), np.log1p(8)
    sharp = 1 / 0.5 + np.clip((at - low) / (high - low), 0, 1) * (1 / 6.0 - 1 / 0.5)
    # The odds of the two likeliest classes are the plain ones to the power 1/T.
    order = np.argsort(-plain, axis=0)[:2]
    first, second = np.take_along_axis(plain, order, axis=0)
    shown = np.take_along_axis(warm, order, axis=0)
    fair = (second > 0.05) & (shown[1] > 0.05)
    assert fair.mean() > 0.2
    found = np.log(shown[0][fair] / shown[1][fair])
    expected = sharp[fair] * np.log(first[fair] / second[fair])
    assert np.abs(found - expected).max() < 0.35  # both are rounded to 1/200
    assert np.abs(found - expected).mean() < 0.06
    assert np.ptp(sharp[fair]) > 0.5
    # No class changes, and a part of the map is what the whole is.
    assert (layers(project / "plain")["lithology"] == layers(project / "warm")["lithology"]).mean() > 0.999


def test_a_part_of_a_map_is_the_map_there_with_cells_between_nodes(project, rasters_only):
    calibrate_run(project, by_distance={"5deg": CURVE})
    mapped(project, "whole", resolution_deg=0.05)
    mapped(project, "part", Region(82.0, 44.5, 83.0, 45.5), resolution_deg=0.05)
    whole, part = (layers(project / name)["probability"].astype(int) for name in ("whole", "part"))
    rows, columns = part.shape[1:]
    found = [
        np.abs(whole[:, top : top + rows, left : left + columns] - part).max()
        for top in range(whole.shape[1] - rows + 1)
        for left in range(whole.shape[2] - columns + 1)
    ]
    assert min(found) <= 1


def test_values_between_nodes_are_those_of_scipy(project):
    with FieldReader(project / "fields.nc") as fields:
        rng = np.random.default_rng(0)
        west, south, east, north = fields.nodes_wsen
        lat = np.sort(rng.uniform(south, north, 40))[::-1]
        lon = np.sort(rng.uniform(west, east, 30))
        lat[0], lon[-1] = north, east
        everything = fields.read(["residual_10km"], slice(0, fields.lat.size), slice(0, fields.lon.size))[0]
        other = RegularGridInterpolator((fields.lat[::-1], fields.lon), everything[::-1])
        expected = other(np.stack(np.meshgrid(lat, lon, indexing="ij"), axis=-1))
        found = fields.interpolate("residual_10km", lat, lon)
        np.testing.assert_allclose(found, expected, atol=2e-4)
        assert (fields.interpolate("residual_10km", lat[7:9], lon[3:4]) == found[7:9, 3:4]).all()


@pytest.mark.parametrize("state", ["inside", "outside"])
def test_the_settings_record_temperatures_and_verdicts(project, monkeypatch, state):
    recorded = []
    monkeypatch.setattr(
        sys.modules[predict.__module__], "finish_map", lambda *given: recorded.append(given[-1].settings)
    )
    calibrate_run(project, by_distance={"5deg": CURVE})
    verdict = {"prior": {"name": "toy", "sha256": "ab"}, "state": state, "headline": "Compared.", "advice": [], "x": 1}
    predict(
        project / "fields.nc",
        project / "run",
        BOX,
        project / f"recorded-{state}",
        labels_path=project / "labels.tif",
        options=Options(device="cpu", scales_deg=(5.0,)),
        check=lambda progress: Checks([verdict]),
    )
    (settings,) = recorded
    assert settings["temperatures_by_distance"] == [CURVE]
    assert settings["prior_verdicts"] == [verdict]
    like = read_attribute_table(project / f"recorded-{state}" / "evidence.tif")[COVERED].name
    assert ("the region as a whole is unlike it" in like) == (state == "outside")
