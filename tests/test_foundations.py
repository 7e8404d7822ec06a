import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gravmap.errors import DeviceError, DownloadError, GravmapError, InputError, OptionError
from gravmap.files import atomic_folder, atomic_path, sha256, write_json
from gravmap.outputs import check_outputs, locked, writing
from gravmap.records import read_record
from gravmap.regions import Region, find_region, named_regions
from gravmap.units import describe_angle, format_angle, format_length, parse_angle_deg, parse_length_m
from gravmap.workspace import Workspace, check_name, require
from toys.processes import forked


def test_each_error_carries_the_status_of_the_contract():
    statuses = {
        error: error.exit_status for error in (GravmapError, OptionError, InputError, DownloadError, DeviceError)
    }
    assert list(statuses.values()) == [1, 2, 3, 4, 5]
    assert str(InputError("what.", "next.")) == "what.\nnext."


def test_an_error_keeps_its_hint_when_it_travels_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(DeviceError("what.", "next.")))
    assert type(error) is DeviceError
    assert (error.message, error.hint) == ("what.", "next.")


@pytest.mark.parametrize(
    ("text", "metres"),
    [("10km", 10_000.0), ("10000 m", 10_000.0), ("0.5km", 500.0), (" 1e1 km ", 10_000.0), ("-2km", -2000)],
)
def test_lengths(text, metres):
    assert parse_length_m(text) == metres


@pytest.mark.parametrize(
    ("text", "degrees"), [("5deg", 5.0), ("2arcmin", 1 / 30), ("15arcsec", 1 / 240), ("2'", 1 / 30), ("2.5°", 2.5)]
)
def test_angles(text, degrees):
    assert parse_angle_deg(text) == pytest.approx(degrees, abs=1e-15)


@pytest.mark.parametrize("text", ["10", "ten km", "", "10 miles", "10deg", "km", "nan km"])
def test_a_length_without_a_length_unit_names_the_units_wanted(text):
    with pytest.raises(OptionError, match="km"):
        parse_length_m(text)


@pytest.mark.parametrize("text", ["10", "5km", "deg"])
def test_an_angle_without_an_angle_unit_names_the_units_wanted(text):
    with pytest.raises(OptionError, match="arcmin"):
        parse_angle_deg(text)


@pytest.mark.parametrize("text", ["5deg", "2.5deg", "2arcmin", "15arcsec", "30arcsec", "1deg", "0.5arcsec"])
def test_angles_are_written_as_they_are_read(text):
    assert format_angle(parse_angle_deg(text)) == text


@pytest.mark.parametrize(
    ("degrees", "text"),
    [
        (9560 / 3600, "2.66deg"), (2.4, "2.4deg"), (0.25, "15arcmin"), (0.125, "7.5arcmin"), (15, "15deg"),
        (2 / 60, "2arcmin"), (2.5 / 60, "2.5arcmin"), (15 / 3600, "15arcsec"), (0.1, "6arcmin"), (120.4, "120deg"),
    ],
)  # fmt: skip
def test_angles_for_people_have_one_unit_and_few_digits(degrees, text):
    assert describe_angle(degrees) == text


@pytest.mark.parametrize("text", ["10km", "5.5km", "500m", "1234m"])
def test_lengths_are_written_as_they_are_read(text):
    assert format_length(parse_length_m(text)) == text


def test_the_regions_of_the_contract():
    regions = named_regions()
    assert regions["liu2024"].bounds_wsen == (65, 40, 95, 55)
    assert regions["junggar"].bounds_wsen == (81, 43, 92, 48)
    assert set(regions) == {"liu2024", "junggar", "turpan-hami", "tarim", "ili", "balkhash", "zaysan", "issyk-kul"}


def test_an_unknown_region_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match="Did you mean junggar"):
        find_region("jungar")


