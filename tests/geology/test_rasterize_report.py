"""The report of a rasterized map: areas by cause and by class, overlaps, and the order of maps."""

import os
import shutil
import subprocess

import geopandas
import numpy as np
import pytest
import rasterio
from pyproj import Geod
from shapely.geometry import Polygon, box

from gravmap.errors import InputError
from gravmap.geology import load_legend, rasterize, write_labels
from gravmap.regions import Region

GEO3AL = load_legend("geo3al")
HERE = Region(80, 44, 85, 46)


def unit(shape, code, kind=""):
    return shape, {"GEN_GLG": code, "TYPE": kind}


def geodesic_km2(shape):
    return abs(Geod(ellps="WGS84").geometry_area_perimeter(shape.segmentize(0.01))[0]) / 1e6


def test_areas_by_reason_are_geodesic_and_sum_to_the_region(write_map):
    shapes = {
        "C": box(80, 44, 81, 46), "Q": box(81, 44, 82, 46), "oth": box(82, 44, 82.5, 46), "Pz": box(82.5, 44, 83.5, 46),
        "Zz": box(83.5, 44, 84, 45),
    }  # fmt: skip
    made = rasterize([(write_map([unit(shape, code) for code, shape in shapes.items()]), GEO3AL)], HERE, 0.01)
    area = {code: geodesic_km2(shape) for code, shape in shapes.items()}
    whole = geodesic_km2(box(80, 44, 85, 46))
    assert "oth" in GEO3AL.gaps
    assert made.class_km2[7] == pytest.approx(area["C"], rel=1e-6)
    assert made.class_km2[0] == pytest.approx(area["Q"], rel=1e-6)
    assert made.unusable.gaps_km2 == pytest.approx(area["oth"], rel=1e-6)
    assert made.unusable.by_legend_km2 == pytest.approx(area["Pz"], rel=1e-6)
    assert made.unusable.unknown_km2 == pytest.approx(area["Zz"], rel=1e-6)
    assert made.unusable.outside_km2 == pytest.approx(whole - sum(area.values()), rel=1e-6)
    assert sum(made.class_km2.values()) == pytest.approx(whole, rel=1e-6)
    parts = made.unusable
    reasons = parts.outside_km2 + parts.gaps_km2 + parts.by_legend_km2 + parts.unknown_km2
    assert made.class_km2[255] == pytest.approx(reasons, rel=1e-9)
    assert {entry.code: entry.area_km2 for entry in made.codes}["oth"] == pytest.approx(area["oth"], rel=1e-6)


def test_a_gap_over_rock_is_a_hole_in_the_map(write_map):
    made = rasterize(
        [(write_map([unit(box(80, 44, 83, 46), "C"), unit(box(82, 44, 85, 46), "oth")]), GEO3AL)], HERE, 0.1
    )
    assert (made.values[:, 5::10] == [7, 7, 7, 255, 255]).all()
    assert made.unusable.gaps_km2 == pytest.approx(geodesic_km2(box(83, 44, 85, 46)), rel=1e-6)
    assert made.maps[0].disputed_km2 == 0


def test_areas_mapped_twice_are_measured_within_and_between_maps(write_map):
    first = write_map([unit(box(80, 44, 82, 46), "C"), unit(box(81.5, 44, 82.5, 46), "D")], "first.gpkg")
    second = write_map(
        [unit(box(82.25, 44, 83, 46), "S"), unit(box(82.75, 44, 84, 46), "O"), unit(box(80, 44, 80.5, 46), "C")],
        "second.gpkg",
    )
    made = rasterize([(first, GEO3AL), (second, GEO3AL)], HERE, 0.01)
    assert made.maps[0].disputed_km2 == pytest.approx(geodesic_km2(box(81.5, 44, 82, 46)), rel=1e-6)
    assert made.maps[1].disputed_km2 == pytest.approx(geodesic_km2(box(82.75, 44, 83, 46)), rel=1e-6)
    # Where both have C (80-80.5) there is no conflict.
    assert made.disputed_between_km2 == pytest.approx(geodesic_km2(box(82.25, 44, 82.5, 46)), rel=1e-6)
    assert made.values[100, 175] == 6  # the later polygon of a map
    assert made.values[100, 235] == 6  # the earlier map
    assert made.values[100, 290] == 4


