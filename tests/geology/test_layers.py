"""Rasters brought onto the nodes of the fields: values against what is known of them, and files that cannot serve."""

import dataclasses
import json

import numpy as np
import pytest
import rasterio
import xarray as xr
from pyproj import Transformer
from rasterio.transform import from_origin

from gravmap.errors import InputError, OptionError
from gravmap.files import sha256
from gravmap.geology.layers import RasterLayer
from gravmap.geology.layers_file import add_layer, carry_layers, check_carried_layers, list_layers, remove_layers
from gravmap.gravity import field_derivatives, open_fields, residual_fields, upward_continue, write_fields
from gravmap.gravity.field_reader import FieldReader
from gravmap.gravity.fields_file import field_recipe, field_sources
from gravmap.lattice import mask_name

LAT, LON = np.arange(44, 46.01, 0.1), np.arange(80, 83.01, 0.1)
FINE = 0.02


def plane(lat, lon):
    return 100 + 30 * (lat - 44) + 10 * (lon - 80)


def write_raster(path, values, west=79.0, north=47.0, step=FINE, crs="EPSG:4326", **more):
    values = np.asarray(values)
    bands = values if values.ndim == 3 else values[None]
    described = {"nodata": more.pop("nodata", None), "crs": crs}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(bands),
        height=bands.shape[1],
        width=bands.shape[2],
        dtype=bands.dtype,
        transform=from_origin(west, north, step, step),
        **described,
        **more,
    ) as raster:
        raster.write(bands)
    return path


def fine_grid(west=79.0, north=47.0, rows=200, columns=250, step=FINE):
    """Centres of the pixels of a raster that is finer than the nodes."""
    lat = north - (np.arange(rows) + 0.5) * step
    lon = west + (np.arange(columns) + 0.5) * step
    return lat[:, None], lon[None, :]


def make_fields(path, lat=LAT, lon=LON):
    bumps = 30 * np.cos(2 * lat)[:, None] * np.sin(2 * lon)
    grid = xr.DataArray(bumps, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs={"units": "mGal"})
    path.parent.mkdir(exist_ok=True)
    write_fields(residual_fields(grid, [10e3]), path)
    return path


@pytest.fixture
def fields(tmp_path):
    return make_fields(tmp_path / "data" / "fields.nc")


def layer(path, **more):
    return RasterLayer("magnetic", path, **more)


