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


# What torch reports, without loading it.
QUICK_PROBE = """print('{"gpus": [], "error": null, "deformable": "own"}')"""


def test_doctor_names_the_incomplete_extra(tmp_path):
    optional = {"whole": ("numpy",), "broken": ("numpy", "no-such-package")}
    lines = examine(Workspace(tmp_path), optional=optional, probe=QUICK_PROBE).lines()
    (line,) = [line for line in lines if line.startswith("Optional")]
    assert "no-such-package" in line
    assert line.index("whole") < line.index("broken") < line.index("no-such-package")


def test_doctor_names_missing_packages(tmp_path):
    found = examine(Workspace(tmp_path), needed=("numpy", "no-such-package"), probe=QUICK_PROBE)
    assert any("pip install no-such-package" in line for line in found.lines())


def test_doctor_survives_a_torch_that_does_not_load(tmp_path):
    found = examine(Workspace(tmp_path), probe="import sys; sys.stderr.write('libcuda is broken'); sys.exit(1)")
    assert any("libcuda is broken" in line for line in found.lines())
