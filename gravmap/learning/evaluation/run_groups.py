"""Runs that differ in fold and seed alone belong together: means, spreads and pooled scores of such a group."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gravmap.learning.data.outcrop_context import in_short
from gravmap.learning.evaluation.metrics import scores

MEASURES = ("pa", "mpa", "mpa_all_classes", "miou", "fwiou", "macro_f1", "kappa")

OF_ONE_RUN = {"seed", "device", "micro_batch", "precision", "channels_last", "compile", "tensorboard", "architecture"}
"""What a recipe says of one run and its machine, not of how the network is taught."""

Record = Mapping[str, Any]


def setup_of(model: Record) -> dict[str, Any]:
    """What two runs must share to be one group: network, input, recipe, windows and split, but not fold and seed.

    Parameters
    ----------
    model : mapping
        ``model.json``.
    """
    recipe = {key: value for key, value in model.get("recipe", {}).items() if key not in OF_ONE_RUN}
    # Spreads and limits of the channels are measured on the fold's own training ground.
    inputs = [{key: each.get(key) for key in ("kind", "field", "unit")} for each in model["inputs"]]
    recipe["inputs"] = None
    return {
        "model": model["model"],
        "architecture": model["architecture"],
        "inputs": inputs,
        "recipe": recipe,
        "size": model["tile_size_px"],
        "scales": model["scales_deg"],
        "split": model["split"].get("name", "blocks"),
    }


def group_runs(records: Sequence[Record]) -> list[list[Record]]:
    """Sort records of runs, each with its `setup`, into groups, in the order they come."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(json.dumps(record["setup"], sort_keys=True), []).append(record)
    return list(groups.values())


