"""The residual U-Net on pooled cells."""

import pytest
import torch

from gravmap.errors import OptionError
from gravmap.network import build
from gravmap.network.cost import count_parameters
from gravmap.network.registry import build_from_dict, describe
from gravmap.network.residual_unet import Attention, ResidualUNet, ResidualUNetArchitecture

SMALL = ResidualUNetArchitecture((4, 8), (1, 1), (2, 3))


def network(architecture=SMALL, channels=2, classes=3):
    torch.manual_seed(0)
    return ResidualUNet(architecture, channels, classes)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1), (5, 50), (12, 12), (33, 47)])
def test_it_scores_any_size(shape):
    scores = network().eval()(torch.randn(2, 2, *shape))
    assert scores.shape == (2, 3, *shape)
    assert torch.isfinite(scores).all()


def test_every_parameter_has_a_gradient_once_the_attention_is_not_zero():
    made = network().train()
    optimiser = torch.optim.SGD(made.parameters(), 0.1)
    for _ in range(2):
        optimiser.zero_grad()
        made(torch.randn(2, 2, 24, 24)).square().mean().backward()
        optimiser.step()
    silent = {name for name, each in made.named_parameters() if each.grad is None or not each.grad.abs().max() > 0}
    assert silent == set()


@torch.no_grad()
def test_it_reads_the_mean_of_two_by_three_cells_and_nothing_finer():
    made, x = network().eval(), torch.randn(1, 2, 24, 24)
    # Cells of one pixel change places: row 0 with row 1, and columns of each three go around.
    moved = x.unflatten(-2, (12, 2)).flip(-2).flatten(-3, -2).unflatten(-1, (8, 3)).roll(1, -1).flatten(-2)
    assert not torch.equal(moved, x)
    torch.testing.assert_close(made(moved), made(x), rtol=1e-4, atol=1e-5)
    across = x.roll(1, -1)  # over the border of pixels it matters
    assert (made(across) - made(x)).abs().max() > 1e-3


@torch.no_grad()
def test_every_pixel_depends_on_every_other():
    made = network().eval()
    for layer in made.modules():
        if isinstance(layer, Attention):
            torch.nn.init.normal_(layer.tell.weight)
    x = torch.randn(1, 2, 96, 96)
    far = x.clone()
    far[..., :6, :6] += 5
    assert (made(far) - made(x))[..., -6:, -6:].abs().max() > 1e-5


def test_the_shipped_one_is_below_two_million_parameters():
    with torch.device("meta"):
        assert 1.5e6 < count_parameters(build("residual-unet", in_channels=17)) < 2e6


@pytest.mark.parametrize(
    "record",
    [
        {"widths": [4], "blocks": [1], "pool": [2, 3]},
        {"widths": [4, 8], "blocks": [1], "pool": [2, 3]},
        {"widths": [4, 8], "blocks": [1, 1], "pool": [2]},
        {"widths": [4, 8], "blocks": [1, 0], "pool": [2, 3]},
        {"widths": [4, 6], "blocks": [1, 1], "pool": [2, 3]},
        {"widths": [4, 8], "blocks": [1, 1], "pool": 2},
        {"widths": [4, 8], "blocks": [1, 1]},
        {"widths": [4, 8], "blocks": [1, 1], "pool": [2, 3], "depth": [1]},
    ],
)
def test_an_inconsistent_record_is_refused(record):
    with pytest.raises(OptionError, match="residual U-Net"):
        build_from_dict({"kind": "residual-unet", **record}, 2, 3)


def test_the_record_holds_the_architecture():
    assert describe("residual-unet") == {
        "kind": "residual-unet",
        "widths": [32, 64, 96, 120],
        "blocks": [1, 1, 2, 2],
        "pool": [2, 3],
    }
