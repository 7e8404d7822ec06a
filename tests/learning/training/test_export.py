"""An exported network gives the logits of the network that `predict` runs, at every window size."""

import numpy as np
import pytest
import torch

from gravmap.learning.calibration.temperature import write_calibration
from gravmap.learning.data.channels import FieldChannel, InputChannels
from gravmap.learning.data.outcrop_context import context_names
from gravmap.learning.training.checkpoint import ModelSpec, load_model, save_model
from gravmap.learning.training.export import SUFFIX, FieldsToOutputs, export_run
from gravmap.network.ggmnet import crop, pad_to_multiple
from gravmap.network.outcrop_start import with_outcrop_start
from gravmap.network.registry import ALIASES, MODELS, build_from_dict, describe
from gravmap.workspace import SHIPPED, shipped_model

# One name for each architecture: ggmnet-e and ggmnet-22 are ggmnet itself.
# The aliases need another package even to be described.
NAMES = [*{str(describe(name)): name for name in reversed(MODELS)}.values(), *ALIASES]
SIZES = ((1, 128, 320), (2, 192, 256))  # images, rows, columns


def make_run(folder, architecture, classes=3):
    torch.manual_seed(0)
    network = build_from_dict(architecture, 1, classes).eval()
    inputs = [{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 9.5}]
    rows = [{"index": index, "name": str(index)} for index in range(1, classes + 1)]
    save_model(folder, network, ModelSpec("x", network.architecture.to_dict(), inputs, rows, 128, [1.0], {}, {}, 0))
    return folder


def largest_difference(run, path):
    """Of the logits at two sizes, relative to the largest."""
    network, spec = load_model(run)
    found = []
    for images, *size in SIZES:
        fields = 9.5 * torch.randn(images, len(spec.input.fields), *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = network(spec.input.prepare(fields, 1.0)).numpy()
            if path.suffix == ".pt2":
                made = torch.export.load(path).module()(fields)
                made = (
                    made[0] if isinstance(made, tuple) else made
                ).numpy()  # logits, and the thickness if there is one
            else:
                runtime = pytest.importorskip("onnxruntime")
                (made,) = runtime.InferenceSession(path).run(["logits"], {"fields": fields.numpy()})
        found.append(np.abs(made - expected).max() / np.abs(expected).max())
    return max(found)


def test_a_layer_and_its_mask_are_inputs_of_their_own(tmp_path):
    """The program takes the layer in its unit, 0 where it is missing, and does the rest itself."""
    torch.manual_seed(0)
    network = build_from_dict({"kind": "unet", "widths": [4, 8]}, 3, 2).eval()
    gravity = {"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 9.5}
    layer = {"kind": "layer", "field": "magnetic", "unit": "nT", "spread": 40.0, "centre": 500.0, "masked": True}
    rows = [{"index": index, "name": str(index)} for index in (1, 2)]
    architecture = network.architecture.to_dict()
    save_model(tmp_path / "run", network, ModelSpec("x", architecture, [gravity, layer], rows, 128, [1.0], {}, {}, 0))
    described = export_run(tmp_path / "run", tmp_path / "network.pt2", "torch")
    planes = described["inputs"][0]["planes"]
    assert [plane["field"] for plane in planes] == ["residual_10km", "magnetic", "magnetic_known"]
    assert "magnetic_known: 1 where the layer has data" in described["how_to_feed"]
    fields = torch.stack([torch.randn(128, 128), 500 + 40 * torch.randn(128, 128), torch.ones(128, 128)])[None]
    fields[0, 1:, :, 64:] = 0
    program = torch.export.load(tmp_path / "network.pt2").module()
    planes = torch.stack([fields[0, 0] / 9.5, (fields[0, 1] - 500) / 40 * fields[0, 2], fields[0, 2]])[None]
    with torch.no_grad():
        assert torch.allclose(program(fields), network(planes), atol=1e-5)


def test_one_program_pads_and_crops_windows_of_every_size():
    class Padded(torch.nn.Module):
        def forward(self, x):
            return crop(2 * pad_to_multiple(x, (16, 24)), *x.shape[-2:])

    columns = 64 * torch.export.Dim("columns", min=2, max=256)
    traced = torch.export.export(Padded(), (torch.zeros(1, 1, 32, 192),), dynamic_shapes=({3: columns},)).module()
    for width in (128, 192, 320):  # 192 is a multiple of 24
        x = torch.randn(1, 1, 32, width)
        assert torch.equal(traced(x), 2 * x)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "onnx"])
