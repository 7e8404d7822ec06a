"""Distances from faults against geodesics of pyproj, and the errors for unusable files."""

import json

import geopandas
import numpy as np
import pytest
import xarray as xr
from pyproj import Geod, Transformer
from shapely.geometry import LineString, MultiLineString, Point, Polygon, box

from gravmap.errors import GravmapError, InputError, OptionError
from gravmap.files import sha256
from gravmap.geology.faults import concatenate_lines, fault_distance_km, read_faults
from gravmap.geology.layers import FAULT_DISTANCE, DistanceLayer
from gravmap.geology.layers_file import add_layer
from gravmap.gravity import open_fields, write_fields
from gravmap.gravity.fields_file import field_recipe, field_sources
from gravmap.regions import Region

GEOD = Geod(ellps="WGS84")
LAMBERT = "+proj=lcc +lat_1=30 +lat_2=62 +lon_0=105 +lat_0=0 +datum=WGS84 +units=m"
HERE = Region(80, 44, 85, 46)


def add_fault_distance(fields, files, cap_km=100.0):
    return add_layer(fields, DistanceLayer(tuple(files), cap_km), overwrite=True)


def write_lines(path, shapes, crs="EPSG:4326"):
    geopandas.GeoDataFrame({"name": ["f"] * len(shapes)}, geometry=list(shapes), crs=crs).to_file(path)
    return path


def geodesic_km(shapes, lat, lon, cap, step=0.002):
    """The smallest of the geodesics to points that stand close together along the lines."""
    points = np.concatenate([np.array(shape.segmentize(step).coords) for shape in shapes])
    nearest = np.empty((len(lat), len(lon)))
    for i, phi in enumerate(lat):
        for j, lam in enumerate(lon):
            away = GEOD.inv(np.full(len(points), lam), np.full(len(points), phi), points[:, 0], points[:, 1])[2]
            nearest[i, j] = min(away.min() / 1000, cap)
    return nearest


def random_lines(seed, region, count, spread):
    rng = np.random.default_rng(seed)
    west, south, east, north = region.bounds_wsen
    lines = []
    for _ in range(count):
        walk = rng.uniform((west, south), (east, north)) + np.cumsum(rng.normal(0, spread, (5, 2)), axis=0)
        walk[:, 1] = np.clip(walk[:, 1], -89.5, 89.5)
        lines.append(LineString(walk))
    return lines


@pytest.mark.parametrize(
    ("region", "count", "spread", "cap"),
    [
        (Region(65, 40, 95, 55), 10, 1.2, 200.0),
        (Region(0, 78, 30, 84), 3, (4, 0.5), 1500.0),
        (Region(10, 79.9, 12, 80.1), 2, (6, 0.02), 100.0),  # long pieces of nearly a parallel at 80 N
        (Region(-10, -5, 10, 5), 3, 2.0, 800.0),
    ],
)
def test_distances_are_geodesic(region, count, spread, cap, tmp_path):
    shapes = random_lines(1, region, count, spread)
    lines = read_faults(write_lines(tmp_path / "f.gpkg", shapes), region, cap)
    lat, lon = np.linspace(region.south, region.north, 5), np.linspace(region.west, region.east, 5)
    expected = geodesic_km(shapes, lat, lon, cap)
    found = fault_distance_km(lines, lat, lon, cap)
    assert (expected < cap).sum() > 4
    assert (np.abs(found - expected) <= 0.1 + 0.001 * expected).all()


def test_far_from_a_fault_the_way_bends_with_the_earth(tmp_path):
    lines = read_faults(
        write_lines(tmp_path / "f.gpkg", [LineString([(60, 30), (60.01, 30)])]), Region(60, 20, 80, 45), 2000
    )
    for lat, lon in ((44.5, 60.0), (30.0, 79.0), (20.0, 70.0)):
        expected = GEOD.inv(60.01 if lon > 60.01 else 60, 30, lon, lat)[2] / 1000
        assert 1400 < expected < 2000
        found = fault_distance_km(lines, np.array([lat]), np.array([lon]), 2000)[0, 0]
        assert found == pytest.approx(expected, rel=2e-4)


def test_near_a_bundle_of_faults_the_nearest_is_found(tmp_path):
    """Hundreds of corners within a kilometre: the nearest corner is not on the nearest line."""
    rng = np.random.default_rng(4)
    shapes = [LineString([(82, 45 + 1e-3 * k), (82.05, 45 + 1e-3 * k)]) for k in range(-40, 41) if k]
    shapes += [LineString(rng.uniform((81.99, 44.95), (82.06, 45.05), (9, 2))) for _ in range(20)]
    lines = read_faults(write_lines(tmp_path / "f.gpkg", shapes), HERE)
    lat, lon = 45 + np.linspace(-0.06, 0.06, 7), 82 + np.linspace(-0.02, 0.07, 7)
    expected = geodesic_km(shapes, lat, lon, 100, step=0.0002)
    assert np.abs(fault_distance_km(lines, lat, lon) - expected).max() < 0.03


