"""Scores protocol by protocol, with a picture of each group of runs: a row has only runs trained under its split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gravmap.learning.evaluation.comparison import TITLES, compare_with_null_models
from gravmap.learning.evaluation.figures import Row, draw_group
from gravmap.learning.evaluation.run_groups import group_labels, group_runs, summarise
from gravmap.mapping.scoring.evaluate import Evaluated

NOT_TRAINED = "not trained"

ALWAYS = ("blocks", "random")
"""Listed even where the tile set has no such split: held-out blocks, and the random windows of the paper."""


def protocols(runs: Sequence[Evaluated], index: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sort scored runs under the splits they were trained on.

    Parameters
    ----------
    runs : sequence of Evaluated
        From :func:`gravmap.mapping.scoring.evaluate.evaluate_run`.
    index : mapping
        ``index.json`` of the tile set: its splits, with what was measured of their leak.

    Returns
    -------
    dict of str to dict
        Split to `kind`, `leak` (fraction of the held-out bedrock whose labels training sees), `folds` (their number),
        `scores` (:data:`NOT_TRAINED` where no run was), and, where one was, `spread`, `baselines`, ... of one group
        of runs and all `groups`. Of several groups it is the best on the tuning blocks: a choice by the test blocks
        would be biased.
    """
    records = [run.record for run in runs]
    nodes = {id(run.record): run.nodes for run in runs}  # runs of two workspaces may have one name
    stored = {str(each["name"]): each for each in index["splits"]}
    names = dict.fromkeys([*stored, *ALWAYS, *(str(each["setup"]["split"]) for each in records)])
    result: dict[str, dict[str, Any]] = {}
    for name in sorted(names, key=lambda each: (each not in ALWAYS, list(names).index(each))):
        split = stored.get(name, {})
        found: dict[str, Any] = {
            "kind": split.get("kind", name),
            "leak": split.get("leak"),
            "folds": split.get("folds"),
        }
        groups = group_runs([each for each in records if each["setup"]["split"] == name])
        labels = group_labels([group[0]["setup"] for group in groups])
        summaries = [summarise(group, label) for group, label in zip(groups, labels, strict=True)]
        for group, summary in zip(groups, summaries, strict=True):
            if all("gravity_adds" in each for each in group):
                summary["gravity_adds"] = (
                    group[0]["gravity_adds"]
                    if len(group) == 1
                    else compare_with_null_models([nodes[id(each)] for each in group])
                )
        if not summaries:
            result[name] = {**found, "scores": NOT_TRAINED}
            continue
        best = max(summaries, key=lambda each: -1.0 if each["tune_fwiou"] is None else float(each["tune_fwiou"]))
        parts = ("scores", "spread", "pooled", "baselines", "gravity_adds", "points")
        shown: dict[str, Any] = {key: best[key] for key in parts if key in best}
        result[name] = {**found, "group": best["label"], **shown, "groups": summaries}
    return result


def draw_groups(found: Mapping[str, Any], records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw ``group-NAME.png`` of every group that has several runs: every run beside the mean that is reported.

    NAME is the first run of the group.

    Parameters
    ----------
    found : mapping
        From :func:`protocols`.
    records : sequence of mapping
        Of the runs.
    folder : Path
        Where the pictures go: the workspace's ``runs``.

    Returns
    -------
    list of Path
        The pictures.
    """
    made = []
    for split, protocol in found.items():
        summaries = protocol.get("groups", [])
        groups = group_runs([record for record in records if record["setup"]["split"] == split])
        for members, group in zip(groups, summaries, strict=True):
            if len(members) < 2:
                continue
            rows = [Row("network", [each["scores"] for each in members], group["scores"], network=True)]
            nulls = group.get("baselines", {})
            rows += [
                Row(TITLES[name], [each["baselines"][name] for each in members], nulls[name])
                for name in sorted(nulls, key=lambda name: -float(nulls[name]["fwiou"]))
            ]
            folds, seeds = ([int(each[key]) for each in members] for key in ("fold", "seed"))
            path = folder / f"group-{members[0]['run']}.png"
            names = ", ".join(str(each["run"]) for each in members)
            title = f"{group['label']}: {names}\non the test blocks of each run's fold of the split {split}"
            draw_group(rows, folds, seeds, path, title)
            made.append(path)
    return made
