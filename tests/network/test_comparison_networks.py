"""HRNetV1, BiSeNet and DeepLabV3+: against timm, torchvision and the papers' own counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gravmap.errors import OptionError
from gravmap.network import build
from gravmap.network.bisenet import BiSeNet, BiSeNetArchitecture, ResNet18
from gravmap.network.cost import count_parameters
from gravmap.network.hrnet import HRNet, HRNetArchitecture
from gravmap.network.registry import build_from_dict

SMALL = {
    "hrnet": lambda: HRNet(HRNetArchitecture(width=4, modules=(1, 2, 2), blocks=1, stem=4), 2, 3),
    "bisenet": lambda: BiSeNet(BiSeNetArchitecture(width=4), 2, 3),
}


def take_over(ours: list[nn.Module], theirs: list[nn.Module]) -> None:
    """Copy weights and statistics from one list of modules to another, in the order in which they were made."""
    mine = [tensor for module in ours for tensor in module.state_dict().values()]
    others = [tensor for module in theirs for tensor in module.state_dict().values()]
    assert [tensor.shape for tensor in mine] == [tensor.shape for tensor in others]
    for tensor, other in zip(mine, others, strict=True):
        tensor.copy_(other)


def unsettle(network: nn.Module) -> nn.Module:
    """Give normalisation weights and statistics that show when one is put in the wrong place."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.3, 0.8)
            nn.init.normal_(layer.bias, 0, 0.1)
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return network.double().eval()


@torch.no_grad()
def test_hrnet_is_timm_s_on_its_finest_branch():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = unsettle(timm.create_model("hrnet_w32", pretrained=False))
    ours = HRNet(HRNetArchitecture(), 3, 1).double().eval()
    entry = [theirs.transition1[0], theirs.transition1[1], theirs.transition2[2], theirs.transition3[3]]
    take_over(
        [ours.stem, ours.first, ours.enter, ours.below, ours.stages[0], ours.stages[1]],
        [theirs.conv1, theirs.bn1, theirs.conv2, theirs.bn2, theirs.layer1, *entry, theirs.stage2, theirs.stage3],
    )
    # The last exchange of HRNetV1 gives its finest branch alone.
    take_over([*ours.stages[2][:2]], [*theirs.stage4[:2]])
    last, other = ours.stages[2][2], theirs.stage4[2]
    take_over([last.branches, last.paths], [other.branches, other.fuse_layers[0]])

    field = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    seen = []
    ours.classify.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ours(field)
    stem = theirs.act2(theirs.bn2(theirs.conv2(theirs.act1(theirs.bn1(theirs.conv1(field))))))
    expected = theirs.stages(stem)[0]
    assert expected.std() > 0.01
    torch.testing.assert_close(seen[0], expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_context_path_of_bisenet_is_torchvisions_resnet18():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    theirs = unsettle(resnet18(weights=None))
    ours = ResNet18(3, 64).double().eval()
    layers = [theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4]
    take_over([ours.stem, ours.stages], [theirs.conv1, theirs.bn1, *layers])
    x = field = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    for layer, found in zip(layers, ours(field), strict=True):
        x = layer(x)
        torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


def test_parameters_are_those_of_the_papers():
    with torch.device("meta"):
        # The table of HRNet's paper gives 28.5 M: colour images, 17 joints.
        assert round(count_parameters(build("hrnetv1-w32", in_channels=3, classes=17)) / 1e6, 1) == 28.5
        # 13.3 M is what the public re-implementations count; ResNet-18 without its classifier is 11.18 M of it.
        bisenet = build("bisenet-resnet18", in_channels=3, classes=19)
        assert round(count_parameters(bisenet) / 1e6, 1) == 13.3
        assert count_parameters(bisenet.context) == 11_176_512


def test_deeplab_is_the_library_s():
    pytest.importorskip("segmentation_models_pytorch")
    network = build("deeplabv3plus-resnet50", in_channels=3, classes=10)
    assert network.architecture.to_dict() == {"kind": "smp", "arch": "deeplabv3plus", "encoder": "resnet50"}
    # ResNet-50 without its classifier is 23,508,032.
    assert count_parameters(network.network.encoder) == 23_508_032
    assert 26e6 < count_parameters(network) < 27e6


@torch.no_grad()
@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("shape", [(1, 1), (7, 50), (64, 64), (33, 47)])
def test_any_size_is_scored(kind, shape):
    scores = SMALL[kind]().eval()(torch.randn(2, 2, *shape))
    assert scores.shape == (2, 3, *shape)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("kind", SMALL)
def test_every_parameter_learns(kind):
    torch.manual_seed(0)
    network = SMALL[kind]().train()
    network(torch.randn(2, 2, 64, 64)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_bisenet_refuses_one_image():
    with pytest.raises(OptionError, match="batch size to 2 or more"):
        SMALL["bisenet"]().train()(torch.randn(1, 2, 64, 64))


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "hrnet", "width": 0, "modules": [1, 1, 1], "blocks": 1, "stem": 4},
        {"kind": "hrnet", "width": 4, "modules": [1, 1], "blocks": 1, "stem": 4},
        {"kind": "hrnet", "width": 4, "modules": 3, "blocks": 1, "stem": 4},
        {"kind": "hrnet", "width": 4, "modules": [1, 1, 1], "blocks": 1},
        {"kind": "bisenet"},
        {"kind": "bisenet", "width": "wide"},
        {"kind": "bisenet", "width": 4, "depth": 2},
    ],
)
def test_invalid_records_are_refused(record):
    with pytest.raises(OptionError, match=r"HRNet|BiSeNet"):
        build_from_dict(record, 1, 10)
