"""Downloads from a toy server that also misbehaves: the file is right, or nothing is left."""

import functools
import hashlib
import io
import shutil
import warnings
import zipfile

import pytest

import gravmap.download.fetch
from gravmap.download.present import fetched, fetched_gravity, fetched_maps, provenance
from gravmap.download.sources import Source, SourceFile, find_source, known_sources
from gravmap.errors import DownloadError, InputError, OptionError

BODY = b"CDF\x01" + bytes(range(256)) * 4000
SIZE = len(BODY)
DIGEST = hashlib.sha256(BODY).hexdigest()

fetch = functools.partial(gravmap.download.fetch.fetch, waits_s=(0.0, 0.0))


@pytest.fixture
def address(toy):
    toy.files = {"grid.grd": BODY, "x.grd": BODY}
    return toy.url


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
    assert "verified" in item.messages[0]
    assert seen[-1][0] == seen[-1][1] == len(BODY)


def test_a_present_file_is_checked_not_downloaded(tmp_path, toy, address):
    grid = source(f"{address}/good/grid.grd")
    fetch(grid, tmp_path)
    assert "there and verified" in fetch(grid, tmp_path, offline=True).messages[0]
    assert toy.count("/good/grid.grd") == 1
    fetch(grid, tmp_path, overwrite=True)
    assert toy.count("/good/grid.grd") == 2
    (tmp_path / "grid.grd").write_bytes(BODY[:-1])
    with pytest.raises(DownloadError, match="on record"):
        fetch(grid, tmp_path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "404"),
        ("html", "web page"),
        ("form", "web page.*leads to"),
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


@pytest.mark.parametrize(("kind", "words"), [("html", "web page"), ("text", "quota exceeded")])
def test_the_same_without_a_hash_on_record(tmp_path, address, kind, words):
    with pytest.raises(DownloadError, match=words):
        fetch(source(f"{address}/{kind}/grid.grd", size=None, digest=None), tmp_path)
    assert left_in(tmp_path) == []


def test_a_weak_server_is_retried(tmp_path, toy, address):
    fetch(source(f"{address}/weak/grid.grd"), tmp_path)
    assert toy.count("/weak/grid.grd") == 3


def test_a_refusal_is_not_retried_but_the_mirror_is_tried(tmp_path, toy, address):
    item = fetch(source(f"{address}/missing/grid.grd", mirrors=[f"{address}/good/grid.grd"]), tmp_path)
    assert item.main.read_bytes() == BODY
    assert [path for path, _ in toy.requests] == ["/missing/grid.grd", "/good/grid.grd"]


def test_no_server_at_all(tmp_path):
    with pytest.raises(DownloadError, match=r"no connection to the server \(3 tries\)"):
        fetch(source("http://127.0.0.1:9/grid.grd"), tmp_path)
    assert left_in(tmp_path) == []


def test_right_size_and_another_hash(tmp_path, toy, address):
    grid = source(f"{address}/wrong/grid.grd")
    with pytest.raises(DownloadError, match="right size but the SHA-256") as caught:
        fetch(grid, tmp_path)
    assert "--accept-hash" in caught.value.hint
    # Neither deleted nor accepted.
    assert left_in(tmp_path) == ["grid.grd.unverified"]
    assert not (tmp_path / "grid.grd").exists()
    item = fetch(grid, tmp_path, accept_hash=True)
    assert "accepted" in item.messages[0]
    assert toy.count("/wrong/grid.grd") == 1
    assert left_in(tmp_path) == ["grid.grd", "grid.grd.sha256"]
    assert "verified" in fetch(grid, tmp_path).messages[0]
    item.main.write_bytes(b"CDF" + b"y" * (len(BODY) - 3))
    with pytest.raises(DownloadError, match="on record"):
        fetch(grid, tmp_path)


def test_a_wrong_size_is_never_accepted(tmp_path, address):
    with pytest.raises(DownloadError, match="cut short"):
        fetch(source(f"{address}/short/grid.grd"), tmp_path, accept_hash=True)
    (tmp_path / "grid.grd").write_bytes(BODY[:-1])
    with pytest.raises(DownloadError, match="on record"):
        fetch(source(f"{address}/good/grid.grd"), tmp_path, accept_hash=True)


