"""The page of a network trained on simulated crusts: its training data, its best case, nothing of held-out blocks."""

import json
import re
from html import unescape

import pytest
from markupsafe import escape

from gravmap.files import write_json
from gravmap.mapping.page.crusts import crusts_section, score_sentences, training_sentence
from gravmap.mapping.page.facts import gather
from gravmap.mapping.page.scores import scores_section, verdict
from toys.map_folder import RECORD, make_map, page_of, reliability, write_run_files

SHA = "9a" * 32
TRAINED_ON = {
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


def calibrated(ece, covered):
    return reliability(ece, 0.4) | {"coverage": covered, "set_size": 3.2}


CALIBRATION = {
    "temperatures": {"5deg": 1.7},
    "by_distance": {"5deg": {"km": [4.0, 80.0], "temperature": [1.1, 2.9]}},
    "notes": [],
    "test": {
        "nodes": 900,
        "before": calibrated(0.2, 0.6),
        "one": calibrated(0.1, 0.7),
        "after": calibrated(0.05, 0.79),
        "strata": {
            "distance": {
                "under 10 km": {"nodes": 500, "before": calibrated(0.111, 0.71), "after": calibrated(0.022, 0.81)},
                "over 30 km": {"nodes": 0, "before": None, "after": None},
            },
            "cover": {"over 2 km": {"nodes": 33, "before": calibrated(0.3, 0.55), "after": calibrated(0.04, 0.78)}},
        },
    },
}


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    return make_map(tmp_path_factory.mktemp("maps") / "toy")


def crusts_run(folder, under=UNDER, **changes):
    split = {"name": "crusts"}
    write_run_files(folder, calibration=CALIBRATION, taught_on=TRAINED_ON, **changes)
    for name, key in (("model.json", None), ("scores.json", "test")):
        record = json.loads((folder / name).read_text()) | {"split": split}
        if key:
            record[key] = record[key] | {"pa": 0.61, "under_cover": under}
        write_json(folder / name, record)
    return folder


def words(html):
    text = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text)).replace("\u202f", " "))


def part(html, name):
    return html.split(f'<section id="{name}">')[1].split("</section>")[0]


def missing(html, name):
    return [unescape(each) for each in re.findall(r'<p class="missing">(.*?)</p>', part(html, name), flags=re.DOTALL)]


def cells(html, heading):
    found = re.search(
        rf'<tr[^>]*><th scope="row">{re.escape(str(escape(heading)))}</th>(.*?)</tr>', html, flags=re.DOTALL
    )
    return [words(each).strip() for each in re.findall(r"<td[^>]*>(.*?)</td>", found[1])]


def of_crusts(folder, *runs):
    facts = gather(folder, runs=runs, tiles=None)
    return facts, scores_section(facts)


def test_its_training_data_and_its_best_case(mapped, tmp_path):
    html = page_of(mapped, crusts_run(tmp_path / "run"))
    scores = words(part(html, "scores"))
    assert training_sentence(TRAINED_ON) in scores
    for value in ("50 simulated crusts", "prior wide", "240 x 360 cells"):
        assert value in training_sentence(TRAINED_ON)
    said = score_sentences([("", UNDER)]).replace("\u202f", " ")
    assert said in words(html)
    assert re.findall(r"\d+(?: %)?", said) == ["8", "61 %", "53 %"], "crusts; the network and the better baseline"
    for wrong in ("kept from training", "eld-out blocks", "Random windows", "held-out outcrop"):
        assert wrong not in words(html)
    # Every predictor by distance; a distance without a cell is left out.
    assert cells(html, "network") == ["61.0 %", "71.0 %", "43.0 %"]
    assert cells(html, "network on another crust's gravity") == ["44.0 %", "60.0 %", "30.0 %"]
    assert "over 30 km" not in scores
    assert not missing(html, "reliability")


def test_tables_have_every_measure_and_stratum(mapped, tmp_path):
    facts, found = of_crusts(mapped, crusts_run(tmp_path / "run"))
    assert found["only_crusts"]
    assert not found["held_out"]
    (section,) = found["crusts"]
    assert section == crusts_section(facts, facts.runs[0])
    assert section["by_distance"]["strata"] == [("all cells", 900), ("under 10 km", 500), ("10 to 30 km", 400)]
    assert section["by_cover"]["strata"] == [("under 0.5 km", 900)]
    rows = section["by_distance"]["measures"]["Weighted overlap"]
    assert (rows[0]["label"], rows[0]["ours"]) == ("network", True)
    assert rows[0]["scores"] == pytest.approx([0.41, 0.51, 0.23])
    assert len(rows) == 4  # no run of these has a likeliest class of its own


