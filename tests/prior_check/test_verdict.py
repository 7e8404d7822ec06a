"""States of quantities and of the whole: inside, at the edge, outside."""

import numpy as np
import pytest
from scipy.stats import percentileofscore

from gravmap.prior_check.quantities import GROUPS, quantities
from gravmap.prior_check.verdict import (
    EDGE,
    INSIDE,
    OUTSIDE,
    compare_quantities,
    fraction_not_inside,
    leave_one_out_states,
    overall_state,
)

NAMES = ["Archean", "Proterozoic"]
STRIDE = {quantity.key: quantity for quantity in quantities(["residual_5km", "residual_10km"], NAMES)}
COVER, SPREAD = STRIDE["cover_share"], STRIDE["residual_10km_std"]


def place(quantity, here, crusts):
    (found,) = compare_quantities(
        [quantity], [{quantity.key: value} for value in here], [{quantity.key: v} for v in crusts]
    )
    return found


def test_quantities_have_unique_names_and_a_group():
    assert len({quantity.name for quantity in STRIDE.values()}) == len(STRIDE)
    assert {quantity.group for quantity in STRIDE.values()} == set(GROUPS)


@pytest.mark.parametrize(
    ("value", "state"),
    [
        (50, INSIDE),
        (41, INSIDE),
        (61, INSIDE),
        (62.3, INSIDE),
        (62.5, EDGE),
        (71.6, EDGE),
        (71.8, OUTSIDE),
        (28, OUTSIDE),
    ],
)
def test_two_and_three_and_a_half_standard_deviations_are_the_edge(value, state):
    crusts = np.linspace(40, 60, 21)
    assert np.std(crusts, ddof=1) == pytest.approx(6.2, abs=0.01)
    found = place(COVER, [value], crusts)
    assert found.state == state
    assert found.percentile == pytest.approx(percentileofscore(crusts, value, kind="mean"))


def test_what_a_crust_has_is_inside_however_rare():
    """Nineteen alike and one far off: what lies between is no news."""
    crusts = [*np.linspace(49, 51, 19), 80.0]
    assert place(COVER, [79], crusts).state == INSIDE


def test_some_crusts_of_the_prior_are_outside_by_chance():
    """Of 20 normal quantities and any number of crusts, few draws of the same law fall out."""
    rng = np.random.default_rng(0)
    for count in (12, 32):
        states = [place(COVER, [rng.normal(50, 3)], rng.normal(50, 3, count)).state for _ in range(2000)]
        assert states.count(OUTSIDE) < 0.015 * len(states)
        assert 0.02 * len(states) < states.count(EDGE) < 0.1 * len(states)


def test_spreads_are_compared_in_ratios():
    """In logarithms: half as much again above is less than half as much below."""
    crusts = np.geomspace(4, 8, 12)
    sigma = np.std(np.log(crusts + SPREAD.offset), ddof=1)
    middle = np.exp(np.log(crusts + SPREAD.offset).mean())
    assert place(SPREAD, [middle * np.exp(3.4 * sigma)], crusts).state == EDGE
    assert place(SPREAD, [middle * np.exp(3.6 * sigma)], crusts).state == OUTSIDE
    assert place(SPREAD, [middle * np.exp(-3.4 * sigma)], crusts).state == EDGE
    low = place(SPREAD, [middle * np.exp(-3.6 * sigma)], crusts)
    assert low.state == OUTSIDE
    assert low.beyond < 0
    assert "below them" in low.describe()


def test_identical_crusts_have_a_minimum_range():
    assert place(COVER, [49], [48.0] * 12).state == INSIDE
    assert place(COVER, [70], [48.0] * 12).state == OUTSIDE


def test_most_boxes_decide_and_a_few_make_an_edge():
    crusts = np.linspace(40, 60, 21)
    assert place(COVER, [50, 51, 52, 53, 90], crusts).state == EDGE
    assert place(COVER, [50, 51, 90, 91, 92], crusts).state == OUTSIDE
    assert place(COVER, [50, 51, 65, 65, 65], crusts).state == EDGE
    assert place(COVER, [50, 51, 52, 65, 65], crusts).state == INSIDE


def test_residuals_that_are_off_together_count_once():
    """All four residual spreads beyond are one of three groups, not four of six quantities."""
    expected = [quantity for quantity in STRIDE.values() if quantity.group in ("residuals", "gravity")] + [COVER]
    crusts = [{quantity.key: value for quantity in expected} for value in np.geomspace(30, 60, 20)]
    here = {quantity.key: 50.0 for quantity in expected}
    loud = {key: 85.0 if key.startswith("residual") else value for key, value in here.items()}
    found = compare_quantities(expected, [loud], crusts)
    assert fraction_not_inside(found) == pytest.approx(1 / 3)
    assert overall_state(compare_quantities(expected, [here], crusts)) == INSIDE
    assert overall_state(found) == EDGE
    assert overall_state(compare_quantities(expected, [dict.fromkeys(here, 85.0)], crusts)) == OUTSIDE
    assert overall_state(compare_quantities(expected, [here | {"cover_share": 90.0}], crusts)) == OUTSIDE


def test_each_crust_is_judged_by_the_others_alone():
    """One that is unlike all others is outside; judged with itself among them it would be inside."""
    crusts = [{"cover_share": value} for value in [*np.linspace(40, 60, 15), 95.0]]
    assert place(COVER, [95.0], [crust["cover_share"] for crust in crusts]).state == INSIDE
    assert leave_one_out_states([COVER], crusts) == {INSIDE: 15, EDGE: 0, OUTSIDE: 1}


def test_a_quantity_that_either_lacks_is_left_out():
    assert compare_quantities([COVER], [{}], [{"cover_share": 1.0}] * 12) == ()
    assert compare_quantities([COVER], [{"cover_share": 1.0}], [{"cover_share": 1.0}] * 3) == ()
