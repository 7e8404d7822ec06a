"""Boreholes as people keep them: tables with all kinds of separators, and vector files in any system."""

import geopandas
import numpy as np
import pytest
from pyproj import Transformer
from shapely import GeometryCollection, MultiPoint, Point, box

from gravmap.errors import InputError
from gravmap.geology.points import read_points

LON, LAT = [84.5, 85.25, 91.0], [45.1, 46.75, 43.0]
ROCK = ["Permian", "Devonian", ""]


def gpkg(path, geometry, crs="EPSG:4326", **columns):
    geopandas.GeoDataFrame(columns or {"lith": ROCK}, geometry=geometry, crs=crs).to_file(path)
    return path


@pytest.mark.parametrize(
    ("text", "unplaced"),
    [
        ("name,lon,lat,lith\na,84.5,45.1,Permian\nb,85.25,46.75,Devonian\nc,91,43,\n", 0),
        ("\ufeffLongitude;Latitude;Lith\n84.5;45.1;Permian\n85.25;46.75; Devonian \n91;43;\n", 0),
        ("lat\tlon\tlith\n45.1\t84.5\tPermian\n46.75\t85.25\tDevonian\n\t90\tPermian\n43\t91\t\nx\ty\tPermian\n", 2),
        ('lon,lat,"lith"\n84.5,45.1,"Permian"\n85.25,46.75,Devonian\n91,43,\n85,95,Permian\n', 1),
        ("name;lon;lat;lith\na;84,5;45,1;Permian\nb;85,25;46,75;Devonian\nc;91;43,0;\n", 0),
        ('lon,lat,lith\n"84,5","45,1",Permian\n"85,25","46,75",Devonian\n91,43,""\n', 0),
        ('lon,lat,lith,note\n84.5,45.1,Permian,"two\nlines"\n85.25,46.75,"Devonian" ,b\n91,43,,\n', 0),
        ("lon,lat,lith\n444.5,45.1,Permian\n85.25,46.75,Devonian\n-269,43\n", 1),
    ],
)
def test_tables(tmp_path, text, unplaced):
    path = tmp_path / "wells.csv"
    path.write_text(text, encoding="utf-8")
    found = read_points(path, "lith")
    if "444.5" in text:  # no longitude is as large as that
        assert found.lon.tolist() == LON[1:]
    else:
        assert found.lon == pytest.approx(LON)
        assert found.lat == pytest.approx(LAT)
        assert found.values == ROCK
    assert found.unplaced == unplaced


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32645", "EPSG:28415"])
def test_any_system(tmp_path, crs):
    """Against PROJ's own transform: UTM, and Gauss-Krueger on Pulkovo 1942, whose datum lies a hundred metres off."""
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(LON, LAT)
    path = gpkg(tmp_path / "wells.gpkg", [Point(*each) for each in zip(x, y, strict=True)], crs)
    found = read_points(path, "lith")
    assert np.abs(found.lon - LON).max() < 1e-6
    assert np.abs(found.lat - LAT).max() < 1e-6
    assert found.values == ROCK
    assert found.crs == crs


def test_numbers_and_missing_values_are_read_as_text(tmp_path):
    path = gpkg(tmp_path / "wells.gpkg", [Point(each, 45) for each in LON], code=[7.0, np.nan, 3.0])
    assert read_points(path, "CODE").values == ["7", "", "3"]


def test_multipoints_are_points_of_one_class(tmp_path):
    rows = [MultiPoint([(84, 45)]), MultiPoint([(85, 45), (86, 46)]), GeometryCollection([Point(87, 45)])]
    found = read_points(gpkg(tmp_path / "wells.gpkg", rows), "lith")
    assert found.lon.tolist() == [84, 85, 86, 87]
    assert (found.values, found.unplaced) == (["Permian", "Devonian", "Devonian", ""], 0)


