"""The STAC item of a map: by the schemas of the core and the extensions, and beside what the files hold."""

import copy
import hashlib
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pyproj
import pystac
import pytest
import rasterio
import shapely
from pystac.extensions.file import FileExtension
from pystac.extensions.mlm import MLMExtension
from pystac.extensions.projection import ProjectionExtension
from rasterio.warp import transform

from gravmap.errors import InputError
from gravmap.mapping.record.stac import EXTENSIONS, footprint, make_item, write_item
from toys.map import LEGEND
from toys.record import COLS, COMMAND, ROWS, make_recorded_map, make_workspace


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("stac") / "ws"
    make_workspace(root)
    make_recorded_map(root, crs="EPSG:32645", folder=root / "maps" / "utm")
    make_recorded_map(root, crs="+proj=laea +lat_0=45 +lon_0=82 +datum=WGS84", folder=root / "maps" / "laea")
    return root


@pytest.fixture(scope="module", params=["toy", "utm", "laea"])
def folder(root, request):
    return root / "maps" / request.param


@pytest.fixture(scope="module")
def item(folder):
    return json.loads((folder / "item.json").read_text())


def rasters(folder, item):
    for key in ("lithology", "probability", "uncertainty", "evidence"):
        with rasterio.open(folder / item["assets"][key]["href"]) as raster:
            yield item["assets"][key], raster


# Schemas


SCHEMAS = Path(__file__).parent / "stac_schemas"

# A change that each schema has to refuse.
BREAKS = {
    "projection": lambda item: item["properties"].update({"proj:shape": [1]}),
    "classification": lambda item: item["properties"]["mlm:output"][0]["classification:classes"][0].pop("name"),
    "file": lambda item: item["assets"]["lithology"].update({"file:checksum": "no hexadecimal"}),
    "mlm": lambda item: item["properties"]["mlm:input"][0].update({"resize_type": "interpolate-linear"}),
}


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.fixture(scope="module")
def validator():
    """pystac's, with the schemas of extensions that lie in this folder."""
    pytest.importorskip("jsonschema")
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    made = JsonSchemaSTACValidator()
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        made.schema_cache[schema["$id"].rstrip("#")] = schema
    # MLM 1.4 refers to class objects of 1.1; 2.0 added fields to them.
    name = "https://stac-extensions.github.io/classification/v{}/schema.json"
    made.schema_cache[name.format("1.1.0")] = made.schema_cache[name.format("2.0.0")]
    return made


def test_the_core_is_valid(item, validator, no_network):
    assert item["stac_version"] == "1.1.0"
    validator.validate_core(item, pystac.STACObjectType.ITEM, "1.1.0")
    # The schema has teeth: bands of the whole item without bands of an asset, a time that is none.
    for broken in (
        {**item, "properties": {**item["properties"], "datetime": "yesterday"}},
        {**item, "assets": {key: {"href": "x"} for key in item["assets"]}},
    ):
        with pytest.raises(pystac.errors.STACValidationError):
            validator.validate_core(broken, pystac.STACObjectType.ITEM, "1.1.0")


@pytest.mark.parametrize("uri", EXTENSIONS, ids=lambda uri: uri.split("/")[3])
def test_an_extension_is_valid(item, validator, no_network, uri):
    assert uri in item["stac_extensions"]
    if uri not in validator.schema_cache:
        pytest.skip("no copy of its schema here")
    validator.validate_extension(item, pystac.STACObjectType.ITEM, "1.1.0", uri)
    broken = copy.deepcopy(item)
    BREAKS[uri.split("/")[3]](broken)
    with pytest.raises(pystac.errors.STACValidationError):
        validator.validate_extension(broken, pystac.STACObjectType.ITEM, "1.1.0", uri)


@pytest.mark.network
def test_all_extensions_are_valid_by_the_schemas_that_the_item_names(item):
    pytest.importorskip("jsonschema")
    pystac.Item.from_dict(item).validate()


def test_an_item_is_written_without_the_network(folder, item, no_network):
    assert json.loads(json.dumps(make_item(folder).to_dict())) == item


def test_pystac_reads_projection_classes_checksums_and_network(folder, item):
    read = pystac.Item.from_dict(item)
    place = ProjectionExtension.ext(read)
    with rasterio.open(folder / "lithology.tif") as raster:
        assert place.shape == list(raster.shape)
        assert np.allclose(place.transform, raster.transform[:6])
        assert np.allclose(place.bbox, raster.bounds)
        assert rasterio.CRS.from_user_input(place.code or place.wkt2) == raster.crs
    network = MLMExtension.ext(read)
    assert [str(task) for task in network.tasks] == ["semantic-segmentation"]
    assert network.input[0].input.shape == [-1, 1, 64, 64]
    assert network.output[0].result.shape == [-1, 10, 64, 64]
    assert [entry.name for entry in network.output[0].classes][:2] == ["archean", "proterozoic"]
    assert FileExtension.ext(read.assets["lithology"]).size == (folder / "lithology.tif").stat().st_size


