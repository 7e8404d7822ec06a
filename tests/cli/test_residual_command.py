"""`gravmap residual`: finds the grid, reports its height, writes fields.nc, refuses invalid input."""

import json

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from gravmap.gravity import open_fields
from gravmap.gravity.fields_file import field_recipe, field_sources
from gravmap.gravity.missing_heights import add_heights
from gravmap_cli import gravmap


def write_grid(path, bounds=(60, 35, 100, 60), step=0.25, **attrs):
    west, south, east, north = bounds
    lat, lon = np.arange(south, north + step / 2, step), np.arange(west, east + step / 2, step)
    values = 60 * np.sin(np.radians(lat) * 40)[:, None] * np.cos(np.radians(lon) * 25)[None, :] - 80
    grid = xr.DataArray(
        values.astype("f4"), coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs={"units": "mGal", **attrs}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.to_dataset(name="gravity").to_netcdf(path, engine="netcdf4")
    return path


@pytest.fixture
def run(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(gravmap, ["-w", str(tmp_path), "residual", *map(str, arguments)])

    run.root, run.fields = tmp_path, tmp_path / "data" / "fields.nc"
    return run


def test_the_default_region_is_used_and_reported(run):
    grid = write_grid(run.root / "grid.nc", height_m=10e3)
    result = run(grid, "--height", "10km")
    assert result.exit_code == 0, result.output
    assert "lies at 10km above the ellipsoid; the regional is at 20km" in result.stdout
    assert "liu2024, the default" in result.stdout
    fields = open_fields(run.fields)
    assert list(fields) == ["bouguer", "regional_10km", "residual_10km"]
    assert (float(fields.lon[0]), float(fields.lat[-1])) == (65, 55)
    assert field_recipe(fields)["input_height_m"] == 10e3
    (source,) = field_sources(fields)
    assert source["path"] == "grid.nc"
    assert len(source["sha256"]) == 64


def test_a_grid_outside_the_default_region_is_used_whole_and_reported(run):
    grid = write_grid(run.root / "grid.nc", bounds=(10, 45, 20, 52))
    result = run(grid, "--height", "500m", "--height", "2km")
    assert result.exit_code == 0, result.output
    assert "does not cover liu2024" in result.stdout
    assert "Nothing is known beyond" in result.stdout
    assert "residual_500m" in open_fields(run.fields)


def test_a_box_and_json(run):
    grid = write_grid(run.root / "grid.nc")
    result = run(grid, "--height", "10km", "--bbox", 70, 42, 80, 50, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["region_wsen"] == [70, 42, 80, 50]
    assert answer["residual_rms_mgal"]["residual_10km"] > 0
    assert open_fields(run.fields).sizes == {"lat": 33, "lon": 41}


def test_it_finds_what_fetch_left(run):
    write_grid(run.root / "data" / "raw" / "WGM2012_Bouguer_ponc_2min.grd")
    result = run("--height", "10km", "--region", "junggar")
    assert result.exit_code == 0, result.output
    assert "Bonvalot" in field_sources(open_fields(run.fields))[0]["citation"]


def test_what_a_grid_says_of_itself_is_printed_and_recorded_and_a_disturbance_is_no_anomaly(run):
    path = write_grid(run.root / "grid.nc")
    with xr.open_dataset(path) as grid:
        grid.load()
    says = {"title": "Bouguer disturbance, levelled", "comment": "Already at 10 km height"}
    grid.rename(gravity="field").assign_attrs(says).to_netcdf(path, engine="netcdf4")
    done = run(path, "--height", "10km", "--region", "junggar")
    assert "The file's comment: Already at 10 km height\n" in done.stdout
    fields = open_fields(run.fields)
    assert field_sources(fields)[0]["attributes"] == says
    assert fields["bouguer"].attrs["long_name"] == "Bouguer gravity disturbance (observed)"


def test_further_heights_are_computed_from_the_grid_where_it_lies_with_what_is_beyond_the_region(run):
    path, both = write_grid(run.root / "elsewhere" / "grid.nc"), run.root / "both.nc"
    with xr.open_dataset(path) as grid:
        grid.load()
    grid["gravity"].attrs.clear()
    grid.assign(another=grid["gravity"] + 1).to_netcdf(path, engine="netcdf4")
    words = (path, "--variable", "gravity", "--units", "mGal", "--bbox", 70, 42, 74, 46, "--height", "10km")
    assert run(*words).exit_code == 0
    more, raw = run.root / "more.nc", run.root / "data" / "raw"
    assert add_heights(run.fields, [20_000.0], more, raw) == "grid.nc"
    assert run(*words, "--height", "20km", "-o", both).exit_code == 0
    np.testing.assert_allclose(open_fields(more)["residual_20km"], open_fields(both)["residual_20km"], atol=1e-4)
    with path.open("ab") as changed:
        changed.write(b"\0")
    assert "ends at the rim" in add_heights(run.fields, [40_000.0], more, raw)


def test_gaps_are_reported(run):
    path = write_grid(run.root / "grid.nc")
    with xr.open_dataset(path) as grid:
        grid.load()
    grid["gravity"][{"lat": slice(40, 50), "lon": slice(60, 80)}] = np.nan
    grid.to_netcdf(path, engine="netcdf4")
    for more in ("-n", "--json"):
        done = run(path, "--height", "10km", more)
        assert "2.7 % of the nodes have no data" in done.output
    assert '"missing_fraction": 0.027' in done.stdout


def test_implausible_units(run):
    path, none = write_grid(run.root / "grid.nc"), run.root / "none.nc"
    with xr.open_dataset(path) as grid:
        grid.load()
    grid["gravity"].attrs.clear()
    grid.rename(gravity="z", lat="y", lon="x").to_netcdf(none, engine="netcdf4")
    assert "variable 'z', has no unit; taken as mGal" in run(none, "--height", "10km", "-n").stderr
    (1e-5 * grid).to_netcdf(path, engine="netcdf4")
    done = run(path, "--height", "10km", "-n")
    assert done.exit_code == 3
    assert "--units m/s2 would fit" in done.stderr
    done = run(path, "--height", "10km", "-n", "--units", "mGal")
    assert done.exit_code == 0
    assert done.stderr.count("is its unit right") == 1


def test_nothing_fetched(run):
    result = run("--height", "10km")
    assert result.exit_code == 3
    assert "`gravmap fetch`" in result.stderr


def test_files_are_replaced_only_with_overwrite(run):
    grid = write_grid(run.root / "grid.nc")
    assert run(grid, "--height", "10km").exit_code == 0
    before = run.fields.read_bytes()
    result = run(grid, "--height", "20km")
    assert result.exit_code == 3
    assert "--overwrite" in result.stderr
    assert run.fields.read_bytes() == before
    assert run(grid, "--height", "20km", "--overwrite").exit_code == 0
    assert "residual_20km" in open_fields(run.fields)


def test_dry_run_writes_nothing(run):
    result = run(write_grid(run.root / "grid.nc"), "--height", "10km", "--dry-run")
    assert result.exit_code == 0
    assert str(run.fields) in result.stdout
    assert not run.fields.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--height", "10"), 2, "no unit"),
        (("--height", "0km"), 2, "not above the data"),
        (("--height", "-5km"), 2, "noise"),
        ((), 2, "--height"),
        (("--height", "10km", "--bbox", 170, 40, -170, 50), 2, "antimeridian"),
        (("--height", "10km", "--bbox", 110, 40, 120, 50), 3, "is outside the grid"),
        (("--height", "10km", "--bbox", 98, 40, 120, 50), 3, "Inside it is --bbox 98 40 100 50."),
        (("--height", "10km", "--region", "jungar"), 2, "junggar"),
        (("--height", "10km", "--variable", "nothing"), 3, "no variable"),
        (("--height", "10km", "--trim", "80deg"), 2, "leaves nothing"),
    ],
)
def test_what_is_refused(run, arguments, status, words):
    grid = write_grid(run.root / "grid.nc")
    for dry in ((), ("-n",)):
        result = run(grid, *arguments, *dry)
        assert result.exit_code == status, result.output
        assert words in result.stderr
        assert not run.fields.exists()


def test_columns_of_text_and_their_unit(run):
    lat, lon = np.arange(35, 60.1, 0.5), np.arange(60, 100.1, 0.5)
    values = 600 * np.sin(lat)[:, None] * np.cos(lon)[None, :]
    rows = [f"{lon[x]},{lat[y]},{values[y, x]:.4f}" for y, x in np.ndindex(values.shape)]
    (run.root / "grid.csv").write_text("\n".join(["lon,lat,g", *rows]))
    result = run(run.root / "grid.csv", "--height", "10km", "--units", "gu")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("no reference system") == 1
    assert abs(float(open_fields(run.fields).bouguer.max())) < 61
    result = run(run.root / "grid.csv", "--height", "10km", "--units", "parsec", "--overwrite")
    assert result.exit_code == 3
    assert "parsec" in result.stderr


def test_a_download_that_was_a_web_page(run):
    (run.root / "grid.grd").write_text("<html>404</html>")
    result = run(run.root / "grid.grd", "--height", "10km")
    assert result.exit_code == 3
    assert "web page" in result.stderr


def test_the_height_of_the_field_can_be_given(run):
    grid = write_grid(run.root / "grid.nc")
    assert "at 13km" in run(grid, "--height", "10km", "--input-height", "3km").stdout
    assert open_fields(run.fields).bouguer.attrs["height_m"] == 3000


def test_derivatives_on_request(run):
    assert run(write_grid(run.root / "grid.nc"), "--height", "10km", "--derivatives").exit_code == 0
    fields = open_fields(run.fields)
    assert "tilt_2km" in fields
    assert float(fields.analytic_signal_2km.min()) >= 0


def test_a_globe_for_the_long_waves(run):
    grid = write_grid(run.root / "grid.nc", bounds=(65, 40, 95, 55))
    globe = write_grid(run.root / "globe.nc", bounds=(-180, -90, 180, 90), step=1)
    result = run(grid, "--height", "10km", "--globe", globe)
    assert result.exit_code == 0, result.output
    assert "degrees up to" in result.stdout
    fields = open_fields(run.fields)
    assert fields.attrs["low_degrees_removed_and_restored"] == 90
    assert [source["path"] for source in field_sources(fields)] == ["grid.nc", "globe.nc"]
    refused = run(grid, "--height", "10km", "--globe", grid, "--overwrite")
    assert refused.exit_code == 3
    assert "grid.nc" in refused.stderr
    assert "global" in refused.stderr


def test_a_global_grid_is_its_own_globe(run):
    result = run(write_grid(run.root / "globe.nc", bounds=(-180, -90, 180, 90), step=1), "--height", "20km")
    assert result.exit_code == 0, result.output
    assert "restored after" in result.stdout
    assert "Nothing is known" not in result.stdout
    assert open_fields(run.fields).sizes == {"lat": 16, "lon": 31}
    # Residuals of further heights have the same long wavelengths.
    more, both = run.root / "more.nc", run.root / "both.nc"
    assert add_heights(run.fields, [40_000.0], more, run.root) == "globe.nc"
    assert run(run.root / "globe.nc", "--height", "40km", "-o", both).exit_code == 0
    np.testing.assert_allclose(open_fields(more)["residual_40km"], open_fields(both)["residual_40km"], atol=1e-4)


def test_help_ends_with_an_example():
    result = CliRunner().invoke(gravmap, ["residual", "--help"])
    assert "Examples:" in result.output[-400:]


def test_the_whole_globe(run):
    grid = write_grid(run.root / "globe.nc", bounds=(-180, -90, 180, 90), step=2)
    result = run(grid, "--height", "60km", "--bbox", -180, -90, 180, 90)
    assert result.exit_code == 0, result.output
    assert "The whole globe is continued" in result.stdout
    fields = open_fields(run.fields)
    assert field_recipe(fields)["method"] == "global"
    assert (float(fields.lat[0]), float(fields.lat[-1])) == (-90, 90)
    assert "edge_note" not in fields.attrs
    # A region of it, by the same method; and what that method does not do.
    part = run(grid, "--height", "60km", "--region", "liu2024", "--method", "global", "--overwrite")
    assert part.exit_code == 0, part.output
    assert open_fields(run.fields).sizes == {"lat": 8, "lon": 15}
    refused = run(grid, "--height", "60km", "--method", "global", "--derivatives", "--overwrite")
    assert refused.exit_code == 2
    assert "--derivatives" in refused.stderr
    poles = run(grid, "--height", "60km", "--bbox", -180, -90, 180, 90, "--method", "regional", "--overwrite")
    assert poles.exit_code == 3, poles.stderr
    assert "80" in poles.stderr


def test_global_needs_a_globe(run):
    result = run(write_grid(run.root / "grid.nc"), "--height", "10km", "--method", "global")
    assert result.exit_code == 3
    assert "--globe" in result.stderr


def test_trim_and_bands(run):
    grid = write_grid(run.root / "grid.nc", bounds=(10, 45, 20, 52))
    result = run(grid, "--height", "5km", "--height", "10km", "--bands", "--trim", "1deg")
    assert result.exit_code == 0, result.output
    fields = open_fields(run.fields)
    assert list(fields)[5:] == ["band_5km_10km", "edge_error_5km", "edge_error_10km"]
    assert (float(fields.lat[0]), float(fields.lon[-1])) == (46, 19)
    assert run(grid, "--height", "5km", "--trim", "15%", "--overwrite").exit_code == 0
    assert open_fields(run.fields).bouguer.size < 29 * 41


def test_a_height_other_than_the_file_states_is_warned_of_and_recorded(run):
    path = write_grid(run.root / "grid.nc", bounds=(10, 45, 20, 52), height_m=10_000.0)
    assert "states a height" not in run(path, "--height", "5km", "--input-height", "10km").stderr
    assert "stated_height_m" not in field_recipe(open_fields(run.fields))
    done = run(path, "--height", "5km", "--input-height", "0m", "--overwrite")
    assert done.stderr.count("grid.nc states a height of 10km; it is taken as 0m, as --input-height says.") == 1
    assert field_recipe(open_fields(run.fields))["stated_height_m"] == 10_000


@pytest.mark.parametrize(
    ("trim", "words"),
    [("1", "no unit"), ("150%", "0%"), ("x%", "0%"), ("-1deg", "positive"), ("9deg", "leaves nothing")],
)
def test_trims_that_make_no_sense(run, trim, words):
    result = run(write_grid(run.root / "grid.nc", bounds=(10, 45, 20, 52)), "--height", "5km", "--trim", trim)
    assert result.exit_code == 2, result.output
    assert words in result.stderr


def test_a_coarse_grid_is_resampled_with_a_warning_and_says_so_in_its_recipe(run):
    grid = write_grid(run.root / "data" / "raw" / "grid.nc")
    box = (grid, "--height", "10km", "--bbox", 70, 42, 74, 46)
    done = run(*box, "--resolution", "2arcmin")
    assert done.exit_code == 0, done.output
    assert "Resampled from 15arcmin to 2arcmin" in done.stderr
    assert "under 56 km" in done.stderr
    fields = open_fields(run.fields)
    recipe = field_recipe(fields)
    assert recipe["spacing_deg"] == pytest.approx([1 / 30, 1 / 30])
    assert recipe["resampled_from_deg"] == [0.25, 0.25]
    assert run.fields.with_suffix(".png").stat().st_size > 10_000
    # Residuals of further heights, which `predict` and `train` add, are of the same resampled grid.
    path = run.root / "more.nc"
    assert add_heights(run.fields, [20_000.0], path, run.root / "data" / "raw") == "grid.nc"
    assert run(*box, "--height", "20km", "--resolution", "2arcmin", "--overwrite").exit_code == 0
    np.testing.assert_allclose(open_fields(path)["residual_20km"], open_fields(run.fields)["residual_20km"], atol=1e-4)
    # A whole grid whose extent is no multiple of the finer step.
    odd = write_grid(run.root / "odd.nc", (70, 42, 74.18, 46.18), step=0.22)
    assert run(odd, "--height", "10km", "--resolution", "2arcmin", "--overwrite").exit_code == 0
    refused = run(*box, "--resolution", "30arcmin", "--overwrite")
    assert refused.exit_code == 2
    assert "no finer" in refused.output
