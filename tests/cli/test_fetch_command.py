"""`gravmap fetch`: sources are independent, licence terms are printed, exit statuses are as documented."""

import functools
import hashlib
import http.server
import json
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner

from gravmap.download import sources
from gravmap.download.sources import Source, SourceFile
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
    assert "verified (SHA-256)" in result.stdout
    assert "terms: Free for all." in result.stdout
    assert "cite: Me (2026)" in result.stdout
    name, address, hint = result.stderr.partition("lost: ")[2].splitlines()[:3]
    assert name.endswith("could not be downloaded:")
    assert "404" in address
    assert "gravmap rasterize MAP" in hint
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
        assert "not present" in result.stdout
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


def test_a_web_page_instead_of_a_grid_is_refused(run):
    (run.served / "grid.grd").write_bytes(b"<html>log in</html>")
    result = run("good")
    assert result.exit_code == 4
    assert "web page" in result.stderr


def test_help_ends_with_an_example():
    result = CliRunner().invoke(gravmap, ["fetch", "--help"])
    assert "Examples:" in result.output[-400:]


def test_it_loads_no_raster_and_no_torch():
    code = "import sys, gravmap.download; print({'xarray', 'torch', 'rasterio', 'scipy'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )
