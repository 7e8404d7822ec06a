"""benchmarks/gpu.py: every part on the CPU with few packages, and what becomes of a part that fails."""

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
# A machine with torch, numpy, scipy and safetensors; and what a table then lacks.
MISSING = (
    "rasterio rioxarray xarray geopandas shapely pyproj pandas pyarrow netCDF4 click rich pydantic annotated_types "
    "matplotlib segmentation_models_pytorch"
)
HIDE = f"""
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_spec(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {MISSING.split()} else find(name, path, target)

PathFinder.find_spec = classmethod(find_spec)
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Environment variables of a Python without the missing packages."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(HIDE)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")]), str(BENCHMARKS.parent)])
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture(scope="module")
def gpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("gpu")


@pytest.mark.slow
def test_every_part_with_few_packages(bare, tmp_path):
    words = [sys.executable, BENCHMARKS / "gpu.py", "--device", "cpu", "--tiny", "--gpus", "2", "-o", tmp_path]
    done = subprocess.run(words, env=bare, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    rows = {title: part["rows"] for title, part in parts.items()}
    assert [title for title, part in parts.items() if part["problem"] or not part["rows"]] == []
    assert rows["Tests"][0]["failed"] == 0
    assert rows["Tests"][0]["passed"] + rows["Tests"][0]["skipped"] > 0
    steps = rows["Training steps of GGMNet"]
    assert {(row["precision"], row["batch"]) for row in steps} == {
        (p, b) for p in ("bfloat16", "float32") for b in (1, 2)
    }
    assert all(row["step_s"] > 0 and row["memory_gib"] > 0 for row in steps)
    for row in rows["Fractions of a step"]:
        parts_of_all = [row[name] for name in ("sampler", "network", "loss", "backward", "optimizer")]
        assert sum(parts_of_all) == pytest.approx(1)
        assert 0 < row["deform_fwd"] < row["network"]
        assert 0 < row["deform_bwd"] < row["backward"]
    (trained,) = rows["Training on a crust"]
    assert trained["steps"] == 4
    assert 0 <= trained["fwiou"] <= 1
    assert trained["commonest_fwiou"] == pytest.approx(trained["commonest_pa"] ** 2)
    for row in rows["An epoch of the paper's recipe"]:
        assert row["hours"] * 3600 > 600 * row["score_s"] > 600 * row["window_s"] > 0
    assert [row["compiler"] for row in rows["Compilation"]] == [None, "eager"]
    # Without segmentation_models_pytorch.
    assert all(
        "step_s" not in row and "not installed" in row["note"] for row in rows["Training steps of other networks"]
    )
    assert [row["gpus"] for row in rows["Scaling"]] == [1, 2]
    assert rows["Scaling"][1]["crops"] == 2 * rows["Scaling"][0]["crops"]
    text = (tmp_path / "gpu.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(parts)


def test_a_part_that_fails_keeps_its_rows_and_says_why(gpu):
    found = gpu.run([partial(eval, "(1 // (2 - each) for each in (1, 2))")], 60)
    assert found["rows"] == [1]
    assert found["problem"].startswith("ZeroDivisionError")


def test_a_part_whose_process_dies_or_hangs_is_reported(gpu):
    assert "status 9" in gpu.run([partial(os._exit, 9)], 60)["problem"]
    begin = time.monotonic()
    found = gpu.run([partial(time.sleep, 300), partial(time.sleep, 300)], 2)
    assert found["problem"] == "stopped after 2 s"
    assert time.monotonic() - begin < 100
    assert multiprocessing.active_children() == []


def test_memory_that_runs_out_is_a_note_of_its_row(gpu, monkeypatch):
    parts = importlib.import_module("gpu_parts")

    def measure(name, dataset, options, precision, parts):
        if options.batch > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return {"step_s": 0.5}

    monkeypatch.setattr(parts.training, "measure", measure)
    rows = list(parts.time_steps(["ggmnet-tiny"], parts.Sizes.small("cpu")))
    assert [row.get("note") for row in rows] == [None, "out of memory"] * 2
    assert rows[0]["crops_per_s"] == 2
    results = {"device": "a GPU", "date": "", "versions": {}, "seconds": 1, "tiny": False}
    results["parts"] = {"Steps": {"rows": rows, "problem": "stopped", "seconds": 1}}
    lines = gpu.report(results).splitlines()
    assert "| ggmnet-tiny | bfloat16 | 2 |  |  | out of memory |" in lines
    assert "**Not complete**: stopped" in lines
