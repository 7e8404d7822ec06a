"""The U-Net, and building any network by name or from its record."""

from __future__ import annotations

import json

import pytest
import torch

from gravmap.errors import OptionError
from gravmap.network import build
from gravmap.network.cost import count_parameters
from gravmap.network.registry import MODELS, build_from_dict
from gravmap.network.unet import UNet, UNetArchitecture


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1), (7, 50), (16, 16), (33, 47)])
def test_unet_scores_any_size(shape):
    network = UNet(UNetArchitecture((4, 6, 8)), 2, 3).eval()
    scores = network(torch.randn(2, 2, *shape))
    assert scores.shape == (2, 3, *shape)
    assert torch.isfinite(scores).all()


def test_unet_learns_with_every_parameter():
    network = UNet(UNetArchitecture((4, 6, 8)), 1, 3).train()
    network(torch.randn(2, 1, 32, 32)).square().mean().backward()
    for name, parameter in network.named_parameters():
        if not name.endswith("0.bias"):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_a_crop_of_16_pixels_on_gives_the_same_interior():
    torch.manual_seed(0)
    network = UNet(UNetArchitecture((4, 6, 8)), 1, 3).eval()
    field = torch.randn(1, 1, 128, 128)
    whole, part = network(field)[..., 16:, 16:], network(field[..., 16:, 16:])
    torch.testing.assert_close(part[..., 40:-40, 40:-40], whole[..., 40:-40, 40:-40], rtol=1e-4, atol=1e-5)


def test_shipped_unet_has_about_two_million_parameters():
    with torch.device("meta"):
        assert 1.8e6 < count_parameters(build("unet")) < 2.2e6


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("unet", "ggmnet-tiny") else pytest.mark.slow) for name in MODELS]
)
def test_every_model_is_rebuilt_from_json_alone(name):
    with torch.device("meta"):
        network = build(name, in_channels=2, classes=7)
        record = json.loads(json.dumps(network.architecture.to_dict()))
        again = build_from_dict(record, 2, 7)
        assert network(torch.empty(2, 2, 100, 60)).shape == (2, 7, 100, 60)
    assert again.architecture == network.architecture
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_same_seed_same_weights():
    networks = []
    for _ in range(2):
        torch.manual_seed(11)
        networks.append(build("ggmnet-tiny").state_dict())
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_what_cannot_be_built_is_refused():
    with pytest.raises(
        OptionError, match="unet, hrnetv1-w32, bisenet-resnet18, deeplabv3plus-resnet50 and smp:ARCH:ENCODER"
    ):
        build("resnet")
    with pytest.raises(OptionError, match="Did you mean ggmnet-small"):
        build("ggmnet-smal")
    with pytest.raises(OptionError, match="0 input channels"):
        build("ggmnet-tiny", in_channels=0)
    with pytest.raises(OptionError, match="0 classes"):
        build("unet", classes=0)
    with pytest.raises(OptionError, match="Unknown kind of architecture"):
        build_from_dict({"kind": "transformer"}, 1, 10)
    with pytest.raises(OptionError, match="2 to 12 widths"):
        UNetArchitecture((3,))
    for record in ({"kind": "unet"}, {"kind": "unet", "widths": 3}, {"kind": "unet", "widths": [4, 8], "depth": 2}):
        with pytest.raises(OptionError, match="has the key widths"):
            build_from_dict(record, 1, 10)