def test_trust_on_first_use(tmp_path, address):
    grid = source(f"{address}/good/grid.grd", size=None, digest=None)
    item = fetch(grid, tmp_path)
    assert "no hash is on record" in item.messages[0]
    assert (tmp_path / "grid.grd.sha256").read_text() == f"{DIGEST}  grid.grd\n"
    assert "verified" in fetch(grid, tmp_path).messages[0]
    item.main.write_bytes(BODY + b"!")
    with pytest.raises(DownloadError, match="on record"):
        fetch(grid, tmp_path)
    with pytest.raises(DownloadError, match="changed since"):
        fetch(source(f"{address}/wrong/grid.grd", size=None, digest=None), tmp_path, overwrite=True)
    # A refused replacement leaves the old file.
    assert item.main.read_bytes() == BODY + b"!"


def test_from_a_file_a_folder_and_a_mirror(tmp_path, address):
    grid, store = source("http://127.0.0.1:9/never"), tmp_path / "store"
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
        assert fetch(grid, tmp_path / str(number), origin=origin).main.read_bytes() == BODY, origin
    with pytest.raises(DownloadError, match="no such file"):
        fetch(grid, tmp_path / "raw", origin=str(tmp_path / "nowhere.grd"))
    (store / "grid.grd").write_bytes(BODY[:-5])
    with pytest.raises(DownloadError, match="cut short"):
        fetch(grid, tmp_path / "raw", origin=str(store))


@pytest.mark.parametrize(
    ("origin", "address"),
    [
        ("https://host/maps/", "https://host/maps/fsu_geol.dbf"),
        ("https://host/maps", "https://host/maps/fsu_geol.dbf"),
        ("https://host/maps/fsu_geol.shp", "https://host/maps/fsu_geol.dbf"),
        ("https://host/fsu_geol.shp?version=2", "https://host/fsu_geol.dbf"),
        ("https://host/other.dbf?version=2", "https://host/other.dbf?version=2"),
        ("/no/such/folder/fsu_geol.shp", "/no/such/folder/fsu_geol.dbf"),
        ("fsu_geol.shp", "./fsu_geol.dbf"),
        ("/", "/fsu_geol.dbf"),
    ],
)
def test_the_address_of_one_file_of_a_shapefile_is_that_of_the_others(origin, address):
    assert SourceFile("fsu_geol.dbf", "https://own").addresses(origin) == (address,)


def test_offline_names_what_is_missing(tmp_path):
    with pytest.raises(DownloadError, match="missing"):
        fetch(source(), tmp_path, offline=True)


