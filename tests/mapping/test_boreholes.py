"""Boreholes laid on the nodes of an area, and an account of those that cannot be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gravmap.errors import InputError
from gravmap.geology import load_legend
from gravmap.geology.points import Points
from gravmap.learning.data.dataset import RegionDataset
from gravmap.mapping.scoring.boreholes import depth_points, describe_depths_left_out, describe_left_out, lay_points
from toys.dataset import make_arrays

FILE = Path("wells.csv")


@pytest.fixture
def area():
    return RegionDataset.from_arrays(make_arrays())


def points(*rows, unplaced=0):
    lon, lat, values = zip(*rows, strict=True)
    return Points(FILE, "lith", np.array(lon, float), np.array(lat, float), list(values), "EPSG:4326", unplaced)


def test_the_nearest_node_and_the_class_by_name_or_index(area):
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(80, 84, 60), rng.uniform(42, 46, 60)
    words = ["HIGH", "low", "1", "2", " Low"]
    stated = [words[number % 5].strip() for number in range(60)]
    found = lay_points(points(*zip(lon, lat, stated, strict=True)), area)
    # By brute force: the node with the least difference in longitude and in latitude.
    assert (found.column == np.abs(area.node_lon[None] - lon[:, None]).argmin(axis=1)).all()
    assert (found.row == np.abs(area.node_lat[None] - lat[:, None]).argmin(axis=1)).all()
    assert found.label.tolist() == [{"HIGH": 1, "1": 1}.get(word, 2) for word in stated]
    assert describe_left_out(found.account()) == ""


def test_half_a_cell_beyond_the_outermost_nodes_is_the_end(area):
    inside = [(79.951, 44, "low"), (84.049, 44, "low"), (82, 41.951, "low"), (82, 46.049, "low")]
    outside = [(79.949, 44, "low"), (84.051, 44, "low"), (82, 41.949, "low"), (82, 46.051, "low")]
    found = lay_points(points(*inside, *outside), area)
    assert len(found.label) == 4
    assert found.outside == 4
    assert found.column.tolist()[:2] == [0, 40]
    assert found.row.tolist()[2:] == [40, 0]


@pytest.mark.parametrize("turn", [-360, 360])
def test_longitudes_may_be_counted_in_another_turn(area, turn):
    found = lay_points(points((80.1 + turn, 44, "low"), (90 + turn, 44, "low")), area)
    assert (found.column.tolist(), found.outside) == ([1], 1)


def test_the_account_adds_up(area):
    valid = area.field_valid.copy()
    valid[area.node_lat > 45] = False
    rows = [(82, 44, "low"), (82, 45.5, "low"), (99, 44, "low"), (99, 44, "basalt"), (82, 44, "basalt")]
    rows += [(82, 44, "basalt"), (83, 43, ""), (82, 44, "0"), (83, 44, "Loess"), (82, 45.5, "gneiss")]
    area.meta["legend_toml"] = "".join(
        f'[[class]]\nindex = {index}\nname = "{name}"\ncolour = "#C0C0C0"\n'
        for index, name in enumerate(("loess", "high"))
    )
    account = lay_points(points(*rows, unplaced=3), replace(area, field_valid=valid)).account()
    assert account == {
        "read": 13,
        "scored": 1,
        "outside": 2,
        "unplaced": 3,
        "without_gravity": 1,
        "in_cover": 2,
        "unnamed": 1,
        "unusable": 0,
        "unknown_class": {"basalt": 2, "gneiss": 1},
    }
    unknown = sum(account["unknown_class"].values())
    assert sum(value for key, value in account.items() if key not in ("read", "unknown_class")) + unknown == 13
    assert describe_left_out(account) == (
        "2 outside the area; 3 without a position; 1 where gravity is not known; 2 that ended in cover; "
        "1 without a class; 3 with a class that the legend does not have (basalt, gneiss)"
    )


ICS = """
[[class]]
index = 0
name = "cover"
age_ma = [251.902, 0]
colour = "#F2F91D"
[[class]]
index = 1
name = "high"
age_ma = [298.9, 251.902]
colour = "#FF511B"
[[class]]
index = 2
name = "low"
age_ma = [419.2, 298.9]
colour = "#CB8C37"
[[source]]
file = "map.gpkg"
legend = "mine"
field = "UNIT"
[source.codes]
P1 = 1
D3 = 2
J = 0
Pz = 255
"""


def laid(area, *values, legend=None):
    area.meta["legend_toml"] = ICS
    return lay_points(replace(points(*((82, 44, value) for value in values)), legend=legend), area)


@pytest.mark.parametrize(
    ("values", "labels", "reading"),
    [
        (("high", "Low", "COVER"), [1, 2], "class names"),
        (("1", "2", "0"), [1, 2], "class indices"),
        (("high", "2"), [1, 2], "class names and indices"),
        (("P1", "D3", "J", "Pz"), [1, 2], "codes of the legend mine"),
        (("Permian", "Late Devonian", "Jurassic", "Paleozoic"), [1, 2], "ages"),
        (("260 Ma", "372 Ma", "20 Ma", "600 Ma"), [1, 2], "ages"),
        (("260", "372.5", "20", "600"), [1, 2], "ages"),  # no class has these indices
    ],
)
def test_the_class_is_a_name_an_index_a_code_of_the_map_or_an_age(area, values, labels, reading):
    found = laid(area, *values, "")
    assert found.label.tolist() == labels
    assert found.reading == reading
    assert (found.in_cover, found.unnamed, found.unusable) == (len(values) > 2, 1, len(values) > 3)
    assert found.unknown == {}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("high", "low", "D3"), r"mixes class names \(high, low\) with codes of the legend mine \(D3\)"),
        (("Permian", "Late Devonian", "P1"), r"mixes ages \(Late Devonian, Permian\) with codes"),
        (("1", "2", "260 Ma"), r"mixes class indices \(1, 2\) with ages \(260 Ma\)"),
    ],
)
def test_a_mixture_is_refused(area, values, words):
    with pytest.raises(InputError, match=words):
        laid(area, *values)


def test_numbers_are_indices_where_one_is(area):
    found = laid(area, "1", "2", "260")
    assert (found.reading, found.unknown) == ("class indices", {"260": 1})


def test_a_named_legend_reads_the_codes(area):
    found = laid(area, "D", "P", "Q", "high", legend=load_legend("geo3al"))
    assert found.label.tolist() == [2, 1]
    assert (found.reading, found.in_cover, found.unknown) == ("codes of the legend geo3al", 1, {"high": 1})
    with pytest.raises(InputError, match="legend bedrock has no codes"):
        laid(area, "D", legend=replace(load_legend("geo3al"), name="bedrock", field="", codes={}, units={}))


def test_none_that_can_be_scored_is_refused(area):
    message = r"None of the 2 points .* 1 outside the area; 1 with a class .* \(slate\)"
    with pytest.raises(InputError, match=message) as no:
        lay_points(points((99, 44, "low"), (82, 44, "slate")), area)
    assert "80-84E 42-46N, and lith must be one of: high, low" in str(no.value)


def test_depths_count_under_mapped_cover_alone(area):
    surface = np.zeros(area.field_valid.shape, np.uint8)
    surface[area.node_lat > 45] = 2
    surface[area.node_lat < 43] = 255
    rows = [(82, 44, ""), (83, 43.5, ""), (82, 44, ""), (82, 45.5, ""), (82, 42.5, ""), (99, 44, "")]
    wells = replace(points(*rows, unplaced=1), depth_m=np.array([1500, 20, np.nan, 5, 5, 5]), depth_field="depth_m")
    found = depth_points(wells, area, surface)
    assert found.depth_km.tolist() == [1.5, 0.02]
    assert (area.node_lat[found.row].round(2).tolist(), area.node_lon[found.column].tolist()) == ([44, 43.5], [82, 83])
    assert sum(found.counts.values()) == 2 * found.counts["read"] == 14
    assert describe_depths_left_out(found.counts) == (
        "1 outside the area; 1 without a position; 1 without a depth; 1 where nothing is mapped; 1 on mapped outcrop"
    )
    with pytest.raises(InputError, match=r"None of the 2 points .* by its depth_m: 2 on mapped outcrop"):
        depth_points(replace(points(*rows[3:4] * 2), depth_m=np.ones(2), depth_field="depth_m"), area, surface)
