"""The operators' shapes, sizes and meaning."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from gravmap.errors import OptionError
from gravmap.network.operators import OPERATORS, Cell, FactorisedReduce, Zoom, make_operator, upsample


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(("c_in", "c_out"), [(6, 6), (6, 9), (9, 4)])
@pytest.mark.parametrize("stride", [1, 2])
def test_shape_and_gradient(name, c_in, c_out, stride):
    x = torch.randn(2, c_in, 12, 20, requires_grad=True)
    layer = make_operator(name, c_in, c_out, stride)
    y = layer(x)
    assert y.shape == (2, c_out, 12 // stride, 20 // stride)
    y.square().sum().backward()
    assert x.grad.abs().max() > 0
    for parameter in layer.parameters():
        assert parameter.grad is not None


@pytest.mark.parametrize(("name", "convolutions"), [("skip", 0), ("conv", 1), ("conv2", 2), ("zoom", 1), ("zoom2", 2)])
def test_parameters_at_stride_one(name, convolutions):
    count = sum(p.numel() for p in make_operator(name, 8, 8, 1).parameters())
    assert count == convolutions * (8 * 8 * 9 + 2 * 8)  # a 3x3 convolution without bias, and its normalisation


def test_skip_of_equal_width_is_nothing_at_all():
    assert isinstance(make_operator("skip", 8, 8, 1), nn.Identity)
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(Cell("skip", 8, 8, 1, residual=True)(x), x)


def test_factorised_reduce_sees_every_pixel_on_the_diagonal_and_no_other():
    layer = FactorisedReduce(1, 2).eval()
    nn.init.ones_(layer.even.weight)
    nn.init.ones_(layer.odd.weight)
    for row in range(2):
        for column in range(2):
            x = torch.zeros(1, 1, 4, 4)
            x[0, 0, row, column] = 1
            seen = layer(x)[0, :, 0, 0] > 0.5  # by the even and the odd convolution
            assert seen.tolist() == [(row, column) == (0, 0), (row, column) == (1, 1)]


def test_zoom_works_at_half_size_and_ends_with_relu():
    layer = Zoom(3, 5, 1, convolutions=1).eval()
    x = torch.randn(1, 3, 8, 8)
    half = functional.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
    expected = functional.interpolate(layer.body(half), size=(8, 8), mode="bilinear", align_corners=False).relu()
    torch.testing.assert_close(layer(x), expected)


def test_upsampling_keeps_the_middle_of_the_map_in_place():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    # Pixel i of the large map lies at (i + 1/2) / 2 - 1/2 of the small one.
    expected = ((torch.arange(16) + 0.5) / 2 - 0.5).clamp(0, 7)
    torch.testing.assert_close(upsample(ramp, 2)[0, 0, 0], expected)


def test_a_cell_adds_its_input_only_where_its_size_stays():
    x = torch.randn(1, 4, 8, 8)
    for name in ("conv", "conv2", "zoom", "zoom2"):
        cell = Cell(name, 4, 4, 1, residual=True).eval()
        torch.testing.assert_close(cell(x), cell.operator(x) + x)
        plain = Cell(name, 4, 4, 1, residual=False).eval()
        torch.testing.assert_close(plain(x), plain.operator(x))
    assert not Cell("conv", 4, 4, 2, residual=True).residual


@pytest.mark.parametrize(("c_in", "c_out"), [(4, 6), (6, 4)])
def test_the_residual_connection_adds_the_channels_that_both_have(c_in, c_out):
    torch.manual_seed(2)
    cell = Cell("conv2", c_in, c_out, 1, residual=True).eval()
    x = torch.randn(2, c_in, 8, 8)
    added = cell(x) - cell.operator(x)
    torch.testing.assert_close(added[:, :4], x[:, :4])
    assert not added[:, 4:].any()


def test_unknown_operator():
    with pytest.raises(OptionError, match="Unknown operator 'warp'"):
        make_operator("warp", 1, 1, 1)
