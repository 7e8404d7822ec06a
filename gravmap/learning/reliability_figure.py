"""Reliability as a picture: how often a class came true against how sure the network was, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gravmap.files import atomic_path
from gravmap.learning.training.curves import RATE, TRAINING, TUNING
from gravmap.plotting import GREY
from gravmap.units import format_angle


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
        above.text(0.5, 0.5, "no labelled held-out node", ha="center", color=GREY)
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