@pytest.mark.parametrize(
    ("network", "numbers"),
    [((0.61, 0.36), ["61 %", "53 %", "36 %", "35 %"]), ((0.50, 0.30), ["50 %", "53 %", "30 %", "35 %"])],
)
def test_far_from_outcrop_the_same_two_are_compared(network, numbers):
    strata = {"all": row(900, network[0], 0.52, 0.53, 0.5), "over 30 km": row(10, network[1], 0.4, 0.35, 0.1)}
    said = score_sentences([("", UNDER | {"strata": strata})]).replace("\u202f", " ")
    assert re.findall(r"\d+ %", said) == numbers


def test_a_gain_a_loss_and_a_mixed_result_have_their_own_words():
    better, worse = (score_sentences([("", UNDER | {"strata": {"all": row(9, pa, 0.5, 0.5, 0)}})]) for pa in (0.6, 0.4))
    mixed = row(9, 0.6, 0.5, 0.5, 0)
    mixed["network"] |= {"mpa": 0.1, "fwiou": 0.1}
    mixed = score_sentences([("", UNDER | {"strata": {"all": mixed}})])
    assert len({re.sub(r"\d+", "", each) for each in (better, worse, mixed)}) == 3
    for measure in ("mean accuracy", "weighted overlap"):
        assert [measure in each for each in (better, worse, mixed)] == [False, False, True]


def test_calibration_by_distance_and_cover(mapped, tmp_path):
    html = page_of(mapped, crusts_run(tmp_path / "run"))
    assert cells(html, "under 10 km from mapped outcrop") == ["500", "0.111", "0.022", "71 %", "81 %", "3.2"]
    assert cells(html, "over 2 km of cover") == ["33", "0.300", "0.040", "55 %", "78 %", "3.2"]
    section = words(part(html, "reliability"))
    assert "5deg 1.10 at 4 km, 2.90 at 80 km from mapped outcrop" in section
    assert "1.70" in section
    assert "test crusts" in section


def test_the_priors_verdict_is_that_of_this_prior_alone(mapped, tmp_path):
    run = crusts_run(tmp_path / "run")
    assert any("prior-check --prior wide" in line for line in missing(page_of(mapped, run), "scores"))
    seen = {"left_out": [], "quantities": [], "shape": [120, 240], "boxes_wsen": [[80, 44, 88, 48]]}
    verdicts = [
        seen | {"prior": {"name": "other", "sha256": "00"}, "headline": "Outside the prior other.", "advice": []},
        seen
        | {
            "prior": {"name": "wide", "sha256": SHA},
            "headline": "At the edge of <wide>.",
            "advice": ["Take `gravmap <care>`."],
        },
    ]
    try:
        write_json(mapped / "provenance.json", RECORD | {"settings": {"prior_verdicts": verdicts}})
        html = page_of(mapped, run)
        untold = [{"prior": {"sha256": SHA}, "headline": "Not known.", "advice": ["Why."]}]
        write_json(mapped / "provenance.json", RECORD | {"settings": {"prior_verdicts": untold}})
        without = page_of(mapped, run)
    finally:
        write_json(mapped / "provenance.json", RECORD)
    assert html.count("At the edge of &lt;wide&gt;.") == 2  # at the top, and above its table
    assert "Take <code>gravmap &lt;care&gt;</code>." in html
    assert "Outside the prior other" not in html
    assert not missing(html, "scores")
    assert missing(without, "scores") == ["Not known. Why."]


def test_a_run_without_scores_shows_none(mapped, tmp_path):
    run = crusts_run(tmp_path / "run")
    (run / "scores.json").unlink()
    html = page_of(mapped, run)
    assert score_sentences([("", {})]) in words(html)
    assert len(missing(html, "scores")) == 2  # no scores, no comparison with the prior
    assert "%" not in words(part(html, "scores"))


def test_a_run_pretrained_on_crusts_has_its_regions_scores(mapped, tmp_path):
    run = write_run_files(tmp_path / "run", recipe={"init": {"run": "a", "taught_on": TRAINED_ON}})
    facts, found = of_crusts(mapped, run)
    assert found["pretrained"] == [("run", "wide")]
    assert not found["crusts"]
    assert facts.held_out is not None
    assert "prior wide" in words(part(page_of(mapped, run), "scores"))


