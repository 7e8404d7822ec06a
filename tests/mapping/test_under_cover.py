import numpy as np
import pytest

from gravmap.errors import InputError
from gravmap.learning.data.dataset import RegionDataset
from gravmap.mapping.scoring.under_cover import ALL, FAR, score_from_outcrop, score_under_cover

NODES = (80.0, 44.0, 84.0, 46.0)  # 41 x 81 nodes, 0.05 degrees apart


def toy(truth, surface, role=None):
    """An area whose labels lie cell on node."""
    ny, nx = truth.shape
    half_y, half_x = (NODES[3] - NODES[1]) / (ny - 1) / 2, (NODES[2] - NODES[0]) / (nx - 1) / 2
    return RegionDataset(
        fields=truth[None].astype(np.float32),
        field_valid=np.ones(truth.shape, bool),
        field_nodes_wsen=np.array(NODES),
        labels=surface,
        label_bounds_wsen=np.array([NODES[0] - half_x, NODES[1] - half_y, NODES[2] + half_x, NODES[3] + half_y]),
        small=np.zeros(truth.shape, np.uint8),
        role=np.zeros(truth.shape, np.uint8) if role is None else role,
        windows=np.array([NODES]),
        window_scale_deg=np.array([4.0]),
        window_role=np.zeros(1, np.uint8),
        meta={
            "channels": ["residual_10km"],
            "classes": [{"index": value, "name": f"class {value}", "colour": "#000000"} for value in (1, 2, 3)],
        },
    )


@pytest.fixture
def world():
    truth = np.ones((41, 81), np.uint8)
    truth[:, 40:] = 2
    truth[:10, 60:] = 3
    surface = truth.copy()
    surface[5:35, 10:70] = 0
    return truth, surface


def test_a_perfect_map_scores_a_hundred_and_only_covered_cells_count(world):
    truth, surface = world
    wrong_on_outcrop = np.where(surface == 0, truth, 4 - truth).astype(np.uint8)
    found = score_under_cover(toy(truth, surface), wrong_on_outcrop, truth)
    assert found.scores["network, gravity only"][ALL]["pa"] == 1
    assert found.cells[ALL] == 30 * 60 == sum(cells for name, cells in found.cells.items() if name != ALL)
    assert found.cells[FAR] > 0
    for row in found.scores.values():
        assert {name: scored["places"] for name, scored in row.items()} == found.cells


def test_null_models_score_as_counted_by_hand(world):
    truth, surface = world
    found = score_under_cover(toy(truth, surface), np.full(truth.shape, 3, np.uint8), truth)
    hidden = surface == 0
    assert found.scores["network, gravity only"][ALL]["pa"] == pytest.approx((truth[hidden] == 3).mean())
    # More outcrop of class 2 (east) than of 1 (west)?
    common = np.bincount(surface[surface > 0]).argmax()
    assert found.scores["majority class"][ALL]["pa"] == pytest.approx((truth[hidden] == common).mean())
    # The field is the class here, so whoever looks at it finds everything.
    assert found.scores["nearest in gravity, no position"][ALL]["pa"] > 0.95


def test_null_models_see_no_held_out_outcrop(world):
    truth, surface = world
    role = np.zeros(truth.shape, np.uint8)
    role[:, 40:] = 2  # the east is held out: class 2 and 3 are unknown
    found = score_under_cover(toy(truth, surface, role), truth, truth)
    for name, values in found.maps.items():
        if name != "network, gravity only":
            assert (values == 1).all(), name


def test_the_table_has_a_line_for_each(world):
    truth, surface = world
    lines = score_under_cover(toy(truth, surface), truth, truth).table()
    assert len(lines) == 2 + 3 * (1 + 6)
    assert lines[0].split("  ")[-1].strip() == FAR
    assert lines[3].split()[-4:] == ["100.0"] * 4
    assert len({len(line) for line in lines if "percent" not in line}) == 1  # columns stand under each other


def test_maps_that_start_from_outcrop_see_all_of_it_and_are_scored_by_distance(world):
    truth, surface = world
    lat, lon = np.linspace(46, 44, 41), np.linspace(80, 84, 81)
    mapped = np.where(np.arange(81) < 13, 3, truth).astype(np.uint8)  # wrong in the three westernmost hidden columns
    found = score_from_outcrop({"mine": mapped}, truth, surface, lat, lon, ["a", "b", "c"])
    assert list(found.scores) == ["nearest outcrop, no gravity", "label diffusion, no gravity", "mine"]
    mine = {name: row["pa"] for name, row in found.scores["mine"].items()}
    # A column is 4 km wide there: all that is wrong lies within 12 km of the outcrop in the west.
    assert mine[ALL] == pytest.approx(57 / 60)
    assert mine[FAR] == 1
    assert mine["under 10 km"] < mine[ALL] < mine["10 to 30 km"] < 1
    # The truth is that of the nearest outcrop but where classes meet in the middle, far from any.
    assert found.scores["nearest outcrop, no gravity"]["under 10 km"]["pa"] > 0.9


def test_grids_that_differ_are_refused(world):
    truth, surface = world
    with pytest.raises(InputError, match="same crust"):
        score_under_cover(toy(truth, surface), truth[1:], truth)
    with pytest.raises(InputError, match="cover"):
        score_under_cover(toy(truth, truth), truth, truth)
