"""Reliability of probabilities: calibration error, log loss, Brier score, coverage, and the reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from gravmap.files import atomic_path
from gravmap.learning.training.curves import RATE, TRAINING, TUNING
from gravmap.plotting import GREY
from gravmap.records import Count, record
from gravmap.units import format_angle

BINS = 15

SET_PROBABILITY = 0.8
"""Nominal coverage of prediction sets: sets of this total probability should contain the true class as often."""

Values = NDArray[np.float64]


@record
class Bin(TypedDict):
    """A bar of a reliability diagram."""

    low: float
    high: float
    share: float
    confidence: float | None
    accuracy: float | None


@record
class Measured(TypedDict):
    """How well probabilities agree with frequencies."""

    ece: float
    nll: float
    classwise_ece: NotRequired[float]
    brier: NotRequired[float]
    coverage: NotRequired[float]
    set_size: NotRequired[float]
    bins: NotRequired[list[Bin]]


@record
class MeasuredStratum(TypedDict):
    """The same before and after calibration, for a part of the nodes."""

    nodes: Count
    before: NotRequired[Measured | None]
    after: NotRequired[Measured | None]
    strata: NotRequired[dict[str, dict[str, MeasuredStratum]]]


def log_softmax(logits: NDArray[np.floating], temperature: float | Values = 1.0) -> Values:
    """Log probabilities of logits (n, K), divided by a temperature or by one for each node (n,).

    Examples
    --------
    >>> import numpy as np
    >>> np.exp(log_softmax(np.array([[0.0, np.log(3.0)]]))).round(6)
    array([[0.25, 0.75]])
    """
    scaled = logits.astype(np.float64) / (np.reshape(temperature, (-1, 1)) if np.ndim(temperature) else temperature)
    scaled -= scaled.max(axis=1, keepdims=True)
    result: Values = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result


def reliability_measures(
    log_probability: Values, target: NDArray[np.int64], weight: Values | None = None, bins: int = BINS
) -> dict[str, Any]:
    """Calibration measures of predicted probabilities.

    With w the weights over their sum, p the probabilities, c = max_k p_k and a = 1 where the most probable class is the
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
        Weight of each node, such as its area; by default equal.
    bins : int
        B. A probability on the edge of two bins is in the lower one; 0 is in the first.

    Returns
    -------
    dict
        JSON-able: `ece`, `classwise_ece`, `nll`, `brier`, `coverage` and `set_size` (:func:`coverage`), and `bins`,
        from low to high confidence, each with `low`, `high`, `share` (of the weight), `confidence` and `accuracy`
        (means in the bin, None in an empty one).

    Raises
    ------
    ValueError
        There is no node, or the weights sum to zero.

    References
    ----------
    Naeini et al. (2015), doi:10.1609/aaai.v29i1.9602, for the ECE; Kull et al. (2019), arXiv:1910.12656, for the
    class-wise one; Brier (1950), doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    Examples
    --------
    Four predictions with a confidence of 0.75, three of them correct, are calibrated:

    >>> import numpy as np
    >>> found = reliability_measures(np.log([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    >>> round(found["ece"], 6), round(found["nll"], 3)
    (0.0, 0.562)
    """
    count, classes = log_probability.shape
    weight = np.ones(count) if weight is None else weight
    if not weight.sum() > 0:
        raise ValueError("reliability needs at least one node with a positive weight")
    weight = weight / weight.sum()
    probability = np.exp(log_probability)
    truth = np.zeros_like(probability)
    truth[np.arange(count), target] = 1.0
    predicted = probability.argmax(axis=1)
    share, confidence, accuracy = _binned(
        probability.max(axis=1), (predicted == target).astype(np.float64), weight, bins
    )
    covered, size = coverage(probability, target, weight)
    per_class = [
        _calibration_error(*_binned(probability[:, each], truth[:, each], weight, bins)) for each in range(classes)
    ]
    return {
        "ece": _calibration_error(share, confidence, accuracy),
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


def coverage(
    probability: Values, target: NDArray[np.int64], weight: Values, set_probability: float = SET_PROBABILITY
) -> tuple[float, float]:
    """Coverage and mean size of prediction sets with a given total probability.

    Classes are added from the most probable on until the set has the total probability. The last class exceeds it and
    is counted with the fraction that is needed: sets of whole classes would cover too often even with correct
    probabilities.

    Parameters
    ----------
    probability : (n, K) float64
        Probability of each class.
    target : (n,) int64
        True classes, 0..K-1.
    weight : (n,) float64
        Weight of each node.
    set_probability : float
        Total probability of a set, above 0 and below 1.

    Returns
    -------
    (float, float)
        Fraction of nodes whose true class is in the set, which is `set_probability` for calibrated probabilities; and
        the mean number of classes in a set.

    References
    ----------
    Romano, Sesia & Candes (2020), arXiv:2006.02544, for such sets with a randomised last class, of which this is the
    mean.
    """
    order = np.argsort(-probability, axis=1, kind="stable")
    ranked = np.take_along_axis(probability, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    part = np.clip((set_probability - before) / np.maximum(ranked, np.finfo(np.float64).tiny), 0, 1)
    is_true = order == target[:, None]
    share = weight / weight.sum()
    return float((share * (part * is_true).sum(axis=1)).sum()), float((share * part.sum(axis=1)).sum())


def _binned(confidence: Values, outcome: Values, weight: Values, bins: int) -> tuple[Values, Values, Values]:
    """Sums over the bins of confidence: of the weight, the weighted confidence, and the weighted outcome."""
    number = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(np.intp)

    def summed(values: Values) -> Values:
        return np.bincount(number, weights=values, minlength=bins).astype(np.float64)

    return summed(weight), summed(weight * confidence), summed(weight * outcome)


def _calibration_error(share: Values, confidence: Values, outcome: Values) -> float:
    return float(np.abs(outcome - confidence).sum())


def draw_reliability(record: Mapping[str, Any], path: Path, title: str = "") -> None:
    """Draw the reliability diagrams of ``calibration.json`` as a PNG.

    They show the test nodes if there are any, else the tuning nodes, before and after calibration, above histograms of
    the confidence. If the distance to mapped outcrop is known, a second row shows each range of distances with nodes.

    Parameters
    ----------
    record : mapping
        From :func:`gravmap.learning.calibration.temperature.calibrate`.
    path : Path
        The PNG to write.
    title : str
        Title of the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scales = " and ".join(format_angle(scale) for scale in record["default_scales"])
    key = scales.replace(" and ", "+")
    role = "test" if record["test"]["nodes"] else "tune"
    measured = record[role]
    strata = measured.get("strata", {}).get("distance", {})
    strata = {name: row for name, row in strata.items() if row["nodes"]}
    figure = Figure(figsize=(7.6, 9.0 if strata else 5.9), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    upper: Any = figure
    if strata:
        parts: Any = figure.subfigures(2, 1, height_ratios=(5.9, 3.1))
        upper, lower = parts
        _draw_strata(lower, strata)
    grid = upper.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    curve = record.get("by_distance", {}).get(key)
    scaling = f"logits divided by {record['temperatures'][key]:.3g}"
    if curve:
        least, most = curve["temperature"][0], curve["temperature"][-1]
        scaling = f"logits divided by {least:.3g} near outcrop to {most:.3g} far from it"
    titles = ("before calibration", scaling)
    for (above, below), when, title_of_panel, colour in zip(
        grid.T, ("before", "after"), titles, (TUNING, TRAINING), strict=True
    ):
        _draw(above, below, measured[when], title_of_panel, colour)
        below.set_xlabel("probability of the most probable class")
    grid[0, 0].set_ylabel("observed frequency of this class")
    grid[1, 0].set_ylabel("fraction of nodes")
    units = "crusts" if "cover" in measured.get("strata", {}) else "blocks"
    data = {"test": f"test {units}", "tune": f"tuning {units} (where the temperature was fitted)"}[role]
    subtitle = f"{measured['nodes']} nodes of the {data}, windows of {scales}"
    figure.suptitle(f"{title}\n{subtitle}" if title else subtitle, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _draw(above: Any, below: Any, measured: Mapping[str, Any] | None, title: str, colour: str) -> None:
    """One diagram above its histogram."""
    above.set(xlim=(0, 1), ylim=(0, 1))
    above.plot((0, 1), (0, 1), color=RATE, lw=1, ls="--")
    above.grid(alpha=0.3)
    below.grid(alpha=0.3)
    if measured is None:
        above.set_title(title, fontsize=9)
        above.text(0.5, 0.5, "no labelled held-out node", ha="center", color=GREY)
        return
    filled = [each for each in measured["bins"] if each["share"]]
    sure, true = [each["confidence"] for each in filled], [each["accuracy"] for each in filled]
    above.vlines(sure, sure, true, color=colour, lw=5, alpha=0.25)
    above.plot(sure, true, color=colour, marker="o", ms=4, lw=1.4, clip_on=False)
    above.set_title(f"{title}\nECE {measured['ece']:.3f}, log loss {measured['nll']:.3f}", fontsize=9)
    width = measured["bins"][0]["high"] - measured["bins"][0]["low"]
    middles = [(each["low"] + each["high"]) / 2 for each in measured["bins"]]
    below.bar(middles, [each["share"] for each in measured["bins"]], width=width * 0.92, color=colour)


def _draw_strata(figure: Any, strata: Mapping[str, Any]) -> None:
    """A small diagram for each range of distances to outcrop, before and after calibration."""
    for number, (axes, (name, row)) in enumerate(
        zip(figure.subplots(1, len(strata), sharey=True), strata.items(), strict=True)
    ):
        axes.set(xlim=(0, 1), ylim=(0, 1), box_aspect=1, xlabel="probability")
        axes.plot((0, 1), (0, 1), color=RATE, lw=1, ls="--")
        axes.grid(alpha=0.3)
        title = f"{name} from outcrop, {row['nodes']} nodes"
        for when, colour in (("before", TUNING), ("after", TRAINING)):
            filled = [each for each in row[when]["bins"] if each["share"]]
            sure, true = [each["confidence"] for each in filled], [each["accuracy"] for each in filled]
            axes.plot(sure, true, color=colour, marker="o", ms=3, lw=1.2, clip_on=False, label=when)
        ece, covered = ([row[when][key] for when in ("before", "after")] for key in ("ece", "coverage"))
        axes.set_title(
            f"{title}\nECE {ece[0]:.3f}, then {ece[1]:.3f}\n80 % sets: {100 * covered[0]:.0f} %, then "
            f"{100 * covered[1]:.0f} %",
            fontsize=8,
        )
        if not number:
            axes.set_ylabel("observed frequency")
            axes.legend(fontsize=7, loc="upper left", frameon=False)
