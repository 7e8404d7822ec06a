"""Broken downloads: resumed by Range, never joined to another version, safe from a second run and from a kill."""

import fcntl
import functools
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

import gravmap.download.fetch
from gravmap.download.fetch import exclusive
from gravmap.download.sources import Source, SourceFile
from gravmap.download.transfer import Transfer
from gravmap.errors import DownloadError

BODY = b"CDF\x01" + bytes(range(256)) * 4000
OTHER = b"CDF\x01" + bytes(reversed(range(256))) * 4000

fetch = functools.partial(gravmap.download.fetch.fetch, waits_s=(0.0, 0.0))


@pytest.fixture(autouse=True)
def grid(toy):
    toy.files["grid.grd"] = BODY


def source(*urls, recorded=True):
    url, *mirrors = urls
    digest = hashlib.sha256(BODY).hexdigest() if recorded else None
    file = SourceFile("grid.grd", url, tuple(mirrors), len(BODY) if recorded else None, digest, ("434446",))
    return Source("toy", "gravity", "A toy", "netCDF", "Free.", "Me (2026)", "bring your own", (file,))


def left_in(raw):
    return sorted(path.name for path in raw.iterdir())


def leave_partial(raw, toy, *, kind="cutonce", recorded=True):
    """A first run that breaks off half way and is not tried again."""
    words = "broke off" if kind == "unmarked" and not recorded else r"broke off.*0\.5 MB are kept"
    with pytest.raises(DownloadError, match=words):
        fetch(source(f"{toy.url}/{kind}/grid.grd", recorded=recorded), raw, waits_s=())
    assert left_in(raw) == ["grid.grd.part", "grid.grd.part.json"]
    assert (raw / "grid.grd.part").read_bytes() == BODY[: len(BODY) // 2]


@pytest.mark.parametrize("recorded", [True, False])
def test_cut_again_and_again(tmp_path, toy, recorded):
    # Every answer ends somewhere else; the file is joined, each byte requested once.
    toy.pieces = [0.5, 0.1, 0.9, 0.3, 0.7, 1.0]
    item = fetch(source(f"{toy.url}/cut/grid.grd", recorded=recorded), tmp_path)
    assert item.main.read_bytes() == BODY
    assert len(toy.requests) == 6
    assert sum(toy.sent) == len(BODY)
    assert left_in(tmp_path) == (["grid.grd"] if recorded else ["grid.grd", "grid.grd.sha256"])


@pytest.mark.parametrize("kind", ["cutonce", "refuses", "elsewhere", "norange", "good", "moved"])
def test_a_partial_file_is_resumed_or_started_over(tmp_path, toy, kind):
    # 416 for any part, another part than requested, no Range at all: the file is right all the same.
    leave_partial(tmp_path, toy)
    item = fetch(source(f"{toy.url}/{kind}/grid.grd"), tmp_path)
    assert item.main.read_bytes() == BODY
    assert left_in(tmp_path) == ["grid.grd"]
    assert toy.requests[1][1] == f"bytes={len(BODY) // 2}-"
    assert toy.sent[-1] == (len(BODY) - len(BODY) // 2 if kind in ("cutonce", "good", "moved") else len(BODY))


@pytest.mark.parametrize("kind", ["cutonce", "deafcut"])
def test_a_file_that_changed_is_not_joined(tmp_path, toy, kind):
    # Nothing on record to check against: only the server's validators show it. The deaf server ignores If-Range.
    leave_partial(tmp_path, toy, kind=kind, recorded=False)
    toy.files["grid.grd"] = OTHER
    assert fetch(source(f"{toy.url}/{kind}/grid.grd", recorded=False), tmp_path).main.read_bytes() == OTHER


def test_a_server_without_validators_is_not_trusted_without_a_hash(tmp_path, toy):
    leave_partial(tmp_path, toy, kind="unmarked", recorded=False)
    fetch(source(f"{toy.url}/unmarked/grid.grd", recorded=False), tmp_path)
    assert toy.requests[-1][1] is None


def test_wrongly_joined_parts_are_found_by_the_hash_and_downloaded_in_one_piece(tmp_path, toy):
    # The first half is of another file of the same size, and no validator shows it.
    leave_partial(tmp_path, toy, kind="unmarked")
    (tmp_path / "grid.grd.part").write_bytes(OTHER[: len(BODY) // 2])
    item = fetch(source(f"{toy.url}/unmarked/grid.grd"), tmp_path)
    assert item.main.read_bytes() == BODY
    assert [wanted for _, wanted in toy.requests[1:]] == [f"bytes={len(BODY) // 2}-", None]


@pytest.mark.parametrize("note", ["", "{}", "[]", '{"url": 1}', None])
def test_a_partial_file_without_a_valid_note_is_started_over(tmp_path, toy, note):
    leave_partial(tmp_path, toy)
    path = tmp_path / "grid.grd.part.json"
    path.unlink() if note is None else path.write_text(note)
    assert fetch(source(f"{toy.url}/good/grid.grd"), tmp_path).main.read_bytes() == BODY
    assert toy.requests[-1][1] is None


def test_a_partial_file_that_is_complete_needs_no_request(tmp_path, toy):
    leave_partial(tmp_path, toy)
    (tmp_path / "grid.grd.part").write_bytes(BODY)
    toy.requests.clear()
    assert fetch(source(f"{toy.url}/good/grid.grd"), tmp_path).main.read_bytes() == BODY
    assert toy.requests == []


def test_the_mirror_resumes_where_the_first_broke_off(tmp_path, toy):
    # The first server dies for good half way.
    toy.pieces = [0.5, 0, 0, 0]
    item = fetch(source(f"{toy.url}/cut/grid.grd", f"{toy.url}/good/grid.grd"), tmp_path)
    assert item.main.read_bytes() == BODY
    assert toy.requests[-1] == ("/good/grid.grd", f"bytes={len(BODY) // 2}-")
    assert sum(toy.sent) == len(BODY)


def test_a_web_page_leaves_a_partial_file(tmp_path, toy):
    # A portal that wants a login must not cost what was downloaded before.
    leave_partial(tmp_path, toy)
    with pytest.raises(DownloadError, match="web page"):
        fetch(source(f"{toy.url}/form/grid.grd"), tmp_path)
    assert (tmp_path / "grid.grd.part").stat().st_size == len(BODY) // 2
    assert fetch(source(f"{toy.url}/good/grid.grd"), tmp_path).main.read_bytes() == BODY


@pytest.mark.parametrize("kind", ["slow", "drip", "dead", "busy", "weakmark", "dated"])
def test_servers_with_which_a_download_succeeds(tmp_path, toy, kind):
    assert fetch(source(f"{toy.url}/{kind}/grid.grd"), tmp_path).main.read_bytes() == BODY


def test_a_server_that_falls_silent(tmp_path, toy):
    address, part = f"{toy.url}/silent/grid.grd", tmp_path / "grid.grd.part"
    with pytest.raises(DownloadError, match=r"silent for 0\.1 s.*0\.5 MB are kept"):
        Transfer(address, part, source(address).files[0], waits_s=(), timeout_s=0.1).run()
    assert left_in(tmp_path) == ["grid.grd.part", "grid.grd.part.json"]


def test_a_server_that_brings_nothing_new(tmp_path, toy):
    toy.pieces = [0.5]
    with pytest.raises(DownloadError, match=r"broke off \(4 tries\)"):
        fetch(source(f"{toy.url}/cutnorange/grid.grd"), tmp_path)
    assert len(toy.requests) == 4  # the first brought something, three more nothing new
    assert not (tmp_path / "grid.grd").exists()


def test_a_file_that_keeps_changing_is_given_up(tmp_path, toy):
    with pytest.raises(DownloadError, match=r"\d tries"):
        fetch(source(f"{toy.url}/changing/grid.grd", recorded=False), tmp_path)
    assert len(toy.requests) < 10


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("first", [1, 3, 2000])
def test_a_body_without_size_that_breaks_off(tmp_path, toy, recorded, first):
    # One byte shows neither the format nor the size; without a hash on record 2000 bytes look like the whole file.
    toy.unsized_bytes = first
    if recorded or first < 4:
        item = fetch(source(f"{toy.url}/unsizedonce/grid.grd", recorded=recorded), tmp_path)
        assert item.main.read_bytes() == BODY
    with pytest.raises(DownloadError, match=r"broke off \(3 tries\)"):
        fetch(source(f"{toy.url}/unsized/grid.grd"), tmp_path / "b")


@pytest.mark.parametrize("recorded", [True, False])
def test_a_body_without_end_is_given_up(tmp_path, toy, recorded, monkeypatch):
    monkeypatch.setattr("gravmap.download.sources.MOST_BYTES", 3 << 20)
    with pytest.raises(DownloadError, match="too much came"):
        fetch(source(f"{toy.url}/endless/grid.grd", recorded=recorded), tmp_path)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    "leads_to", ["http://[bad/x", f"http://{'a' * 80}.example/x", "file:///etc/passwd", "http://127.0.0.1:99999/x"]
)
def test_a_redirect_to_an_invalid_address(tmp_path, toy, leads_to):
    toy.leads_to = leads_to
    with pytest.raises(DownloadError, match="not valid"):
        fetch(source(f"{toy.url}/nowhere/grid.grd"), tmp_path)


def test_a_password_in_the_address_is_not_shown(tmp_path, toy, caplog):
    caplog.set_level("DEBUG", "gravmap")
    secret = toy.url.replace("://", "://me:pass@word@")
    item = fetch(source(f"{secret}/good/grid.grd"), tmp_path)
    leave_partial(tmp_path / "b", toy, kind="cutonce")
    with pytest.raises(DownloadError) as failure:
        fetch(source(f"{secret}/missing/grid.grd", f"{secret}/cut/grid.grd"), tmp_path / "b", waits_s=())
    shown = [*item.messages, str(failure.value), caplog.text, (tmp_path / "b" / "grid.grd.part.json").read_text()]
    assert not any("word" in text or "me:" in text for text in shown)
    assert "127.0.0.1" in str(failure.value)


def test_waits_between_requests_and_retry_after(tmp_path, toy, monkeypatch):
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    fetch(source(f"{toy.url}/weak/grid.grd"), tmp_path, waits_s=(1.0, 4.0))
    assert waited == [1.0, 4.0]
    headers = {"7": 7, "99999": 60, "Sun, 22 Nov 2020 00:00:00 GMT": 1, "soon": 1, "Sun, 22 Nov 2099 00:00:00 GMT": 60}
    for header, seconds in headers.items():
        toy.retry_after, toy.requests = header, []
        fetch(source(f"{toy.url}/busy/grid.grd"), tmp_path, waits_s=(1.0,), overwrite=True)
        assert waited.pop() == seconds, header


def test_without_a_network_it_does_not_wait(tmp_path, monkeypatch):
    def unknown(host, *_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("gravmap.download.transfer.time.sleep", lambda _: pytest.fail("waited"))
    with pytest.raises(DownloadError, match="cannot be resolved"):
        fetch(source("https://one.example/grid.grd", "https://two.example/grid.grd"), tmp_path, waits_s=(1.0, 1.0))


def test_a_full_disk_is_reported(tmp_path, toy, monkeypatch):
    import errno
    import pathlib

    real = pathlib.Path.open

    def full(self, mode="r", *rest, **more):
        if mode == "ab":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, mode, *rest, **more)

    monkeypatch.setattr(pathlib.Path, "open", full)
    with pytest.raises(DownloadError, match="disk is full"):
        fetch(source(f"{toy.url}/good/grid.grd"), tmp_path)


def test_a_partial_file_may_be_named_as_the_origin(tmp_path, toy):
    part = tmp_path / "grid.grd.part"
    part.write_bytes(BODY)
    assert fetch(source("http://127.0.0.1:9/never"), tmp_path, origin=str(part)).main.read_bytes() == BODY
    assert left_in(tmp_path) == ["grid.grd"]


def test_a_wrong_file_on_disk_leaves_a_partial_file(tmp_path, toy):
    raw, wrong = tmp_path / "raw", tmp_path / "grid.grd"
    leave_partial(raw, toy)
    wrong.write_bytes(BODY[:-1])
    with pytest.raises(DownloadError, match="cut short"):
        fetch(source(f"{toy.url}/good/grid.grd"), raw, origin=str(wrong))
    assert fetch(source(f"{toy.url}/good/grid.grd"), raw).main.read_bytes() == BODY
    assert toy.requests[-1][1] == f"bytes={len(BODY) // 2}-"


def test_disk_space_for_what_is_not_on_record(tmp_path, toy, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000 + (64 << 20)})())
    with pytest.raises(DownloadError, match="MB left"):
        fetch(source(f"{toy.url}/good/grid.grd", recorded=False), tmp_path)
    assert not (tmp_path / "grid.grd.part").exists()


def start(raw, url, digest):
    """Another process that fetches."""
    code = (
        "import sys; from pathlib import Path\n"
        "from gravmap.download.fetch import fetch\nfrom gravmap.download.sources import Source, SourceFile\n"
        f"file = SourceFile('grid.grd', {url!r}, (), {len(BODY)}, {digest!r}, ('434446',))\n"
        f"print(fetch(Source('toy', *('x',) * 6, (file,)), Path({str(raw)!r})).messages[0])\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=os.getcwd()
    )


def test_a_killed_run_leaves_a_partial_file_that_the_next_resumes(tmp_path, toy):
    child = start(tmp_path, f"{toy.url}/silent/grid.grd", hashlib.sha256(BODY).hexdigest())
    part = tmp_path / "grid.grd.part"
    limit = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 1000) and time.monotonic() < limit:
        time.sleep(0.01)
    child.kill()
    child.communicate()
    have = part.stat().st_size
    assert 0 < have <= len(BODY) // 2
    assert ".toy.lock" in left_in(tmp_path)  # a lock of a dead process
    assert fetch(source(f"{toy.url}/good/grid.grd"), tmp_path).main.read_bytes() == BODY
    assert toy.requests[-1][1] == f"bytes={have}-"
    assert left_in(tmp_path) == ["grid.grd"]