def test_a_finer_raster_is_averaged_over_the_cells_and_all_is_recorded(fields, tmp_path):
    lat, lon = fine_grid()
    # A checkerboard of pixels: sampled it would be 100 off, averaged it vanishes.
    board = 100.0 * (-1.0) ** (np.arange(200)[:, None] // 1 + np.arange(250)[None, :])
    path = write_raster(tmp_path / "fine.tif", (plane(lat, lon) + board).astype(np.float32))
    made = add_layer(fields, layer(path, units="nT", source="https://example.org", licence="CC-BY-4.0"))
    found = open_fields(fields)
    expected = plane(LAT[:, None], LON[None, :])
    assert np.abs(found["magnetic"].values - expected).max() < 6  # 25 pixels of a checkerboard have a mean of 4
    assert made.missing_fraction == 0
    assert found["magnetic"].attrs["units"] == "nT"
    assert found["magnetic"].attrs["licence"] == "CC-BY-4.0"
    recipe = field_recipe(found)
    assert recipe["channels"][-1] == "magnetic"
    assert recipe["by_channel"]["magnetic"]["resampling"] == "average"
    (entry,) = [each for each in field_sources(found) if each.get("role") == "layer"]
    assert entry["sha256"] == sha256(path)
    assert (tmp_path / "data" / entry["path"]).resolve() == path
    assert entry["licence"] == "CC-BY-4.0"
    with pytest.raises(InputError, match="--overwrite"):
        add_layer(fields, layer(path))
    add_layer(fields, layer(path, resampling="nearest"), overwrite=True)
    sampled = open_fields(fields)["magnetic"].values
    assert np.abs(sampled - expected).min() > 50
    assert [each.name for each in list_layers(fields)] == ["magnetic"]
    with pytest.raises(InputError, match="no layer 'typo'"):
        remove_layers(fields, ["magnetic", "typo"])
    assert [each.name for each in list_layers(fields)] == ["magnetic"], "all or none"
    remove_layers(fields, ["magnetic"])
    after = open_fields(fields)
    assert "magnetic" not in after
    assert field_recipe(after)["channels"] == ["bouguer", "regional_10km", "residual_10km"]
    assert not [each for each in field_sources(after) if each.get("role") == "layer"]
    with pytest.raises(InputError, match="no layer 'magnetic'"):
        remove_layers(fields, ["magnetic"])


def test_other_coordinate_systems_and_turned_longitudes(fields, tmp_path):
    to_utm = Transformer.from_crs(4326, 32644, always_xy=True)
    x, y = to_utm.transform([80, 83, 80, 83], [44, 44, 46, 46])
    west, north, step = min(x) - 3e4, max(y) + 3e4, 2000.0
    rows, columns = int((north - min(y) + 3e4) / step), int((max(x) + 3e4 - west) / step)
    px, py = np.meshgrid(west + (np.arange(columns) + 0.5) * step, north - (np.arange(rows) + 0.5) * step)
    lon, lat = to_utm.transform(px, py, direction="INVERSE")
    utm = write_raster(tmp_path / "utm.tif", plane(lat, lon).astype(np.float32), west, north, step, "EPSG:32644")
    add_layer(fields, layer(utm))
    expected = plane(LAT[:, None], LON[None, :])
    assert np.abs(open_fields(fields)["magnetic"].values - expected).max() < 0.3
    lat, lon = fine_grid()
    turned = write_raster(tmp_path / "turned.tif", plane(lat, lon).astype(np.float32), west=79.0 - 360)
    add_layer(fields, layer(turned), overwrite=True)
    assert np.abs(open_fields(fields)["magnetic"].values - expected).max() < 0.01


def test_a_coarser_raster_is_interpolated(fields, tmp_path):
    lat, lon = fine_grid(78, 48, 20, 20, 0.4)
    path = write_raster(tmp_path / "coarse.tif", plane(lat, lon).astype(np.float32), 78, 48, 0.4)
    add_layer(fields, layer(path))
    found = open_fields(fields)
    assert field_recipe(found)["by_channel"]["magnetic"]["resampling"] == "bilinear"
    assert np.abs(found["magnetic"].values - plane(LAT[:, None], LON[None, :])).max() < 0.01


@pytest.mark.parametrize("kind", ["nodata", "nan", "alpha", "undeclared"])
def test_missing_values_stay_missing_and_the_mask_says_where(fields, tmp_path, kind):
    lat, lon = fine_grid()
    values = plane(lat, lon).astype(np.float32)
    gone = np.broadcast_to(lon > 82.04, values.shape)
    if kind == "nodata":
        path = write_raster(tmp_path / "m.tif", np.where(gone, -9999, values).astype(np.float32), nodata=-9999)
    elif kind == "nan":
        path = write_raster(tmp_path / "m.tif", np.where(gone, np.nan, values).astype(np.float32))
    elif kind == "undeclared":
        path = write_raster(tmp_path / "m.tif", np.where(gone, 1.7e38, values).astype(np.float32))
    else:
        both = np.stack([values.astype(np.uint8), np.where(gone, 0, 255).astype(np.uint8)])
        path = write_raster(tmp_path / "m.tif", both, photometric="minisblack", alpha="unassociated")
        with rasterio.open(path, "r+") as raster:
            raster.colorinterp = [rasterio.enums.ColorInterp.gray, rasterio.enums.ColorInterp.alpha]
    made = add_layer(fields, layer(path, band="1"))
    with FieldReader(fields) as reader:
        value, known = reader.read(["magnetic", mask_name("magnetic")])
        assert mask_name("magnetic") in reader
        assert mask_name("residual_10km") not in reader
        assert reader.unit(mask_name("magnetic")) == "1"
    # The mean of a cell with pixels of an undeclared fill value is no value either.
    expected = np.broadcast_to((81.95 if kind == "undeclared" else 82.04) >= LON, known.shape)
    assert np.array_equal(known == 1, expected)
    assert np.isnan(value[known == 0]).all()
    assert value[known == 1].max() < 200
    assert made.missing_fraction == pytest.approx(1 - expected.mean())


def test_netcdf_with_several_variables(fields, tmp_path):
    lat, lon = fine_grid(79, 47, 40, 50, 0.1)
    values = plane(lat, lon).astype(np.float32)
    axes = {"lat": ("lat", lat[:, 0], {"units": "degrees_north"}), "lon": ("lon", lon[0], {"units": "degrees_east"})}
    grids = {"k": (("lat", "lon"), values, {"units": "%"}), "th": (("lat", "lon"), 2 * values, {"units": "ppm"})}
    grids["name"] = (("lat", "lon"), np.full(values.shape, "granite"))
    path = tmp_path / "radiometrics.nc"
    xr.Dataset(grids, coords=axes).to_netcdf(path)
    with pytest.raises(InputError, match="several grids"):
        add_layer(fields, layer(path))
    with pytest.raises(InputError, match=r"no grid of numbers|several grids|holds|cannot be read"):
        add_layer(fields, layer(path, band="name"))
    add_layer(fields, layer(path, band="th"))
    found = open_fields(fields)["magnetic"]
    assert found.attrs["units"] == "ppm"
    assert np.abs(found.values - 2 * plane(LAT[:, None], LON[None, :])).max() < 4


def test_transforms(fields, tmp_path):
    lat, lon = fine_grid()
    path = write_raster(tmp_path / "p.tif", np.exp(plane(lat, lon) / 100).astype(np.float32))
    add_layer(fields, layer(path, transform="log", units="ppm", resampling="nearest"))
    found = open_fields(fields)["magnetic"]
    assert found.attrs["units"] == "ln(ppm)"
    assert np.abs(found.values - plane(LAT[:, None], LON[None, :]) / 100).max() < 0.01
    add_layer(fields, layer(path, transform="rank", resampling="nearest"), overwrite=True)
    ranks = open_fields(fields)["magnetic"].values
    whole = np.sort(np.exp(plane(lat, lon) / 100).ravel())
    expected = np.searchsorted(whole, np.exp(plane(LAT[:, None], LON[None, :]) / 100)) / whole.size
    assert np.abs(ranks - expected).max() < 0.02
    # An undeclared fill in a corner that no node uses does not shift the ranks.
    filled = np.exp(plane(lat, lon) / 100).astype(np.float32)
    filled[:, 200:] = 1e38
    add_layer(
        fields, layer(write_raster(tmp_path / "f.tif", filled), transform="rank", resampling="nearest"), overwrite=True
    )
    west = LON < 79 + 190 * FINE
    part = np.sort(filled[:, :200].ravel())
    expected = np.searchsorted(part, np.exp(plane(LAT[:, None], LON[None, west]) / 100)) / part.size
    found = open_fields(fields)["magnetic"].values[:, west]
    assert np.abs(found - expected).max() < 0.02
    with pytest.raises(InputError, match="no logarithm"):
        add_layer(
            fields,
            layer(write_raster(tmp_path / "n.tif", (plane(lat, lon) - 130).astype("f4")), transform="log"),
            overwrite=True,
        )
    with pytest.raises(OptionError, match="continued"):
        layer(path, transform="log", upward_m=1e3)


def test_a_potential_field_is_continued_and_derived_with_the_data_around(fields, tmp_path):
    west, north, rows, columns, step = 76, 50, 100, 110, 0.1
    lat, lon = fine_grid(west - step / 2, north + step / 2, rows, columns, step)
    body = 50 * np.exp(-((lat - 45) ** 2 + (lon - 81.5) ** 2) / 0.05) + 55_000
    path = write_raster(tmp_path / "tmi.tif", body.astype(np.float32), west - step / 2, north + step / 2, step)
    add_layer(fields, layer(path, units="nT", upward_m=10e3, resampling="nearest"))
    grid = xr.DataArray((body - 55_000)[::-1], coords={"lat": lat[::-1, 0], "lon": lon[0]}, dims=("lat", "lon"))
    expected = upward_continue(grid, 10e3).sel(lat=LAT, lon=LON, method="nearest").values
    assert np.abs(open_fields(fields)["magnetic"].values - 55_000 - expected).max() < 0.1
    add_layer(fields, layer(path, units="nT", derivative="tilt", resampling="nearest"), overwrite=True)
    tilt = open_fields(fields)["magnetic"]
    assert tilt.attrs["units"] == "radian"
    expected = field_derivatives(grid)["tilt"].sel(lat=LAT, lon=LON, method="nearest").values
    strong = np.hypot(LAT[:, None] - 45, LON[None, :] - 81.5) < 0.4
    assert np.abs(tilt.values - expected)[strong].max() < 0.02
    add_layer(fields, layer(path, units="nT", derivative="vertical_derivative", resampling="nearest"), overwrite=True)
    assert open_fields(fields)["magnetic"].attrs["units"] == "nT/km"


def bad_files(folder):
    lat, lon = fine_grid()
    good = plane(lat, lon).astype(np.float32)
    yield write_raster(folder / "nocrs.tif", good, crs=None), {}, "no coordinate reference system"
    yield write_raster(folder / "constant.tif", np.full_like(good, 7)), {}, "is 7 at every node"
    yield write_raster(folder / "empty.tif", np.full_like(good, -1), nodata=-1), {}, "no data at the nodes"
    filled = np.where(fine_grid()[1] > 82, np.float32(-9999), good)
    yield write_raster(folder / "filled.tif", filled), {}, "-9999 at .* nodes"
    yield write_raster(folder / "far.tif", good, west=10.0), {}, "it covers 10.00 to 15.00 E"
    unit = write_raster(folder / "unit.tif", good)
    with rasterio.open(unit, "r+") as raster:
        raster.units = ("pT",)
    yield unit, {"units": "nT"}, "is in pT by its own metadata"
    named = write_raster(folder / "named.tif", (good > 130).astype(np.uint8))
    with rasterio.open(named, "r+") as raster:
        raster.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 0, 255)})
    yield named, {}, "holds categories"
    text = folder / "text.csv"
    text.write_text("lon,lat,rock\n80,44,granite\n")
    yield text, {}, "cannot be read as a raster"
    yield folder / "none.tif", {}, "is missing"
    yield write_raster(folder / "bands.tif", np.stack([good, good])), {}, "2 bands"
    yield write_raster(folder / "complex.tif", good.astype(np.complex64)), {}, "complex64 numbers"
    cut = write_raster(folder / "cut.tif", good, tiled=False)
    cut.write_bytes(cut.read_bytes()[:90_000])
    yield cut, {}, "truncated|no data"


