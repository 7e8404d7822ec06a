import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from gravmap.errors import InputError
from gravmap.gravity import residual_fields, write_fields
from gravmap.gravity.field_reader import FieldReader
from gravmap.learning import RegionDataset
from gravmap.learning.calibration.applicability import (
    fit_area_of_applicability,
    read_area_of_applicability,
    write_area_of_applicability,
)
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.local_statistics import local_statistics
from gravmap.mapping.assemble import Assembler
from gravmap.mapping.map_grid import MapGrid
from toys.dataset import SIZE, SOUTH, WEST

ARRAYS = ("field_means", "feature_means", "feature_stds", "training_features")


def smooth(shape, width, seed):
    """Noise with no wavelength much under `width` nodes, standard deviation 1."""
    rng = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    decay = np.exp(-2 * (np.pi * width) ** 2 * (y**2 + x**2))
    filtered = np.fft.irfft2(np.fft.rfft2(rng.normal(size=shape)) * decay, shape)
    return filtered / filtered.std()


@pytest.fixture
def two_fields(arrays):
    """The toy area with a second channel and some nodes unknown."""
    rng = np.random.default_rng(5)
    second = rng.normal(0, 3, arrays["fields"].shape).astype(np.float32)
    arrays["fields"] = np.concatenate([arrays["fields"], second])
    arrays["meta"]["channels"] = ["residual_10km", "bouguer"]
    arrays["field_valid"][5:8, 20:30] = False
    arrays["meta"]["split"] = {"block_deg": [1.0, 1.0], "buffer_deg": 0.1, "region_wsen": [WEST, SOUTH, 84.0, 46.0]}
    return RegionDataset.from_arrays(arrays)


def by_hand(dataset, inputs):
    """Index at every node and threshold, distance by distance."""
    fields = np.where(dataset.field_valid, inputs.select(dataset), np.nan)
    labels, role = dataset.node_truth()
    trained_on = (labels > 0) & (labels < 255) & (role == 0)
    centred = fields - fields[:, trained_on].mean(axis=1)[:, None, None]
    features = np.moveaxis(local_statistics(centred, dataset.node_lat, dataset.node_lon), 0, -1)
    features = (features - features[trained_on].mean(axis=0)) / features[trained_on].std(axis=0)
    train = features[trained_on]
    between = np.sqrt(((train[:, None] - train[None]) ** 2).sum(axis=-1))
    mean = between.sum() / (len(train) * (len(train) - 1))
    to_train = np.sqrt(((features[:, :, None] - train) ** 2).sum(axis=-1)).min(axis=-1) / mean
    lat, lon = (values[trained_on] for values in np.meshgrid(dataset.node_lat, dataset.node_lon, indexing="ij"))
    own = []
    for number in range(len(train)):
        down, right = int((46 - lat[number]) // 1), int((lon[number] - WEST) // 1)
        far = (lat > 46 - down + 0.1) | (lat < 45 - down - 0.1)
        far |= (lon < WEST + right - 0.1) | (lon > WEST + right + 1.1)
        own.append(between[number][far].min() / mean)
    quarter, three_quarters = np.percentile(own, (25, 75))
    return to_train, min(three_quarters + 1.5 * (three_quarters - quarter), max(own))


def test_the_index_is_that_of_every_distance(two_fields):
    inputs = InputChannels.fit(two_fields)
    reach = fit_area_of_applicability(two_fields, inputs)
    index, threshold = by_hand(two_fields, inputs)
    assert reach.threshold == pytest.approx(threshold, rel=1e-4)
    fields = np.where(two_fields.field_valid, two_fields.fields, np.float32(np.nan))
    found = reach.relative_dissimilarity_index(fields, two_fields.node_lat, two_fields.node_lon)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, index / threshold, rtol=1e-4, atol=1e-5)
    assert np.isnan(found[6, 25])
    with pytest.raises(ValueError, match="bouguer"):
        reach.relative_dissimilarity_index(fields[:1], two_fields.node_lat, two_fields.node_lon)


