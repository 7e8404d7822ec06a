import json
import shutil
import subprocess
import xml.etree.ElementTree

import numpy as np
import pytest
import rasterio
from pyproj import Geod

from gravmap.geology import load_legend
from gravmap.geology.labels import write_index_raster

LEGEND = load_legend("bedrock10")
BOUNDS = (80, 44, 86, 48)


@pytest.fixture
def values():
    pool = np.array([*range(11), 255], dtype=np.uint8)
    return np.random.default_rng(0).choice(pool, size=(600, 900))


@pytest.mark.parametrize("options", [{}, {"overviews": True}, {"cog": True}])
def test_rasterio_reads_it_back(tmp_path, values, options):
    path = tmp_path / "x.tif"
    write_index_raster(path, values, BOUNDS, LEGEND, tags={"A": "text", "B": {"number": 1}}, **options)
    with rasterio.open(path) as raster:
        assert (raster.read(1) == values).all()
        assert raster.crs.to_epsg() == 4326
        assert tuple(raster.bounds) == pytest.approx(BOUNDS)
        assert raster.transform.e < 0
        assert (raster.dtypes[0], raster.nodata, raster.count) == ("uint8", 255, 1)
        assert raster.compression.name == "deflate"
        assert raster.block_shapes == [(512, 512)]
        assert raster.colorinterp[0].name == "palette"
        colours = raster.colormap(1)
        assert colours[7] == (0x67, 0xA5, 0x99, 255)
        assert colours[0] == (0xF2, 0xF9, 0x1D, 255)
        assert raster.tags()["A"] == "text"
        assert json.loads(raster.tags()["B"]) == {"number": 1}
        assert raster.tags()["GRAVMAP_LEGEND"] == "bedrock10"
        assert bool(raster.overviews(1)) == bool(options)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.tif", "x.tif.aux.xml"]


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")
@pytest.mark.parametrize("options", [{}, {"cog": True}])
def test_gdal_shows_the_names(tmp_path, values, options):
    write_index_raster(tmp_path / "x.tif", values, BOUNDS, LEGEND, **options)
    info = json.loads(subprocess.check_output(["gdalinfo", "-json", str(tmp_path / "x.tif")]))
    assert info["bands"][0]["categories"] == [entry.name for entry in LEGEND.classes]
    assert info["bands"][0]["noDataValue"] == 255
    if options:
        assert info["metadata"]["IMAGE_STRUCTURE"]["LAYOUT"] == "COG"


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")
def test_gdal_reads_the_table_of_cells_and_areas(tmp_path, values):
    write_index_raster(tmp_path / "x.tif", values, BOUNDS, LEGEND)
    table = json.loads(subprocess.check_output(["gdalinfo", "-json", str(tmp_path / "x.tif")]))["rat"]
    assert [row["f"][0] for row in table["row"]] == list(range(11))
    assert [row["f"][1] for row in table["row"]] == [int((values == value).sum()) for value in range(11)]
    # All cells with data, by geodesics: three parallels and meridians in steps of a fiftieth of a degree.
    lon, lat = np.linspace(80, 86, 301), np.linspace(44, 48, 201)
    ring = [*lon, *[86] * 199, *lon[::-1], *[80] * 199], [*[44] * 301, *lat[1:-1], *[48] * 301, *lat[-2:0:-1]]
    whole = Geod(ellps="WGS84").polygon_area_perimeter(*ring)[0] / 1e6
    fraction = np.average((values != 255).mean(axis=1), weights=np.cos(np.radians(48 - (np.arange(600) + 0.5) / 150)))
    assert sum(row["f"][6] for row in table["row"]) == pytest.approx(whole * fraction, rel=1e-5)


def test_names_with_signs_are_escaped(tmp_path, values):
    from dataclasses import replace

    odd = replace(
        LEGEND, classes=(*LEGEND.classes[:2], replace(LEGEND.classes[2], name="P & Q <old>"), *LEGEND.classes[3:])
    )
    write_index_raster(tmp_path / "x.tif", values, BOUNDS, odd)
    text = (tmp_path / "x.tif.aux.xml").read_text()
    assert text.count("P &amp; Q &lt;old&gt;") == 2  # among the names and in the table
    xml.etree.ElementTree.fromstring(text)


def test_a_small_raster_is_not_padded(tmp_path):
    write_index_raster(tmp_path / "x.tif", np.ones((3, 5), dtype=np.uint8), BOUNDS, LEGEND)
    with rasterio.open(tmp_path / "x.tif") as raster:
        assert raster.shape == (3, 5)
    assert (tmp_path / "x.tif").stat().st_size < 6000


def test_an_old_file_stays_when_writing_fails(tmp_path, values, monkeypatch):
    path = tmp_path / "x.tif"
    write_index_raster(path, values, BOUNDS, LEGEND)
    before = path.read_bytes()
    monkeypatch.setattr("gravmap.geology.labels.auxiliary_xml", lambda rows, tally: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_index_raster(path, values[::-1], BOUNDS, LEGEND)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.tif", "x.tif.aux.xml"]
