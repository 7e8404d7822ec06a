"""Scores of a report: on held-out blocks, compared with baselines, and calibration of the probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gravmap.learning.evaluation.comparison import SHIFTED_INPUT, TITLES, no_better_than
from gravmap.learning.evaluation.null_models import NULL_MODELS
from gravmap.mapping.page.crusts import crusts_section, prior_verdicts, score_sentences
from gravmap.mapping.page.facts import Facts, Protocol, RunFacts
from gravmap.mapping.page.maps import reliability_chart
from gravmap.mapping.page.words import percent
from gravmap.tiling.leak import LEAK_LIMIT

MEASURES = {"pa": "Accuracy", "mpa": "Mean accuracy", "miou": "Mean overlap", "fwiou": "Weighted overlap"}

# States of a comparison with crusts, as the record has them (`gravmap.prior_check.verdict`).
_INSIDE, _EDGE, _OUTSIDE = "inside", "at the edge", "outside"

# Words after the bounds of a stratum of a calibration.
_STRATA = {"distance": "from mapped outcrop", "cover": "of cover"}


def verdict(facts: Facts) -> dict[str, Any]:
    """How far to trust a map, from the scores of its networks on ground that they were not trained on.

    Returns
    -------
    dict
        ``level``: ``better``, ``mixed`` or ``no better`` than the best null model on ground of this region that the
        network did not see, or ``not tested``; ``sentence`` and ``reason``: the same in words, for the top of the
        report, the footer of the map and the record; ``held_out``: see :func:`compare_with_baselines`, None without
        scores on held-out blocks; ``simulated``: sentences on networks trained on simulated crusts, empty without any.
    """
    protocol, simulated = facts.held_out, facts.simulated
    scored = [(run.name if len(simulated) > 1 else "", run.test.get("under_cover", {})) for run in simulated]
    held_out = None if protocol is None else compare_with_baselines(protocol)
    tested = hidden_outcrop(facts)
    level, found = "not tested", "" if protocol is None else protocol.no_baselines
    if held_out is not None and held_out["outcome"] is not None:
        level = str(held_out["outcome"])
        best = held_out["baseline"]
        found = _compared("the training region", held_out["accuracy"], best["accuracy"], best["name"])
        if held_out["ahead_in_overlap"]:
            found += f" In weighted overlap it is behind {held_out['ahead_in_overlap']}."
        if held_out["no_better_than"]:
            found += f" It is no better than {', and no better than '.join(held_out['no_better_than'])}."
    elif tested:
        levels = [_outcome(each["gravity_adds"]) for each in tested]
        level = levels[0] if len(set(levels)) == 1 else "mixed"
        pa = sum(each["scores"]["pa"] for each in tested) / len(tested)
        name = tested[0]["gravity_adds"][-1]["null"]  # that of the level
        found = _compared("this region", pa, tested[0]["baselines"][name]["pa"], NULL_MODELS[name].phrase)
    elif simulated:
        found = " ".join(str(each["left_out"]) for each in facts.settings.get("hidden_outcrop", []))
    return {
        "level": level,
        "sentence": _LEVELS[level],
        "reason": f"{found}{_likeness(facts)}".strip(),
        "held_out": held_out,
        "simulated": score_sentences(scored) if simulated else "",
    }


def hidden_outcrop(facts: Facts) -> list[dict[str, Any]]:
    """Scores at hidden outcrop of the region, of the map's networks that were trained on crusts and could be tested."""
    found = facts.settings.get("hidden_outcrop", []) if facts.simulated else []
    return [each for each in found if "scores" in each]


_LEVELS = {
    "better": "The classes under cover are worth testing: the network is ahead of simpler methods here.",
    "mixed": "The classes under cover are little better than those of a simpler method, or better by chance.",
    "no better": "Do not rely on the classes under cover: they are no better than those of a simpler method.",
    "not tested": "How far to trust the classes under cover is not known: the network was not tested in this region"
    " beside a simpler method.",
}