def test_a_row_without_a_point_is_counted(tmp_path):
    path = gpkg(tmp_path / "wells.gpkg", [Point(84, 45), None, Point(85, 45), Point()], lith=[*ROCK, "b"])
    found = read_points(path, "lith")
    assert (found.values, found.unplaced) == (["Permian", ""], 2)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda path: path.with_name("absent.csv"), "missing"),
        (lambda path: write(path / "a.csv", "x,y,lith\n1,2,Permian\n"), "no columns lon and lat"),
        (lambda path: write(path / "a.csv", "lon,lat,rock\n1,2,Permian\n"), "no field lith"),
        (lambda path: write(path / "a.csv", " \n"), "a.csv is empty"),
        (lambda path: write(path / "a.csv", "lon,lat,lith\n"), "no point with a position"),
        (
            lambda path: write(path / "a.csv", "lon,lat,lith\n500000,5e6,a\n"),
            "not degrees: the first is lon 500000, lat 5e",
        ),
        (lambda path: write(path / "a.csv", "lon,lat,lith\n1,2,\xe9\n", "latin-1"), "UTF-8"),
        (lambda path: write(path / "a.csv", 'lon,lat,lith\n1,2,"a\n3,4,b\n'), "line 2: a quote is not closed"),
        (lambda path: write(path / "a.csv", 'lon,lat,lith\n1,2,"a\n3,4,"b"\n'), "line 2: a quote is not closed"),
        (lambda path: write(path / "a.csv", 'lon,lat,lith\n1,2,"a\n3,4,"\n'), "lith of row 1 is several lines"),
        (lambda path: write(path / "a.csv", f"lon,lat,lith\n1,2,{'x' * 131_073}\n"), "more than 131072 letters"),
        (lambda path: write(path / "a.csv", "lon,lat,lith\n84,5,45,1,a\n"), "Row 1 .* has 5 values; its header has 3"),
        (lambda path: write(path / "a.csv", "lon,lat,lith\n84,45,a\n85,4"), "ends inside a row: 85,4"),
        (lambda path: (path / "a.csv").mkdir() or path / "a.csv", "is not a file"),
        (lambda path: write(path / "a.gpkg", "no GeoPackage"), "cannot be read by GDAL"),
        (lambda path: gpkg(path / "a.gpkg", [box(84, 45, 85, 46)] * 3), "has Polygon, no points"),
        (lambda path: gpkg(path / "a.gpkg", [Point(84, 45)] * 3, rock=ROCK), "no field lith; its fields are rock"),
        (lambda path: gpkg(path / "a.shp", [Point(84, 45)] * 3, None), "has no coordinate reference system"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, made, message):
    with pytest.raises(InputError, match=message):
        read_points(made(tmp_path), "lith")


def write(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return path


def test_the_only_layer_of_points_is_taken(tmp_path):
    path = gpkg(tmp_path / "wells.gpkg", [Point(82, 44)], lith=["low"])
    geopandas.GeoDataFrame(geometry=[box(80, 40, 90, 48)], crs=4326).to_file(path, layer="outline")
    assert read_points(path, "lith").lon.tolist() == [82]


def test_depths_are_metres_and_empty_where_the_basement_was_not_reached(tmp_path):
    path = tmp_path / "wells.csv"
    path.write_text("lon;lat;Depth_m;lith\n84,5;45,1;1200,5;Permian\n85;46;;Devonian\n91;95;7;Permian\n91;43;0;\n")
    found = read_points(path, "lith")
    np.testing.assert_array_equal(found.depth_m, [1200.5, np.nan, 0])
    assert (found.depth_field, found.unplaced) == ("Depth_m", 1)
    assert read_points(path, None, "depth_m").values == ["", "", ""]
    no_depths = tmp_path / "depth.csv"
    no_depths.write_text("lon,lat,depth\n84.5,45.1,3\n")
    assert read_points(no_depths, None).depth_m is None  # of an unknown unit
    assert read_points(no_depths, None, "depth").depth_m.tolist() == [3]
    file = gpkg(tmp_path / "wells.gpkg", [Point(each, 45) for each in LON], cover_m=[7.25, np.nan, 3.0])
    np.testing.assert_array_equal(read_points(file, None).depth_m, [7.25, np.nan, 3])


@pytest.mark.parametrize(
    ("column", "metres"),
    [("depth_km", 3000), ("Cover (km)", 3000), ("cover_ft", 0.9144), ("depth", 3), ("tvd_km2", 3), ("tvdkm", 3)],
)
def test_the_name_of_a_column_of_depths_says_its_unit(tmp_path, caplog, column, metres):
    path = tmp_path / "wells.csv"
    path.write_text(f"lon,lat,{column}\n84.5,45.1,3\n84.5,45.2,\n")
    assert read_points(path, None, column).depth_m[0] == pytest.approx(metres)
    # Where the name has no unit, kilometres would be taken for metres in silence.
    assert ("read as metres" in caplog.text) == (metres == 3)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("-3", "is negative"),
        ("1200 m", "is not a finite number"),
        ("inf", "is not a finite number"),
        ("nan", "is not a finite number"),
        ("deep", "is not a finite number"),
        ('"1,200"', "may have a decimal comma or separate thousands"),
    ],
)
def test_depths_that_are_none_are_refused_with_their_row(tmp_path, value, why):
    path = tmp_path / "wells.csv"
    path.write_text(f"lon,lat,depth_m\n84.5,45.1,5\n,,{value}\n")
    with pytest.raises(InputError, match=f"Row 2 of .*depth_m.*{why}") as refused:
        read_points(path, None)
    assert "metres" in str(refused.value)


def test_depths_of_a_vector_file_are_refused_alike(tmp_path):
    file = gpkg(tmp_path / "wells.gpkg", [Point(each, 45) for each in LON], cover_m=[7.25, 1.0, -3.0])
    with pytest.raises(InputError, match=r"Row 3 of .* is negative"):
        read_points(file, None)
    with pytest.raises(InputError, match=r"(?s)no field tvd.*--depth-column"):
        read_points(file, None, "tvd")
