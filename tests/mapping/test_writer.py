import itertools
import json
import random
import shutil
import subprocess
import xml.etree.ElementTree

import numpy as np
import pytest
import rasterio
from pyproj import Geod
from rasterio.windows import Window

from gravmap.errors import GravmapError
from gravmap.mapping.files.writer import MapWriter
from gravmap.mapping.layers import BANDS as ALL_BANDS
from gravmap.mapping.layers import EVIDENCE_COLOURS, UncertaintyBand
from toys.layers import BANDS, LEGEND, NO_DATA, cut, grid, random_map, write_map

SHAPE = 520, 560  # more than one tile of 512 each way
RASTERS = "lithology.tif", "probability.tif", "uncertainty.tif", "evidence.tif"
needs_gdalinfo = pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")


@pytest.fixture(scope="module")
def whole():
    return random_map(*SHAPE, smooth=12)


@pytest.fixture(scope="module")
def files(whole, tmp_path_factory):
    return write_map(tmp_path_factory.mktemp("map"), cut(whole, 512), grid(*SHAPE))


def gdalinfo(path):
    return json.loads(subprocess.check_output(["gdalinfo", "-json", str(path)]))


def test_the_files_hold_what_the_blocks_held(files, whole):
    with rasterio.open(files.paths["lithology.tif"]) as raster:
        assert (raster.read(1) == whole.lithology).all()
        assert (raster.nodata, raster.crs.to_epsg()) == (255, 4326)
        assert raster.bounds == pytest.approx(grid(*SHAPE).bounds_wsen)
        assert raster.tags()["GRAVMAP_CONTENT"] == "made up"
    with rasterio.open(files.paths["evidence.tif"]) as raster:
        assert (raster.read(1) == whole.evidence).all()
    with rasterio.open(files.paths["probability.tif"]) as raster:
        assert raster.descriptions == tuple(entry.name for entry in LEGEND.bedrock)
        # rasterio masks no data and leaves the scale to us.
        values = raster.read(masked=True) * raster.scales[0]
        assert (values.mask == np.isnan(whole.probability)).all()
        assert np.abs(values - whole.probability).max() <= 0.5 / 200 + 1e-6
    with rasterio.open(files.paths["uncertainty.tif"]) as raster:
        assert raster.descriptions == tuple(band.name for band in BANDS)
        for number, band in enumerate(BANDS, start=1):
            values = raster.read(number, masked=True) * raster.scales[number - 1]
            given = whole.uncertainty[band.name]
            assert (values.mask == np.isnan(given)).all()
            assert np.abs(values - given).max() <= band.scale / 2 + 1e-6
            assert raster.tags(number)["meaning"] == band.meaning


@pytest.mark.parametrize("size", [150, 10_000])
def test_the_size_and_the_order_of_blocks_do_not_matter(files, whole, tmp_path, size):
    blocks = list(cut(whole, size))
    random.Random(0).shuffle(blocks)
    other = write_map(tmp_path, blocks, grid(*SHAPE))
    for name in RASTERS:
        with rasterio.open(other.paths[name]) as there, rasterio.open(files.paths[name]) as here:
            assert (there.read() == here.read()).all()
            assert there.tags() == here.tags()
            assert [there.tags(band) for band in there.indexes] == [here.tags(band) for band in here.indexes]
    assert other.summary == files.summary


def test_cells_that_no_block_covers_are_no_data(whole, tmp_path):
    first = next(cut(whole, 100))
    written = write_map(tmp_path, [first], grid(*SHAPE))
    for name in RASTERS:
        with rasterio.open(written.paths[name]) as raster:
            assert (raster.read(window=Window(100, 0, 460, 520)) == 255).all()
            assert (raster.read(window=Window(0, 0, 100, 100)) != 255).all()
    assert written.summary.cells == 100 * 100


