import json

import numpy as np
from click.testing import CliRunner

import gravmap_cli
import gravmap_cli.doctor
from gravmap.doctor import examine
from gravmap.geology import load_legend
from gravmap.geology.labels import legend_path, write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.tiling.training_arrays import other_class_tables
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


def test_a_run_and_a_map_of_another_class_table_are_named(tmp_path):
    place = Workspace(tmp_path)
    (place.runs / "old").mkdir(parents=True)
    (place.maps / "junggar").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    write_index_raster(place.labels, np.ones((2, 2), np.uint8), (80, 44, 82, 46), load_legend("basement10"))
    write_legend(load_legend("basement10"), legend_path(place.labels))
    for name, count in (("bedrock10", 2), ("basement10", 0)):
        classes = [{"index": each.index, "name": each.name, "colour": "#000000"} for each in load_legend(name).bedrock]
        place.latest.write_text("old")
        (place.runs / "old" / "model.json").write_text(json.dumps({"classes": classes}))
        (place.maps / "junggar" / "provenance.json").write_text(json.dumps({"models": [{"classes": classes}]}))
        found = other_class_tables(place.labels, gravmap_cli.doctor._trained(place))
        assert len(found) == count
        if found:
            assert "The run old was trained on bedrock10" in found[0]
            assert "`gravmap rasterize --classes bedrock10 --overwrite`" in found[0]
            assert "junggar shows bedrock10" in found[1]
            assert "`gravmap predict --overwrite`" in found[1]
    (place.maps / "junggar" / "provenance.json").write_text('{"models": [{"classes": [3]}]}')
    assert len(gravmap_cli.doctor._trained(place)) == 1


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
