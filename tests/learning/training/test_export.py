"""Export of a network that starts from the outcrop."""

import numpy as np
import pytest
import torch

from gravmap.learning.data.outcrop_context import context_names
from gravmap.learning.training.checkpoint import ModelSpec, save_model
from gravmap.learning.training.export import export_run
from gravmap.network.outcrop_start import with_outcrop_start
from gravmap.network.registry import build_from_dict, describe


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
