"""Runs of `gravmap tile` that are interrupted: what they leave, and how the next one resumes."""

import errno
import signal
import subprocess
import sys

import numpy as np
import pytest

from gravmap.errors import GravmapError, InputError
from gravmap.files import sha256
from gravmap.tiling import load_arrays, make_tiles
from gravmap.tiling.resumable_folder import ResumableFolder, write_unfinished
from gravmap.tiling.tile_files import verify_tiles
from gravmap.tiling.training_arrays import read_index

OPTIONS = {"sizes_deg": [2.5, 5], "size_px": 48}
TILES = 18 + 3

# A process that is killed for good while it writes its file number `count`: half of it under way, or just in place.
KILLED = """
import os, signal, sys, threading
from pathlib import Path
from gravmap.tiling import make_tiles
from gravmap.tiling.resumable_folder import ResumableFolder

count, moment, sources, target = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
write, written, lock = ResumableFolder.write, [], threading.Lock()

def deadly(self, name, content):
    with lock:
        written.append(name)
        if len(written) == count:
            if moment == "half":
                (self.folder / f"{name}.part").write_bytes(content[: len(content) // 2])
            else:
                write(self, name, content)
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, name, content)

ResumableFolder.write = deadly
make_tiles(sources / "fields.nc", sources / "labels.tif", target, sizes_deg=[2.5, 5], size_px=48, overwrite=True)
"""


def make(sources, target, **options):
    return make_tiles(sources / "fields.nc", sources / "labels.tif", target, **(OPTIONS | options))


