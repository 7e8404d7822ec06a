"""Networks trained on simulated crusts: training data, scores on test crusts, and comparison of crusts and region.

The sentences are used by the report and by `gravmap predict`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gravmap.mapping.page.facts import Facts, RunFacts
from gravmap.mapping.page.words import count, listed, percent
from gravmap.records import ScoresRecord, read_record

PREDICTORS = {
    "network": "network",
    "network_likeliest": "network, its likeliest class",
    "nearest_outcrop": "nearest outcrop",
    "label_diffusion": "label diffusion",
    "foreign_gravity": "network on another crust's gravity",
}
MEASURES = {"pa": "Accuracy", "mpa": "Mean accuracy", "fwiou": "Weighted overlap"}

_BASELINES = {"nearest_outcrop": "taking the nearest outcrop", "label_diffusion": "label diffusion from the outcrop"}
_FAR = "over 30 km"
_STATES = {"inside": "", "at the edge": "at the edge", "outside": "outside"}
_CELLS_PER_DEGREE = 30


def training_sentence(trained_on: Mapping[str, Any], network: str = "The network") -> str:
    """Describe the training data of a network.

    Parameters
    ----------
    trained_on : mapping
        ``taught_on`` of model.json.
    network : str
        Subject of the sentence.
    """
    prior = trained_on.get("prior", {}).get("name", "that is not on record")
    number = trained_on.get("count") or len(trained_on.get("seeds", {}).get("train", []))
    shape = " x ".join(str(each) for each in trained_on.get("shape", []))
    crusts = f"{count(number)} simulated {'crust' if number == 1 else 'crusts'}"
    sentence = (
        f"{network} was trained on {crusts}, not on the data of any region: layers and intrusions drawn from the prior"
        f" {prior}, whose bedrock under cover is known, and their computed gravity."
    )
    return f"{sentence} Each has {shape} cells." if shape else sentence


def read_under_cover(folder: Path) -> dict[str, Any]:
    """Scores under the cover of test crusts, from a run's ``scores.json``; empty where there are none."""
    path = folder / "scores.json"
    test = read_record(path, ScoresRecord, "gravmap train").get("test") if path.exists() else None
    return {**test["under_cover"]} if test and "under_cover" in test else {}


