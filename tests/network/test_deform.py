"""The deformable convolution against torchvision, torch's own convolution and finite differences."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from gravmap.errors import OptionError
from gravmap.network.deform import (
    DeformConv3x3,
    _channel_groups,
    backend,
    deform_conv3x3,
    save_memory,
    torchvision_available,
)


def draw(batch, c_in, c_out, height, width, spread=1.5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    x, weight = normal(batch, c_in, height, width), normal(c_out, c_in, 3, 3)
    offset = (spread * torch.randn((batch, 18, height, width), generator=generator, dtype=dtype)).requires_grad_()
    return x, offset, weight


# Both orders of work (fewer channels out, fewer in), channel groups on and off, offsets far outside, one pixel.
@pytest.mark.parametrize(
    ("batch", "c_in", "c_out", "height", "width", "spread"),
    [
        (2, 6, 4, 9, 12, 1.5),
        (2, 3, 8, 9, 12, 1.5),
        (1, 40, 32, 16, 11, 0.3),
        (1, 16, 40, 8, 8, 4.0),
        (5, 2, 2, 7, 5, 10.0),
        (1, 2, 2, 1, 1, 0.7),
        (1, 3, 2, 1, 6, 0.7),
    ],
)
def test_agrees_with_torchvision_in_double_precision(batch, c_in, c_out, height, width, spread):
    torchvision_ops = pytest.importorskip("torchvision.ops")
    inputs = draw(batch, c_in, c_out, height, width, spread)
    ours = deform_conv3x3(*inputs)
    theirs = torchvision_ops.deform_conv2d(*inputs, padding=1)
    assert (ours - theirs).abs().max() < 1e-10

    direction = torch.randn_like(ours)
    for mine, their in zip(
        torch.autograd.grad(ours, inputs, direction), torch.autograd.grad(theirs, inputs, direction), strict=True
    ):
        assert (mine - their).abs().max() < 1e-8


def test_gradients_agree_with_finite_differences_twice():
    inputs = draw(1, 2, 1, 3, 2)
    assert torch.autograd.gradcheck(deform_conv3x3, inputs)
    assert torch.autograd.gradgradcheck(deform_conv3x3, inputs, fast_mode=True)


@pytest.mark.parametrize(("c_in", "c_out"), [(5, 3), (3, 5)])
def test_without_offsets_it_is_a_convolution(c_in, c_out):
    x, offset, weight = draw(2, c_in, c_out, 10, 7)
    got = deform_conv3x3(x, torch.zeros_like(offset), weight)
    assert (got - functional.conv2d(x, weight, padding=1)).abs().max() < 1e-10


@pytest.mark.parametrize(("dy", "dx"), [(1, 0), (0, -2), (-3, 4)])
def test_one_whole_pixel_offset_everywhere_is_the_convolution_of_the_shifted_map(dy, dx):
    x, offset, weight = draw(1, 3, 2, 12, 13)
    offset = torch.zeros_like(offset)
    offset[:, 0::2], offset[:, 1::2] = dy, dx
    # What a map looks like when read dy rows down and dx columns to the right, zeros beyond its edge.
    wide = functional.pad(x, (6, 6, 6, 6))
    shifted = wide[:, :, 5 + dy : 5 + dy + 14, 5 + dx : 5 + dx + 15]
    assert (deform_conv3x3(x, offset, weight) - functional.conv2d(shifted, weight)).abs().max() < 1e-10


def test_each_tap_follows_its_own_offset():
    x, offset, _ = draw(1, 1, 1, 9, 9)
    for tap in range(9):
        weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
        weight[0, 0, tap // 3, tap % 3] = 1
        offset = torch.zeros_like(offset)
        offset[:, 2 * tap], offset[:, 2 * tap + 1] = 2, -1  # only this tap looks two rows down, one column left
        got = deform_conv3x3(x, offset, weight)[0, 0, 4, 4].item()
        assert got == pytest.approx(x[0, 0, 4 + tap // 3 - 1 + 2, 4 + tap % 3 - 1 - 1].item())


def test_half_pixel_offset_is_the_mean_of_two_pixels():
    x, offset, _ = draw(1, 1, 1, 6, 6)
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1, 1] = 1
    offset = torch.zeros_like(offset)
    offset[:, 9] = 0.5  # dx of the middle tap
    got = deform_conv3x3(x, offset, weight)
    assert (got[..., :-1] - (x[..., :-1] + x[..., 1:]) / 2).abs().max() < 1e-12
    assert (got[..., -1] - x[..., -1] / 2).abs().max() < 1e-12  # half of the last column's neighbour is zero


def test_the_layer_starts_as_an_ordinary_convolution_and_learns_its_offsets():
    layer = DeformConv3x3(4, 3)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(layer(x), functional.conv2d(x, layer.weight, padding=1), rtol=1e-4, atol=1e-4)
    layer(x).square().sum().backward()
    assert layer.offset.weight.grad.abs().max() > 0
    assert layer.offset.bias.grad.abs().max() > 0


def test_the_torchvision_path_gives_the_same_layer():
    if not torchvision_available("cpu"):
        pytest.skip("no torchvision")
    ours = DeformConv3x3(4, 3, impl="native")
    torch.nn.init.normal_(ours.offset.weight, std=0.1)
    theirs = DeformConv3x3(4, 3, impl="torchvision", images_per_call=2)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 4, 8, 9)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):  # torchvision alone refuses this
        got = theirs(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), ours(x), rtol=0.1, atol=0.1)


def test_memory_is_saved_without_gradients_alone(monkeypatch):
    """On a GPU: here a tensor that says it is on one, and torchvision's kernel replaced."""
    called = []
    monkeypatch.setattr("gravmap.network.deform._by_torchvision", lambda *arguments: called.append(0))
    monkeypatch.setattr("torch.Tensor.is_cuda", True)
    layer = DeformConv3x3(4, 3)
    x = torch.randn(1, 4, 8, 8)
    assert not save_memory(layer)  # torchvision is not used
    layer.torchvision_on_cuda = True
    with torch.inference_mode():
        layer(x)
        assert save_memory(layer)
        assert not save_memory(layer)
        assert layer(x).shape == (1, 3, 8, 8)
    assert len(called) == 1
    layer(x)
    assert len(called) == 2


