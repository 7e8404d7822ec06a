"""The verdict on a map's page."""

import json
import xml.etree.ElementTree as ET

import pytest

from gravmap.mapping.page.inside_prior import inside_prior
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


def test_the_page_shows_the_verdict_and_what_to_do(verdict):
    assert verdict.state == OUTSIDE
    # What is written to the record is JSON.
    section = inside_prior(json.loads(json.dumps(verdict.to_dict())))
    tree = ET.fromstring(f"<section>{section}</section>")
    told = " ".join("".join(tree.itertext()).split())
    assert "Outside the prior <mine>: 1 of 2 quantities" in told
    assert "it has less outcrop" in told.lower()
    lines = [line for line in tree.iter("tr") if line.find("td") is not None]
    assert [line.find("th").text for line in tree.iter("tr") if line.get("class") == "part"] == [
        "Bouguer anomaly",
        "Cover",
    ]
    rows = {line.find("th").text: [cell.text for cell in line.findall("td")] for line in lines}
    assert rows["Share, %"] == ["95", "40", "47.5", "55", "outside"]
    assert rows["Std, mGal"] == ["40", "30", "37.5", "45", None]
