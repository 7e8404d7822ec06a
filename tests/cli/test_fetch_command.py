"""`gravmap fetch`: each source on its own, terms said, statuses as promised."""

import functools
import hashlib
import http.server
import json
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner

from gravmap.gravity import download, sources
from gravmap.gravity.sources import Source, SourceFile
from gravmap_cli import gravmap

BODY = b"CDF\x01" + bytes(range(256)) * 40


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run `gravmap fetch` in a workspace with two toy sources served on this machine: one good, one missing."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "grid.grd").write_bytes(BODY)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    grid = SourceFile("grid.grd", f"{url}/grid.grd", (), len(BODY), hashlib.sha256(BODY).hexdigest(), ("434446",))
    lost = SourceFile("lost.shp", f"{url}/lost.shp")
    toys = {
        "good": Source("good", "gravity", "Good", "netCDF", "Free for all.", "Me (2026)", "bring a grid", (grid,)),
        "lost": Source(
            "lost", "geology", "Lost", "shp", "Own use only.", "You", "bring a map: gravmap rasterize MAP", (lost,)
        ),
    }
    monkeypatch.setattr(sources, "known_sources", lambda: toys)
    monkeypatch.setattr(download, "BACK_OFF_S", ())

    def run(*arguments):
        return CliRunner().invoke(gravmap, ["-w", str(tmp_path / "ws"), "fetch", *arguments])

    run.raw, run.url, run.served = tmp_path / "ws" / "data" / "raw", url, served
    yield run
    server.shutdown()
    server.server_close()


def test_what_fails_is_named_and_the_rest_is_kept(run):
    result = run()
    assert result.exit_code == 4
    assert (run.raw / "grid.grd").read_bytes() == BODY
    assert "SHA-256 verified" in result.stdout
    assert "terms: Free for all." in result.stdout
    assert "cite: Me (2026)" in result.stdout
    (line,) = [line for line in result.stderr.splitlines() if "lost" in line]
    assert "404" in line
    assert "gravmap rasterize MAP" in line
    assert sorted(path.name for path in run.raw.iterdir()) == ["grid.grd"]


def test_one_by_name_as_json(run):
    result = run("good", "--json")
    assert result.exit_code == 0
    (item,) = json.loads(result.stdout)["fetched"]
    assert item["source"] == "good"
    assert run("good", "--offline").exit_code == 0


def test_offline_with_nothing_there(run):
    assert run("good", "--offline").exit_code == 4


def test_from_a_url_means_the_source_that_has_such_a_file(run):
    result = run("--from", f"{run.url}/grid.grd")
    assert result.exit_code == 0
    assert "lost" not in result.output
    assert run("--from", f"{run.url}/other.grd").exit_code == 2


def test_list_and_dry_run_write_nothing(run):
    for option in ("--list", "--dry-run"):
        result = run(option)
        assert result.exit_code == 0
        assert "Own use only." in result.stdout
    assert not run.raw.exists()


def test_an_unknown_source(run):
    result = run("goood")
    assert result.exit_code == 2
    assert "Did you mean good?" in result.stderr


def test_accept_hash(run):
    (run.served / "grid.grd").write_bytes(BODY[:-1] + b"!")
    result = run("good")
    assert result.exit_code == 4
    assert "--accept-hash" in result.stderr
    assert not (run.raw / "grid.grd").exists()
    assert run("good", "--accept-hash").exit_code == 0
    assert run("good").exit_code == 0


def test_a_web_page_is_no_grid(run):
    (run.served / "grid.grd").write_bytes(b"<html>log in</html>")
    result = run("good")
    assert result.exit_code == 4
    assert "web page" in result.stderr


def test_rows_of_a_region_and_residual_finds_them(tmp_path, monkeypatch):
    import netCDF4
    import numpy as np

    from toy_server import ToyServer

    lat, lon = np.arange(-90, 90.25, 0.5), np.arange(-180, 180.25, 0.5)
    name = "WGM2012_Bouguer_ponc_2min.grd"
    with netCDF4.Dataset(tmp_path / name, "w", format="NETCDF3_CLASSIC") as file:
        for axis, nodes in (("x", lon), ("y", lat)):
            file.createDimension(axis, nodes.size)
            file.createVariable(axis, "f4", (axis,))[:] = nodes
        z = np.random.default_rng(0).normal(0, 50, (lat.size, lon.size))
        file.createVariable("z", "f4", ("y", "x"))[:] = z
    toy = ToyServer()
    toy.files[name] = (tmp_path / name).read_bytes()
    file = SourceFile(name, f"{toy.url}/good/{name}", (), len(toy.files[name]), "0" * 64, ("434446",))
    known = {"wgm2012": Source("wgm2012", "gravity", "W", "netCDF", "Free.", "Bonvalot", "bring a grid", (file,))}
    monkeypatch.setattr(sources, "known_sources", lambda: known)

    def gravmap_here(*arguments):
        return CliRunner().invoke(gravmap, ["-w", str(tmp_path / "ws"), *arguments])

    try:
        result = gravmap_here("fetch", "--region-only")
    finally:
        toy.close()
    assert result.exit_code == 0, result.output
    assert "hash of the whole file cannot be checked" in result.stdout
    assert (tmp_path / "ws/data/raw/WGM2012_Bouguer_ponc_2min.rows_35_60.grd").exists()
    result = gravmap_here("residual", "--height", "10km")
    assert result.exit_code == 0, result.output
    assert "liu2024, the default" in result.stdout
    assert "rows_35_60.grd" in result.stdout
    result = gravmap_here("residual", "--height", "10km", "--region", "junggar", "--overwrite")
    assert result.exit_code == 0, result.output


def test_a_region_goes_with_region_only(run):
    assert run("good", "--region", "junggar").exit_code == 2
    assert run("good", "--region-only", "--bbox", "170", "40", "-170", "50").exit_code == 2


def test_help_ends_with_an_example():
    result = CliRunner().invoke(gravmap, ["fetch", "--help"])
    assert "Examples:" in result.output[-400:]


def test_it_loads_no_raster_and_no_torch():
    code = "import sys, gravmap.gravity.fetch; print({'xarray', 'torch', 'rasterio', 'scipy'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )
