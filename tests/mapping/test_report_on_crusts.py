"""The page of a network taught on simulated crusts: what it learned on, its best case, nothing of held-out blocks."""

import json
import re
from html import escape, unescape

import pytest

from gravmap.files import write_json
from toy_map_folder import RECORD, make_map, make_run, page_of, reliability

SHA = "9a" * 32
TAUGHT = {
    "on": "crusts",
    "prior": {"name": "wide", "sha256": SHA, "text": ""},
    "count": 50,
    "shape": [240, 360],
    "seeds": {"train": list(range(1000, 1050)), "tune": [1050], "test": list(range(8))},
}


def row(nodes, *scores):
    names = ("network", "nearest_outcrop", "label_diffusion", "foreign_gravity")
    return {"nodes": nodes} | {
        name: {"pa": pa, "mpa": pa - 0.1, "fwiou": pa - 0.2} for name, pa in zip(names, scores, strict=True)
    }


UNDER = {
    "strata": {
        "all": row(900, 0.61, 0.52, 0.53, 0.44),
        "under 10 km": row(500, 0.71, 0.66, 0.67, 0.6),
        "10 to 30 km": row(400, 0.43, 0.37, 0.38, 0.3),
        "over 30 km": {"nodes": 0},
    },
    "cover": {"under 0.5 km": row(900, 0.61, 0.52, 0.53, 0.44)},
    "crusts": [{}] * 8,
}


def told(ece, covered):
    return reliability(ece, 0.4) | {"coverage": covered, "set_size": 3.2}


CALIBRATION = {
    "temperatures": {"5deg": 1.7},
    "by_distance": {"5deg": {"km": [4.0, 80.0], "temperature": [1.1, 2.9]}},
    "notes": [],
    "test": {
        "nodes": 900,
        "before": told(0.2, 0.6),
        "one": told(0.1, 0.7),
        "after": told(0.05, 0.79),
        "strata": {
            "distance": {
                "under 10 km": {"nodes": 500, "before": told(0.111, 0.71), "after": told(0.022, 0.81)},
                "over 30 km": {"nodes": 0, "before": None, "after": None},
            },
            "cover": {"over 2 km": {"nodes": 33, "before": told(0.3, 0.55), "after": told(0.04, 0.78)}},
        },
    },
}


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    return make_map(tmp_path_factory.mktemp("maps") / "toy")


def crusts_run(folder, under=UNDER, **changes):
    split = {"name": "crusts"}
    make_run(folder, calibration=CALIBRATION, taught_on=TAUGHT, **changes)
    for name, key in (("model.json", None), ("scores.json", "test")):
        record = json.loads((folder / name).read_text()) | {"split": split}
        if key:
            record[key] = record[key] | {"pa": 0.61, "under_cover": under}
        write_json(folder / name, record)
    return folder


def words(html):
    text = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text)).replace("\u202f", " "))


def cells(html, heading):
    found = re.search(rf'<tr[^>]*><th scope="row">{re.escape(escape(heading))}</th>(.*?)</tr>', html, flags=re.DOTALL)
    return [words(each).strip() for each in re.findall(r"<td[^>]*>(.*?)</td>", found[1])]


def test_what_it_was_taught_on_and_its_best_case(mapped, tmp_path):
    html = page_of(mapped, crusts_run(tmp_path / "run"))
    page = words(html)
    assert "taught on 50 simulated crusts, not on any real ground" in page
    assert "the prior wide" in page
    assert "240 x 360 cells" in page
    assert (
        "Under the cover of 8 simulated crusts that it never saw, the network named 61 % of the bedrock right; letting"
        " the outcrop spread out, which needs no gravity, 53 %." in page
    )
    assert "this is the best case, and no measure of skill on real ground" in page
    assert "On real ground expect less" in page
    for wrong in ("kept from training", "held-out blocks", "Held-out blocks", "Random windows", "held-out outcrop"):
        assert wrong not in page
    assert "Found on test crusts" in page
    # Every predictor by distance; a distance without a cell is left out.
    assert cells(html, "network") == ["61.0 %", "71.0 %", "43.0 %"]
    assert cells(html, "network on another crust's gravity") == ["44.0 %", "60.0 %", "30.0 %"]
    assert "over 30 km" not in page.split("How good it is")[1].split("Whether its")[0]
    assert "by thickness of the cover" in page


def test_no_better_than_without_gravity_is_said(mapped, tmp_path):
    worse = UNDER | {"strata": {"all": row(900, 0.5, 0.52, 0.53, 0.5)}}
    assert "No better than without gravity." in words(page_of(mapped, crusts_run(tmp_path / "run", worse)))


def test_calibration_by_distance_and_cover(mapped, tmp_path):
    html = page_of(mapped, crusts_run(tmp_path / "run"))
    assert cells(html, "under 10 km from mapped outcrop") == ["500", "0.111", "0.022", "71 %", "81 %", "3.2"]
    assert cells(html, "over 2 km of cover") == ["33", "0.300", "0.040", "55 %", "78 %", "3.2"]
    page = words(html)
    assert "5deg 1.10 at 4 km, 2.90 at 80 km from mapped outcrop (one for all ground would be 1.70)" in page
    assert "all in held-out test crusts" in page


def test_the_priors_verdict_is_that_of_this_prior_alone(mapped, tmp_path):
    run = crusts_run(tmp_path / "run")
    assert "gravmap prior-check --prior wide tells" in words(page_of(mapped, run))
    seen = {"left_out": [], "quantities": [], "shape": [120, 240], "boxes_wsen": [[80, 44, 88, 48]]}
    verdicts = [
        seen | {"prior": {"name": "other", "sha256": "00"}, "headline": "Outside the prior other.", "advice": []},
        seen
        | {"prior": {"name": "wide", "sha256": SHA}, "headline": "At the edge of <wide>.", "advice": ["Take care."]},
    ]
    try:
        write_json(mapped / "provenance.json", RECORD | {"settings": {"prior_verdicts": verdicts}})
        html = page_of(mapped, run)
    finally:
        write_json(mapped / "provenance.json", RECORD)
    assert html.count("At the edge of &lt;wide&gt;.") == 2  # at the top, and above its table
    assert "Take care." in html
    assert "Outside the prior other" not in html
    assert "was not checked" not in words(html)


def test_a_run_without_scores_says_so(mapped, tmp_path):
    run = crusts_run(tmp_path / "run")
    (run / "scores.json").unlink()
    page = words(page_of(mapped, run))
    assert "scored nowhere: nothing is known of how good it is" in page
    assert "It was not scored on test crusts." in page


def test_a_run_that_went_on_from_crusts_has_its_regions_scores(mapped, tmp_path):
    run = make_run(tmp_path / "run", recipe={"init": {"run": "a", "taught_on": TAUGHT}})
    page = words(page_of(mapped, run))
    assert "run began with the weights of a network taught on simulated crusts (prior wide)" in page
    assert "outcrop kept from training" in page
    assert "best case" not in page


def test_with_a_network_of_the_region_beside_it_both_are_told(mapped, tmp_path):
    page = words(page_of(mapped, crusts_run(tmp_path / "a"), make_run(tmp_path / "b")))
    assert "places of outcrop kept from training" in page
    assert "Under the cover of 8 simulated crusts" in page
