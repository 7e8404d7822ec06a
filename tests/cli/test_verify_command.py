import json

import pytest
from click.testing import CliRunner

import gravmap_cli
from toys.record import make_workspace


def call(*args):
    return CliRunner().invoke(gravmap_cli.gravmap, [str(arg) for arg in args])


@pytest.fixture
def folder(tmp_path):
    return make_workspace(tmp_path)


def test_a_sound_map_and_one_that_was_touched(folder):
    done = call("verify", folder)
    assert done.exit_code == 0, done.output
    assert "lithology.tif" not in done.stdout
    (folder / "attribution.tif").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"")
    listed = call("verify", "-v", folder).stdout
    assert "ok        lithology.tif" in listed
    assert "(-v" not in listed
    lines = call("verify", folder).stdout.splitlines()[1:-1]
    assert lines[0].startswith("  new       attribution.tif: written by `gravmap explain` after the map")
    assert lines[1].startswith("  new       notes.txt: is not in the record")
    assert lines[2:] == [f"  ok        {listed.count('  ok        ')} as recorded (-v lists them)"]
    assert "agree with what was recorded" in done.stdout
    (folder / "map.png").write_bytes(b"A picture")
    done = call("verify", folder)
    assert done.exit_code == 3
    assert "CHANGED   map.png: its SHA-256 is " in done.stdout.splitlines()[1]
    assert done.stderr.startswith(f"Error: 1 thing differs from what was recorded, in {folder}.")
    done = call("verify", "--quiet", folder)
    assert (done.exit_code, done.stdout) == (3, "")


def test_as_json(folder):
    (folder / "map.png").unlink()
    done = call("verify", folder, "--json")
    assert done.exit_code == 3
    result = json.loads(done.stdout)
    assert result["sound"] is False
    (map_,) = result["checked"]
    assert {"what": "map.png", "state": "missing", "told": "is not there"} in map_["findings"]
    assert sum(finding["state"] == "as recorded" for finding in map_["findings"]) == len(map_["findings"]) - 1


def test_missing_inputs_are_reported_and_pass(folder, tmp_path):
    (tmp_path / "data" / "labels.tif").unlink()
    done = call("verify", folder)
    assert done.exit_code == 0, done.output
    assert "gone      labels ../../data/labels.tif" in done.stdout
    assert "1 input is gone and could not be checked." in done.stdout


def test_without_a_folder_it_is_the_workspace(folder, tmp_path):
    done = call("-w", tmp_path, "verify", "--json")
    # The run's own fields are others than those of the toy workspace: reported, and the map is checked all the same.
    assert done.exit_code == 3
    assert [one["kind"] for one in json.loads(done.stdout)["checked"]] == ["run", "map"]
    assert [one["sound"] for one in json.loads(done.stdout)["checked"]] == [False, True]


def test_a_folder_without_anything(tmp_path):
    done = call("verify", tmp_path)
    assert done.exit_code == 3
    assert "holds nothing to verify" in done.stderr
    assert "Traceback" not in done.output
    assert call("verify", tmp_path / "absent").exit_code == 3