def test_files_that_cannot_serve_are_refused_and_the_fields_stay(fields, tmp_path):
    before = sha256(fields)
    for path, options, words in bad_files(tmp_path):
        with pytest.raises(InputError, match=words):
            add_layer(fields, layer(path, **options))
        assert sha256(fields) == before
    with pytest.raises(OptionError, match="no band '3'"):
        add_layer(fields, layer(tmp_path / "bands.tif", band="3"))
    with pytest.raises(InputError, match="gravmap residual"):
        add_layer(tmp_path / "no.nc", layer(tmp_path / "bands.tif"))


@pytest.mark.parametrize("name", ["residual_10km", "bouguer", "scale", "outcrop_1", "a_known", "a b", "", "rgb"])
def test_names_with_a_meaning_of_their_own_are_refused(name, tmp_path):
    with pytest.raises(OptionError, match="name of a layer"):
        RasterLayer(name, tmp_path / "a.tif")


def test_new_fields_keep_layers_on_the_same_nodes_and_make_them_again_on_others(fields, tmp_path):
    lat, lon = fine_grid()
    path = write_raster(tmp_path / "m.tif", plane(lat, lon).astype(np.float32))
    add_layer(fields, layer(path, units="nT", licence="own"))
    before = open_fields(fields)["magnetic"]
    new = open_fields(make_fields(tmp_path / "same.nc"))
    same, how = carry_layers(fields, new, fields)
    assert how == {"magnetic": "kept"}
    assert np.array_equal(same["magnetic"].values, before.values)
    assert field_recipe(same)["by_channel"] == field_recipe(open_fields(fields))["by_channel"]
    assert [each for each in field_sources(same) if each.get("role") == "layer"] == [
        each for each in field_sources(open_fields(fields)) if each.get("role") == "layer"
    ]
    other = open_fields(make_fields(tmp_path / "other.nc", LAT[4:], LON[:-4]))
    remade, how = carry_layers(fields, other, fields)
    assert how == {"magnetic": "made again"}
    assert np.allclose(remade["magnetic"].values, before.values[4:, :-4], atol=0.01)
    nodes = (other["lat"].values, other["lon"].values)
    check_carried_layers(fields, nodes)
    path.write_bytes(path.read_bytes() + b" ")
    for refuse in (lambda: carry_layers(fields, other, fields), lambda: check_carried_layers(fields, nodes)):
        with pytest.raises(InputError, match=r"has changed.*\n.*layer remove magnetic"):
            refuse()
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        check_carried_layers(fields, nodes)
    check_carried_layers(fields, (new["lat"].values, new["lon"].values))
    assert carry_layers(fields, new, fields)[1] == {"magnetic": "kept"}
    assert carry_layers(tmp_path / "none.nc", new, fields)[1] == {}