@pytest.mark.parametrize("name", [SHIPPED, *NAMES])
def test_every_named_network_is_exported_with_its_own_answers(name, form, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxscript")
    if name in ALIASES:
        pytest.importorskip("segmentation_models_pytorch")
    run = shipped_model() if name == SHIPPED else make_run(tmp_path / "run", describe(name))
    path = tmp_path / f"net{SUFFIX[form]}"
    described = export_run(run, path, form)
    assert described["height_and_width"]["fixed"] is None
    assert largest_difference(run, path) < 1e-4


@pytest.mark.slow
def test_an_exported_network_starts_from_the_same_outcrop(tmp_path):
    torch.manual_seed(0)
    network = build_from_dict(with_outcrop_start(describe("ggmnet-tiny"), (1, 4)), 6, 3).eval()
    torch.nn.init.normal_(network.body.classify.weight)
    inputs = [{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 7.0}]
    inputs += [{"kind": "field", "field": name, "unit": "1", "spread": 1.0} for name in context_names(3)]
    classes = [{"index": index, "name": f"class {index}", "colour": "#000000", "age": ""} for index in (1, 2, 3)]
    spec = ModelSpec("ggmnet-tiny", network.architecture.to_dict(), inputs, classes, 128, [1.0], {}, {}, 0)
    save_model(tmp_path / "run", network, spec)
    given = torch.randn(1, 6, 128, 192)
    with torch.no_grad():
        expected = network(spec.input.prepare(given, 0.01)).numpy()
    description = export_run(tmp_path / "run", tmp_path / "net.pt2", "torch")
    made = torch.export.load(tmp_path / "net.pt2").module()(given).detach().numpy()
    assert np.abs(made - expected).max() < 1e-3 * np.abs(expected).max()
    assert "random walk" in description["how_to_feed"]
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export_run(tmp_path / "run", tmp_path / "net.onnx")
    (logits,) = runtime.InferenceSession(tmp_path / "net.onnx").run(["logits"], {"fields": given.numpy()})
    assert np.abs(logits - expected).max() < 1e-3 * np.abs(expected).max()


def test_logits_and_thickness_are_two_outputs_and_logits_alone_one():
    torch.manual_seed(0)
    inputs = InputChannels(tuple(FieldChannel(f"channel_{number}", "1", 2.0) for number in range(6)))
    for thickness in (False, True):
        body = {"kind": "unet", "widths": [2, 2]}
        network = build_from_dict(with_outcrop_start(body, (1, 4), thickness=thickness), 6, 3).eval()
        torch.nn.init.normal_(network.body.classify.weight)
        given = torch.randn(1, 6, 16, 16)
        found = FieldsToOutputs(inputs, network, 3).eval()(given)
        expected = network.outputs(inputs.prepare(given, 1.0))
        logits, *quantiles = found if thickness else (found,)
        assert torch.equal(logits, expected[:, :3])
        assert [each.shape for each in quantiles] == [(1, 3, 16, 16)] * thickness
        assert all(torch.equal(each, expected[:, 3:]) for each in quantiles)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_the_second_output_is_the_networks_thickness(form, tmp_path):
    """Logits and quantiles of the program are those of the network, and the calibration is in its description."""
    torch.manual_seed(0)
    body = {"kind": "unet", "widths": [2, 2]}
    network = build_from_dict(with_outcrop_start(body, (1, 4), thickness=True), 6, 3).eval()
    torch.nn.init.normal_(network.body.classify.weight)
    inputs = [{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 7.0}]
    inputs += [{"kind": "field", "field": name, "unit": "1", "spread": 1.0} for name in context_names(3)]
    classes = [{"index": index, "name": f"class {index}", "colour": "#000000", "age": ""} for index in (1, 2, 3)]
    spec = ModelSpec("unet", network.architecture.to_dict(), inputs, classes, 128, [1.0], {}, {}, 0)
    save_model(tmp_path / "run", network, spec)
    interval = {"below": 1.25, "above": 0.75}
    write_calibration(tmp_path / "run", {"temperatures": {"1deg": 1.0}, "scales": [1.0], "thickness": interval})
    given = torch.randn(1, 6, 128, 192)
    with torch.no_grad():
        expected = network.outputs(spec.input.prepare(given, 0.01)).numpy()
    assert np.ptp(expected[:, 4]) > 0.1
    path = tmp_path / f"net{SUFFIX[form]}"
    if form == "onnx":
        runtime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    described = export_run(tmp_path / "run", path, form)
    if form == "onnx":
        logits, quantiles = runtime.InferenceSession(path).run(
            ["logits", "cover_thickness_km"], {"fields": given.numpy()}
        )
    else:
        logits, quantiles = (each.detach().numpy() for each in torch.export.load(path).module()(given))
    assert np.abs(logits - expected[:, :3]).max() < 1e-3 * np.abs(expected[:, :3]).max()
    assert np.abs(quantiles - expected[:, 3:]).max() < 1e-3 * expected[:, 3:].max()
    second = described["cover_thickness"]
    assert second["shape"] == ["N", 3, "H", "W"]
    assert (second["levels"], second["calibration"], second["unit"]) == ([0.1, 0.5, 0.9], interval, "km")
