"""Groups of runs that differ only in fold and seed: mean scores, standard deviations and pooled scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gravmap.learning.data.outcrop_context import in_short
from gravmap.learning.evaluation.metrics import scores

MEASURES = ("pa", "mpa", "mpa_all_classes", "miou", "fwiou", "macro_f1", "kappa")

RUN_SPECIFIC = {"seed", "device", "micro_batch", "precision", "channels_last", "compile", "tensorboard", "architecture"}
"""Keys of a recipe that describe a single run or its machine, not how the network is trained."""

Record = Mapping[str, Any]


def shared_settings(model: Record) -> dict[str, Any]:
    """Settings that runs of one group share: network, input, recipe, windows and split, without fold and seed.

    Parameters
    ----------
    model : mapping
        ``model.json``.
    """
    recipe = {key: value for key, value in model.get("recipe", {}).items() if key not in RUN_SPECIFIC}
    # Standard deviations and limits of the channels depend on the training data of the fold.
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
    """Group records of runs by their `setup`, in order of appearance.

    Examples
    --------
    >>> groups = group_runs([{"run": 1, "setup": "a"}, {"run": 2, "setup": "b"}, {"run": 3, "setup": "a"}])
    >>> [[record["run"] for record in group] for group in groups]
    [[1, 3], [2]]
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(json.dumps(record["setup"], sort_keys=True), []).append(record)
    return list(groups.values())


def group_labels(setups: Sequence[Mapping[str, Any]]) -> list[str]:
    """A label for each group: network, input and recipe, and settings that distinguish it from others."""
    flat = [_flatten(setup) for setup in setups]
    labels = []
    for setup, mine in zip(setups, flat, strict=True):
        label = _short_label(setup)
        same_label = [other for each, other in zip(setups, flat, strict=True) if _short_label(each) == label]
        differing = [key for key in mine if any(other.get(key) != mine[key] for other in same_label)]
        labels.append(", ".join([label, *(f"{key} {_format_value(mine[key])}" for key in differing)]))
    return labels


def _short_label(setup: Mapping[str, Any]) -> str:
    inputs = "+".join(in_short(str(each.get("field") or each["kind"]) for each in setup["inputs"]))
    recipe = str(setup["recipe"].get("recipe", "default"))
    return f"{setup['model']}, {inputs}" + ("" if recipe == "default" else f", recipe {recipe}")


def _flatten(setup: Mapping[str, Any]) -> dict[str, Any]:
    recipe = {key: value for key, value in setup["recipe"].items() if key != "recipe"}
    return {"size": setup["size"], "scales": setup["scales"], **recipe, "architecture": setup["architecture"]}


def _format_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "custom"
    return "+".join(f"{each:g}" for each in value) if isinstance(value, list) else str(value)


def mean_scores(found: Sequence[Record], folds: Sequence[int]) -> dict[str, Any]:
    """Mean scores of several runs: over the seeds of a fold first, then over the folds.

    Parameters
    ----------
    found : sequence of mapping
        From :func:`gravmap.learning.evaluation.metrics.scores`.
    folds : sequence of int
        The fold of each run.

    Returns
    -------
    dict
        With the keys of a single run. For each class, the mean over the folds in which it occurs; `absent` are those
        that occur in none. Numbers of places are summed over the folds.
    """
    total = "km2" if "km2" in found[0] else "places"
    by_fold = [
        [each for each, fold in zip(found, folds, strict=True) if fold == each_fold] for each_fold in sorted({*folds})
    ]
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


def standard_deviations(found: Sequence[Record], folds: Sequence[int]) -> dict[str, dict[str, float | None]]:
    """Standard deviations (n - 1) of each measure: between folds, and between seeds of one fold.

    Between folds: of the folds' means over their seeds. Between seeds: the root of the mean variance within folds that
    have several. None if there is nothing to compare.
    """
    by_fold = [
        [each for each, fold in zip(found, folds, strict=True) if fold == each_fold] for each_fold in sorted({*folds})
    ]
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
    """Scores of one group of runs.

    Parameters
    ----------
    group : sequence of mapping
        Records with `run`, `fold`, `seed`, `scores`, `confusion`, `tune_fwiou`, `distance` and, if computed,
        `baselines` and `points`.
    label : str
        Label of the group.

    Returns
    -------
    dict
        JSON-able: `label`, `runs`, `folds`, `seeds`, `scores` (means), `spread` (standard deviations), `pooled` (scores
        of the sum of the confusion matrices), `confusion`, `tune_fwiou`, `distance`, `baselines`, `points`.
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
        "spread": standard_deviations(found, folds),
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
    """Accuracy by distance pooled over all runs; other measures cannot be pooled from their bins."""
    ends = sorted({_upper_edge_km(row) for table in tables for row in table})
    result = []
    for end in ends:
        rows = [row for table in tables for row in table if _upper_edge_km(row) == end]
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


def _upper_edge_km(row: Record) -> float:
    return float("inf") if row["to_km"] is None else float(row["to_km"])


def _merged_baselines(found: Sequence[Record], folds: Sequence[int]) -> dict[str, Any]:
    """Mean scores of the null models that every fold has."""
    common = [name for name in found[0] if all(name in each for each in found)]
    return {name: mean_scores([each[name] for each in found], folds) for name in common}


def _merged_points(found: Sequence[Record], folds: Sequence[int]) -> dict[str, Any]:
    """Mean scores of several networks at the same points."""
    if "scores" not in found[0]:  # only depths
        return {**found[0]}
    result = {**found[0], "scores": mean_scores([each["scores"] for each in found], [0] * len(found))}
    result["distance"] = _pooled_distance([each["distance"] for each in found], "places")
    if all("baselines" in each for each in found):
        result["baselines"] = _merged_baselines([each["baselines"] for each in found], [0] * len(found))
    return result


_MERGERS = {"baselines": _merged_baselines, "points": _merged_points}


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