@pytest.mark.parametrize("change", [{"band": None, "upward_m": "x"}, {"transform": "odd"}, None])
def test_a_damaged_record_of_a_layer_is_reported(fields, tmp_path, change):
    lat, lon = fine_grid()
    add_layer(fields, layer(write_raster(tmp_path / "m.tif", plane(lat, lon).astype(np.float32))))
    stored = open_fields(fields)
    recipe = field_recipe(stored)
    recipe["by_channel"]["magnetic"] = {} if change is None else {**recipe["by_channel"]["magnetic"], **change}
    stored.attrs["gravmap_recipe"] = json.dumps(recipe)
    write_fields(stored, fields)
    with pytest.raises(InputError, match=r"record of the layer magnetic.*damaged"):
        carry_layers(fields, open_fields(make_fields(tmp_path / "other.nc", LAT[4:])), fields)
    remove_layers(fields, ["magnetic"])


def test_the_recipe_depends_on_every_option(fields, tmp_path):
    lat, lon = fine_grid()
    first = layer(write_raster(tmp_path / "m.tif", plane(lat, lon).astype(np.float32)))

    def recipe(each):
        add_layer(fields, each, overwrite=True)
        return json.dumps(field_recipe(open_fields(fields))["by_channel"]["magnetic"])

    others = [{"band": "1"}, {"units": "nT"}, {"resampling": "bilinear"}, {"transform": "log"}, {"upward_m": 5e3}]
    recipes = [recipe(first), *(recipe(dataclasses.replace(first, **options)) for options in others)]
    assert len(set(recipes)) == len(recipes)


