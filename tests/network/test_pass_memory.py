"""Memory of a forward pass, counted without making it, against sums done by hand."""

from torch import nn

from gravmap.network import build
from gravmap.network.cost import peak_bytes

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


def test_memory_grows_with_the_area_and_the_network_stays_as_it_was():
    network = build("ggmnet-tiny", in_channels=1, classes=10).train()
    small, large = peak_bytes(network, 1, 128), peak_bytes(network, 1, 256)
    assert 3 < large / small < 4.5
    assert network.training
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())
