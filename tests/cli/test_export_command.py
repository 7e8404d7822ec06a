"""A network taken out of gravmap answers as it did inside."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import gravmap_cli
from gravmap.learning.training.checkpoint import ModelSpec, save_model
from gravmap.network import GGMNet
from gravmap.network.presets import cycle

INPUTS = [
    {"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 12.0},
    {"kind": "rgb", "field": "bouguer", "unit": "mGal", "spread": 30.0, "low": -80.0, "high": 60.0},
    {"kind": "scale"},
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A workspace with a run whose network has a cell at each scale and offsets that are not zero."""
    torch.manual_seed(0)
    little = cycle(
        2, ((), (1,)), ("conv", "zoom"), (1,), encoder=(4, 6, 8), head=(6, 5, 4), arm_norm="none", full_res_stage=False
    )
    network = GGMNet(little, 5, 3).eval()
    for stage in network.head:
        torch.nn.init.normal_(stage.conv.offset.weight, std=0.1)
    torch.nn.init.normal_(network.classify.weight)
    classes = [{"index": i + 1, "name": f"Klasse {i} é", "colour": "#000000", "age": ""} for i in range(3)]
    spec = ModelSpec("ggmnet", little.to_dict(), INPUTS, classes, 128, [1.0], {"method": "regional"}, {}, 0)
    root = tmp_path_factory.mktemp("world")
    save_model(root / "runs" / "first", network, spec)
    (root / "runs" / "latest").write_text("first\n")
    return root, network, spec


def call(root, *args):
    return CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(root), "export", *args])


def fields(images, height, width):
    drawing = torch.Generator().manual_seed(height)
    return torch.randn(images, 2, height, width, generator=drawing) * torch.tensor([12.0, 30.0])[:, None, None]


@pytest.mark.parametrize("name", ["model.safetensors", "model"])  # model.json would lie beside the latter
def test_a_run_is_not_exported_onto_itself(world, name):
    folder = world[0] / "runs" / "first"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = call(world[0], "--format", "torch", "-o", str(folder / name), "--overwrite")
    assert done.exit_code == 3
    assert "is read by this command, and would be replaced" in done.output
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def by_hand(network, spec, given, degrees):
    with torch.no_grad():
        return network(torch.stack([spec.input.prepare(one, degrees) for one in given])).numpy()


SIZES = [(1, 128, 192), (3, 256, 128)]


@pytest.mark.slow
def test_onnxruntime_gives_the_same_classes(world, tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    root, network, spec = world
    path = tmp_path / "net.onnx"
    done = call(root, "--output", str(path), "--json")
    assert done.exit_code == 0, done.output
    session = runtime.InferenceSession(path)
    for size in SIZES:
        given = fields(*size)
        degrees = np.full(size[0], 0.02, np.float32)
        (logits,) = session.run(["logits"], {"fields": given.numpy(), "degrees_per_px": degrees})
        expected = by_hand(network, spec, given, 0.02)
        assert np.abs(logits - expected).max() < 1e-3 * np.abs(expected).max()
        same = logits.argmax(1) == expected.argmax(1)
        assert same.mean() > 0.9999
        assert len(np.unique(expected.argmax(1))) > 1
    made = onnx.load(path)
    assert {node.domain for node in made.graph.node} == {""}
    inside = {entry.key: entry.value for entry in made.metadata_props}
    assert json.loads(inside["gravmap"]) == json.loads((tmp_path / "net.onnx.json").read_text())
    assert json.loads(inside["classes"]) == ["Klasse 0 é", "Klasse 1 é", "Klasse 2 é"]
    # A file that is there is kept.
    assert call(root, "--output", str(path)).exit_code == 3


@pytest.mark.slow
def test_a_torch_program_runs_without_gravmap(world, tmp_path):
    root, network, spec = world
    done = call(root, "first", "--format", "torch")
    assert done.exit_code == 0, done.output
    path = root / "runs" / "first" / "model.pt2"
    for number, size in enumerate(SIZES):
        given = fields(*size)
        np.save(tmp_path / f"{number}.npy", given.numpy())
    code = f"""
import json, sys, numpy as np, torch
inside = {{"gravmap.json": ""}}
program = torch.export.load({str(path)!r}, extra_files=inside).module()
for number in range({len(SIZES)}):
    given = torch.from_numpy(np.load(rf"{tmp_path}/{{number}}.npy"))
    with torch.no_grad():
        np.save(rf"{tmp_path}/out{{number}}.npy", program(given, torch.full((len(given),), 0.02)).numpy())
assert json.loads(inside["gravmap.json"])["classes"][0]["name"] == "Klasse 0 é"
assert not any(name.startswith("gravmap") for name in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    for number, size in enumerate(SIZES):
        expected = by_hand(network, spec, fields(*size), 0.02)
        assert np.abs(np.load(tmp_path / f"out{number}.npy") - expected).max() < 1e-3 * np.abs(expected).max()
    assert call(root, "--format", "torch").exit_code == 3


def test_a_missing_run_or_package_is_refused_with_the_next_command(world, tmp_path, monkeypatch):
    none = call(tmp_path)
    assert none.exit_code == 3
    assert "gravmap train" in none.output
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    absent = call(world[0], "--output", str(tmp_path / "x.onnx"))
    assert absent.exit_code == 2
    assert 'pip install "gravmap[export]"' in absent.output
    assert not list(tmp_path.glob("x.onnx*"))