def _compared(where: str, ours: float, best: float, name: str) -> str:
    return (
        f"Where outcrop of {where} was kept from the network, it was right in {percent(ours)} of the places;"
        f" {name}, without a network, in {percent(best)}."
    )


def _outcome(differences: Sequence[Mapping[str, Any]]) -> str:
    """Whether a network is better than the null model of the last of these differences, which is the best one."""
    gains = {each["measure"]: each for each in differences if each["null"] == differences[-1]["null"]}
    sure = any((gains[measure]["low"] or 0) > 0 for measure in ("pa", "fwiou"))
    ahead = all(gains[measure]["mean"] > 0 for measure in ("pa", "mpa", "fwiou"))
    return "better" if sure and ahead else "mixed" if sure or ahead else "no better"


def _likeness(facts: Facts) -> str:
    """Whether the region is like the crusts that its networks were trained on, if they were and it was compared."""
    states = {str(each["state"]) for each in prior_verdicts(facts) if "state" in each}
    crusts = "the simulated crusts that the network was trained on"
    if _OUTSIDE in states:
        return f" The region is unlike {crusts}: its probabilities are not reliable."
    if _EDGE in states:
        return f" The region is at the edge of {crusts}: its probabilities may be too high."
    return f" The region is like {crusts}." if _INSIDE in states else ""


def compare_with_baselines(protocol: Protocol) -> dict[str, Any]:
    """Compare the networks of the map with the best baseline on held-out blocks.

    Returns
    -------
    dict
        ``places`` (number of nodes), ``networks`` (their number), ``accuracy``; ``baseline`` (name and accuracy of the
        best one without a network) and ``outcome``: ``better``, ``no better`` or ``mixed``, by accuracy and weighted
        overlap; ``no better`` also if :func:`gravmap.learning.evaluation.comparison.no_better_than` finds any. Both
        are None if no baseline was scored. ``no_better_than``: those; ``ahead_in_overlap``: the best baseline by
        weighted overlap, where only in this one is ahead.
    """
    runs = [run for run in protocol.runs if run.used]
    # The mean of several runs: selecting the best one by its test score would be biased.
    pa, fwiou = mean_of(runs, "pa"), mean_of(runs, "fwiou")
    found: dict[str, Any] = {
        "places": runs[0].test["places"],
        "networks": len(runs),
        "accuracy": pa,
        "baseline": None,
        "outcome": None,
        "no_better_than": [],
        "ahead_in_overlap": "",
    }
    rows = {title: row for title, row in protocol.baselines.items() if title != TITLES[SHIFTED_INPUT]}
    if rows:
        best, widest = (max(rows, key=lambda title: float(rows[title][measure])) for measure in ("pa", "fwiou"))
        behind = [rows[best]["pa"] >= pa, rows[widest]["fwiou"] >= fwiou]
        by_key = {key: protocol.baselines[title] for key, title in TITLES.items() if title in protocol.baselines}
        trivial = no_better_than({measure: mean_of(runs, measure) for measure in MEASURES}, by_key)
        found["baseline"] = {"name": in_a_sentence(best), "accuracy": rows[best]["pa"]}
        found["outcome"] = "no better" if trivial or all(behind) else "mixed" if any(behind) else "better"
        found["no_better_than"] = trivial
        found["ahead_in_overlap"] = in_a_sentence(widest) if behind == [False, True] else ""
    return found


def mean_of(runs: Sequence[RunFacts], key: str) -> float:
    """The mean over runs of one score on the test split."""
    return float(sum(float(run.test[key]) for run in runs) / len(runs))


def in_a_sentence(title: str) -> str:
    """Name of a baseline within a sentence."""
    return next((model.phrase for model in NULL_MODELS.values() if model.title == title), title)


