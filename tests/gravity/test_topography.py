"""Heights brought onto nodes: against planes, against GDAL's averages, and grids that cannot be used."""

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.transform import from_bounds
from rasterio.warp import Resampling, reproject

from gravmap.errors import InputError
from gravmap.gravity.topography import topography_at_nodes

LAT, LON = np.linspace(46, 42, 21), np.linspace(80, 84, 21)  # north first, as an area has them


def write(path, values, lat, lon, **attrs):
    array = xr.DataArray(values.astype(np.float32), coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs=attrs)
    xr.Dataset({"elevation": array}).to_netcdf(path)
    return path


def plane(lat, lon):
    return 500 + 100 * (lat[:, None] - 40) + 30 * (lon[None, :] - 80)


@pytest.mark.parametrize("step", [0.5, 0.2, 0.15, 0.05, 0.03])
def test_a_plane_stays_one_on_coarser_and_finer_grids(tmp_path, step):
    lat, lon = np.arange(41, 47 + step, step), np.arange(79, 85 + step, step)
    path = write(tmp_path / "z.nc", plane(lat, lon), lat, lon, units="m")
    found = topography_at_nodes(path, LAT, LON)
    # A fine cell that a node's side cuts counts with the height of its middle: a small part of a step is lost.
    assert found == pytest.approx(plane(LAT, LON), abs=0.02 if step != 0.03 else 100 * step / 20)
    assert topography_at_nodes(path, LAT[::-1], LON) == pytest.approx(found[::-1])


@pytest.mark.parametrize(("unit", "metres"), [("m", 1.0), ("km", 1000.0), ("feet", 0.3048)])
def test_units(tmp_path, unit, metres):
    lat, lon = np.arange(41, 47.1, 0.2), np.arange(79, 85.1, 0.2)
    path = write(tmp_path / "z.nc", plane(lat, lon) / metres, lat, lon, units=unit)
    assert topography_at_nodes(path, LAT, LON) == pytest.approx(plane(LAT, LON), abs=0.02)


def test_a_finer_grid_is_averaged_as_gdal_does(tmp_path):
    """Rough topography, 5 x 5 cells to a node's cell; the same means by GDAL's warper."""
    rng = np.random.default_rng(0)
    fine = rng.uniform(0, 4000, (150, 150)).astype(np.float32)
    source = from_bounds(79, 41, 85, 47, 150, 150)
    with rasterio.open(
        tmp_path / "z.tif", "w", "GTiff", 150, 150, 1, crs="EPSG:4326", transform=source, dtype="float32"
    ) as raster:
        raster.write(fine, 1)
        raster.update_tags(units="m")
    expected = np.zeros((21, 21), np.float32)
    target = from_bounds(79.9, 41.9, 84.1, 46.1, 21, 21)
    how = {"src_crs": "EPSG:4326", "dst_crs": "EPSG:4326", "resampling": Resampling.average}
    reproject(fine, expected, src_transform=source, dst_transform=target, **how)
    assert topography_at_nodes(tmp_path / "z.tif", LAT, LON) == pytest.approx(expected, rel=2e-3)


def test_what_is_not_known_stays_so_and_a_lone_gap_does_not_spread(tmp_path):
    lat, lon = np.arange(41, 47.01, 0.04), np.arange(79, 85.01, 0.04)
    values = np.full((lat.size, lon.size), 700.0)
    values[:, lon < 80.3] = 100.0
    values[:, lon > 83.3] = np.nan
    values[60, 60] = np.nan
    found = topography_at_nodes(write(tmp_path / "z.nc", values, lat, lon, units="m"), LAT, LON)
    assert np.isnan(found[:, LON > 83.45]).all()
    assert found[:, (LON > 80.45) & (LON < 83.25)] == pytest.approx(700.0)


def test_a_grid_from_0_to_360_and_beside_other_variables(tmp_path):
    lat, lon = np.arange(-10, 10.1, 0.5), np.arange(0, 360, 0.5)
    heights_m = np.where(lon > 180, 900.0, 100.0)[None, :] + 0 * lat[:, None] + lat[:, None]
    axes = {"coords": {"lat": lat, "lon": lon}, "dims": ("lat", "lon")}
    xr.Dataset(
        {
            "surface_elevation": xr.DataArray(heights_m, attrs={"units": "metres"}, **axes),
            "error": xr.DataArray(0 * heights_m + 5, attrs={"units": "%"}, **axes),
        }
    ).to_netcdf(tmp_path / "z.nc")
    found = topography_at_nodes(tmp_path / "z.nc", np.linspace(5, -5, 11), np.linspace(-20, -10, 11))
    assert found == pytest.approx(np.repeat(900 + np.linspace(5, -5, 11)[:, None], 11, axis=1))


@pytest.mark.parametrize(
    ("change", "attrs", "expected"),
    [
        (lambda z: z, {"units": "mGal"}, "unit 'mGal', which is not a known unit of height. Known: m, km, ft"),
        (lambda z: z * 100, {"units": "m"}, "beyond any height on Earth"),
        (lambda z: z * np.nan, {"units": "m"}, "has no heights"),
        (lambda z: z * 0, {"units": "m"}, "constant"),
    ],
)
def test_invalid_topography_is_refused(tmp_path, change, attrs, expected):
    lat, lon = np.arange(41, 47.1, 0.2), np.arange(79, 85.1, 0.2)
    path = write(tmp_path / "z.nc", change(plane(lat, lon)), lat, lon, **attrs)
    with pytest.raises(InputError) as refused:
        topography_at_nodes(path, LAT, LON)
    assert expected in f"{refused.value.message} {refused.value.hint}"


def test_a_grid_that_does_not_cover_the_nodes(tmp_path):
    lat, lon = np.arange(41, 47.1, 0.2), np.arange(79, 83.1, 0.2)
    path = write(tmp_path / "z.nc", plane(lat, lon), lat, lon, units="m")
    with pytest.raises(InputError, match=r"z\.nc does not cover the region, .*: it covers "):
        topography_at_nodes(path, LAT, LON)
    with pytest.raises(InputError, match=r"no\.nc is missing"):
        topography_at_nodes(tmp_path / "no.nc", LAT, LON)


def test_a_missing_unit_is_taken_as_metres_with_a_warning(tmp_path, caplog):
    lat, lon = np.arange(41, 47.1, 0.2), np.arange(79, 85.1, 0.2)
    path = write(tmp_path / "z.nc", plane(lat, lon), lat, lon)
    topography_at_nodes(path, LAT, LON)
    assert "has no unit; taken as m." in caplog.text
    assert "--units" not in caplog.text, "there is no such option here"