# The footprint


def test_the_footprint_holds_the_middle_of_every_cell_and_little_more(folder, item):
    outline = shapely.geometry.shape(item["geometry"])
    assert outline.is_valid
    assert outline.exterior.is_ccw  # RFC 7946
    assert np.allclose(outline.bounds, item["bbox"])
    with rasterio.open(folder / "lithology.tif") as raster:
        row, col = np.meshgrid(np.arange(raster.height), np.arange(raster.width), indexing="ij")
        x, y = rasterio.transform.xy(raster.transform, row.ravel(), col.ravel())
        lon, lat = transform(raster.crs, "EPSG:4326", x, y)
        edge = math.hypot(*(side / 2 for side in raster.res))
        if raster.crs.is_projected:
            edge /= 111_000 * math.cos(math.radians(46))
    points = shapely.points(lon, lat)
    assert shapely.contains(outline, points).all()
    assert shapely.distance(shapely.multipoints(points), shapely.points(outline.exterior.coords)).max() <= 1.01 * edge


def test_the_footprint_of_a_wide_projected_map_follows_its_curved_sides(tmp_path):
    grid = rasterio.transform.from_origin(-300_000, 5_600_000, 50_000, 50_000)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32645", "transform": grid}
    with rasterio.open(tmp_path / "wide.tif", "w", width=32, height=24, **profile) as raster:
        left, _, right, top = raster.bounds
    outline = shapely.geometry.shape(footprint(tmp_path / "wide.tif")[0])
    x = np.linspace(left, right, 801)
    lon, lat = transform("EPSG:32645", "EPSG:4326", x, np.full(801, top))
    # A straight line between the corners runs a degree south of the side's middle.
    assert shapely.distance(outline.exterior, shapely.points(lon, lat)).max() < 0.01


# Files


def test_every_file_is_an_asset_with_its_checksum_as_multihash(folder, item):
    own = {asset["href"].removeprefix("./"): asset for asset in item["assets"].values()}
    there = {path.name for path in folder.iterdir()} - {"item.json"}
    assert there == {href for href in own if "/" not in href}
    for name in there - {"provenance.json"}:
        content = (folder / name).read_bytes()
        # 0x12 is SHA2-256, 0x20 its length in bytes: https://multiformats.io/multihash
        assert bytes.fromhex(own[name]["file:checksum"]) == bytes([0x12, 0x20]) + hashlib.sha256(content).digest()
        assert own[name]["file:size"] == len(content)
    for asset in own.values():
        assert asset["title"]
        assert asset["roles"]
        assert re.fullmatch(r"[a-z]+/[\w.+-]+(; [a-z]+=[\w-]+)*", asset["type"])
    assert (folder / item["assets"]["model"]["href"]).resolve().is_file()


def test_links_lead_to_what_the_map_was_made_from(folder, item):
    derived = [link for link in item["links"] if link["rel"] == "derived_from"]
    assert {link["href"].rpartition("/")[2] for link in derived} >= {"fields.nc", "labels.tif"}
    for link in derived:
        digest = hashlib.sha256((folder / link["href"]).read_bytes()).hexdigest()
        assert link["file:checksum"] == f"1220{digest}"


def test_a_missing_file_is_not_an_asset(root, tmp_path):
    folder = shutil.copytree(root / "maps" / "toy", tmp_path / "map")
    for name in ("uncertainty.tif", "lithology.gpkg", "map.png"):
        (folder / name).unlink()
    assets = make_item(folder).assets
    assert "lithology" in assets
    assert not {"uncertainty", "polygons", "map"} & set(assets)
    (folder / "lithology.tif").unlink()
    with pytest.raises(InputError, match=r"lithology\.tif is missing"):
        write_item(folder)


# Extensions


def test_the_extensions_whose_fields_are_used_are_named(item):
    named = {re.search(r"io/([a-z]+)/v(\d)", uri)[1]: uri for uri in item["stac_extensions"]}
    used = set(re.findall(r'"(\w+):\w+":', json.dumps(item)))
    assert used == {"proj", "raster", "classification", "file", "processing", "mlm"}
    assert {"projection" if name == "proj" else name for name in used} == set(named)