def test_disk_space_is_checked_first(tmp_path, toy, address, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(DownloadError, match="MB left"):
        fetch(source(f"{address}/good/grid.grd"), tmp_path)
    assert toy.requests == []


def shapefile(folder, crs):
    import geopandas
    from shapely.geometry import box

    folder.mkdir(parents=True, exist_ok=True)
    table = geopandas.GeoDataFrame(
        {"GEN_GLG": ["Q", "C"], "Glg": ["Q", "C"]}, geometry=[box(80, 44, 81, 45), box(81, 44, 82, 45)], crs=crs
    )
    return table, folder


def test_the_two_maps(tmp_path, toy, address):
    import warnings

    import geopandas

    table, store = shapefile(tmp_path / "store", "EPSG:4284")
    table.to_file(store / "fsu_geol.shp")
    table.to_file(store / "inner.shp")
    with zipfile.ZipFile(store / "geo3al.zip", "w") as pack:
        for suffix in (".shp", ".dbf", ".shx", ".prj"):
            pack.write(store / f"inner{suffix}", f"deep/er/geo3al{suffix}")
        pack.writestr("../../climbs_out.txt", "no")
    toy.files = {path.name: path.read_bytes() for path in store.iterdir()}
    raw = tmp_path / "ws" / "data" / "raw"
    for name in ("fsu_geol", "geo3al"):
        fetch(find_source(name), raw, origin=f"{address}/good/")
    maps = fetched_maps(raw)
    assert [legend for legend, _ in maps] == ["fsu_geol", "geo3al"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = [geopandas.read_file(path) for _, path in maps]
    # The .prj was not downloaded: it is written from what sources.toml knows.
    assert toy.count("/good/fsu_geol.prj") == 0
    assert all(frame.crs.to_epsg(min_confidence=20) == 4284 for frame in opened)
    assert [list(frame["GEN_GLG"]) for frame in opened] == [["Q", "C"]] * 2
    assert (raw / "geo3al" / "climbs_out.txt").exists()
    assert not (tmp_path / "climbs_out.txt").exists()
    assert [item.source.name for item in fetched(raw, "geology")] == ["fsu_geol", "geo3al"]
    assert provenance(maps[1][1], raw)["citation"].startswith("Steinshouer")


def test_a_map_of_which_a_file_is_missing_is_not_present(tmp_path, address):
    _, store = shapefile(tmp_path / "store", "EPSG:4284")
    (store / "fsu_geol.shp").write_bytes(bytes.fromhex("0000270a") + b"\0" * 96)
    with pytest.raises(DownloadError, match=r"fsu_geol.dbf could not be downloaded"):
        fetch(find_source("fsu_geol"), tmp_path / "raw", origin=str(store))
    assert fetched_maps(tmp_path / "raw") == []


def test_an_invalid_zip_archive(tmp_path, toy, address):
    toy.files = {"geo3al.zip": b"PK\x03\x04" + b"garbage" * 30}
    with pytest.raises(DownloadError, match="not a valid zip"):
        fetch(find_source("geo3al"), tmp_path, origin=f"{address}/good/")
    assert left_in(tmp_path) == []


def fetch_geo3al(address, raw):
    return fetch(find_source("geo3al"), raw, origin=f"{address}/good/")


def zip_of(*members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as pack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members of one name
        for name in members:
            pack.writestr(name, b"x")
    return stream.getvalue()


@pytest.mark.parametrize("members", [("a/..",), ("x" * 300 + ".shp",), ("a/m.shp", "b/m.shp")])
def test_a_zip_archive_that_cannot_be_unpacked_is_not_kept(tmp_path, toy, address, members):
    toy.files["geo3al.zip"] = zip_of(*members)
    with pytest.raises(DownloadError, match="zip archive has"):
        fetch_geo3al(address, tmp_path)
    assert list(tmp_path.iterdir()) == []
    toy.files["geo3al.zip"] = zip_of("folder/m.shp", "__MACOSX/._m.shp")
    assert fetch_geo3al(address, tmp_path).main == tmp_path / "geo3al" / "m.shp"


def test_a_zip_archive_that_unpacks_to_too_much(tmp_path, toy, address, monkeypatch):
    monkeypatch.setattr("gravmap.download.sources.MOST_BYTES", 1 << 20)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("m.shp", bytes(2 << 20))
    toy.files["geo3al.zip"] = stream.getvalue()
    with pytest.raises(DownloadError, match=r"unpack to 0\.0 GB"):
        fetch_geo3al(address, tmp_path)


@pytest.mark.parametrize("text", [b"", b"junk\n", b"\xff\xfe", b"0" * 63])
def test_a_kept_hash_that_is_not_one(tmp_path, toy, address, text):
    toy.files["geo3al.zip"] = zip_of("m.shp")
    fetch_geo3al(address, tmp_path)
    (tmp_path / "geo3al.zip.sha256").write_bytes(text)
    with pytest.raises(DownloadError, match=r"geo3al\.zip\.sha256 does not begin with a SHA-256"):
        fetch_geo3al(address, tmp_path)


@pytest.mark.parametrize("name", ["geo3al.zip", "geo3al.zip.part", "geo3al.zip.sha256", "geo3al"])
def test_a_folder_or_file_in_the_way(tmp_path, toy, address, name):
    toy.files["geo3al.zip"] = zip_of("m.shp")
    (tmp_path / name).write_text("") if name == "geo3al" else (tmp_path / name).mkdir()
    with pytest.raises(DownloadError, match=r"is a (file|folder), and a (file|folder) of this name"):
        fetch_geo3al(address, tmp_path)


def test_the_known_sources():
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
