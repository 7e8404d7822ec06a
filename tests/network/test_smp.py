"""Networks of segmentation-models-pytorch, where it is installed."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from gravmap.errors import OptionError
from gravmap.network import build
from gravmap.network.outcrop_start import with_outcrop_start
from gravmap.network.registry import build_from_dict, describe


@pytest.mark.peer
@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["smp:unet:resnet18", "smp:Segformer:mit_b0", "smp:pan:resnet18", "smp:fpn:tu-hrnet_w18_small"]
)
def test_any_size_and_the_same_network_from_its_record(name):
    pytest.importorskip("segmentation_models_pytorch")
    network = build(name, in_channels=2, classes=3).eval()
    again = build_from_dict(json.loads(json.dumps(network.architecture.to_dict())), 2, 3).eval()
    again.load_state_dict(network.state_dict())
    for shape in ((1, 1), (33, 47)):
        x = torch.randn(1, 2, *shape)
        assert network(x).shape == (1, 3, *shape)
        assert torch.equal(again(x), network(x))


@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smp:unett:resnet34", "Did you mean unet"),
        ("smp:unet:resnet43", "resnet34"),
        ("smp:unet:tu-hrnet_w33", "tu-hrnet_w32"),
    ],
)
def test_similar_names_are_suggested_for_an_unknown_one(name, message):
    pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(OptionError, match=message):
        build(name)


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(OptionError, match=r'pip install "gravmap\[peers\]"'):
        build("smp:unet:resnet18")


@pytest.mark.parametrize("name", ["smp:unet", "smp::resnet18", "smp:a:b:c"])
def test_a_name_needs_three_parts(name):
    with pytest.raises(OptionError, match="smp:ARCH:ENCODER"):
        build(name)


@pytest.mark.parametrize("record", [{"kind": "smp"}, {"kind": "smp", "arch": 1, "encoder": "x"}])
def test_an_invalid_record_is_refused(record):
    with pytest.raises(OptionError, match="arch and encoder"):
        build_from_dict(record, 1, 2)


@pytest.mark.peer
@pytest.mark.parametrize(
    "name",
    ["smp:unet:resnet18", "smp:segformer:mit_b0", "smp:deeplabv3plus:resnet18", "smp:dpt:tu-vit_tiny_patch16_224"],
)
def test_with_outcrop_start_the_untrained_network_gives_the_outcrop_scores(name):
    pytest.importorskip("segmentation_models_pytorch")
    network = build_from_dict(with_outcrop_start(describe(name), (2, 6)), 8, 4).eval()
    x = torch.randn(1, 8, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(x), torch.tensor(0.6) * x[:, 2:6])