def test_a_large_raster_is_read_in_blocks(tmp_path):
    """Twelve million times as large as what is kept: the file is sparse, and only the warper's blocks are in memory."""
    import resource

    fields = make_fields(tmp_path / "fields.nc")
    path = tmp_path / "large.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=16_000, width=20_000, dtype="float32", crs="EPSG:4326",
        transform=from_origin(79.5, 46.5, 2e-4, 2e-4), tiled=True, SPARSE_OK=True, nodata=-1,
    ) as raster:  # fmt: skip
        block = np.linspace(1, 2, 512 * 512, dtype=np.float32).reshape(1, 512, 512)
        raster.write(block, window=rasterio.windows.Window(8192, 8192, 512, 512))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = add_layer(fields, layer(path))
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert made.missing_fraction > 0.9
    assert grown_mb < 500  # the whole is 1280 MB


def test_whole_numbers_that_may_be_codes_are_warned_of(tmp_path, caplog):
    lat, lon = fine_grid()
    codes = np.floor(4 * (lat - 43) % 7 + 0 * lon)
    for name, values, how, warned in (
        ("codes", codes.astype(np.uint8), "", True),
        ("nearest", codes.astype(np.uint8), "nearest", False),
        ("yes-no", (codes > 3).astype(np.uint8), "", False),
        ("real", codes.astype(np.float32), "", False),
        ("heights", (100 * plane(lat, lon)).astype(np.int16), "", False),
    ):
        caplog.clear()
        RasterLayer("a", write_raster(tmp_path / f"{name}.tif", values), units="1", resampling=how).read(LAT, LON)
        assert ("codes of classes" in caplog.text) == warned, name