@pytest.fixture
def strange_corner(arrays):
    """A field of one kind, but for a corner without labels, which is of another."""
    nodes = int(SIZE * 30) + 1
    field = 10 * smooth((nodes, nodes), 6, seed=1)
    rough = 10 * smooth((nodes, nodes), 1.5, seed=2)
    distance_km = np.zeros((nodes, nodes), bool)
    distance_km[:35, :35] = True
    arrays["fields"] = np.where(distance_km, rough, field).astype(np.float32)[None]
    arrays["field_valid"] = np.ones((nodes, nodes), bool)
    cells = arrays["labels"].shape[0]
    arrays["labels"][: cells * 45 // nodes, : cells * 45 // nodes] = 0
    return arrays, distance_km


def test_dissimilar_data_are_outside_and_training_data_inside(strange_corner):
    arrays, distance_km = strange_corner
    dataset = RegionDataset.from_arrays(arrays)
    reach = fit_area_of_applicability(dataset, InputChannels.fit(dataset), max_nodes=1500)
    assert 1000 < len(reach.training_features) <= 1500
    found = reach.relative_dissimilarity_index(dataset.fields, dataset.node_lat, dataset.node_lon)
    labels, role = dataset.node_truth()
    trained_on = (labels > 0) & (labels < 255) & (role == 0)
    assert (found[trained_on] > 1).mean() < 0.02
    inner = np.zeros_like(distance_km)
    inner[5:25, 5:25] = True
    assert (found[inner] > 1).mean() > 0.8
    # Nor are held-out blocks strange, which are of the same kind.
    assert (found[(role == 1) | (role == 2)] > 1).mean() < 0.2
    # A field that is the same but for its level is strange everywhere.
    assert (reach.relative_dissimilarity_index(dataset.fields + 100, dataset.node_lat, dataset.node_lon) > 1).all()


def test_a_part_with_its_margin_is_judged_as_the_whole(strange_corner):
    dataset = RegionDataset.from_arrays(strange_corner[0])
    reach = fit_area_of_applicability(dataset, InputChannels.fit(dataset), max_nodes=500)
    lat, lon = dataset.node_lat, dataset.node_lon
    whole = reach.relative_dissimilarity_index(dataset.fields, lat, lon)
    margin_lat = reach.margin_km(reach.spacing_km) / (6371 * np.pi / 180)
    margin_lon = margin_lat / np.cos(np.radians(45.0 + margin_lat))
    rows = (lat >= 44 - margin_lat) & (lat <= 45 + margin_lat)
    columns = (lon >= 81 - margin_lon) & (lon <= 82.5 + margin_lon)
    assert rows.sum() < len(lat)
    assert columns.sum() < len(lon)
    part = reach.relative_dissimilarity_index(dataset.fields[:, rows][:, :, columns], lat[rows], lon[columns])
    calls = np.ix_((lat[rows] >= 44) & (lat[rows] <= 45), (lon[columns] >= 81) & (lon[columns] <= 82.5))
    again = whole[np.ix_(rows, columns)][calls]
    np.testing.assert_allclose(part[calls], again, atol=1e-4)


def test_blocks_of_a_map_from_a_coarser_grid_than_that_of_the_training_join(strange_corner, tmp_path):
    """Local statistics reach further there; a block that read too small a margin left stripes along its border."""
    dataset = RegionDataset.from_arrays(strange_corner[0])
    reach = fit_area_of_applicability(dataset, InputChannels.fit(dataset), max_nodes=500)
    lat, lon = np.arange(42, 48.01, 0.5), np.arange(79, 86.01, 0.5)
    values = np.random.default_rng(1).normal(0, 5, (lat.size, lon.size)).astype(np.float32)
    grid = xr.DataArray(values, {"lat": lat, "lon": lon}, ("lat", "lon"), attrs={"units": "mGal"})
    write_fields(residual_fields(grid, [10_000.0]), tmp_path / "fields.nc")
    cells = MapGrid(np.arange(47, 43, -0.05), np.arange(80, 85, 0.05), (0.05, 0.05), 5.0)
    with FieldReader(tmp_path / "fields.nc") as fields:
        predictor = SimpleNamespace(
            fields=fields, members=[SimpleNamespace(applicability=replace(reach, spacing_km=3.7))]
        )
        plan = SimpleNamespace(grid=cells)
        assembler = Assembler(predictor, plan, None, None, everywhere=True, fill_unmapped=False, near_km=25.0)
        whole = assembler._dissimilarity(cells.lat_deg, cells.lon_deg)
        for rows, columns in ((slice(0, 37), slice(0, 47)), (slice(37, 80), slice(47, 100))):
            part = assembler._dissimilarity(cells.lat_deg[rows], cells.lon_deg[columns])
            np.testing.assert_allclose(part, whole[rows, columns], atol=1e-5)


def test_held_out_labels_do_not_shape_it_and_training_labels_do(arrays):
    def measured(changed):
        dataset = RegionDataset.from_arrays(copy.deepcopy(arrays) | {"labels": changed})
        return fit_area_of_applicability(dataset, InputChannels.fit(dataset), seed=2, max_nodes=300)

    plain = measured(arrays["labels"])
    for trained_on, same in ((False, True), (True, False)):
        changed = np.where((arrays["role"] == 0) == trained_on, 1 - np.minimum(arrays["labels"], 1), arrays["labels"])
        other = measured(changed.astype(np.uint8))
        assert all(np.array_equal(getattr(plain, name), getattr(other, name)) for name in ARRAYS) is same


def test_sample_is_spread_evenly_and_depends_on_the_seed(arrays):
    # Labels on the western half are ten times as dense: the sample is not.
    arrays["labels"][:] = 0
    arrays["role"][:] = 0
    arrays["labels"][:, ::2] = 1
    arrays["labels"][::3, 40:] = 0
    arrays["labels"][1::3, 40:] = 0
    arrays["fields"] = np.broadcast_to(np.linspace(WEST, WEST + SIZE, 41), (1, 41, 41)).astype(np.float32).copy()
    dataset = RegionDataset.from_arrays(arrays)
    inputs = InputChannels.fit(dataset)
    one, again, other = (fit_area_of_applicability(dataset, inputs, seed=seed, max_nodes=100) for seed in (1, 1, 2))
    assert np.array_equal(one.training_features, again.training_features)
    assert not np.array_equal(one.training_features, other.training_features)
    assert 70 < len(one.training_features) <= 100
    lon = (
        one.training_features[:, 0] * one.feature_stds[0] + one.feature_means[0] + one.field_means[0]
    )  # the field is the longitude
    assert 0.4 < (lon < WEST + SIZE / 2).mean() < 0.65


def test_without_labels_or_with_a_constant_field_there_is_none(arrays):
    arrays["role"][:] = 3
    dataset = RegionDataset.from_arrays(arrays)
    assert fit_area_of_applicability(dataset, InputChannels.fit(dataset)) is None
    arrays["role"][:] = 0
    arrays["fields"] = np.full_like(arrays["fields"], 7)
    dataset = RegionDataset.from_arrays(arrays)
    assert fit_area_of_applicability(dataset, InputChannels.fit(dataset)) is None


def test_statistics_of_one_node_have_no_influence(arrays):
    # Nodes 110 km apart: neither window reaches the next one, so a deviation would be rounding noise.
    arrays["field_nodes_wsen"] = np.array([40.0, 0.0, 80.0, 40.0])
    arrays["label_bounds_wsen"] = np.array([40.0, 0.0, 80.0, 40.0])
    dataset = RegionDataset.from_arrays(arrays)
    reach = fit_area_of_applicability(dataset, InputChannels.fit(dataset))
    assert np.isinf(reach.feature_stds[[3, 5]]).all()
    assert np.isfinite(reach.feature_stds[[0, 1, 2, 4]]).all()


def test_round_trip_and_damaged_files(arrays, tmp_path):
    dataset = RegionDataset.from_arrays(arrays)
    reach = fit_area_of_applicability(dataset, InputChannels.fit(dataset))
    (tmp_path / "model.json").write_text(json.dumps({"area_sha256": "abc"}))
    write_area_of_applicability(tmp_path, reach, "abc")
    stored = read_area_of_applicability(tmp_path)
    for name in ARRAYS:
        assert np.array_equal(getattr(stored, name), getattr(reach, name))
        assert getattr(stored, name).dtype == getattr(reach, name).dtype
    for name in ("fields", "mean_training_distance", "threshold", "spacing_km"):
        assert getattr(stored, name) == getattr(reach, name)
    assert stored.fields == ("residual_10km",)
    path = tmp_path / "reach.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        read_area_of_applicability(tmp_path)
