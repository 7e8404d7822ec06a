import pytest
import torch
from torch import nn

from gravmap.network import build
from gravmap.network.outcrop_start import AllOutputs
from gravmap.network.registry import build_from_dict
from gravmap.network.window_pass import WHOLE_FROM_PX, crop_starts, window_logits


class Width(nn.Module):
    """Returns the width of what it is given, and counts its calls."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return torch.full_like(x, x.shape[-1])


def test_a_small_window_passes_as_crops_of_the_size_of_training():
    network = Width()
    assert torch.equal(window_logits(network, torch.zeros(3, 1, 128, 128)), torch.full((3, 1, 128, 128), 64.0))
    assert torch.equal(window_logits(network, torch.zeros(1, 2, 65, 65)), torch.full((1, 2, 65, 65), 32.0))
    assert network.calls == 2
    large = torch.zeros(2, 1, WHOLE_FROM_PX, WHOLE_FROM_PX)
    assert torch.equal(window_logits(network, large), torch.full_like(large, WHOLE_FROM_PX))


@pytest.mark.parametrize("size", [32, 65, 128])
def test_a_network_without_neighbourhood_gives_the_same_in_crops(size):
    torch.manual_seed(0)
    network, windows = nn.Conv2d(2, 3, 1), torch.randn(2, 2, size, size)
    assert torch.allclose(window_logits(network, windows), network(windows), atol=1e-5)


def test_crops_meet_without_a_seam():
    # Far from the padding of a crop its logits are those of the whole window: the weights hide the rest.
    torch.manual_seed(0)
    network, windows = nn.Conv2d(1, 1, 5, padding=2), torch.randn(1, 1, 128, 128)
    whole, parts = network(windows), window_logits(network, windows)
    off = (whole - parts).abs()[..., 2:-2, 2:-2]
    assert off.max() < 0.02 * whole.std()


def test_windows_do_not_depend_on_those_beside_them_and_have_gradients():
    torch.manual_seed(0)
    network = build("ggmnet-tiny", in_channels=1, classes=3).eval()
    windows = torch.randn(2, 1, 64, 64, requires_grad=True)
    both = window_logits(network, windows)
    assert torch.allclose(both[:1], window_logits(network, windows[:1]), atol=1e-5)
    (gradient,) = torch.autograd.grad(both[1].sum(), windows)
    assert not gradient[0].any()
    assert (gradient[1] != 0).all()
    with torch.inference_mode():
        assert torch.allclose(window_logits(network, windows), both, atol=1e-5)


def test_what_starts_from_the_outcrop_sees_whole_windows():
    body = {"kind": "unet", "widths": [4, 8]}
    start = {"kind": "outcrop-start", "body": body, "planes": [1, 3]}
    network = build_from_dict(start, in_channels=3, classes=2).eval()
    windows = torch.randn(1, 3, 64, 64)
    assert torch.equal(window_logits(network, windows), network(windows))
    assert crop_starts(AllOutputs(network), 64) == []
    assert crop_starts(build_from_dict(body, in_channels=3, classes=2), 64) == [0, 16, 32]