def test_a_line_is_straight_in_the_files_own_system(tmp_path):
    """A line of 900 km along a Lambert ordinate: its middle lies far from the straight line in degrees."""
    back = Transformer.from_crs(LAMBERT, "EPSG:4326", always_xy=True)
    forward = Transformer.from_crs("EPSG:4326", LAMBERT, always_xy=True)
    x, y = forward.transform(82.5, 45)
    path = write_lines(tmp_path / "f.shp", [LineString([(x - 450e3, y), (x + 450e3, y)])], LAMBERT)
    lines = read_faults(path, HERE)
    assert lines.crs != "EPSG:4326"
    for along in (-100e3, 0, 100e3):
        lon, lat = back.transform(x + along, y)
        assert fault_distance_km(lines, np.array([lat]), np.array([lon]))[0, 0] < 0.02


def test_lines_are_found_whatever_turn_their_longitudes_are_counted_in(tmp_path):
    shapes = [LineString([(-179.9, 50), (-179.5, 51)])]
    lines = read_faults(write_lines(tmp_path / "f.gpkg", shapes), Region(178, 49, 179.5, 52), 100)
    expected = GEOD.inv(179.5, 50, -179.9, 50)[2] / 1000
    assert fault_distance_km(lines, np.array([50.0]), np.array([179.5]))[0, 0] == pytest.approx(expected, rel=2e-3)


def test_a_line_across_the_antimeridian_does_not_run_around_the_earth(tmp_path):
    path = write_lines(tmp_path / "f.gpkg", [LineString([(179, 50), (-179, 50)])])
    assert read_faults(path, Region(80, 49, 82, 51), 100).count == 0
    lines = read_faults(path, Region(180.5, 49, 182, 51), 100)
    expected = GEOD.inv(180.5, 50, 180.5, 50.5)[2] / 1000
    assert fault_distance_km(lines, np.array([50.5]), np.array([180.5]))[0, 0] == pytest.approx(expected, rel=2e-3)