def group_labels(setups: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each group: network, input and recipe, and what else tells it from others of that name."""
    plain = [_plain(setup) for setup in setups]
    labels = []
    for setup, mine in zip(setups, plain, strict=True):
        label = _short(setup)
        alike = [other for each, other in zip(setups, plain, strict=True) if _short(each) == label]
        apart = [key for key in mine if any(other.get(key) != mine[key] for other in alike)]
        labels.append(", ".join([label, *(f"{key} {_word(mine[key])}" for key in apart)]))
    return labels


def _short(setup: Mapping[str, Any]) -> str:
    inputs = "+".join(in_short(str(each.get("field") or each["kind"]) for each in setup["inputs"]))
    recipe = str(setup["recipe"].get("recipe", "default"))
    return f"{setup['model']}, {inputs}" + ("" if recipe == "default" else f", recipe {recipe}")


def _plain(setup: Mapping[str, Any]) -> dict[str, Any]:
    recipe = {key: value for key, value in setup["recipe"].items() if key != "recipe"}
    return {"size": setup["size"], "scales": setup["scales"], **recipe, "architecture": setup["architecture"]}


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return "of its own"
    return "+".join(f"{each:g}" for each in value) if isinstance(value, list) else str(value)


def mean_scores(found: Sequence[Record], folds: Sequence[int]) -> dict[str, Any]:
    """Mean of the scores of several runs: over the seeds of a fold first, then over the folds.

    Parameters
    ----------
    found : sequence of mapping
        From :func:`gravmap.learning.evaluation.metrics.scores`.
    folds : sequence of int
        The fold of each.

    Returns
    -------
    dict
        As of one run. Of a class, the mean over the folds in which it occurs; `absent` are those that occur in none.
        How many places are counted is the sum over the folds.
    """
    total = "km2" if "km2" in found[0] else "places"
    by_fold = [[each for each, fold in zip(found, folds, strict=True) if fold == wanted] for wanted in sorted({*folds})]
    names = list(found[0]["per_class"])

    def of_class(name: str, key: str) -> float | None:
        return _mean(_mean(run["per_class"][name][key] for run in fold) for fold in by_fold)

    return {
        total: sum(fold[0][total] for fold in by_fold),
        **{key: _mean(_mean(run[key] for run in fold) for fold in by_fold) for key in MEASURES},
        "absent": [name for name in names if all(name in run["absent"] for run in found)],
        "per_class": {
            name: {
                **{key: of_class(name, key) for key in ("recall", "precision", "iou", "f1")},
                total: sum(fold[0]["per_class"][name][total] for fold in by_fold),
            }
            for name in names
        },
    }


def spread(found: Sequence[Record], folds: Sequence[int]) -> dict[str, dict[str, float | None]]:
    """Standard deviations (n - 1) of each measure: between folds, and between seeds of one fold.

    Between folds: of the folds' means over their seeds. Between seeds: the root of the mean variance within folds that
    have several. None where there is nothing to compare.
    """
    by_fold = [[each for each, fold in zip(found, folds, strict=True) if fold == wanted] for wanted in sorted({*folds})]
    result = {}
    for key in MEASURES:
        values = [[run[key] for run in fold if run[key] is not None] for fold in by_fold]
        means = [np.mean(each) for each in values if each]
        variances = [np.var(each, ddof=1) for each in values if len(each) > 1]
        result[key] = {
            "folds": float(np.std(means, ddof=1)) if len(means) > 1 else None,
            "seeds": float(np.sqrt(np.mean(variances))) if variances else None,
        }
    return result


def summarise(group: Sequence[Record], label: str) -> dict[str, Any]:
    """What several runs of one group score together.

    Parameters
    ----------
    group : sequence of mapping
        Records with `run`, `fold`, `seed`, `scores`, `confusion`, `tune_fwiou`, `distance` and, where they were asked
        for, `baselines` and `points`.
    label : str
        Its name.

    Returns
    -------
    dict
        JSON-able: `label`, `runs`, `folds`, `seeds`, `scores` (means), `spread`, `pooled` (scores of the confusion
        matrices added up), `confusion`, `tune_fwiou`, `distance`, `baselines`, `points`.
    """
    folds = [int(record["fold"]) for record in group]
    found = [record["scores"] for record in group]
    names = list(found[0]["per_class"])
    total = "km2" if "km2" in found[0] else "places"
    matrix = np.sum([np.asarray(record["confusion"]) for record in group], axis=0)
    result: dict[str, Any] = {
        "label": label,
        "runs": [{key: record[key] for key in ("run", "fold", "seed")} for record in group],
        "folds": sorted({*folds}),
        "seeds": sorted({int(record["seed"]) for record in group}),
        "scores": mean_scores(found, folds),
        "spread": spread(found, folds),
        "pooled": scores(matrix, names, total),
        "confusion": matrix.tolist(),
        "tune_fwiou": _mean(record["tune_fwiou"] for record in group),
        "distance": _pooled_distance([record["distance"] for record in group], total),
    }
    for part in ("baselines", "points"):
        if all(part in record for record in group):
            result[part] = _MERGERS[part]([record[part] for record in group], folds)
    return result


def _pooled_distance(tables: Sequence[Sequence[Record]], total: str) -> list[dict[str, Any]]:
    """Accuracy by distance over all runs; of it alone the parts add up."""
    ends = sorted({_end_km(row) for table in tables for row in table})
    result = []
    for end in ends:
        rows = [row for table in tables for row in table if _end_km(row) == end]
        weight = [row[total] for row in rows]
        pooled = {key: rows[0][key] for key in ("from_km", "to_km")}
        pooled |= {total: sum(weight), "places": sum(row["places"] for row in rows)}
        for key in ("mean_km", "pa"):
            pooled[key] = float(np.average([row[key] for row in rows], weights=weight))
        if all("baselines" in row for row in rows):
            known = set.intersection(*(set(row["baselines"]) for row in rows))
            pooled["baselines"] = {
                name: float(np.average([row["baselines"][name] for row in rows], weights=weight))
                for name in rows[0]["baselines"]
                if name in known
            }
        result.append(pooled)
    return result


def _end_km(row: Record) -> float:
    return float("inf") if row["to_km"] is None else float(row["to_km"])


def _merged_baselines(found: Sequence[Record], folds: Sequence[int]) -> dict[str, Any]:
    """Null models of the folds; one that some fold lacks is left out."""
    shared = [name for name in found[0] if all(name in each for each in found)]
    return {name: mean_scores([each[name] for each in found], folds) for name in shared}


def _merged_points(found: Sequence[Record], folds: Sequence[int]) -> dict[str, Any]:
    """The same points, named by several networks: each answer counts alike."""
    result = {**found[0], "scores": mean_scores([each["scores"] for each in found], [0] * len(found))}
    result["distance"] = _pooled_distance([each["distance"] for each in found], "places")
    if all("baselines" in each for each in found):
        result["baselines"] = _merged_baselines([each["baselines"] for each in found], [0] * len(found))
    return result


_MERGERS = {"baselines": _merged_baselines, "points": _merged_points}


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