def scores_section(facts: Facts) -> dict[str, Any]:
    """Tables of scores by split, held-out blocks first.

    Returns
    -------
    dict
        ``crusts``: see :func:`gravmap.mapping.page.crusts.crusts_section`; ``only_crusts``: whether no network was
        scored on a region; ``pretrained``: run and prior of networks that started from one trained on crusts;
        ``held_out`` and ``random``: see :func:`_protocol`; ``measures``: key to title.
    """
    simulated = facts.simulated
    return {
        "crusts": [crusts_section(facts, run) for run in simulated],
        "only_crusts": bool(simulated) and len(simulated) == len(facts.used) and not facts.protocols,
        "pretrained": [
            (run.name, run.pretrained_on.get("prior", {}).get("name", "not on record"))
            for run in facts.used
            if run.pretrained_on
        ],
        "held_out": [_protocol(each) for each in facts.protocols if each.kind != "random"],
        "random": [_protocol(each) for each in facts.protocols if each.kind == "random"],
        "hidden": hidden_outcrop(facts),
        "null_titles": {key: model.title for key, model in NULL_MODELS.items()},
        "measures": MEASURES,
    }


def _protocol(protocol: Protocol) -> dict[str, Any]:
    split, leak = protocol.split, protocol.leak
    return {
        "block_deg": (split.get("block_deg") or [None])[0],
        "buffer_deg": split.get("buffer_deg"),
        "leak": leak,
        "leaks": leak is not None and leak > LEAK_LIMIT,
        "places": protocol.runs[0].test["places"],
        "fold": split.get("fold", 0),
        "folds": split.get("folds"),
        "rows": [
            *({"label": f"network {run.name}", "ours": run.used, "scores": run.test} for run in protocol.runs),
            *({"label": name, "ours": False, "scores": row} for name, row in protocol.baselines.items()),
        ],
        "no_baselines": protocol.no_baselines,
    }


def reliability_section(facts: Facts) -> dict[str, Any]:
    """Calibration of the probabilities, before and after temperature scaling.

    Returns
    -------
    dict
        ``runs``: see :func:`_reliability`; ``unmeasured``: names of runs without a calibration.
    """
    return {
        "runs": [_reliability(run) for run in facts.used if _measured(run)],
        "unmeasured": [run.name for run in facts.used if not _measured(run)],
    }


def _measured(run: RunFacts) -> bool:
    return any((run.calibration.get(role) or {}).get("after") for role in ("test", "tune"))


def _reliability(run: RunFacts) -> dict[str, Any]:
    role = "test" if (run.calibration.get("test") or {}).get("after") else "tune"
    part = run.calibration[role]
    before, after = part.get("before") or {}, part["after"]
    test = run.calibration.get("test") or {}
    return {
        "name": run.name,
        "role": role,
        "units": "crusts" if run.simulated else "blocks",
        "nodes": part["nodes"],
        "before": before,
        "after": after,
        "chart": reliability_chart({"before": before.get("bins", []), "after": after.get("bins", [])}),
        "temperatures": _temperatures(run.calibration),
        "notes": _merged_notes(run.calibration.get("notes", [])),
        "strata": [
            {"label": f"{name} {_STRATA.get(kind, '')}".rstrip(), **row}
            for kind, strata in (test.get("strata") or {}).items()
            for name, row in strata.items()
            if row["nodes"]
        ]
        if test.get("nodes")
        else [],
    }


def _temperatures(calibration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Temperatures by window size, with a ``curve`` of (km, temperature) if they depend on the distance to outcrop."""
    curves = calibration.get("by_distance", {})
    return [
        {
            "size": size.replace("+", " and "),
            "value": float(value),
            "curve": list(zip(curves[size]["km"], curves[size]["temperature"], strict=True)) if size in curves else [],
        }
        for size, value in calibration["temperatures"].items()
    ]


def _merged_notes(notes: Sequence[Any]) -> list[str]:
    """Notes on window sizes ("5deg+10deg: ..."); those with the same text are merged."""
    sizes: dict[str, list[str]] = {}
    for note in map(str, notes):
        size, colon, words = note.partition(": ")
        sizes.setdefault(words if colon else note, []).extend([size.replace("+", " and ")] if colon else [])
    return [f"{'; '.join(of)}: {words}" if of else words for words, of in sizes.items()]
