from pathlib import Path

import numpy as np
import pytest
import shapely

from gravmap.geology import load_legend
from gravmap.geology.labels import LabelFile, Labels, write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.mapping.assemble import classify_evidence, near_outcrop, unmapped_fraction
from gravmap.mapping.clip import Clip
from gravmap.mapping.layers import COVERED, EXTRAPOLATED, NEAR, OUTCROP, UNMAPPED
from gravmap.mapping.map_grid import map_grid
from gravmap.regions import Region


def labels_of(values, west=80.0, north=46.0, cell=0.05):
    rows, columns = values.shape
    bounds = (west, north - rows * cell, west + columns * cell, north)
    return Labels(values.astype(np.uint8), bounds, cell, load_legend("bedrock10"))


def centres(labels):
    west, south, east, north = labels.bounds_wsen
    rows, columns = labels.values.shape
    return (
        north - (np.arange(rows) + 0.5) * (north - south) / rows,
        west + (np.arange(columns) + 0.5) * (east - west) / columns,
    )


def haversine_km(lat, lon, other_lat, other_lon):
    lat, lon, other_lat, other_lon = map(np.radians, (lat, lon, other_lat, other_lon))
    half = np.sin((lat - other_lat) / 2) ** 2 + np.cos(lat) * np.cos(other_lat) * np.sin((lon - other_lon) / 2) ** 2
    return 2 * 6371 * np.arcsin(np.sqrt(half))


def near_by_hand(labels, lat, lon, near_km):
    outcrop_lat, outcrop_lon = centres(labels)
    row, column = np.nonzero((labels.values > 0) & (labels.values < 255))
    away = haversine_km(
        lat[:, None, None], lon[None, :, None], outcrop_lat[row][None, None], outcrop_lon[column][None, None]
    )
    return away.min(axis=-1) <= near_km


def test_a_cell_gets_the_first_category_that_applies():
    nan = np.nan
    mapped = np.array([[3, 3, 0, 0, 0, 0, 255, 0, 0]], np.uint8)
    near = np.array([[1, 1, 1, 1, 0, 0, 0, 0, 1]], bool)
    dissimilarity = np.array([[0.2, 5.0, 5.0, nan, 0.9, 1.01, 1.0, nan, 0.1]], np.float32)
    predicted = np.array([[1, 0, 1, 1, 1, 1, 1, 1, 0]], bool)
    wanted = [OUTCROP, OUTCROP, NEAR, NEAR, COVERED, EXTRAPOLATED, COVERED, EXTRAPOLATED, 255]
    found = classify_evidence(mapped, near, dissimilarity, predicted)
    assert found.dtype == np.uint8
    assert found.tolist() == [wanted]
    # Without labels there is no outcrop; without a dissimilarity all cells under cover are extrapolated.
    assert classify_evidence(None, near & False, dissimilarity, predicted).tolist() == [
        [COVERED, 255, EXTRAPOLATED, EXTRAPOLATED, COVERED, EXTRAPOLATED, COVERED, EXTRAPOLATED, 255]
    ]
    assert COVERED not in classify_evidence(mapped, near, None, predicted)
    # Unmapped ground is neither near outcrop nor under cover, whether it is predicted or not.
    unmapped = np.array([[0, 0, 0, 1, 0, 0, 1, 0, 1]], bool)
    found = classify_evidence(mapped, near, dissimilarity, predicted, unmapped)
    assert found.tolist() == [[UNMAPPED if un else value for un, value in zip(unmapped[0], wanted, strict=True)]]