def score_sentences(under_cover: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Describe the scores of networks under the cover of test crusts, and what they mean for real data.

    Parameters
    ----------
    under_cover : sequence of (str, mapping)
        Name of each network (empty for a single one) and its scores, see
        :func:`gravmap.learning.evaluation.under_cover.hidden_scores`; these may be empty.
    """
    sentences = [_score(name, scores) for name, scores in under_cover if _cells(scores)]
    if not sentences:
        return "It was trained on simulated crusts and not scored on others: its accuracy is not known."
    return (
        f"{' '.join(sentences)} Those crusts come from the generator of its training data: this is the best case, not a"
        " measure of skill on real data, where lower scores are to be expected."
    )


def _score(name: str, scores: Mapping[str, Any]) -> str:
    row, far = scores["strata"]["all"], scores["strata"].get(_FAR, {})
    best = max(_BASELINES, key=lambda each: float(row[each]["pa"]))
    sentence = (
        f"Under the cover of {count(len(scores.get('crusts', [])))} simulated crusts that were not used in training,"
        f" the network{' ' + name if name else ''} predicted {percent(row['network']['pa'])} of the bedrock correctly;"
        f" {_BASELINES[best]}, which needs no gravity, {percent(row[best]['pa'])}"
    )
    if far.get("nodes"):
        sentence += f" ({_FAR} from outcrop {percent(far['network']['pa'])} and {percent(far[best]['pa'])})"
    behind = [MEASURES[measure].lower() for measure in MEASURES if _gain(row, measure) <= 0]
    if len(behind) == len(MEASURES):
        return f"{sentence}. No better than without gravity."
    return f"{sentence}. In {listed(behind)} it is no better." if behind else f"{sentence}."


def _cells(scores: Mapping[str, Any]) -> int:
    """Number of covered cells that were scored."""
    return int(scores.get("strata", {}).get("all", {}).get("nodes", 0))


def _gain(row: Mapping[str, Any], measure: str) -> float:
    return float(row["network"][measure]) - max(float(row[each][measure]) for each in _BASELINES)


def crusts_section(facts: Facts, run: RunFacts) -> dict[str, Any]:
    """Values of a section: ``training``, ``by_distance`` and ``by_cover`` (tables or None), ``prior`` and ``verdict``.

    Tables have ``strata`` (name and number of nodes) and ``measures``: title to rows with ``label``, ``ours`` (whether
    it is the network) and ``scores``.
    """
    found = run.test.get("under_cover", {})
    return {
        "run": run.name,
        "training": training_sentence(run.trained_on),
        "by_distance": _table(found["strata"]) if _cells(found) else None,
        "by_cover": _table(found["cover"]) if found.get("cover") else None,
        "prior": run.trained_on.get("prior", {}).get("name", "NAME"),
        "verdict": verdict_table(_verdict(facts, run)),
        "covered": None if facts.sheet.everywhere else facts.areas.covered,
    }


def _table(strata: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of every predictor by stratum, for each measure."""
    shown = {name: row for name, row in strata.items() if row["nodes"]}
    keys = [key for key in PREDICTORS if all(key in row for row in shown.values())]
    return {
        "strata": [("all cells" if name == "all" else name, row["nodes"]) for name, row in shown.items()],
        "measures": {
            title: [
                {
                    "label": PREDICTORS[key],
                    "ours": key == "network",
                    "scores": [row[key][measure] for row in shown.values()],
                }
                for key in keys
            ]
            for measure, title in MEASURES.items()
        },
    }


def prior_verdicts(facts: Facts) -> list[dict[str, Any]]:
    """The comparisons of the region with the crusts that the map's networks were trained on, one for each prior."""
    found = {run.trained_on.get("prior", {}).get("sha256"): _verdict(facts, run) for run in facts.simulated}
    return [each for each in found.values() if each is not None]


def is_outside(prior_verdicts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a region is outside a prior that it was compared with (states of `gravmap.prior_check.verdict`)."""
    return any(each.get("state") == "outside" for each in prior_verdicts)


def _verdict(facts: Facts, run: RunFacts) -> dict[str, Any] | None:
    """The comparison of the region with the prior of a run; None if there is none."""
    prior = run.trained_on.get("prior", {})
    verdicts: list[dict[str, Any]] = facts.settings.get("prior_verdicts", [])
    return next((each for each in verdicts if each.get("prior", {}).get("sha256") == prior.get("sha256")), None)


def verdict_table(verdict: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Values of the table that compares a region with a prior.

    Parameters
    ----------
    verdict : mapping, optional
        Result of ``gravmap.prior_check.Verdict.to_dict``; with ``headline`` and ``advice`` only if no comparison was
        possible.

    Returns
    -------
    dict
        ``headline``, ``advice``, ``left_out``; ``boxes`` and ``size_deg`` (north, east) of the boxes that were
        compared; ``groups``: name to rows of label, values (here, and the crusts' least, median and most) and state.
        Without a comparison ``groups`` is empty; None without a verdict.
    """
    if verdict is None:
        return None
    groups: dict[str, list[dict[str, Any]]] = {}
    for quantity in verdict.get("quantities", []):
        crusts = quantity["crusts"]
        label = f"{quantity['label']}, {quantity['unit']}" if quantity["unit"] else str(quantity["label"])
        values = (np.median(quantity["here"]), min(crusts), np.median(crusts), max(crusts))
        groups.setdefault(quantity["group"], []).append(
            {"label": label, "values": [float(each) for each in values], "state": _STATES[quantity["state"]]}
        )
    return {
        "headline": verdict["headline"],
        "advice": verdict["advice"],
        "left_out": verdict.get("left_out", []),
        "boxes": len(verdict.get("boxes_wsen", [])),
        "size_deg": [cells / _CELLS_PER_DEGREE for cells in verdict.get("shape", [])],
        "compared": "quantities" in verdict,
        "groups": groups,
    }
