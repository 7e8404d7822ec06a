"""Reliability of probabilities: calibration error, log loss, Brier score, coverage, and the reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.files import atomic_path
from gravmap.learning.training.curves import RATE, TRAINING, TUNING
from gravmap.units import format_angle

BINS = 15

HELD = 0.8
"""Of the probability: the classes that hold so much of it should hold the true one as often."""

Values = NDArray[np.float64]


def log_softmax(logits: NDArray[np.floating], temperature: float | Values = 1.0) -> Values:
    """Logarithms of the probabilities of logits (n, K) divided by a temperature, or by one for each place (n,)."""
    scaled = logits.astype(np.float64) / (np.reshape(temperature, (-1, 1)) if np.ndim(temperature) else temperature)
    scaled -= scaled.max(axis=1, keepdims=True)
    result: Values = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result


def reliability(
    log_probability: Values, target: NDArray[np.int64], weight: Values | None = None, bins: int = BINS
) -> dict[str, Any]:
    """Measures of how far probabilities come true.

    With w the weights over their sum, p the probabilities, c = max_k p_k and a = 1 where the likeliest class is the
    true one, in B bins of equal width of c::

        ECE   = sum_b | sum_(i in b) w_i (a_i - c_i) |
        class-wise ECE = the same of p_k and [y = k] in place of c and a, mean over the K classes
        NLL   = - sum_i w_i ln p_(i, y_i)
        Brier = sum_i w_i sum_k (p_ik - [y_i = k])^2

    Parameters
    ----------
    log_probability : (n, K) float64
        Natural logarithms of the probabilities.
    target : (n,) int64
        True classes, 0..K-1.
    weight : (n,) float64, optional
        How much each place counts, such as its area; by default all alike.
    bins : int
        B. A probability on the side between two bins is in the lower one; 0 is in the first.

    Returns
    -------
    dict
        JSON-able: `ece`, `classwise_ece`, `nll`, `brier`, `coverage` and `set_size` (:func:`coverage`), and `bins`,
        from low to high confidence, each with `low`, `high`, `share` (of the weight), `confidence` and `accuracy`
        (means in the bin, None in an empty one).

    Raises
    ------
    ValueError
        There is no place, or the weights add up to nothing.

    References
    ----------
    Naeini et al. (2015), doi:10.1609/aaai.v29i1.9602, for the ECE; Kull et al. (2019), arXiv:1910.12656, for the
    class-wise one; Brier (1950), doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    """
    count, classes = log_probability.shape
    weight = np.ones(count) if weight is None else weight
    if not weight.sum() > 0:
        raise ValueError("no place to measure reliability on")
    weight = weight / weight.sum()
    probability = np.exp(log_probability)
    truth = np.zeros_like(probability)
    truth[np.arange(count), target] = 1.0
    named = probability.argmax(axis=1)
    share, confidence, accuracy = _binned(probability.max(axis=1), (named == target).astype(np.float64), weight, bins)
    covered, size = coverage(probability, target, weight)
    per_class = [_error(*_binned(probability[:, each], truth[:, each], weight, bins)) for each in range(classes)]
    return {
        "ece": _error(share, confidence, accuracy),
        "classwise_ece": float(np.mean(per_class)),
        "nll": float(-(weight * log_probability[np.arange(count), target]).sum()),
        "brier": float((weight * ((probability - truth) ** 2).sum(axis=1)).sum()),
        "coverage": covered,
        "set_size": size,
        "bins": [
            {
                "low": number / bins,
                "high": (number + 1) / bins,
                "share": float(share[number]),
                "confidence": float(confidence[number] / share[number]) if share[number] else None,
                "accuracy": float(accuracy[number] / share[number]) if share[number] else None,
            }
            for number in range(bins)
        ],
    }


def coverage(probability: Values, target: NDArray[np.int64], weight: Values, held: float = HELD) -> tuple[float, float]:
    """How often the classes that hold a share of the probability hold the true one, and how many they are.

    Classes are taken from the likeliest on until they hold the share. The last one is more than is needed to hold it
    just so: it counts with the part that is needed, or sets of whole classes would be right too often even where every
    probability is true.

    Parameters
    ----------
    probability : (n, K) float64
        Of each class.
    target : (n,) int64
        True classes, 0..K-1.
    weight : (n,) float64
        How much each place counts.
    held : float
        The share, above 0 and below 1.

    Returns
    -------
    (float, float)
        The share of places whose true class is in the set, which is `held` where probabilities are true; and the mean
        number of classes in a set.

    References
    ----------
    Romano, Sesia & Candes (2020), arXiv:2006.02544, for such sets and their random last class, whose mean this is.
    """
    order = np.argsort(-probability, axis=1, kind="stable")
    ranked = np.take_along_axis(probability, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    part = np.clip((held - before) / np.maximum(ranked, np.finfo(np.float64).tiny), 0, 1)
    is_true = order == target[:, None]
    share = weight / weight.sum()
    return float((share * (part * is_true).sum(axis=1)).sum()), float((share * part.sum(axis=1)).sum())


def _binned(stated: Values, came_true: Values, weight: Values, bins: int) -> tuple[Values, Values, Values]:
    """Sums over the bins of a stated probability: of the weight, the weighted statement, and what came true."""
    number = np.clip(np.ceil(stated * bins) - 1, 0, bins - 1).astype(np.intp)

    def summed(values: Values) -> Values:
        return np.bincount(number, weights=values, minlength=bins).astype(np.float64)

    return summed(weight), summed(weight * stated), summed(weight * came_true)


def _error(share: Values, stated: Values, came_true: Values) -> float:
    return float(np.abs(came_true - stated).sum())


def draw_reliability(record: Mapping[str, Any], path: Path, title: str = "") -> None:
    """Draw the reliability diagrams of ``calibration.json`` into a PNG.

    Of the test blocks, where these have labelled nodes, else of the tuning blocks; below, how many nodes are how sure.
    Where the distance to mapped outcrop is known, a row more: before and after at each distance.

    Parameters
    ----------
    record : mapping
        From :func:`gravmap.learning.calibration.temperature.calibrate`.
    path : Path
        The PNG to write.
    title : str
        Over the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scales = " and ".join(format_angle(scale) for scale in record["default_scales"])
    key = scales.replace(" and ", "+")
    role = "test" if record["test"]["nodes"] else "tune"
    measured = record[role]
    strata = measured.get("strata", {}).get("distance", {}) if measured["nodes"] else {}
    figure = Figure(figsize=(7.6, 9.0 if strata else 5.9), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    upper: Any = figure
    if strata:
        parts: Any = figure.subfigures(2, 1, height_ratios=(5.9, 3.1))
        upper, lower = parts
        _draw_strata(lower, strata)
    grid = upper.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    curve = record.get("by_distance", {}).get(key)
    divided = f"logits divided by {record['temperatures'][key]:.3g}"
    if curve:
        least, most = curve["temperature"][0], curve["temperature"][-1]
        divided = f"logits divided by {least:.3g} near outcrop to {most:.3g} far from it"
    heads = ("as the network says them", divided)
    for (above, below), when, head, colour in zip(grid.T, ("before", "after"), heads, (TUNING, TRAINING), strict=True):
        _draw(above, below, measured[when], head, colour)
        below.set_xlabel("probability of the likeliest class")
    grid[0, 0].set_ylabel("share of ground that is this class")
    grid[1, 0].set_ylabel("share of ground")
    held = "crusts" if "cover" in measured.get("strata", {}) else "blocks"
    ground = {"test": f"test {held}", "tune": f"tuning {held} (what the temperature was fitted on)"}[role]
    told = f"{measured['nodes']} nodes of the {ground}, windows of {scales}"
    figure.suptitle(f"{title}\n{told}" if title else told, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _draw(above: Any, below: Any, measured: Mapping[str, Any] | None, head: str, colour: str) -> None:
    """One diagram over its histogram."""
    above.set(xlim=(0, 1), ylim=(0, 1))
    above.plot((0, 1), (0, 1), color=RATE, lw=1, ls="--")
    above.grid(alpha=0.3)
    below.grid(alpha=0.3)
    if measured is None:
        above.set_title(head, fontsize=9)
        above.text(0.5, 0.5, "no labelled held-out node", ha="center", color="#777777")
        return
    filled = [each for each in measured["bins"] if each["share"]]
    sure, true = [each["confidence"] for each in filled], [each["accuracy"] for each in filled]
    above.vlines(sure, sure, true, color=colour, lw=5, alpha=0.25)
    above.plot(sure, true, color=colour, marker="o", ms=4, lw=1.4, clip_on=False)
    above.set_title(f"{head}\nECE {measured['ece']:.3f}, log loss {measured['nll']:.3f}", fontsize=9)
    width = measured["bins"][0]["high"] - measured["bins"][0]["low"]
    middles = [(each["low"] + each["high"]) / 2 for each in measured["bins"]]
    below.bar(middles, [each["share"] for each in measured["bins"]], width=width * 0.92, color=colour)


def _draw_strata(figure: Any, strata: Mapping[str, Any]) -> None:
    """A small diagram for each distance to outcrop, before and after in one."""
    for number, (axes, (name, row)) in enumerate(
        zip(figure.subplots(1, len(strata), sharey=True), strata.items(), strict=True)
    ):
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="" if number != 1 else "probability")
        axes.plot((0, 1), (0, 1), color=RATE, lw=1, ls="--")
        axes.grid(alpha=0.3)
        head = f"{name} from outcrop, {row['nodes']} nodes"
        if row["after"] is None:
            axes.set_title(head, fontsize=9)
            continue
        for when, colour in (("before", TUNING), ("after", TRAINING)):
            filled = [each for each in row[when]["bins"] if each["share"]]
            sure, true = [each["confidence"] for each in filled], [each["accuracy"] for each in filled]
            axes.plot(sure, true, color=colour, marker="o", ms=3, lw=1.2, clip_on=False, label=when)
        ece, held = ([row[when][key] for when in ("before", "after")] for key in ("ece", "coverage"))
        axes.set_title(
            f"{head}\nECE {ece[0]:.3f}, then {ece[1]:.3f}\n80 % sets hold {100 * held[0]:.0f} %, then "
            f"{100 * held[1]:.0f} %",
            fontsize=8,
        )
        if not number:
            axes.set_ylabel("share that is this class")
            axes.legend(fontsize=7, loc="upper left", frameon=False)
