"""One palette, and the decoration of every map."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from gravmap.plotting import decorate_map, graticule, legend_patches, map_aspect, round_step

PACKAGE = Path(__file__).resolve().parents[1] / "gravmap"
HEX = re.compile(r"#[0-9a-fA-F]{6}")


def colours_in(source):
    return [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and HEX.fullmatch(node.value)
    ]


def test_every_colour_of_the_code_is_in_the_palette():
    assert colours_in("x = {'a': '#AABBCC'}") == ["#AABBCC"]
    found = {path: colours_in(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    assert [path.name for path, colours in found.items() if colours] == ["plotting.py"]


def test_a_map_has_true_proportions_whole_degrees_and_a_scale_bar_of_a_round_length():
    axes = Figure().add_subplot()
    bounds = (80.0, 59.0, 86.0, 61.0)
    decorate_map(axes, bounds, 6.0)
    assert axes.get_aspect() == pytest.approx(2.0, rel=1e-3)  # 1 / cos 60°
    assert map_aspect(bounds) == pytest.approx(2 / 3, rel=1e-3)
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"{lon}°E" for lon in range(80, 87)]
    (words,) = [text.get_text() for text in axes.texts]
    bar = [patch.get_width() for patch in axes.patches]
    assert words == "50 km"
    assert sum(bar) * 111.195 * np.cos(np.radians(60)) == pytest.approx(50)


def test_lines_of_a_graticule_include_both_edges_whatever_floats_do():
    assert graticule(0.1 + 0.2, 0.9, 0.3) == pytest.approx([0.3, 0.6, 0.9])


def test_legend_entries_have_their_class_s_colour():
    (patch,) = legend_patches([("Devonian", "#CB8C37")])
    assert patch.get_label() == "Devonian"
    assert patch.get_facecolor() == pytest.approx((0xCB / 255, 0x8C / 255, 0x37 / 255, 1))


@pytest.mark.parametrize(("target", "step"), [(1.1, 1), (1.8, 2), (170, 200), (70, 50), (0.9, 1), (0.04, 0.05)])
def test_steps_are_round(target, step):
    assert round_step(target) == pytest.approx(step)