@pytest.mark.parametrize(("c_in", "c_out"), [(8, 4), (4, 8)])
def test_bf16_autocast_keeps_coordinates_exact(c_in, c_out):
    # 1000 columns: a bfloat16 coordinate would be off by pixels there. One offset channel is a big known shift.
    layer = DeformConv3x3(c_in, c_out)
    x = torch.randn(1, c_in, 3, 1000)
    with torch.no_grad():
        layer.offset.bias[1::2] = -300.5
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(x)
        rough.float().square().mean().backward()
    assert rough.dtype == torch.bfloat16
    # bfloat16 holds -300.5 as -300: undo that, so that only the coordinates' own precision is left to see.
    with torch.no_grad():
        layer.offset.bias[1::2] = torch.tensor(-300.5).bfloat16().float()
        exact = layer(x)
    assert (rough.float() - exact).abs().max() < 0.03 * exact.abs().max()
    assert layer.weight.grad.dtype == torch.float32
    assert torch.isfinite(layer.weight.grad).all()


def test_a_bfloat16_layer_runs_as_a_whole():
    layer = DeformConv3x3(4, 3).bfloat16()
    assert layer(torch.randn(2, 4, 8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_channel_groups_depend_on_the_shape_and_divide_it():
    assert _channel_groups(1, 48) == 4
    assert _channel_groups(1, 8) == 1
    assert _channel_groups(4, 48) == 1
    for batch in range(1, 6):
        for channels in range(1, 70):
            groups = _channel_groups(batch, channels)
            assert channels % groups == 0
            assert groups == 1 or channels // groups >= 8


def test_unknown_implementation_is_an_option_error():
    with pytest.raises(OptionError, match="auto, native or torchvision"):
        DeformConv3x3(1, 1, impl="magic")


@pytest.mark.slow
def test_torchvision_is_imported_only_where_it_is_used():
    code = """
import sys
from gravmap.network import build
import torch
build("ggmnet-tiny")(torch.zeros(2, 1, 64, 64)).sum().backward()
raise SystemExit("torchvision" in sys.modules and not torch.cuda.is_available())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert backend("cpu") == "native"


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_in_one_graph_and_again_at_another_size(dynamic):
    torch._dynamo.reset()
    layer = DeformConv3x3(6, 4)
    torch.nn.init.normal_(layer.offset.weight, std=0.1)
    plain = copy.deepcopy(layer)
    compiled = torch.compile(layer, fullgraph=True, dynamic=dynamic)
    for height, width in ((16, 24), (32, 40)):
        x = torch.randn(2, 6, height, width)
        for network in (layer, plain):
            network.zero_grad()
        got, expected = compiled(x), plain(x)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        got.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled(x).dtype == torch.bfloat16


@pytest.mark.gpu
@pytest.mark.parametrize("impl", ["auto", "native"])
def test_cuda_gives_what_the_cpu_gives(impl):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    reference = DeformConv3x3(40, 16, impl="native")
    torch.nn.init.normal_(reference.offset.weight, std=0.05)
    layer = DeformConv3x3(40, 16, impl=impl).cuda()
    layer.load_state_dict(reference.state_dict())
    x = torch.randn(3, 40, 64, 48)
    with torch.backends.cudnn.flags(allow_tf32=False):
        got = layer(x.cuda())
    torch.testing.assert_close(got.cpu(), reference(x), rtol=1e-3, atol=1e-3)
    got.square().mean().backward()
    reference(x).square().mean().backward()
    torch.testing.assert_close(layer.weight.grad.cpu(), reference.weight.grad, rtol=1e-2, atol=1e-4)
    with torch.autocast("cuda", torch.bfloat16):
        rough = layer(x.cuda())
        rough.float().square().mean().backward()
    assert rough.dtype == torch.bfloat16
    assert (rough.cpu().float() - reference(x)).abs().max() < 0.1 * reference(x).abs().max()
