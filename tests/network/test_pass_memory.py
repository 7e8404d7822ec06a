"""Memory of a forward pass, counted without making it, against sums done by hand."""

import importlib
from pathlib import Path

import torch
from torch import nn

from gravmap.network import build
from gravmap.network.cost import peak_bytes
from gravmap.network.deform import DeformConv3x3

PLANE = 64 * 64 * 4  # bytes of one channel


def test_live_memory_is_counted():
    network = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    weights = 4 * (8 * 2 * 9 + 8 + 4 * 8 + 4)
    # While the ReLU works its input, its output and the network's input are there; after it less.
    assert peak_bytes(network, 2, 64) == weights + (2 + 8 + 8) * PLANE
    assert peak_bytes(network, 2, 64, batch=3) == weights + 3 * (2 + 8 + 8) * PLANE
    wide_at_the_end = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 30, 1))
    assert peak_bytes(wide_at_the_end, 2, 64) == 4 * (2 * 3 + 3 + 3 * 30 + 30) + (2 + 3 + 30) * PLANE
    # What is changed in place is not there twice.
    in_place = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(inplace=True))
    assert peak_bytes(in_place, 2, 64) == 4 * (8 * 2 * 9 + 8) + (2 + 8) * PLANE


def test_bfloat16_halves_the_activations():
    network = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    weights = 4 * (8 * 2 * 9 + 8 + 4 * 8 + 4)
    assert peak_bytes(network, 2, 64, precision="bfloat16") == weights + (2 + 8 + 8) * PLANE // 2


def test_torchvision_unrolls_the_input_of_a_deformable_convolution():
    layer = DeformConv3x3(8, 4)
    weights = 4 * (18 * 8 * 9 + 18 + 4 * 8 * 9)
    # Image by image: all inputs and offsets, the outputs so far, and nine values per value of one input; beside them a
    # bias of four zeros and an empty mask.
    expected = weights + (2 * (8 + 18 + 4) + 9 * 8) * PLANE + 4 * (4 + 1)
    assert peak_bytes(layer, 8, 64, batch=2, deformable="torchvision") == expected
    # At 2048 pixels it is most of what a window of GGMNet needs.
    with torch.device("meta"):
        network = build("ggmnet", in_channels=1, classes=10)
    native, unrolled = (peak_bytes(network, 1, 512, deformable=each) for each in ("native", "torchvision"))
    assert unrolled > 2 * native


def test_a_training_step_keeps_activations_gradients_and_moments():
    network = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    passing = peak_bytes(network, 2, 64)
    training = peak_bytes(network, 2, 64, loss=lambda logits: logits.square().mean())
    # Kept for the backward pass: the input, the inputs of the normalisation, the ReLU and the last convolution.
    weights = 4 * sum(each.numel() for each in network.parameters())
    assert training > passing + 3 * weights + 8 * PLANE
    assert all(each.grad is None for each in network.parameters())


def test_memory_grows_with_the_area_and_the_network_stays_as_it_was():
    network = build("ggmnet-tiny", in_channels=1, classes=10).train()
    small, large = peak_bytes(network, 1, 128), peak_bytes(network, 1, 256)
    assert 3 < large / small < 4.5
    assert network.training
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())


def test_the_table_of_the_benchmark(monkeypatch, capsys):
    """Crops that fit: more on larger cards and of smaller crops."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    importlib.import_module("training").print_memory(["unet"])
    heads, _, *rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in rows] == ["float32", "bfloat16"]
    for row in rows:
        assert len(row) == len(heads)
        small, large = ([int(each) for each in row[place].split(" / ")] for place in (4, 7))
        assert small == sorted(small)
        assert all(one > 3 * other for one, other in zip(small, large, strict=True))
        assert float(row[2]) >= float(row[3]) > 0
