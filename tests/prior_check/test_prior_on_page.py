"""The verdict on a map's page."""

import json

import pytest

from gravmap.mapping.page.crusts import verdict_table
from gravmap.prior_check.quantities import quantities
from gravmap.prior_check.verdict import OUTSIDE, Verdict, compare_quantities, leave_one_out_states, overall_state


@pytest.fixture(scope="module")
def verdict():
    wanted = [each for each in quantities([], []) if each.key in ("cover_share", "bouguer_std")]
    crusts = [{"cover_share": 40.0 + number, "bouguer_std": 30.0 + number} for number in range(16)]
    places = compare_quantities(wanted, [{"cover_share": 95.0, "bouguer_std": 40.0}], crusts)
    own = leave_one_out_states(wanted, crusts)
    box = (80, 44, 88, 48)
    return Verdict("<mine>", "0" * 64, overall_state(places), places, (), (box,), 16, (120, 240), own)


def test_the_page_has_the_verdict_and_every_quantity(verdict):
    assert verdict.state == OUTSIDE
    # What is written to the record is JSON.
    record = json.loads(json.dumps(verdict.to_dict()))
    table = verdict_table(record)
    assert table["compared"]
    assert (table["headline"], table["advice"]) == (record["headline"], record["advice"])
    assert "1 of 2 quantities" in table["headline"]
    assert table["boxes"] == 1
    assert table["size_deg"] == [4, 8]
    assert list(table["groups"]) == ["Bouguer anomaly", "Cover"]
    assert table["groups"]["Cover"] == [
        {"label": "share of the mapped area, %", "values": [95, 40, 47.5, 55], "state": "outside"},
    ]
    (std,) = table["groups"]["Bouguer anomaly"]
    assert (std["values"], std["state"]) == ([40, 30, 37.5, 45], "")


def test_without_a_comparison_there_is_no_table():
    assert verdict_table(None) is None
    found = verdict_table({"headline": "Not known.", "advice": ["Why."]})
    assert not found["compared"]
    assert not found["groups"]