def kill(sources, target, count, moment="half"):
    words = [sys.executable, "-c", KILLED, str(count), moment, str(sources), str(target)]
    assert subprocess.run(words, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL


def contents(folder):
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(sources):
    make(sources, sources / "unbroken" / "t")
    return contents(sources / "unbroken" / "t")


@pytest.fixture
def target(sources, tmp_path):
    """A tile set to be, as deep below its sources as the unbroken one: its index names them as seen from it."""
    return sources / tmp_path.name / "t"


def stop_after(monkeypatch, finished, error):
    """Let `error` come up once so many tiles are finished."""
    finish, noted = ResumableFolder.finish, []

    def failing(self, name, sums):
        if len(noted) == finished:
            raise error
        finish(self, name, sums)
        noted.append(name)

    monkeypatch.setattr(ResumableFolder, "finish", failing)


@pytest.fixture
def stopped(sources, target, monkeypatch):
    """A run that came to seven of its tiles."""
    with monkeypatch.context() as patch:
        stop_after(patch, 7, RuntimeError("stopped"))
        with pytest.raises(RuntimeError, match="stopped"):
            make(sources, target, workers=1)
    return target


@pytest.mark.slow
def test_a_killed_run_is_resumed_and_ends_the_same(sources, whole, target):
    rng = np.random.default_rng()
    first, second = sorted(rng.choice(np.arange(4, 3 * TILES - 6), 2, replace=False))
    kill(sources, target, first)
    kill(sources, target, second - first + 1, "in place")
    assert not target.exists()
    # Two threads had two tiles under way each time.
    assert second // 3 - 4 <= make(sources, target)["kept"] <= second // 3
    assert contents(target) == whole
    assert [path.name for path in target.parent.iterdir()] == ["t"]


def test_a_stopped_run_keeps_its_finished_tiles(stopped, sources, whole):
    assert not stopped.exists()
    reported = []
    assert make(sources, stopped, progress=lambda done, total, note="": reported.append(done))["kept"] == 7
    assert reported == list(range(8, TILES + 1))
    assert contents(stopped) == whole


def test_an_incomplete_set_is_never_read(stopped):
    partial = stopped.with_name("t.partial")
    for read in (read_index, load_arrays, verify_tiles):
        for folder in (stopped, partial):
            with pytest.raises(InputError, match=r"7 tiles are finished(.|\n)*gravmap tile. again"):
                read(folder)


def test_an_index_in_an_incomplete_folder_does_not_make_it_complete(stopped, whole, sources):
    partial = stopped.with_name("t.partial")
    for name in ("index.json", "index.parquet"):
        (partial / name).write_bytes((sources / "unbroken" / "t" / name).read_bytes())
    with pytest.raises(InputError, match="tiles are finished"):
        load_arrays(partial)
    assert make(sources, stopped)["kept"] == 7
    assert contents(stopped) == whole


def test_unsound_tiles_are_made_anew(stopped, sources, whole):
    partial = stopped.with_name("t.partial")
    names = [line.split("\t")[0] for line in (partial / "finished.txt").read_text().splitlines()]
    broken = partial / f"{names[0]}_field.tif"
    content = bytearray(broken.read_bytes())
    content[-3] ^= 1
    broken.write_bytes(content)
    (partial / f"{names[1]}_label.tif").unlink()
    (partial / "2.5deg" / "r009_c009_field.tif").write_bytes(b"of nobody")
    with (partial / "finished.txt").open("a") as journal:
        journal.write("2.5deg/r002_c0")  # a kill cut the line short
    assert make(sources, stopped)["kept"] == 5
    assert contents(stopped) == whole


@pytest.mark.parametrize("change", ["size", "windows", "labels"])
def test_another_recipe_discards_with_a_word(stopped, sources, tmp_path, caplog, change):
    labels = sources / "labels.tif"
    options = dict(OPTIONS)
    if change == "size":
        options["size_px"] = 32
    elif change == "windows":
        options["sizes_deg"] = [5]
    else:
        labels = tmp_path / "other" / "labels.tif"
        labels.parent.mkdir()
        labels.write_bytes((sources / "labels.tif").read_bytes() + b"\0")
        labels.with_name("labels.legend.toml").write_bytes((sources / "labels.legend.toml").read_bytes())
    index = make_tiles(sources / "fields.nc", labels, stopped, **options)
    assert index["kept"] == 0
    assert "7 tiles of an unfinished run with other sources or options: they are discarded" in caplog.text
    assert verify_tiles(stopped) == {}


def test_other_splits_keep_the_tiles(stopped, sources):
    index = make(sources, stopped, splits=["blocks"], folds=4)
    assert index["kept"] == 7
    assert [split["folds"] for split in read_index(stopped)["splits"]] == [4]


def test_an_old_set_stays_until_the_new_one_is_whole(sources, target, monkeypatch, whole):
    make(sources, target, size_px=32)
    old = contents(target)
    with monkeypatch.context() as patch:
        stop_after(patch, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            make(sources, target, overwrite=True, workers=1)
    assert contents(target) == old
    assert read_index(target)["size_px"] == 32
    assert verify_tiles(target) == {}
    with pytest.raises(InputError, match="--overwrite"):
        make(sources, target)
    assert make(sources, target, overwrite=True)["kept"] == 5
    assert contents(target) == whole
    assert [path.name for path in target.parent.iterdir()] == ["t"]


def test_a_full_disk_on_the_way(sources, target, monkeypatch, whole):
    with monkeypatch.context() as patch:
        stop_after(patch, 6, OSError(errno.ENOSPC, "No space left on device", "r000"))
        with pytest.raises(GravmapError, match=r"disk is full(.|\n)*resumes"):
            make(sources, target, workers=1)
    assert make(sources, target)["kept"] == 6
    assert contents(target) == whole


def test_nothing_finished_leaves_nothing(sources, tmp_path, monkeypatch):
    stop_after(monkeypatch, 0, PermissionError(errno.EACCES, "no", "t"))
    with pytest.raises(PermissionError):
        make(sources, tmp_path / "t", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_write_one_set(sources, tmp_path):
    with write_unfinished(tmp_path / "t", {}, {}) as first:
        with pytest.raises(InputError, match="is being written by another command: process"):
            make(sources, tmp_path / "t")
        first.write("file", b"of the first")
    assert (tmp_path / "t" / "file").read_bytes() == b"of the first"