@pytest.fixture
def fields(tmp_path):
    """A small fields.nc of 80-85 E, 44-46 N; one node without gravity."""
    lat, lon = np.arange(44, 46.01, 0.25), np.arange(80, 85.01, 0.25)
    rng = np.random.default_rng(0)
    names = ("bouguer", "regional_10km", "residual_10km")
    attrs = {"units": "mGal", "long_name": "made", "height_m": 0.0}
    layers = {
        name: xr.DataArray(rng.normal(0, 30, (len(lat), len(lon))).astype(np.float32), dims=("lat", "lon"), attrs=attrs)
        for name in names
    }
    for layer in layers.values():
        layer[3, 4] = np.nan
    recipe = {"quantity": "bouguer", "heights_m": [10000.0], "channels": list(names)}
    own = {"gravmap_recipe": json.dumps(recipe), "gravmap_sources": json.dumps([{"path": "g.nc"}]), "edge_note": "kept"}
    coords = {
        "lat": ("lat", lat, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", lon, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    path = tmp_path / "data" / "fields.nc"
    write_fields(xr.Dataset(layers, coords=coords, attrs={**own, "history": "made"}), path)
    return path


def test_the_channel_is_added_and_all_else_stays(fields, tmp_path):
    shape = LineString([(79, 45), (83, 45.5)])
    path = write_lines(tmp_path / "f.gpkg", [shape, LineString([(83.5, 43.5), (86, 43.6)])])
    before = open_fields(fields)
    made = add_fault_distance(fields, [path], 80.0)
    after = open_fields(fields)
    assert set(after.data_vars) == {*before.data_vars, FAULT_DISTANCE}
    for name in before.data_vars:
        assert after[name].attrs == before[name].attrs
        assert np.array_equal(after[name].values, before[name].values, equal_nan=True)
    for axis in ("lat", "lon"):
        assert after[axis].identical(before[axis])
    same = set(before.attrs) - {"gravmap_recipe", "gravmap_sources", "history"}
    assert {key: after.attrs[key] for key in same} == {key: before.attrs[key] for key in same}
    assert after.attrs["history"].startswith("made\n")
    channel = after[FAULT_DISTANCE]
    assert channel.attrs["units"] == "km"
    assert channel.attrs["source_sha256"] == sha256(path)
    assert np.isfinite(channel.values).all()
    assert channel.values.max() == 80.0
    # The second line lies outside the fields, and counts.
    expected = GEOD.inv(85, 44, 85, 43.56)[2] / 1000
    assert float(channel.sel(lat=44, lon=85)) == pytest.approx(expected, rel=5e-3)
    assert made.lines == (2,)
    assert made.capped_fraction == pytest.approx(float((channel == 80).mean()))
    assert [entry.get("role") for entry in field_sources(after)] == [None, "layer"]
    with xr.open_dataset(fields) as plain:
        assert plain[FAULT_DISTANCE].attrs["grid_mapping"] == "spatial_ref"


def test_the_recipe_knows_file_and_cap_but_not_order_or_place(fields, tmp_path):
    one = write_lines(tmp_path / "one.gpkg", [LineString([(81, 44), (82, 46)])])
    two = write_lines(tmp_path / "two.gpkg", [LineString([(83, 44), (84, 46)])])
    moved = tmp_path / "elsewhere.gpkg"
    moved.write_bytes(two.read_bytes())

    def recipe(files, cap=100.0):
        add_fault_distance(fields, files, cap)
        whole = field_recipe(open_fields(fields))
        assert whole["channels"].count(FAULT_DISTANCE) == 1
        return whole["by_channel"][FAULT_DISTANCE]

    both = recipe([one, two])
    nearest = open_fields(fields)[FAULT_DISTANCE].values
    assert recipe([moved, one]) == both
    assert recipe([one]) != both
    apart = open_fields(fields)[FAULT_DISTANCE].values
    assert recipe([one, two], 90.0) != both
    recipe([two])
    assert np.array_equal(nearest, np.minimum(apart, open_fields(fields)[FAULT_DISTANCE].values))
    assert sum(entry.get("role") == "layer" for entry in field_sources(open_fields(fields))) == 1


def test_lines_that_cannot_serve_are_refused_and_the_fields_stay(fields, tmp_path):
    line = LineString([(81, 44), (82, 46)])
    several = write_lines(tmp_path / "several.gpkg", [line])
    geopandas.GeoDataFrame(geometry=[line], crs="EPSG:4326").to_file(several, layer="folds")
    empty = geopandas.GeoDataFrame({"name": []}, geometry=geopandas.GeoSeries([], crs="EPSG:4326"))
    empty.to_file(tmp_path / "empty.gpkg", geometry_type="LineString")
    (tmp_path / "page.gpkg").write_text("<html>403</html>")
    cases = [
        (tmp_path / "none.gpkg", "missing"),
        (several, "several layers of lines: several, folds"),
        (tmp_path / "empty.gpkg", "empty"),
        (tmp_path / "page.gpkg", "GDAL"),
        (write_lines(tmp_path / "areas.gpkg", [box(81, 44, 82, 46)]), "Polygon"),
        (write_lines(tmp_path / "points.geojson", [Point(81, 45)]), "Point"),
        (write_lines(tmp_path / "bare.shp", [line], None), "coordinate reference system"),
        (write_lines(tmp_path / "far.gpkg", [LineString([(10, 44), (11, 44)])]), "within 100 km"),
        (write_lines(tmp_path / "near.gpkg", [LineString([(87, 44), (88, 44)])]), "within 100 km"),
    ]
    before = sha256(fields)
    for path, words in cases:
        with pytest.raises(InputError, match=words):
            add_fault_distance(fields, [path])
    with pytest.raises(OptionError, match="cannot be limited"):
        add_fault_distance(fields, [several], 0.0)
    with pytest.raises(InputError, match="gravmap residual"):
        add_fault_distance(tmp_path / "no.nc", [several])
    assert sha256(fields) == before


def test_other_geometries_are_ignored_with_a_warning(fields, tmp_path, caplog):
    line = MultiLineString([[(81, 44), (82, 46)], [(83, 44), (83, 44.5)]])
    frame = geopandas.GeoDataFrame(
        {"name": ["a", "b", "c"]}, geometry=[line, Polygon(box(84, 44, 85, 45)), None], crs="EPSG:4326"
    )
    frame.to_file(tmp_path / "mixed.geojson")
    far = write_lines(tmp_path / "far.gpkg", [LineString([(10, 44), (11, 44)])])
    made = add_fault_distance(fields, [tmp_path / "mixed.geojson", far])
    assert made.lines == (2, 0)
    assert "2 features" in caplog.text
    assert "far.gpkg has no line" in caplog.text
    only = read_faults(tmp_path / "mixed.geojson", HERE)
    assert only.dropped == 2
    assert concatenate_lines([only, only]).count == 4


def test_a_failed_write_leaves_the_old_fields(fields, tmp_path, monkeypatch):
    before = sha256(fields)

    def full(self, path, **options):
        path.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    path = write_lines(tmp_path / "f.gpkg", [LineString([(81, 44), (82, 46)])])
    with pytest.raises((OSError, GravmapError)):
        add_fault_distance(fields, [path])
    assert sha256(fields) == before
    assert [entry.name for entry in fields.parent.iterdir()] == ["fields.nc"]
