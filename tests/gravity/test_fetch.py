"""Fetching from a server of our own that also misbehaves; what comes is right, or nothing is left."""

import hashlib
import http.server
import threading
import zipfile

import pytest

from gravmap.errors import DownloadError, InputError, OptionError
from gravmap.gravity import download
from gravmap.gravity import fetch as module
from gravmap.gravity.fetch import fetch, fetched, fetched_gravity, fetched_maps, provenance
from gravmap.gravity.sources import Source, SourceFile, find_source, known_sources
from gravmap.workspace import Workspace

BODY = b"CDF\x01" + bytes(range(256)) * 4000
SIZE = len(BODY)
DIGEST = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """What a path does is in its name; how often each was asked for is counted."""

    counts: dict[str, int] = {}  # noqa: RUF012
    files: dict[str, bytes] = {}  # noqa: RUF012

    def do_GET(self):
        count = self.counts[self.path] = self.counts.get(self.path, 0) + 1
        kind = self.path.strip("/").split("/")[0]
        body, status, length = self.files.get(self.path.rpartition("/")[2], BODY), 200, None
        if kind == "missing":
            body, status = b"<html>404</html>", 404
        elif kind == "html":
            body = b"\n<!DOCTYPE html><html>Please log in</html>"
        elif kind == "text":
            body = b"error: quota exceeded"
        elif kind == "cut":
            length, body = len(body), body[: len(body) // 3]
        elif kind == "short":
            body = body[:-100]
        elif kind == "long":
            body = body + b"\0" * 40
        elif kind == "wrong":
            body = b"CDF\x01" + b"x" * (len(body) - 4)
        elif kind == "weak" and count < 3:
            body, status = b"busy", 503
        elif kind == "down":
            body, status = b"busy", 500
        self.send_response(status)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    Handler.counts, Handler.files = {}, {}
    monkeypatch.setattr(download, "BACK_OFF_S", (0.0, 0.0))


def source(url="", *, mirrors=(), size=SIZE, digest=DIGEST, name="grid.grd", **more):
    file = SourceFile(name, url, tuple(mirrors), size, digest, ("434446",))
    return Source("toy", "gravity", "A toy", "netCDF", "Free.", "Me (2026)", "bring your own", (file,), **more)


def left_in(raw):
    return sorted(path.name for path in raw.iterdir()) if raw.exists() else []


def test_a_good_server(tmp_path, address):
    seen = []
    item = fetch(source(f"{address}/good/grid.grd"), tmp_path, progress=lambda *step: seen.append(step))
    assert item.main.read_bytes() == BODY
    assert left_in(tmp_path) == ["grid.grd"]
    assert "verified" in item.news[0]
    assert seen[-1][0] == seen[-1][1] == len(BODY)


def test_what_is_there_is_checked_not_fetched(tmp_path, address):
    toy = source(f"{address}/good/grid.grd")
    fetch(toy, tmp_path)
    assert "there and verified" in fetch(toy, tmp_path, offline=True).news[0]
    assert Handler.counts == {"/good/grid.grd": 1}
    fetch(toy, tmp_path, overwrite=True)
    assert Handler.counts == {"/good/grid.grd": 2}
    (tmp_path / "grid.grd").write_bytes(BODY[:-1])
    with pytest.raises(DownloadError, match="on record"):
        fetch(toy, tmp_path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "404"),
        ("html", "web page"),
        ("cut", "broke off|cut short"),
        ("short", f"cut short: {len(BODY) - 100} bytes instead of {len(BODY)}"),
        ("long", "too much"),
        ("down", "500"),
    ],
)
def test_a_server_that_misbehaves(tmp_path, address, kind, words):
    with pytest.raises(DownloadError, match=words) as caught:
        fetch(source(f"{address}/{kind}/grid.grd"), tmp_path)
    assert caught.value.message.startswith("toy: ")
    assert "bring your own" in caught.value.hint
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(("kind", "words"), [("html", "web page"), ("text", "quota exceeded"), ("cut", "broke off")])
def test_the_same_without_a_hash_on_record(tmp_path, address, kind, words):
    with pytest.raises(DownloadError, match=words):
        fetch(source(f"{address}/{kind}/grid.grd", size=None, digest=None), tmp_path)
    assert left_in(tmp_path) == []


