import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import gravmap_cli
import gravmap_cli.doctor
from gravmap.doctor import examine
from gravmap.geology import load_legend
from gravmap.geology.labels import legend_path, write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.learning import gpu_check
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


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """Two GPUs of 11 GiB before Ampere, which in truth are the CPU, and a driver; the tries of a training step."""
    cards = [SimpleNamespace(name=f"GeForce {n}", major=7, minor=5, total_memory=11 * 2**30) for n in "AB"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: cards[index])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ((10 - 9 * index) * 2**30, 11 * 2**30))
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 30, 7))
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(gpu_check, "backend", lambda kind: "torchvision")
    (tmp_path / "bin").mkdir()
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 535.104.05\necho 535.104.05\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(smi.parent), prepend=":")
    tried, take = [], gpu_check.train_step

    def step(device, model, width, precision):
        tried.append((device.index, width))
        if width > (64 if device.index == 0 else 0):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        take(torch.device("cpu"), model, width, precision)

    monkeypatch.setattr(gpu_check, "train_step", step)
    return tried


def doctor_lines(place, found):
    return examine(Workspace(place), probe=f"print('from a library'); print({json.dumps(found)!r})").lines()


def test_doctor_computes_on_every_gpu(two_gpus, tmp_path):
    found = gpu_check.check("cpu", "ggmnet-tiny", (256, 128, 64, 32))
    assert two_gpus == [(0, 256), (0, 128), (0, 64), (1, 256), (1, 128), (1, 64), (1, 32)]
    lines = doctor_lines(tmp_path, found)
    assert "GPUs: 2 (driver 535.104.05, CUDA 13.2, NCCL 2.30.7)" in lines
    assert (
        "  0: GeForce A, compute capability 7.5, 11.0 GiB, 10.0 GiB free; crops of up to 64 px fit in training "
        "(float32, two at a time)"
    ) in lines
    assert "  1: GeForce B, compute capability 7.5, 11.0 GiB, 1.0 GiB free; training does not run" in lines
    assert "Deformable convolution: torchvision's CUDA kernel, which runs" in lines
    (fault,) = [line for line in lines if line.startswith("Fault")]
    assert "GPU 1 (GeForce B): a training step of ggmnet-tiny does not fit into its 1.0 GiB" in fault


@pytest.mark.parametrize("way", ["raises", "differs"])
def test_a_kernel_of_torchvision_that_does_not_run_is_a_fault(two_gpus, tmp_path, monkeypatch, way):
    def kernel(x, offset, weight, padding):
        if way == "raises":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nMore lines")
        return x * weight.sum()

    monkeypatch.setattr("torchvision.ops.deform_conv2d", kernel)
    lines = doctor_lines(tmp_path, gpu_check.check("cpu", "ggmnet-tiny", (64,)))
    assert not two_gpus
    assert "Deformable convolution: torchvision's CUDA kernel, which does not run" in lines
    said = {"raises": "does not run: CUDA error: no kernel image is available", "differs": "gives other values"}[way]
    faults = [line for line in lines if line.startswith("Fault")]
    assert len(faults) == 2
    assert all(said in fault and "Reinstall torch and torchvision" in fault for fault in faults)


@pytest.mark.parametrize(
    ("built", "driver", "error", "why"),
    [
        (None, None, None, "is built without CUDA"),
        ("13.2", None, None, "no NVIDIA driver is installed"),
        ("13.2", "470.1", "The NVIDIA driver on your system is too old (found version 11040).", "driver 470.1: The NV"),
        ("13.2", "580.1", None, "driver 580.1, but no device is visible (CUDA_VISIBLE_DEVICES)"),
    ],
)
def test_without_a_gpu_doctor_says_why(monkeypatch, tmp_path, built, driver, error, why):
    def init():
        if error:
            raise RuntimeError(error)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(gpu_check, "driver_version", lambda: driver)
    lines = doctor_lines(tmp_path, gpu_check.check())
    (line,) = [line for line in lines if line.startswith("GPUs: none (")]
    assert why in line
    assert line.endswith("train with --gpus 0 (CPU)")


def test_another_error_of_the_training_step_is_not_taken_for_memory():
    def step(width):
        raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")

    with pytest.raises(RuntimeError, match="NOT_SUPPORTED"):
        gpu_check.largest_crop(step, (64, 32))
