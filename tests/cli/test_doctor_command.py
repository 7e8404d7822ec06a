import json

from click.testing import CliRunner

import gravmap_cli
from gravmap.doctor import examine
from gravmap.workspace import Workspace


def test_doctor_lists_versions_and_the_files_of_the_workspace(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fields.nc").write_bytes(b"")
    done = CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(tmp_path), "doctor", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["files"]["residual"]["exists"] is True
    assert found["files"]["predict"]["exists"] is False
    assert found["versions"]["torch"]
    assert found["torch"]["error"] is None
    assert set(found["extras"]["export"]) == {"onnx", "onnxscript", "onnxruntime"}


# What torch says of itself, without loading it.
QUICK_PROBE = """print('{"gpus": [], "error": null, "deformable": "own"}')"""


def test_doctor_names_the_extra_that_is_not_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("gravmap.doctor._PROBE", QUICK_PROBE)
    monkeypatch.setattr("gravmap.doctor.OPTIONAL", {"whole": ("numpy",), "broken": ("numpy", "no-such-package")})
    lines = examine(Workspace(tmp_path)).lines()
    assert "Optional: whole (there), broken (missing: no-such-package)" in lines


def test_doctor_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("gravmap.doctor._PROBE", QUICK_PROBE)
    monkeypatch.setattr("gravmap.doctor.NEEDED", ("numpy", "no-such-package"))
    found = examine(Workspace(tmp_path))
    assert any("pip install no-such-package" in line for line in found.lines())


def test_doctor_survives_a_torch_that_does_not_load(tmp_path, monkeypatch):
    monkeypatch.setattr("gravmap.doctor._PROBE", "import sys; sys.stderr.write('libcuda is broken'); sys.exit(1)")
    found = examine(Workspace(tmp_path))
    assert any("libcuda is broken" in line for line in found.lines())
