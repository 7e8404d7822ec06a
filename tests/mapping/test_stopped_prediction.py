"""Predictions that are stopped, and how the next run resumes them."""

import errno
import json
import logging
import os
import shutil
import signal
import sys

import pytest

from gravmap.errors import GravmapError, InputError
from gravmap.mapping import Options, finish, predict
from gravmap.mapping import inference as windows
from gravmap.tiling.resumable_folder import ResumableFolder
from toys.map import BOX, layers, make_project, make_run, same
from toys.processes import forked

pytestmark = pytest.mark.usefixtures("rasters_only")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("stopped")
    make_project(root)
    predict(root / "fields.nc", root / "run", BOX, root / "whole")
    return root


def go(project, folder, **options):
    overwrite = options.pop("overwrite", False)
    return predict(project / "fields.nc", project / "run", BOX, folder, options=Options(**options), overwrite=overwrite)


@pytest.fixture
def counted(monkeypatch):
    """Names of the windows that are computed."""
    made, write = [], windows._write

    def noting(path, values):
        made.append(path.stem)
        return write(path, values)

    monkeypatch.setattr(windows, "_write", noting)
    return made


def stop_after(monkeypatch, finished, error):
    finish, noted = ResumableFolder.finish, []

    def failing(self, name, sums):
        if len(noted) == finished:
            raise error
        finish(self, name, sums)
        noted.append(name)

    monkeypatch.setattr(ResumableFolder, "finish", failing)


@pytest.mark.parametrize(("count", "moment"), [(4, "half"), (7, "in place")])
def test_a_killed_prediction_is_resumed_to_the_same_map(project, tmp_path, counted, count, moment):
    def killed():
        """Is killed for good while it writes its window number `count`: half of it written, or just in place."""
        write, written = windows._write, []

        def deadly(path, values):
            written.append(path)
            if len(written) < count:
                return write(path, values)
            if moment == "half":
                path.with_name(f"{path.name}.part").write_bytes(values.tobytes()[: values.nbytes // 2])
            else:
                write(path, values)
            os.kill(os.getpid(), signal.SIGKILL)

        windows._write = deadly
        go(project, tmp_path / "map")

    assert forked(killed) == [-signal.SIGKILL]
    assert not (tmp_path / "map").exists()
    made = go(project, tmp_path / "map")
    assert made.resumed == count - 1
    assert len(counted) == len(made.plan.jobs) - (count - 1)
    assert same(layers(tmp_path / "map"), layers(project / "whole"))
    assert [path.name for path in tmp_path.iterdir()] == ["map"]
    assert not (tmp_path / "map" / "windows").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", [pytest.param("killed", marks=pytest.mark.slow), "full"])
def test_a_failure_while_pictures_are_drawn_keeps_the_windows(project, tmp_path, counted, monkeypatch, how):
    # The complete map, not only its rasters.
    monkeypatch.setattr(sys.modules[predict.__module__], "finish_map", finish.finish_map)

    def ends(folder, *_, **__):
        (folder / "map.png").write_bytes(b"half")
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, "No space left on device")

    def stopped():
        finish.draw_pictures = ends
        go(project, tmp_path / "map")

    if how == "killed":
        assert forked(stopped) == [-signal.SIGKILL]
    else:
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(finish, "draw_pictures", ends)
            go(project, tmp_path / "map")
    assert not (tmp_path / "map").exists()
    counted.clear()
    made = go(project, tmp_path / "map")
    assert made.resumed == len(made.plan.jobs)
    assert not counted
    assert same(layers(tmp_path / "map"), layers(project / "whole"))
    assert [path.name for path in tmp_path.iterdir()] == ["map"]
    listed = json.loads((tmp_path / "map" / "provenance.json").read_text())["outputs"]
    assert {*listed, "provenance.json"} == {path.name for path in (tmp_path / "map").iterdir()}
    assert (tmp_path / "map" / "map.png").stat().st_size > 10_000


def test_a_damaged_window_is_computed_again(project, tmp_path, counted, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            go(project, tmp_path / "map")
    first = sorted((tmp_path / "map.partial" / "windows").glob("*.npy"))[0]
    content = bytearray(first.read_bytes())
    content[-3] ^= 1
    first.write_bytes(bytes(content))
    counted.clear()
    made = go(project, tmp_path / "map")
    assert made.resumed == 4
    assert first.stem in counted
    assert same(layers(tmp_path / "map"), layers(project / "whole"))


@pytest.mark.parametrize("change", ["flips", "scales", "run"])
def test_windows_of_other_options_or_networks_are_discarded(project, tmp_path, counted, monkeypatch, caplog, change):
    shutil.copytree(project / "run", tmp_path / "run")
    shutil.copy(project / "fields.nc", tmp_path)
    with monkeypatch.context() as patch:
        stop_after(patch, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path, tmp_path / "map")
    counted.clear()
    if change == "run":
        from gravmap.gravity import open_fields

        make_run(tmp_path / "run", open_fields(tmp_path / "fields.nc"), seed=8)
    options = {"flips": {"flips": True}, "scales": {"scales_deg": (5.0,)}, "run": {}}[change]
    with caplog.at_level(logging.WARNING, "gravmap"):
        made = go(tmp_path, tmp_path / "map", **options)
    assert made.resumed == 0
    assert len({name.removesuffix("_votes") for name in counted}) == len(made.plan.jobs)
    assert "5 windows of an unfinished run with other sources or options: they are discarded" in caplog.text


def test_options_that_do_not_affect_windows_keep_them(project, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            go(project, tmp_path / "map")
    made = go(project, tmp_path / "map", batch_size=3, near_km=5.0, everywhere=True)
    assert made.resumed == 5


def test_a_full_disk_leaves_the_earlier_map_and_what_is_finished(project, tmp_path, monkeypatch):
    go(project, tmp_path / "map", scales_deg=(5.0,))
    before = layers(tmp_path / "map")
    with monkeypatch.context() as patch:
        write, written = windows._write, []

        def full(path, values):
            written.append(path)
            if len(written) > 3:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            return write(path, values)

        patch.setattr(windows, "_write", full)
        with pytest.raises(OSError, match="No space"):
            go(project, tmp_path / "map", overwrite=True)
    assert same(layers(tmp_path / "map"), before)
    # Full while the rasters are written: the windows are kept.
    with monkeypatch.context() as patch:
        from gravmap.mapping.files.writer import MapWriter

        patch.setattr(MapWriter, "finish", lambda self, progress: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"):
            go(project, tmp_path / "map", overwrite=True)
    made = go(project, tmp_path / "map", overwrite=True)
    assert made.resumed == len(made.plan.jobs)
    assert same(layers(tmp_path / "map"), layers(project / "whole"))


def test_too_little_disk_space_is_reported_before_anything_is_written(project, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 4096))
    with pytest.raises(GravmapError, match=r"map and its windows take up to .* 0\.0 MB free") as error:
        go(project, tmp_path / "map")
    assert error.value.exit_status == 1
    assert not list(tmp_path.iterdir())


def test_two_predictions_of_one_map_at_once_are_refused(project, tmp_path, monkeypatch):
    refused = []
    write = windows._write

    def meanwhile(path, values):
        if not refused:
            refused.append(True)
            with pytest.raises(InputError, match="is being written by another command: process"):
                go(project, tmp_path / "map")
        return write(path, values)

    monkeypatch.setattr(windows, "_write", meanwhile)
    go(project, tmp_path / "map")
    assert refused