def test_a_weak_server_is_asked_again(tmp_path, address):
    fetch(source(f"{address}/weak/grid.grd"), tmp_path)
    assert Handler.counts["/weak/grid.grd"] == 3


def test_a_plain_no_is_not_asked_again_but_the_mirror_is(tmp_path, address):
    item = fetch(source(f"{address}/missing/grid.grd", mirrors=[f"{address}/good/grid.grd"]), tmp_path)
    assert item.main.read_bytes() == BODY
    assert Handler.counts == {"/missing/grid.grd": 1, "/good/grid.grd": 1}


def test_no_server_at_all(tmp_path):
    with pytest.raises(DownloadError, match="no connection"):
        fetch(source("http://127.0.0.1:9/grid.grd"), tmp_path)
    assert left_in(tmp_path) == []


def test_right_size_and_another_hash(tmp_path, address):
    toy = source(f"{address}/wrong/grid.grd")
    with pytest.raises(DownloadError, match="right size but the SHA-256") as caught:
        fetch(toy, tmp_path)
    assert "--accept-hash" in caught.value.hint
    # Not thrown away, and not taken for the file either.
    assert left_in(tmp_path) == ["grid.grd.unverified"]
    assert not (tmp_path / "grid.grd").exists()
    item = fetch(toy, tmp_path, accept_hash=True)
    assert "accepted" in item.news[0]
    assert Handler.counts == {"/wrong/grid.grd": 1}
    assert left_in(tmp_path) == ["grid.grd", "grid.grd.sha256"]
    assert "verified" in fetch(toy, tmp_path).news[0]
    item.main.write_bytes(b"CDF" + b"y" * (len(BODY) - 3))
    with pytest.raises(DownloadError, match="on record"):
        fetch(toy, tmp_path)


def test_a_wrong_size_is_never_accepted(tmp_path, address):
    with pytest.raises(DownloadError, match="cut short"):
        fetch(source(f"{address}/short/grid.grd"), tmp_path, accept_hash=True)


def test_trust_on_first_use(tmp_path, address):
    toy = source(f"{address}/good/grid.grd", size=None, digest=None)
    item = fetch(toy, tmp_path)
    assert "no hash is on record" in item.news[0]
    assert (tmp_path / "grid.grd.sha256").read_text() == f"{DIGEST}  grid.grd\n"
    assert "verified" in fetch(toy, tmp_path).news[0]
    item.main.write_bytes(BODY + b"!")
    with pytest.raises(DownloadError, match="on record"):
        fetch(toy, tmp_path)
    with pytest.raises(DownloadError, match="changed since"):
        fetch(source(f"{address}/wrong/grid.grd", size=None, digest=None), tmp_path, overwrite=True)
    # A refused replacement leaves the old file.
    assert item.main.read_bytes() == BODY + b"!"


def test_from_a_file_a_folder_and_a_mirror(tmp_path, address):
    toy, store = source("http://127.0.0.1:9/never"), tmp_path / "store"
    store.mkdir()
    (store / "grid.grd").write_bytes(BODY)
    (store / "renamed.bin").write_bytes(BODY)
    places = [
        str(store),
        str(store / "grid.grd"),
        str(store / "renamed.bin"),
        f"{address}/good/",
        f"{address}/good",
        f"{address}/good/x.grd",
    ]
    for number, origin in enumerate(places):
        assert fetch(toy, tmp_path / str(number), origin=origin).main.read_bytes() == BODY, origin
    with pytest.raises(DownloadError, match="no such file"):
        fetch(toy, tmp_path / "raw", origin=str(tmp_path / "nowhere.grd"))
    (store / "grid.grd").write_bytes(BODY[:-5])
    with pytest.raises(DownloadError, match="cut short"):
        fetch(toy, tmp_path / "raw", origin=str(store))