@pytest.mark.parametrize("name", ["many.gpkg", "many.shp", "many.geojson"])
def test_the_later_polygon_of_the_file_wins_in_every_format(name, write_map):
    """A GeoPackage read by box answers in the order of its spatial index."""
    rng = np.random.default_rng(0)
    corners = rng.uniform((79, 43), (85, 46), (3000, 2))
    codes = rng.choice(list("CDSOP"), 3000)
    rows = [unit(box(x, y, x + 0.3, y + 0.3), str(code)) for (x, y), code in zip(corners, codes, strict=True)]
    made = rasterize([(write_map(rows, name), GEO3AL)], HERE, 0.1)
    lon, lat = np.meshgrid(80.05 + 0.1 * np.arange(50), 45.95 - 0.1 * np.arange(20))
    expected = np.full(lon.shape, 255)
    for (x, y), code in zip(corners, codes, strict=True):
        expected[(lon > x) & (lon < x + 0.3) & (lat > y) & (lat < y + 0.3)] = GEO3AL.codes[str(code)]
    assert (made.values == expected).all()


def test_a_pulkovo_shapefile_agrees_with_ogr2ogr_and_gdal_rasterize(tmp_path):
    tools = [shutil.which(tool) for tool in ("ogr2ogr", "gdal_rasterize")]
    if None in tools:
        pytest.skip("GDAL's tools are not installed")
    rng = np.random.default_rng(2)
    fsu = load_legend("fsu_geol")
    codes = [code for code in fsu.codes if code not in fsu.gaps]
    drawn = [codes[k] for k in rng.integers(len(codes), size=40)]
    shapes = [Polygon(rng.uniform(0, 1.2, (6, 2)) + rng.uniform((79.5, 43.5), (85, 46))).convex_hull for _ in drawn]
    table = {"Glg": drawn, "V": [fsu.codes[code] for code in drawn]}
    path = tmp_path / "fsu.shp"
    geopandas.GeoDataFrame(table, geometry=shapes, crs="EPSG:4284").to_file(path)
    subprocess.run([tools[0], "-q", "-t_srs", "EPSG:4326", str(tmp_path / "wgs.shp"), str(path)], check=True)
    place = ["-te", "80", "44", "85", "46", "-ts", "5000", "2000"]
    words = ["-q", "-a", "V", "-init", "255", "-ot", "Byte", *place]
    subprocess.run([tools[1], *words, str(tmp_path / "wgs.shp"), str(tmp_path / "gdal.tif")], check=True)
    made = rasterize([(path, fsu)], HERE, 0.001)
    with rasterio.open(tmp_path / "gdal.tif") as raster:
        theirs = raster.read(1)
    # Another PROJ may shift by a metre more, a hundredth of a cell; without the shift 14 000 cells would differ.
    assert np.count_nonzero(made.values != theirs) < 300


def test_a_polygon_that_proj_cannot_transform_is_ignored_with_a_warning(write_map, caplog):
    around = "+proj=ortho +lat_0=45 +lon_0=82 +datum=WGS84"
    rows = [unit(box(-1e5, -1e5, 1e5, 1e5), "C"), unit(box(-2e5, -2e5, 7e6, 0), "D")]
    made = rasterize([(write_map(rows, crs=around), GEO3AL)], HERE, 0.1)
    assert made.maps[0].dropped == 1
    assert set(np.unique(made.values)) == {7, 255}
    assert "cannot be transformed" in caplog.text


def test_features_without_area_are_left_out_and_counted(write_map):
    fold = Polygon([(80, 44), (82, 45), (84, 46), (82, 45), (80, 44)])
    made = rasterize([(write_map([unit(fold, "D"), unit(box(80, 44, 81, 46), "C")]), GEO3AL)], HERE, 0.1)
    assert (made.maps[0].polygons, made.maps[0].dropped, made.maps[0].mended) == (1, 1, 0)


def test_a_read_only_folder_and_no_half_written_raster(write_map, tmp_path):
    made = rasterize([(write_map([unit(box(80, 44, 81, 46), "C")]), GEO3AL)], HERE, 0.1)
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere")
        with pytest.raises(OSError, match="denied"):
            write_labels(folder / "labels.tif", made)
        assert not list(folder.iterdir())
    finally:
        folder.chmod(0o700)


def test_an_empty_map_is_reported(tmp_path):
    empty = geopandas.GeoDataFrame({"GEN_GLG": [], "TYPE": []}, geometry=[], crs="EPSG:4326")
    empty.to_file(tmp_path / "empty.gpkg")
    with pytest.raises(InputError, match=r"empty\.gpkg"):
        rasterize([(tmp_path / "empty.gpkg", GEO3AL)], HERE)