def test_a_users_own_regions(tmp_path):
    own = tmp_path / "regions.toml"
    own.write_text("altai = [85, 46, 91, 50]\n")
    assert find_region("altai", own) == Region(85, 46, 91, 50)
    own.write_text("altai = [85, 46]\n")
    with pytest.raises(InputError, match="altai"):
        find_region("altai", own)
    own.write_text("altai = [\n")
    with pytest.raises(InputError, match="TOML"):
        find_region("altai", own)
    own.write_text("altai = [91, 46, 85, 50]\n")
    with pytest.raises(InputError, match=r"regions\.toml: altai: .*west side"):
        find_region("altai", own)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "/x", "C:x", ".x", "-x", "x.", " x", "a\nb", "x" * 101, "é" * 51]
)
def test_names_that_leave_or_break_a_folder_are_refused(tmp_path, name):
    with pytest.raises(OptionError, match="not a valid name of a region"):
        check_name(name, "a region")
    own = tmp_path / "regions.toml"
    own.write_text(f"{json.dumps(name)} = [85, 46, 91, 50]\n")
    with pytest.raises(InputError, match=r"regions\.toml"):
        named_regions(own)


@pytest.mark.parametrize("name", ["junggar", "west Junggar_2", "准噶尔", "a.b-c", "x" * 100])
def test_other_names_are_taken_as_they_are(name):
    assert check_name(name, "a region") == name


@pytest.mark.parametrize(
    "box",
    [
        (92, 43, 81, 48),
        (81, 48, 92, 43),
        (170, 40, -170, 50),
        (0, -91, 1, 0),
        (float("nan"), 0, 1, 1),
        (81, 92, 43, 48),
    ],
)
def test_an_invalid_box_is_refused(box):
    with pytest.raises(OptionError):
        Region(*box)


