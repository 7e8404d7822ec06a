"""The position of a known body in the map, and clipping to a known polygon."""

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
import xarray as xr
from pyproj import Transformer
from torch import nn

from gravmap.errors import InputError
from gravmap.gravity import residual_fields, write_fields
from gravmap.learning.training.checkpoint import save_model
from gravmap.mapping import Options, predict, predictor, read_clip
from gravmap.regions import Region
from toys.map import BOX, gravity, layers, make_project, spec_for

pytestmark = pytest.mark.usefixtures("rasters_only")

BODY_LAT, BODY_LON, DEPTH_M = 44.377, 82.713, 9_000.0
STEP = 1 / 30


def body():
    """Attraction of a heavy point 9 km below the ellipsoid, in closed form, on nodes of 2 arc-minutes."""
    to_space = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    lat, lon = np.arange(42.5, 46.0, STEP), np.arange(81, 85, STEP)
    place = np.stack(to_space.transform(*np.meshgrid(lon, lat), np.zeros((lat.size, lon.size))), axis=-1)
    source = np.array(to_space.transform(BODY_LON, BODY_LAT, -DEPTH_M))
    up = np.stack(
        [
            np.cos(np.radians(lat))[:, None] * np.cos(np.radians(lon)),
            np.cos(np.radians(lat))[:, None] * np.sin(np.radians(lon)),
            np.broadcast_to(np.sin(np.radians(lat))[:, None], (lat.size, lon.size)),
        ],
        axis=-1,
    )
    away = place - source
    pull = (away * up).sum(-1) / np.linalg.norm(away, axis=-1) ** 3
    return xr.DataArray(
        (60 * pull / pull.max()).astype(np.float32),
        dims=("lat", "lon"),
        coords={"lat": lat, "lon": lon},
        attrs={"units": "mGal", "height_m": 0.0, "long_name": "Bouguer anomaly"},
    )


class ThresholdNetwork(nn.Module):
    """Predicts class 7 where gravity is high, and class 3 elsewhere."""

    def __init__(self):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(1.0))
        self.architecture = type("None", (), {"to_dict": dict})()

    def forward(self, x):
        logits = torch.full((len(x), 10, *x.shape[2:]), -20.0)
        logits[:, 6] = 20 * (x[:, 0] - self.threshold)
        logits[:, 2] = 0
        return logits


@pytest.fixture
def project(tmp_path, monkeypatch):
    fields = residual_fields(body(), [10_000.0])
    write_fields(fields, tmp_path / "fields.nc")
    network = ThresholdNetwork().eval()
    spec = spec_for(fields, network)
    (tmp_path / "run").mkdir()
    save_model(tmp_path / "run", network, spec)  # not an architecture of gravmap: the network is passed below
    monkeypatch.setattr(predictor, "load_model", lambda folder, device: (network, spec))
    return tmp_path


# Nodes of the gravity, finer and coarser cells, and a grid in metres (UTM 45N).
@pytest.mark.parametrize(
    ("options", "cell_km"),
    [
        ({}, 3.7),
        ({"resolution_deg": 0.01}, 1.1),
        ({"resolution_deg": 0.07}, 7.8),
        ({"crs": "EPSG:32645"}, 3.7),
        ({"flips": True, "scales_deg": (1.0,)}, 3.7),
    ],
)
def test_a_body_is_predicted_at_its_position(project, options, cell_km):
    region = Region(81.6, 43.4, 83.9, 45.3)
    made = predict(project / "fields.nc", project / "run", region, project / "map", options=Options(**options))
    with rasterio.open(made.files["lithology.tif"]) as raster:
        heavy = raster.read(1) == 7
        rows, columns = np.nonzero(heavy)
        x, y = rasterio.transform.xy(raster.transform, rows.mean(), columns.mean())
        lon, lat = Transformer.from_crs(raster.crs, "EPSG:4326", always_xy=True).transform(x, y)
    assert 0 < heavy.mean() < 0.2
    north, east = (lat - BODY_LAT) * 111.1, (lon - BODY_LON) * 111.1 * np.cos(np.radians(BODY_LAT))
    assert abs(north) < cell_km / 2, north
    assert abs(east) < cell_km / 2, east
    bodies = geopandas.read_file(made.files["lithology.gpkg"]).to_crs("EPSG:32645")
    named = bodies[bodies["class"] == 7].geometry.union_all()
    point = geopandas.GeoSeries([shapely.Point(BODY_LON, BODY_LAT)], crs="EPSG:4326").to_crs("EPSG:32645")[0]
    assert named.contains(point)
    assert named.centroid.distance(point) / 1000 < cell_km


def shapes(path, geometries, crs="EPSG:4326"):
    geopandas.GeoDataFrame({"n": range(len(geometries))}, geometry=geometries, crs=crs).to_file(path)
    return path