@needs_gdalinfo
def test_gdal_reads_palette_names_table_and_nodata(files, whole):
    info = gdalinfo(files.paths["lithology.tif"])
    (band,) = info["bands"]
    assert band["noDataValue"] == 255
    assert band["colorInterpretation"] == "Palette"
    assert band["categories"] == ["", *(entry.name for entry in LEGEND.bedrock)]
    entries = band["colorTable"]["entries"]
    columns = [column["name"] for column in info["rat"]["fieldDefn"]]
    assert columns == ["Value", "Count", "Class", "Red", "Green", "Blue", "Area_km2"]
    # GFU_MinMax, PixelCount, Name, Red, Green, Blue, Generic of gdal.h: QGIS colours by them.
    assert [column["usage"] for column in info["rat"]["fieldDefn"]] == [5, 1, 2, 6, 7, 8, 0]
    km2 = geodesic_row_areas(SHAPE, grid(*SHAPE).bounds_wsen)
    for entry, row in zip(LEGEND.bedrock, info["rat"]["row"], strict=True):
        there = whole.lithology == entry.index
        red, green, blue = bytes.fromhex(entry.colour[1:])
        assert row["f"][:6] == [entry.index, int(there.sum()), entry.name, red, green, blue]
        assert row["f"][6] == pytest.approx(float(there.sum(axis=1) @ km2), rel=1e-5, abs=1e-3)
        assert entries[entry.index] == [red, green, blue, 255]


@needs_gdalinfo
def test_gdal_reads_the_evidence(files, whole):
    info = gdalinfo(files.paths["evidence.tif"])
    assert info["bands"][0]["categories"][1:3] == ["mapped outcrop", "within 25 km of mapped outcrop"]
    rows = {row["f"][0]: row["f"] for row in info["rat"]["row"]}
    assert set(rows) == set(EVIDENCE_COLOURS)
    for value, colour in EVIDENCE_COLOURS.items():
        assert rows[value][1] == (whole.evidence == value).sum()
        assert tuple(rows[value][3:6]) == tuple(bytes.fromhex(colour[1:]))


def geodesic_row_areas(shape, bounds_wsen):
    """Area of a cell in each row by geodesics between points so close that they follow the parallel."""
    west, south, east, north = bounds_wsen
    width, edges = (east - west) / shape[1], np.linspace(north, south, shape[0] + 1)
    lon = np.linspace(0, width, 21)
    areas = [
        Geod(ellps="WGS84").polygon_area_perimeter([*lon, *lon[::-1]], [low] * 21 + [high] * 21)[0]
        for high, low in itertools.pairwise(edges)
    ]
    return np.array(areas) / 1e6


@needs_gdalinfo
@pytest.mark.parametrize("name", RASTERS)
def test_the_statistics_in_the_file_are_correct(files, name):
    with rasterio.open(files.paths[name]) as raster:
        values = raster.read(masked=True)
    assert not list(files.paths[name].parent.glob(f"{name}.ovr"))
    for band, stored in zip(gdalinfo(files.paths[name])["bands"], values, strict=True):
        found = {key: float(value) for key, value in band["metadata"][""].items() if key.startswith("STATISTICS_")}
        assert found["STATISTICS_MINIMUM"] == stored.min()
        assert found["STATISTICS_MAXIMUM"] == stored.max()
        assert found["STATISTICS_MEAN"] == pytest.approx(stored.mean())
        assert found["STATISTICS_STDDEV"] == pytest.approx(stored.std())
        assert found["STATISTICS_VALID_PERCENT"] == pytest.approx(100 * (1 - stored.mask.mean()))


@pytest.mark.parametrize("name", RASTERS)
def test_they_are_cloud_optimized(files, name):
    rio_cogeo = pytest.importorskip("rio_cogeo")
    valid, errors, warnings = rio_cogeo.cog_validate(files.paths[name], strict=True)
    assert valid, errors + warnings
    with rasterio.open(files.paths[name]) as raster:
        assert raster.profile["compress"] == "deflate"
        assert set(raster.block_shapes) == {(512, 512)}


def test_the_sld_has_the_classes_of_the_legend(files):
    """Read by its namespace, as GeoServer does; QGIS reads no SLD of a raster."""
    style = xml.etree.ElementTree.parse(files.paths["lithology.sld"]).getroot()
    assert style.tag == "{http://www.opengis.net/sld}StyledLayerDescriptor"
    (table,) = style.iter("{http://www.opengis.net/sld}ColorMap")
    assert table.get("type") == "values"
    entries = [(int(one.get("quantity")), one.get("label"), one.get("color")) for one in table]
    assert entries == [(entry.index, entry.name, entry.colour) for entry in LEGEND.bedrock]