def test_offline_says_what_is_missing(tmp_path):
    with pytest.raises(DownloadError, match="missing"):
        fetch(source(), tmp_path, offline=True)


def test_disk_space_is_checked_first(tmp_path, address, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(DownloadError, match="MB left"):
        fetch(source(f"{address}/good/grid.grd"), tmp_path)
    assert Handler.counts == {}


def shapefile(folder, crs):
    import geopandas
    from shapely.geometry import box

    folder.mkdir(parents=True, exist_ok=True)
    table = geopandas.GeoDataFrame(
        {"GEN_GLG": ["Q", "C"], "Glg": ["Q", "C"]}, geometry=[box(80, 44, 81, 45), box(81, 44, 82, 45)], crs=crs
    )
    return table, folder


def test_the_two_maps(tmp_path, address):
    import warnings

    import geopandas

    table, store = shapefile(tmp_path / "store", "EPSG:4284")
    table.to_file(store / "fsu_geol.shp")
    table.to_file(store / "inner.shp")
    with zipfile.ZipFile(store / "geo3al.zip", "w") as pack:
        for suffix in (".shp", ".dbf", ".shx", ".prj"):
            pack.write(store / f"inner{suffix}", f"deep/er/geo3al{suffix}")
        pack.writestr("../../climbs_out.txt", "no")
    Handler.files = {path.name: path.read_bytes() for path in store.iterdir()}
    raw = tmp_path / "ws" / "data" / "raw"
    for name in ("fsu_geol", "geo3al"):
        fetch(find_source(name), raw, origin=f"{address}/good/")
    maps = fetched_maps(raw)
    assert [legend for legend, _ in maps] == ["fsu_geol", "geo3al"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = [geopandas.read_file(path) for _, path in maps]
    # The .prj was not fetched: it is written from what sources.toml knows.
    assert "/good/fsu_geol.prj" not in Handler.counts
    assert all(frame.crs.to_epsg(min_confidence=20) == 4284 for frame in opened)
    assert [list(frame["GEN_GLG"]) for frame in opened] == [["Q", "C"]] * 2
    assert (raw / "geo3al" / "climbs_out.txt").exists()
    assert not (tmp_path / "climbs_out.txt").exists()
    assert [item.source.name for item in fetched(Workspace(tmp_path / "ws"), "geology")] == ["fsu_geol", "geo3al"]
    assert provenance(maps[1][1], raw)["citation"].startswith("Steinshouer")


def test_a_map_of_which_a_part_is_missing_is_not_there(tmp_path, address):
    _, store = shapefile(tmp_path / "store", "EPSG:4284")
    (store / "fsu_geol.shp").write_bytes(bytes.fromhex("0000270a") + b"\0" * 96)
    with pytest.raises(DownloadError, match=r"fsu_geol.dbf could not be had"):
        fetch(find_source("fsu_geol"), tmp_path / "raw", origin=str(store))
    assert fetched_maps(tmp_path / "raw") == []


def test_a_zip_that_is_none(tmp_path, address):
    Handler.files = {"geo3al.zip": b"PK\x03\x04" + b"garbage" * 30}
    with pytest.raises(DownloadError, match="no readable zip"):
        fetch(find_source("geo3al"), tmp_path, origin=f"{address}/good/")
    assert left_in(tmp_path) == []


def test_what_is_known_by_name():
    assert list(known_sources()) == ["wgm2012", "fsu_geol", "geo3al"]
    wgm = find_source("wgm2012").files[0]
    assert (wgm.bytes, len(wgm.sha256)) == (233_410_500, 64)
    for item in known_sources().values():
        assert item.terms
        assert item.citation
    with pytest.raises(OptionError, match="Did you mean wgm2012"):
        find_source("wgm2021")


def test_no_gravity_yet(tmp_path):
    with pytest.raises(InputError, match="No gravity grid") as caught:
        fetched_gravity(tmp_path)
    assert "gravmap fetch" in caught.value.hint
