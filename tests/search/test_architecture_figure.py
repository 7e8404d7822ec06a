"""Figure and cost table of an architecture."""

from __future__ import annotations

from collections import Counter

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from scipy import ndimage

from gravmap.network.architecture import Architecture
from gravmap.network.cost import as_markdown, cost_by_part, count_macs, count_parameters
from gravmap.network.ggmnet import GGMNet
from gravmap.search.figures import COLOURS, draw_architecture

# Branch 1 shares cell 0 with branch 0, branch 2 cells 0 and 1 with branch 1: 4 + 3 + 2 cells.
MADE = Architecture(
    4,
    ((), (1,), (1, 2)),
    (
        ("conv", "zoom", "conv2", "conv"),
        ("conv", "zoom2", "zoom", "skip"),
        ("conv", "zoom2", "conv2", "zoom"),
    ),
    ((2, 4, 8, 2), (2, 4, 6, 6), (2, 4, 2, 8)),
    encoder=(4, 6, 16),
    head=(8, 8, 8),
    arm_norm="none",
)


def blocks(picture, colour):
    """Patches of one colour: how many pixels each has, largest first; specks between letters left out."""
    same = (np.abs(picture - np.array(to_rgb(colour))) < 1.5 / 255).all(-1)
    names, _ = ndimage.label(same)
    return sorted((size for size in np.bincount(names.ravel())[1:] if size > 100), reverse=True)


def test_every_cell_is_drawn_once_in_its_operators_colour(tmp_path):
    draw_architecture(MADE, tmp_path / "made.png", size=64, classes=3)
    picture = imread(tmp_path / "made.png")[..., :3]
    in_legend = 1
    expected = Counter(conv=2, zoom=3, conv2=2, zoom2=1)  # worked out by hand
    for operator, count in expected.items():
        assert len(blocks(picture, COLOURS[operator])) == count + in_legend
    # conv2 is drawn at ratio 8 and at 2: block heights of four to one, but for outlines.
    tall, low, _ = blocks(picture, COLOURS["conv2"])
    assert 3 < tall / low < 5.5


def test_the_table_adds_up_to_the_network():
    rows = cost_by_part(MADE, in_channels=2, classes=3, size=64)
    network = GGMNet(MADE, 2, 3)
    whole = rows[-1]
    assert (whole.parameters, whole.macs) == (count_parameters(network), count_macs(network, 2, 64))
    assert [row.cells for row in rows if row.cells] == [4, 3, 2, 9]
    assert whole.parameters == sum(row.parameters for row in rows[:-1])
    assert whole.macs == sum(row.macs for row in rows[:-1])
    # By hand: three 3 x 3 convolutions at a half, a quarter and an eighth of 64, each with a scale and an offset.
    encoder = rows[0]
    assert encoder.parameters == 9 * (2 * 4 + 4 * 6 + 6 * 16) + 2 * (4 + 6 + 16)
    assert encoder.macs == 9 * (2 * 4 * 32**2 + 4 * 6 * 16**2 + 6 * 16 * 8**2)
    # The third branch's own cells: conv2 from 64 to 64 channels, to 1/32 (2 x 2), and zoom to 256 (at 1 x 1).
    own = rows[3]
    assert own.part == "branch to 1/32, from cell 2 on"
    assert own.parameters == 9 * 64 * 64 * 2 + 9 * 64 * 256 + 2 * (64 + 64 + 256)
    assert own.macs == 9 * 64 * 64 * 4 * 2 + 9 * 64 * 256
    lines = as_markdown(rows).splitlines()
    assert lines[-1] == f"| all | 9 | {whole.parameters / 1e6:.3f} M | {whole.macs / 1e9:.2f} |"
    assert len({line.count("|") for line in lines}) == 1