def test_bands_are_described_as_gdal_describes_them(folder, item):
    for asset, raster in rasters(folder, item):
        assert len(asset["bands"]) == raster.count
        for index, band in enumerate(asset["bands"]):
            assert band["name"] == raster.descriptions[index]
            assert band["data_type"] == raster.dtypes[index]
            assert band["nodata"] == raster.nodatavals[index]
            assert band["raster:scale"] == raster.scales[index]
            assert band["raster:offset"] == raster.offsets[index]
            assert band["raster:sampling"] in ("area", "point")
            values = np.ma.masked_equal(raster.read(index + 1), 255)
            found = band["statistics"]
            assert (found["minimum"], found["maximum"]) == (values.min(), values.max())
            assert found["mean"] == pytest.approx(values.mean(), rel=1e-6)
            assert found["stddev"] == pytest.approx(values.std(), rel=1e-6)
            assert found["valid_percent"] == pytest.approx(100 * values.count() / values.size, abs=0.01)
    names = [band["name"] for band in item["properties"]["bands"]]
    assert len(names) == len(set(names))
    # MLM: the bands that the network reads are described by the item.
    assert {name for entry in item["properties"]["mlm:input"] for name in entry["bands"]} <= set(names)


def test_the_resolution_is_the_side_of_a_cell_in_metres(root):
    item = json.loads((root / "maps" / "toy" / "item.json").read_text())
    with rasterio.open(root / "maps" / "toy" / "lithology.tif") as raster:
        x, y = raster.xy(ROWS // 2, COLS // 2)
        geod = pyproj.Geod(ellps="WGS84")
        high = geod.inv(x, y - raster.res[1] / 2, x, y + raster.res[1] / 2)[2]
        wide = geod.inv(x - raster.res[0] / 2, y, x + raster.res[0] / 2, y)[2]
    found = item["assets"]["lithology"]["bands"][0]["raster:spatial_resolution"]
    assert found == pytest.approx(math.sqrt(high * wide), rel=1e-4)


def test_classes(folder, item):
    lithology = item["assets"]["lithology"]["bands"][0]["classification:classes"]
    evidence = item["assets"]["evidence"]["bands"][0]["classification:classes"]
    second = item["assets"]["second_class"]["bands"][0]
    output = item["properties"]["mlm:output"][0]["classification:classes"]
    for classes in (lithology, evidence, second["classification:classes"], output):
        assert len({entry["value"] for entry in classes}) == len(classes)
        for entry in classes:
            assert type(entry["value"]) is int
            assert re.fullmatch(r"[0-9A-Za-z_-]+", entry["name"])
            assert re.fullmatch(r"[0-9A-F]{6}", entry.get("color_hint", "000000"))
            assert "color_hint" in entry or entry["nodata"]
    for entry, known in zip(output, LEGEND.bedrock, strict=True):
        assert (entry["value"], entry["title"], f"#{entry['color_hint']}") == (known.index, known.name, known.colour)
    assert [entry["title"] for entry in evidence][1] == "within 25 km of mapped outcrop"
    for asset, classes in (("lithology.tif", lithology), ("evidence.tif", evidence)):
        with rasterio.open(folder / asset) as raster:
            values = raster.read(1)
        assert {entry["value"]: entry["count"] for entry in classes if entry["count"]} == {
            int(value): int(count) for value, count in zip(*np.unique(values, return_counts=True), strict=True)
        }
        assert sum(entry["percentage"] for entry in classes) == pytest.approx(100, abs=0.01)


def test_processing(item):
    properties = item["properties"]
    assert properties["processing:expression"]["expression"] == COMMAND
    assert properties["processing:level"] == "L4"
    assert "gravity.nc" in properties["processing:lineage"]
    assert all(isinstance(version, str) and name for name, version in properties["processing:software"].items())


def test_the_network(item):
    properties = item["properties"]
    assert properties["mlm:pretrained"] is False
    assert properties["mlm:pretrained_source"] is None
    (entry,) = properties["mlm:input"]
    assert len(entry["input"]["shape"]) == len(entry["input"]["dim_order"])
    assert entry["value_scaling"] == [{"type": "z-score", "mean": 0.0, "stddev": 10.0}]
    (result,) = properties["mlm:output"]
    assert set(result["tasks"]) <= set(properties["mlm:tasks"])
    models = [asset for asset in item["assets"].values() if "mlm:model" in asset["roles"]]
    assert [asset["mlm:artifact_type"] for asset in models] == ["safetensors"]
