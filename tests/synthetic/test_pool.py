"""Crusts as training arrays: orientation, residuals, cache and worker processes."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from gravmap.errors import GravmapError, OptionError
from gravmap.gravity import open_grid, residual_fields
from gravmap.learning.data.dataset import RegionDataset
from gravmap.synthetic import crust as crust_module
from gravmap.synthetic import crust_pool, draw_crust, load_prior, make_crust
from gravmap.synthetic import pool as pool_module
from gravmap.synthetic.files import write_crust
from gravmap.synthetic.pool import crust_arrays

SHAPE = (30, 44)
USUAL = load_prior().typical()


@pytest.fixture(scope="module")
def crust():
    return draw_crust(load_prior("wide"), 4, SHAPE)


def test_arrays_are_those_of_a_north_up_region_dataset(crust):
    arrays = crust_arrays(crust, ["residual_10km", "bouguer"])
    dataset = RegionDataset.from_arrays(arrays)
    assert dataset.channels == ["residual_10km", "bouguer"]
    assert dataset.fields.dtype == np.float32
    np.testing.assert_array_equal(dataset.fields[1], crust.gravity.values[::-1])
    np.testing.assert_array_equal(dataset.labels, crust.surface[::-1])
    np.testing.assert_array_equal(arrays["truth"], crust.truth[::-1])
    np.testing.assert_array_equal(arrays["cover_m"], crust.cover_thickness_m[::-1])
    np.testing.assert_allclose(dataset.node_lat, crust.gravity.lat.values[::-1], rtol=1e-12)
    np.testing.assert_allclose(dataset.node_lon, crust.gravity.lon.values, rtol=1e-12)
    # Every node lies in its own label cell.
    labels, _ = dataset.node_truth()
    np.testing.assert_array_equal(labels, arrays["labels"])
    assert [entry["index"] for entry in dataset.classes] == list(range(1, 11))
    record = dataset.meta["crust"]
    assert (record["seed"], record["prior"]["name"]) == (4, "wide")
    assert record["setting"]["cover_share"] == crust.setting.cover_share


def test_channels_are_those_of_the_residual_command(crust, tmp_path):
    """Names, units and values are those of `gravmap residual` for the file of a crust."""
    alone = replace(crust, around=None)
    names = ["bouguer", "residual_5km", "regional_20km", "band_5km_20km", "tilt_2km", "horizontal_gradient_2km"]
    arrays = crust_arrays(alone, names)
    grid = open_grid(write_crust(crust, tmp_path)["gravity"])
    fields = residual_fields(grid, [5e3, 20e3], with_bands=True, with_derivatives=True)
    for name, plane, unit in zip(names, arrays["fields"], arrays["meta"]["channel_units"], strict=True):
        np.testing.assert_allclose(plane[::-1], fields[name].values, atol=2e-5, err_msg=name)
        assert unit == fields[name].attrs["units"]
    assert arrays["meta"]["field_recipe"]["channels"] == names
    # A band may span heights of other channels.
    wide = crust_arrays(alone, ["band_5km_20km", "residual_10km"])["fields"][0]
    np.testing.assert_array_equal(wide, arrays["fields"][3])


def test_the_collar_brings_the_residual_nearer_to_the_truth(monkeypatch):
    """The true residual: what the same rocks attract less what they attract from 20 km farther away."""
    options = {"seed": 3, "shape": (100, 140), "sub": 1, "setting": replace(USUAL, noise_mgal=0.0)}
    crust = make_crust(**options, collar=36)
    near = crust_module.low_pass

    def from_above(half_m):
        return lambda k: near(half_m)(k) * np.exp(-20e3 * k)

    monkeypatch.setattr(crust_module, "low_pass", from_above)
    above = make_crust(**options, collar=36)
    truth = (crust.gravity.values - above.gravity.values)[::-1]
    errors = []
    for each in (crust, replace(crust, around=None)):
        residual = crust_arrays(each, ["residual_20km"])["fields"][0]
        difference = residual - truth
        # Their levels differ: the mean of a plane is not that of a patch of the Earth.
        errors.append((difference - difference.mean()).std())
    assert truth.std() > 5
    assert errors[0] < 0.06 * truth.std()
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize(
    "name",
    ["residual", "residual_0km", "residual_ten", "band_20km_10km", "band_10km", "residual_10000m", "tilt", "x_2km"],
)
def test_a_channel_that_crusts_do_not_have_is_refused(crust, name):
    with pytest.raises(OptionError, match="no channel"):
        crust_arrays(crust, [name])


def same(one, two):
    assert one["meta"] == two["meta"]
    assert one.keys() == two.keys()
    for name in one.keys() - {"meta"}:
        assert one[name].dtype == two[name].dtype
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_a_pool_has_its_crusts_in_order_from_cache_or_processes(tmp_path):
    prior = load_prior("wide")
    reported = []

    def listen(done, total, note=""):
        reported.append((done, total))

    options = {"shape": SHAPE, "channels": ["residual_10km"]}
    together = crust_pool(prior, [7, 2, 5], processes=2, cache=tmp_path / "kept", progress=listen, **options)
    assert reported == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [one["meta"]["crust"]["seed"] for one in together] == [7, 2, 5]
    for seed, one in zip((7, 2, 5), together, strict=True):
        same(one, crust_arrays(draw_crust(prior, seed, SHAPE), ["residual_10km"]))
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_cached_crusts_are_not_simulated_again(tmp_path, monkeypatch):
    prior = load_prior()
    options = {"shape": SHAPE, "channels": ["residual_10km"], "cache": tmp_path}
    first = crust_pool(prior, [1, 2], **options)

    def never(*args, **words):
        raise AssertionError("made again")

    with monkeypatch.context() as patch:
        patch.setattr(pool_module, "draw_crust", never)
        for one, two in zip(first, crust_pool(prior, [1, 2], **options), strict=True):
            same(one, two)
        # Every argument that determines the arrays is part of the key.
        for change in (
            {"prior": load_prior("wide")},
            {"seeds": [3]},
            {"shape": (30, 45)},
            {"channels": ["residual_20km"]},
            {"sub": 2},
        ):
            with pytest.raises(AssertionError, match="made again"):
                crust_pool(**{"prior": prior, "seeds": [1], **options, **change})
        patch.setattr(pool_module, "CRUST_VERSION", 99)
        with pytest.raises(AssertionError, match="made again"):
            crust_pool(prior, [1], **options)
    # The title of a prior is not part of the key.
    crust_pool(replace(prior, title="Other words"), [1], **options)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a file"])
def test_a_damaged_cache_file_is_replaced(tmp_path, damage, caplog):
    options = {"shape": SHAPE, "channels": ["residual_10km"], "cache": tmp_path}
    (first,) = crust_pool(load_prior(), [1], **options)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage or whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING, "gravmap"):
        (again,) = crust_pool(load_prior(), [1], **options)
    assert "simulated again" in caplog.text
    same(first, again)
    assert path.read_bytes() == whole


def test_an_error_of_a_process_reaches_the_caller():
    with pytest.raises(OptionError, match="no channel") as caught:
        crust_pool(load_prior(), [1, 2], shape=SHAPE, channels=["gravity"], processes=2)
    assert isinstance(caught.value, GravmapError)
    assert "residual_10km" in caught.value.hint