def test_boxes():
    region = Region(81, 43, 92, 48)
    assert region.intersection(Region(90, 47, 99, 60)) == Region(90, 47, 92, 48)
    assert region.intersection(Region(92, 43, 93, 48)) is None
    assert Region(65, 40, 95, 55).contains(region)
    assert not region.contains(Region(65, 40, 95, 55))
    assert str(Region(-10, -5, 10, 5)) == "10W-10E 5S-5N"


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})
    with pytest.raises(RuntimeError), atomic_path(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert read_record(target, dict[str, int], "x") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_sidecars_travel_with_the_file_and_old_ones_go(tmp_path):
    target = tmp_path / "a.tif"
    for side in (True, False):
        with atomic_path(target) as partial:
            partial.write_text("raster")
            if side:
                partial.with_name(partial.name + ".aux.xml").write_text("names")
        assert (tmp_path / "a.tif.aux.xml").exists() is side


def test_a_kill_leaves_the_old_file_and_the_next_write_sweeps_up(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom gravmap.files import atomic_path\n"
        f"with atomic_path(Path({str(target)!r})) as p:\n"
        "    p.write_text('half'); print('ready', flush=True); time.sleep(60)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline().strip() == "ready"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert read_record(target, dict[str, int], "x") == {"old": 1}
    assert len(list(tmp_path.iterdir())) == 2
    write_json(target, {"new": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_two_writers_at_once_do_not_sweep_up_each_other(tmp_path):
    target = tmp_path / "a.txt"
    code = (
        "import sys\nfrom pathlib import Path\nfrom gravmap.files import atomic_path\n"
        f"with atomic_path(Path({str(target)!r})) as p:\n"
        "    p.write_text('first'); print('ready', flush=True); sys.stdin.readline()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline().strip() == "ready"
    with atomic_path(target) as partial:
        partial.write_text("second")
    _, err = writer.communicate("go\n")
    assert writer.returncode == 0, err
    assert target.read_text() == "first"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "tiles"
    with atomic_folder(target) as partial:
        (partial / "one").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(target) as partial:
        (partial / "two").write_text("2")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["one"]
    with atomic_folder(target) as partial:
        (partial / "three").write_text("3")
    assert [path.name for path in target.iterdir()] == ["three"]
    assert [path.name for path in tmp_path.iterdir()] == ["tiles"]


@pytest.mark.parametrize("writer", [atomic_path, atomic_folder])
def test_a_full_disk_is_called_by_its_name(tmp_path, monkeypatch, writer):
    """netCDF reports "Permission denied", HDF5 and GDAL other errors."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 4096))
    with pytest.raises(GravmapError, match="disk is full"), writer(tmp_path / "a.nc"):
        raise PermissionError(13, "Permission denied", "a.nc")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 10**9))
    with pytest.raises(PermissionError), writer(tmp_path / "a.nc"):
        raise PermissionError(13, "Permission denied", "a.nc")
    # safetensors removes its file first, and has an error class of its own.
    with pytest.raises(GravmapError, match="disk is full"), writer(tmp_path / "a.nc"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_overwriting_is_refused_by_default(tmp_path):
    path = tmp_path / "a"
    check_outputs([path])
    path.write_text("")
    check_outputs([path], overwrite=True)
    with pytest.raises(InputError, match="--overwrite"):
        check_outputs([path])
    with pytest.raises(InputError, match=r"a is a file; a folder is needed"):
        check_outputs([], folders=[path], overwrite=True)
    with pytest.raises(InputError, match=r"a is a file; a folder is needed"):
        check_outputs([path / "b" / "c"])
    with pytest.raises(InputError, match=r"is a folder; a file is needed"):
        check_outputs([tmp_path], overwrite=True)
    aside = tmp_path / "raster.tif.aux.xml"
    aside.write_text("")  # of a raster that is gone
    check_outputs([tmp_path / "raster.tif", aside])


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_an_input_is_never_overwritten(tmp_path, link):
    path, other = tmp_path / "map.shp", tmp_path / "map.dbf"
    path.write_text("")
    other.write_text("")
    for read in (path, other):  # the files of a shapefile are read together
        output = read
        if link:
            output = tmp_path / f"{link}-{read.name}"
            getattr(output, link)(read)
        with pytest.raises(InputError, match=r"is read by this command(.|\n)*another name"):
            check_outputs([tmp_path / "new", output], [None, path], overwrite=True)
    with pytest.raises(InputError, match="lies in"):
        check_outputs([], [path], overwrite=True, folders=[tmp_path])


def test_a_folder_that_cannot_be_written_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(GravmapError, match=f"No permission for {tmp_path}") as error:
        check_outputs([tmp_path / "new" / "a.tif"])
    assert error.value.exit_status == 1


def test_the_second_of_two_commands_says_who_holds_the_lock(tmp_path):
    path = tmp_path / "fields.nc"

    def second():
        try:
            with locked(path):
                return "not locked"
        except InputError as error:
            return error.message

    with writing([path]):
        (message,) = forked(second)
        assert f"{path} is being written by another command: process {os.getpid()}, `" in message
        assert ", since 20" in message
        with locked(tmp_path / "other"):
            pass
    assert forked(second) == ["not locked"]
    assert not list(tmp_path.iterdir())


def test_a_lock_dies_with_its_process(tmp_path):
    path = tmp_path / "new" / "a"

    def killed():
        with locked(path):
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(killed) == [-signal.SIGKILL]
    with locked(path):
        pass
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("killed", [False, True])
def test_what_an_unfinished_command_wrote_may_be_replaced(tmp_path, killed):
    outputs = first, second, _ = [tmp_path / name for name in ("a.tif", "b.toml", "c")]

    def stopped():
        with writing(outputs):
            write_json(first, 1)
            write_json(second, 1)
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError

    forked(stopped)
    second.write_text("now the user's own")
    with pytest.raises(InputError, match=r"b\.toml exists already"), writing(outputs):
        pass
    second.unlink()
    with writing(outputs):
        for path in outputs:
            write_json(path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.toml", "c"]
    with pytest.raises(InputError, match=r"a\.tif exists already"), writing(outputs):
        pass


def test_a_file_that_was_finished_before_the_kill_is_kept(tmp_path):
    path = tmp_path / "fields.nc"

    def stopped():
        with writing([path]):
            write_json(path, 1)
            os.kill(os.getpid(), signal.SIGKILL)

    forked(stopped)
    with pytest.raises(InputError, match=r"exists already"), writing([path]):
        pass


def test_sha256_of_known_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1


def test_a_missing_step_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(InputError, match="gravmap tile"):
        require(tmp_path / "data" / "tiles", "gravmap tile")
    with pytest.raises(InputError, match="gravmap train"):
        Workspace(tmp_path).run()
    with pytest.raises(InputError, match="gravmap train"):
        Workspace(tmp_path).run("nowhere")
    with pytest.raises(InputError, match="gravmap train"):
        read_record(Path(tmp_path / "model.json"), dict, "gravmap train")


def test_the_latest_run_is_found_by_name(tmp_path):
    workspace = Workspace(tmp_path)
    for name in ("one", "two"):
        (workspace.runs / name).mkdir(parents=True)
        (workspace.runs / name / "model.json").write_text("{}")
    (workspace.runs / "latest").write_text("two\n")
    assert workspace.run().name == "two"
    assert workspace.run("one").name == "one"
    assert workspace.run(str(workspace.runs / "one")).name == "one"
