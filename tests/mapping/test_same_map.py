"""The map does not depend on batches, blocks, processes or parts; test-time augmentation; ensembles."""

import numpy as np
import pytest
import rasterio

from gravmap.gravity import residual_fields, write_fields
from gravmap.mapping import Options, blend, predict
from gravmap.mapping.predictor import Predictor
from gravmap.regions import Region
from toys.map import BOX, gravity, layers, make_project, make_run, nearly, same

pytestmark = pytest.mark.usefixtures("rasters_only")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("same")
    make_project(root)
    predict(root / "fields.nc", root / "run", BOX, root / "map")
    return root


def again(project, folder, runs=None, region=BOX, fields="fields.nc", **options):
    predict(project / fields, runs or project / "run", region, project / folder, options=Options(**options))
    return layers(project / folder)


def test_the_batch_size_changes_nothing(project):
    assert nearly(again(project, "batched", batch_size=4), layers(project / "map"))


@pytest.mark.parametrize("size", [7, 16, 23])
def test_the_size_of_the_blocks_changes_nothing(project, monkeypatch, size):
    monkeypatch.setattr(blend.blocks, "__defaults__", (size,))
    assert len(list(blend.blocks((21, 31)))) > 1
    assert same(again(project, f"blocks{size}"), layers(project / "map"))


@pytest.mark.slow
def test_several_processes_make_the_same_map(project):
    made = predict(
        project / "fields.nc", project / "run", BOX, project / "two", options=Options(device="cpu", processes=2)
    )
    assert len(made.plan.jobs) > 2
    assert same(layers(project / "two"), layers(project / "map"))


def test_two_halves_agree_with_the_whole(project):
    whole = layers(project / "map")
    west, east = (
        again(project, "west", region=Region(81, 44, 82.5, 46)),
        again(project, "east", region=Region(82.6, 44, 84, 46)),
    )
    for name, values in whole.items():
        joined = np.concatenate([west[name], east[name]], axis=-1)
        assert joined.shape == values.shape
        # Everywhere, not only away from the border: cells are covered by the same windows.
        assert np.abs(joined.astype(int) - values).max() <= (1 if name in ("probability", "uncertainty") else 0)
    # Where the fields themselves are halved, the windows at the cut are others; they reach 2.5 degrees.
    fields = residual_fields(gravity(), [10_000.0]).sel(lon=slice(79, 84.5 + 1e-9))
    write_fields(fields, project / "half.nc")
    cut = again(project, "cut", fields="half.nc", region=Region(81, 44, 84, 46), scales_deg=(1.0,))
    full = again(project, "full", scales_deg=(1.0,))
    away = np.arange(81, 84.01, 0.1) < 84.5 - 1.0 - 0.1
    assert np.abs(cut["probability"].astype(int) - full["probability"])[:, :, away].max() <= 1
    assert (cut["lithology"] == full["lithology"])[:, :, away].all()


def mirrored(grid):
    return grid.copy(data=grid.values[:, ::-1])


@pytest.mark.slow
def test_with_flips_a_mirrored_field_gives_the_mirrored_map(project):
    # Windows of 2.5 degrees on the fields from 80 to 85 E begin at 80, 81.25 and 82.5: they mirror into each other.
    fields = residual_fields(gravity(), [10_000.0]).sel(lon=slice(80 - 1e-6, 85 + 1e-6))
    turned = fields.copy(deep=True)
    for name in fields.data_vars:
        turned[name].values[:] = fields[name].values[:, ::-1]
    write_fields(fields, project / "as_is.nc")
    write_fields(turned, project / "turned.nc")
    place = {"region": Region(80, 43.5, 85, 46), "scales_deg": (2.5,)}
    one = again(project, "as_is", fields="as_is.nc", flips=True, **place)
    other = again(project, "turned", fields="turned.nc", flips=True, **place)
    assert nearly({name: values[..., ::-1] for name, values in one.items()}, other)
    # Without flips the prediction of this network is not symmetric.
    plain = again(project, "plain", fields="as_is.nc", **place)
    plain_turned = again(project, "plain_turned", fields="turned.nc", **place)
    assert not nearly({name: values[..., ::-1] for name, values in plain.items()}, plain_turned, 0.02)


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_the_probabilities(project):
    fields = residual_fields(gravity(), [10_000.0])
    make_run(project / "other", fields, seed=5, tile_size_px=48)
    alone = [layers(project / "map"), again(project, "alone", runs=project / "other")]
    both = again(project, "both", runs=[project / "run", project / "other"])
    apart = np.stack([each["probability"] / 200 for each in alone])
    np.testing.assert_allclose(both["probability"] / 200, apart.mean(0), atol=0.006)
    with rasterio.open(project / "both" / "uncertainty.tif") as raster:
        assert raster.descriptions == ("entropy", "margin", "agreement", "ensemble spread", "probability")
        spread = raster.read(4) / 200
    index = both["lithology"].astype(int) - 1
    wanted = np.take_along_axis(apart.std(0), index, 0)[0]
    np.testing.assert_allclose(spread, wanted, atol=0.006)
    assert spread.max() > 0.04
    # The same run under another name agrees with itself.
    make_run(project / "twin", fields)
    twins = again(project, "twins", runs=[project / "run", project / "twin"])
    assert nearly(twins, alone[0])
    assert twins["uncertainty"][3].max() == 0
    assert np.abs(twins["uncertainty"][2].astype(int) - alone[0]["uncertainty"][2]).max() <= 1
    # These two runs predict different classes everywhere: at most half of the windows can agree.
    assert (alone[0]["lithology"] != alone[1]["lithology"]).all()
    assert both["uncertainty"][2].mean() / 200 < 0.6 < alone[0]["uncertainty"][2].mean() / 200


def test_agreement_is_weighted_as_the_blending(project):
    predictor = Predictor(project / "fields.nc", project / "run", "cpu")
    plan = predictor.plan(BOX, [2.5])
    (project / "votes" / "windows").mkdir(parents=True)
    for each in plan.jobs:
        rows, columns = blend.window_cells(np.array(each.bounds_wsen), plan.grid.lat_deg, plan.grid.lon_deg)
        logits = np.zeros((10, rows.stop - rows.start, columns.stop - columns.start), np.float32)
        # Windows that begin at 81.25 E name class 3 strongly, all others class 7 weakly.
        logits[2 if each.bounds_wsen[0] == 81.25 else 6] = 50 if each.bounds_wsen[0] == 81.25 else 1
        np.save(project / "votes" / each.logits_file, logits)
    found = blend.Blender(plan, project / "votes", [1.0]).block(slice(0, 21), slice(0, 31))
    # At 82.5 E, its middle, that column of windows stands alone but for the windows' floor; half way out it has half.
    lon = plan.grid.lon_deg
    at = {float(degrees): int(np.abs(lon - degrees).argmin()) for degrees in (82.5, 83.1)}
    assert (found.probability[:, :, at[82.5]].argmax(0) == 2).all()
    np.testing.assert_allclose(found.agreement[:, at[82.5]], 1, atol=1e-3)
    expected = np.sin(np.pi * (83.1 - 81.25) / 2.5) ** 2  # Hann weights of half-overlapping windows add up to one
    np.testing.assert_allclose(found.agreement[:, at[83.1]], expected, atol=1e-3)