def test_beside_a_network_of_the_region_both_are_reported(mapped, tmp_path):
    facts, found = of_crusts(mapped, crusts_run(tmp_path / "a"), write_run_files(tmp_path / "b"))
    assert (len(found["crusts"]), len(found["held_out"]), found["only_crusts"]) == (1, 1, False)
    said = verdict(facts)
    assert said["held_out"]["places"] == 450
    assert said["simulated"] == score_sentences([("", UNDER)])


def test_of_two_networks_each_has_its_name(mapped, tmp_path):
    facts, _ = of_crusts(mapped, crusts_run(tmp_path / "first"), crusts_run(tmp_path / "second"))
    assert verdict(facts)["simulated"] == score_sentences([("first", UNDER), ("second", UNDER)])
    assert "network second" in score_sentences([("first", UNDER), ("second", UNDER)])


def gain(mean, low, high):
    return {"mean": mean, "low": low, "high": high, "blocks": 9, "sentence": f"the network adds {mean}"}


def hidden(pa, fwiou, mpa=0.01):
    gains = {"pa": gain(pa, pa - 0.02, pa + 0.02), "mpa": gain(mpa, mpa - 0.02, mpa + 0.02)}
    gains["fwiou"] = gain(fwiou, fwiou - 0.02, fwiou + 0.02)
    return {
        "run": "run",
        "places": 4321,
        "blocks": 9,
        "block_deg": [2.5, 2.5],
        "folds": 5,
        "scores": {"pa": 0.4 + pa, "mpa": 0.2, "fwiou": 0.2 + fwiou},
        "baselines": {
            "nearest_outcrop": {"pa": 0.3, "mpa": 0.2, "fwiou": 0.1},
            "label_diffusion": {"pa": 0.4, "mpa": 0.2, "fwiou": 0.2},
        },
        "gravity_adds": [{"null": "label_diffusion", "measure": name, **each} for name, each in gains.items()],
    }


@pytest.mark.parametrize(
    ("record", "level"),
    [
        (hidden(0.05, 0.04), "better"),
        (hidden(-0.04, -0.03), "no better"),
        (hidden(0.01, 0.01), "mixed"),  # ahead, within chance
        (hidden(0.01, -0.01), "no better"),
        (hidden(0.05, -0.01), "mixed"),
        (hidden(0.05, 0.04, mpa=-0.01), "mixed"),
        ({"left_out": "Only 1 block."}, "not tested"),
    ],
)
def test_hidden_outcrop_decides_how_far_to_trust_the_map(mapped, tmp_path, record, level):
    run = crusts_run(tmp_path / "run")
    try:
        write_json(mapped / "provenance.json", RECORD | {"settings": {"hidden_outcrop": [record]}})
        said = verdict(gather(mapped, runs=[run], tiles=None))
        html = page_of(mapped, run)
    finally:
        write_json(mapped / "provenance.json", RECORD)
    assert said["level"] == level
    assert words(html).index(words(said["sentence"])) < html.index("simulated crusts")
    if "scores" in record:
        assert re.findall(r"\d+ %", said["reason"].replace("\u202f", " ")) == [
            f"{100 * record['scores']['pa']:.0f} %", "40 %",
        ]  # fmt: skip
        assert "4 321 places" in words(part(html, "scores"))
    else:
        assert said["reason"] == "Only 1 block."


def test_the_four_levels_have_their_own_words_and_the_likeness_is_told(mapped, tmp_path):
    run, said = crusts_run(tmp_path / "run"), {}
    prior = {"prior": {"name": "wide", "sha256": SHA}, "headline": "x", "advice": []}
    prior |= {"left_out": [], "quantities": [], "shape": [120, 240], "boxes_wsen": [[80, 44, 88, 48]]}
    try:
        for state in ("inside", "at the edge", "outside", "not known"):
            record = {"prior_verdicts": [prior | {"state": state}], "hidden_outcrop": [hidden(0.05, 0.04)]}
            write_json(mapped / "provenance.json", RECORD | {"settings": record})
            said[state] = verdict(gather(mapped, runs=[run], tiles=None))["reason"]
            beside = "the region as a whole is unlike them" in words(page_of(mapped, run))
            assert beside == (state == "outside"), "beside the fraction of single places"
    finally:
        write_json(mapped / "provenance.json", RECORD)
    assert len(set(said.values())) == 4
    assert "is like" in said["inside"]
    assert "unlike" in said["outside"]
    assert "simulated" not in said["not known"]