def test_overviews_contain_no_new_class(files, tmp_path):
    """Two classes in a fine pattern: their overview may be either of them, the mean of a measure is neither."""
    mixed = random_map(*SHAPE, smooth=20)
    corner = np.s_[:80, :80]
    rows, cols = np.indices((80, 80))
    pattern = (rows + cols // 2) % 2 == 0
    mixed.lithology[corner] = np.where(pattern, 2, 9)
    mixed.evidence[corner] = np.where(pattern, 1, 4)
    mixed.probability[:, *corner] = np.where(pattern, 0.2, 0.8)
    written = write_map(tmp_path, [mixed], grid(*SHAPE))
    for name, classes in (("lithology.tif", {2, 9}), ("evidence.tif", {1, 4})):
        with rasterio.open(written.paths[name], overview_level=0) as raster:
            assert set(np.unique(raster.read(1, window=Window(0, 0, 38, 38)))) <= classes
    with rasterio.open(written.paths["probability.tif"], overview_level=0) as raster:
        assert np.abs(raster.read(1, window=Window(0, 0, 38, 38)).astype(float) - 100).max() <= 1


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_bands_are_not_interpreted_as_red_green_blue_and_alpha(tmp_path, count):
    toy = random_map(30, 40)
    bands = ALL_BANDS[:count]
    for band in bands:
        toy.uncertainty.setdefault(band.name, toy.uncertainty["margin"])
    written = write_map(tmp_path, [toy], grid(30, 40), bands=bands)
    with rasterio.open(written.paths["uncertainty.tif"]) as raster:
        assert [colour.name for colour in raster.colorinterp] == ["gray"] + ["undefined"] * (count - 1)


def test_values_beyond_a_byte_are_clipped(tmp_path):
    toy = random_map(30, 40)
    band = UncertaintyBand("dissimilarity", "far", 1 / 100)
    toy.uncertainty["dissimilarity"] = np.full((30, 40), 7.3, dtype=np.float32)
    toy.uncertainty["dissimilarity"][0, 0] = np.nan
    written = write_map(tmp_path, [toy], grid(30, 40), bands=[band])
    with rasterio.open(written.paths["uncertainty.tif"]) as raster:
        values = raster.read(1)
    assert values[0, 0] == 255
    assert set(np.unique(values[1:])) == {254}


def test_the_summary_adds_up(files, whole):
    summary = files.summary
    assert summary.cells == (whole.lithology != 255).sum() == whole.lithology.size - whole.lithology[NO_DATA].size
    assert sum(each.cells for each in summary.evidence) == summary.cells
    assert sum(each.km2 for each in summary.evidence) == pytest.approx(summary.km2)
    assert [each.name for each in summary.classes] == [entry.name for entry in LEGEND.bedrock]


def test_the_folder_holds_the_files_and_no_others(files):
    folder = files.paths["lithology.tif"].parent
    assert {entry.name for entry in folder.iterdir()} == set(files.paths)
    assert set(files.paths) == {
        *RASTERS,
        "lithology.tif.aux.xml",
        "evidence.tif.aux.xml",
        "lithology.gpkg",
        "lithology.qml",
        "lithology.sld",
        "probability.qml",
        "uncertainty.qml",
        "evidence.qml",
        "second_class.tif",
        "second_class.tif.aux.xml",
        "second_class.qml",
    }


def test_nothing_is_left_when_a_block_fails(tmp_path):
    toy = random_map(30, 40)
    del toy.uncertainty["margin"]
    with pytest.raises(KeyError), MapWriter(tmp_path, grid(30, 40), LEGEND, bands=BANDS, tags={}, near_km=5) as writer:
        writer.write(toy)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_reported(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr("gravmap.files.FULL_BELOW_BYTES", 1 << 60)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = random_map(300, 300, smooth=0.1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(GravmapError, match="disk is full"):
            write_map(tmp_path, [noise], grid(300, 300))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