def test_a_polygon_clips_the_map_cell_by_cell(tmp_path):
    make_project(tmp_path)
    triangle = shapely.Polygon([(81.03, 44.02), (83.41, 44.18), (82.33, 45.87)])
    island = shapely.Point(83.7, 45.6).buffer(0.25)
    path = shapes(tmp_path / "shape.gpkg", [triangle, island])
    predict(tmp_path / "fields.nc", tmp_path / "run", BOX, tmp_path / "box")
    made = predict(tmp_path / "fields.nc", tmp_path / "run", read_clip(path), tmp_path / "map")
    found, whole = layers(tmp_path / "map"), layers(tmp_path / "box")
    lat, lon = made.plan.grid.lat_deg, made.plan.grid.lon_deg
    inside = np.array(
        [[triangle.intersects(shapely.Point(x, y)) or island.intersects(shapely.Point(x, y)) for x in lon] for y in lat]
    )
    assert 100 < inside.sum() < inside.size - 100
    rows = [int(np.abs(np.arange(46, 43.99, -0.1) - y).argmin()) for y in lat]
    columns = [int(np.abs(np.arange(81, 84.01, 0.1) - x).argmin()) for x in lon]
    for name, values in found.items():
        assert ((values == 255) == ~inside).all()
        assert np.array_equal(values[:, inside], whole[name][:, rows][:, :, columns][:, inside])
    # The same outline in metres, as a Shapefile in another system.
    metres = geopandas.read_file(path).to_crs("EPSG:32645")
    metres.geometry = metres.geometry.segmentize(2000)
    metres.to_file(tmp_path / "metres.shp")
    predict(tmp_path / "fields.nc", tmp_path / "run", read_clip(tmp_path / "metres.shp"), tmp_path / "again")
    assert (layers(tmp_path / "again")["lithology"] != found["lithology"]).mean() < 0.01


def test_windows_outside_the_polygons_are_not_computed(tmp_path):
    make_project(tmp_path)
    corners = [shapely.box(79.1, 42.1, 79.6, 42.6), shapely.box(85.2, 47.2, 85.7, 47.7)]
    clip = read_clip(shapes(tmp_path / "corners.gpkg", corners))
    with predictor.Predictor(tmp_path / "fields.nc", tmp_path / "run", "cpu") as both:
        some, every = both.plan(clip.region, [1.0], clip=clip), both.plan(clip.region, [1.0])
    assert 0 < len(some.jobs) < len(every.jobs) / 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path / "nowhere.gpkg", "is missing"),
        (lambda path: shapes(path / "points.gpkg", [shapely.Point(82, 44)]), "contains Point"),
        (lambda path: shapes(path / "bare.geojson", [shapely.Point(82, 44).buffer(1)], None), None),
        (lambda path: shapes(path / "bare.shp", [shapely.Point(82, 44).buffer(1)], None), "reference system"),
        (lambda path: (path / "text.gpkg").write_text("no map") and path / "text.gpkg", "cannot be read by GDAL"),
    ],
)
def test_files_without_polygons_are_refused(tmp_path, make, words):
    if words is None:  # GeoJSON is in degrees by definition
        read_clip(make(tmp_path))
        return
    with pytest.raises(InputError, match=words):
        read_clip(make(tmp_path))


def test_a_polygon_beyond_the_fields(tmp_path):
    make_project(tmp_path)
    path = shapes(tmp_path / "far.gpkg", [shapely.box(78, 43, 82, 45)])
    with pytest.raises(InputError, match="outside the gravity fields"):
        predict(tmp_path / "fields.nc", tmp_path / "run", read_clip(path), tmp_path / "map")


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([(170, 60, 180, 66), (-180, 60, -170, 66)], (170, 60, 190, 66)),
        ([(190, 60, 195, 66)], (190, 60, 195, 66)),
        ([(350, 60, 360, 66), (0, 60, 10, 66)], (-10, 60, 10, 66)),
        ([(-110, 0, -100, 5), (100, 0, 110, 5), (-5, 0, 5, 5)], (-110, 0, 110, 5)),
    ],
)
def test_polygons_at_the_antimeridian_are_joined(tmp_path, boxes, expected):
    path = shapes(tmp_path / "shape.geojson", [shapely.box(*each) for each in boxes])
    assert read_clip(path).region.bounds_wsen == expected


def test_an_outline_across_the_antimeridian_lies_on_both_of_its_sides(tmp_path):
    outline = shapely.Polygon([(175, 60), (-175, 60), (-175, 66), (175, 66)])
    clip = read_clip(shapes(tmp_path / "shape.gpkg", [outline]))
    assert clip.region == Region(175, 60, 185, 66)
    assert clip.turned_into(0, 360) is clip
    assert read_clip(shapes(tmp_path / "west.gpkg", [shapely.box(190, 60, 195, 66)])).turned_into(
        -180, 180
    ).region == Region(-170, 60, -165, 66)


def test_a_place_counted_in_another_turn_than_the_fields(tmp_path):
    grid = gravity()
    make_project(tmp_path, grid.assign_coords(lon=grid.lon + 110))
    with predictor.Predictor(tmp_path / "fields.nc", tmp_path / "run", "cpu") as loaded:
        clip = read_clip(shapes(tmp_path / "shape.gpkg", [shapely.box(-168, 44, -167, 45)]))
        assert loaded.plan(clip.region, [1.0], clip=clip).region == Region(192, 44, 193, 45)
        with pytest.raises(InputError, match=r"turn of 360 degrees[^\n]*\n.*--bbox 192 44 193 45"):
            loaded.plan(Region(-168, 44, -167, 45), [1.0])


def test_of_several_layers_the_only_one_of_polygons_is_taken(tmp_path, caplog):
    path = tmp_path / "shape.gpkg"
    line = shapely.LineString([(83, 51), (84, 52)])
    many = {"faults": line, "basin": shapely.box(83, 51, 85, 52), "outline": shapely.box(82, 50, 83, 51)}
    for layer in ("faults", "basin", "outline"):
        if layer == "outline":
            assert read_clip(path).region == Region(83, 51, 85, 52)
        geopandas.GeoDataFrame({"n": [1]}, geometry=[many[layer]], crs="EPSG:4326").to_file(path, layer=layer)
    with pytest.raises(InputError, match="several layers of polygons: basin, outline"):
        read_clip(path)
    collection = shapely.GeometryCollection([shapely.box(82, 44, 83, 45), line])
    assert read_clip(shapes(tmp_path / "mixed.geojson", [collection, line])).region == Region(82, 44, 83, 45)
    assert "1 features without a polygon" in caplog.text