def test_the_unmapped_fraction_is_of_area(tmp_path):
    """The northern half of the labels is not usable, and the east of the map lies beyond them."""
    legend, values = load_legend("bedrock10"), np.zeros((40, 20), np.uint8)
    values[:20] = 255
    write_index_raster(tmp_path / "labels.tif", values, (80, 30, 82, 70), legend)
    write_legend(legend, tmp_path / "labels.legend.toml")
    cells = map_grid(np.arange(29, 72.0), np.arange(79, 85.0), Region(80, 30, 84, 70), 0.5)
    lat, lon = np.meshgrid(cells.lat_deg, cells.lon_deg, indexing="ij")
    weight = np.sin(np.radians(lat + 0.25)) - np.sin(np.radians(lat - 0.25))
    unmapped = (lat > 50) | (lon > 82)
    with LabelFile(tmp_path / "labels.tif") as labels:
        found = unmapped_fraction(labels, cells)
        clipped = unmapped_fraction(labels, cells, Clip(Path("clip"), shapely.box(80, 30, 82, 70)))
    assert found == pytest.approx(weight[unmapped].sum() / weight.sum(), abs=2e-3)  # on a sphere
    west = lon < 82
    assert clipped == pytest.approx(weight[west & unmapped].sum() / weight[west].sum(), abs=2e-3)
    assert clipped < 0.4 < 0.5 < (unmapped & west).sum() / west.sum() + 1e-9, "not of cells"


@pytest.fixture
def scattered():
    """Some outcrop, in bodies and in single cells, and cells that are not usable."""
    rng = np.random.default_rng(3)
    values = np.zeros((80, 100))
    values[rng.random(values.shape) < 0.002] = 4
    values[50:60, 10:30] = 2
    values[10:30, 70:75] = 255
    return labels_of(values)


@pytest.mark.parametrize("near_km", [3.0, 25.0, 60.0])
def test_near_cells_are_those_within_the_distance_on_the_sphere(scattered, near_km):
    lat, lon = centres(scattered)
    found = near_outcrop(scattered, lat, lon, near_km)
    assert np.array_equal(found, near_by_hand(scattered, lat, lon, near_km))
    assert 0 < found.mean() < 1
    assert found[(scattered.values > 0) & (scattered.values < 255)].all()


def test_a_degree_of_longitude_is_shorter_in_the_north():
    values = np.zeros((40, 200))
    values[20, 100] = 1
    labels = labels_of(values, north=76.0)
    lat, lon = centres(labels)
    found = near_outcrop(labels, lat, lon, 40.0)
    assert np.array_equal(found, near_by_hand(labels, lat, lon, 40.0))
    tall, wide = found[:, 100].sum(), found[20].sum()
    assert wide == pytest.approx(tall / np.cos(np.radians(75)), rel=0.1)
    # A block that does not contain the outcrop is still near it.
    # 0.7 degrees of longitude away: twice as many as the distance has degrees of latitude.
    assert np.array_equal(near_outcrop(labels, lat[18:22], lon[114:140], 40.0), found[18:22, 114:140])
    assert found[20, 114:].any()


def test_blocks_together_are_the_whole(scattered):
    lat, lon = centres(scattered)
    whole = near_outcrop(scattered, lat, lon, 25.0)
    pieces = [
        np.hstack(
            [near_outcrop(scattered, lat[row : row + 13], lon[col : col + 17], 25.0) for col in range(0, 100, 17)]
        )
        for row in range(0, 80, 13)
    ]
    assert np.array_equal(np.vstack(pieces), whole)


def test_cells_of_another_size_and_outside_the_labels(scattered):
    # Cells much finer than the labels: inside a body all are near, however short the distance.
    lat, lon = np.linspace(43.45, 43.05, 41)[1:-1:2] + 0.003, np.linspace(80.55, 81.45, 61)[1:-1:2] + 0.003
    assert near_outcrop(scattered, lat, lon, 0.01).all()
    beyond = near_outcrop(scattered, np.array([43.2, 60.0]), np.array([79.8, 20.0]), 60.0)
    assert np.array_equal(beyond, near_by_hand(scattered, np.array([43.2, 60.0]), np.array([79.8, 20.0]), 60.0))
    assert beyond[0, 0]
    assert not beyond[1].any()
    nothing = labels_of(np.zeros((10, 10)))
    assert not near_outcrop(nothing, *centres(nothing), 100.0).any()
