"""Markdown tables of the results of under_cover.py, for docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from over_crusts import MEASURES
from wrong_crusts import title_of

NETWORK, FLIPPED = "network", "network, `--flips`"
LIKELIEST, FOREIGN = "the same, likeliest class", "the same, another crust's gravity"
FAR, DEEP = "over 30 km", "cover over 2 km"


def scores_table(strata: Mapping[str, Any]) -> list[str]:
    """PA/MPA/FWIoU of null models and of the network, with the gain of the network in brackets."""
    lines = _head(["predictor", *strata])
    for part in ("nulls", "network"):
        for name in strata["all"][part]:
            cells = [
                three(row[part][name]) + (f" ({three(row['gain'][name], '+')})" if part == "network" else "")
                for row in strata.values()
            ]
            lines.append(_row([name, *cells]))
    return [*lines, _row(["cells", *(f"{row['cells']:,}".replace(",", " ") for row in strata.values())])]


def paired_table(strata: Mapping[str, Any], name: str) -> list[str]:
    """Mean gain over the best null model of each crust, and its confidence interval."""
    lines = _head([f"{name}: gain, mean of crusts", *strata])
    for measure, title in zip(MEASURES, ("PA", "MPA", "FWIoU"), strict=True):
        lines.append(_row([title, *(interval(row["paired"][name][measure]) for row in strata.values())]))
    return lines


def wrong_table(kinds: Mapping[str, Any], name: str) -> list[str]:
    """Scores and gains, one line for each kind of crusts."""
    columns = [
        "best null, all",
        f"{name}, all",
        "PA, paired",
        "FWIoU, paired",
        FAR,
        DEEP,
        "another crust's gravity, all",
    ]
    lines = _head(["crusts", *columns])
    for kind, strata in kinds.items():
        best = np.max(list(strata["all"]["nulls"].values()), axis=0)
        pairs = [interval(strata["all"]["paired"][name][measure]) for measure in ("pa", "fwiou")]
        there = [
            f"{three(strata[each]['network'][name])} ({three(strata[each]['gain'][name], '+')})"
            if each in strata
            else "-"
            for each in ("all", FAR, DEEP)
        ]
        control = three(strata["all"]["gain"][FOREIGN], "+")
        lines.append(_row([title_of(kind), three(best), there[0], *pairs, *there[1:], control]))
    return lines


def coverage_table(kinds: Mapping[str, Any]) -> list[str]:
    """Coverage of the 80 % sets in percent, and the calibration error over all cells."""
    first = next(iter(kinds.values()))
    lines = _head(["coverage of 80 % sets, percent", *first, "ECE, all"])
    for kind, strata in kinds.items():
        held = [f"{100 * strata[each]['coverage']:.0f}" if each in strata else "-" for each in first]
        lines.append(_row([title_of(kind), *held, f"{strata['all']['ece']:.3f}"]))
    return lines


def interval(found: Mapping[str, Any]) -> str:
    """`+7.1 (+5.4 to +8.8)`; bold if the interval excludes zero."""
    if found["low"] is None:
        return "-" if found["mean"] is None else f"{found['mean']:+.1f}"
    text = f"{found['mean']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"
    return f"**{text}**" if found["low"] > 0 or found["high"] < 0 else text


def three(values: Any, sign: str = "") -> str:
    """`50.6/43.6/33.7`, optionally with signs."""
    return "/".join(f"{each:{sign}.1f}" for each in values)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(cells: list[str]) -> list[str]:
    return [_row(cells), "|" + "---|" * len(cells)]