def test_two_runs_at_once(tmp_path, toy):
    url = f"{toy.url}/slow/grid.grd"
    children = [start(tmp_path, url, hashlib.sha256(BODY).hexdigest()) for _ in range(2)]
    news = sorted(child.communicate()[0].split(" (")[0].strip() for child in children)
    assert news == [f"grid.grd fetched from {url}", "grid.grd is there and verified"]
    assert len(toy.requests) == 1
    assert left_in(tmp_path) == ["grid.grd"]


def test_the_process_that_holds_the_lock_is_reported(tmp_path, caplog):
    order = []

    def second():
        with exclusive(tmp_path, "toy"):
            order.append("second")

    with exclusive(tmp_path, "toy"):
        thread = threading.Thread(target=second)
        thread.start()
        limit = time.monotonic() + 10
        while not caplog.records and time.monotonic() < limit:
            time.sleep(0.005)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert f"fetched by process {os.getpid()} on" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    import errno

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive(tmp_path, "toy"):
        pass


def test_the_rest_is_requested_with_if_range(tmp_path, toy):
    leave_partial(tmp_path, toy)
    fetch(source(f"{toy.url}/cutonce/grid.grd"), tmp_path)
    assert toy.if_range == f'"{hashlib.md5(BODY).hexdigest()}"'


def test_the_note_names_the_version(tmp_path, toy):
    leave_partial(tmp_path, toy)
    note = json.loads((tmp_path / "grid.grd.part.json").read_text())
    assert note["total"] == len(BODY)
    assert note["validator"] == f'"{hashlib.md5(BODY).hexdigest()}"'
