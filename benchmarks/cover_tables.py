"""Markdown tables of the results of under_cover.py and cover_thickness.py, for docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from over_crusts import MEASURES
from wrong_crusts import title_of

NETWORK, FLIPPED = "network", "network, `--flips`"
LIKELIEST, SHIFTED_INPUT = "the same, likeliest class", "the same, another crust's gravity"
FAR, DEEP = "over 30 km", "cover over 2 km"


def scores_table(strata: Mapping[str, Any]) -> list[str]:
    """PA/MPA/FWIoU of null models and network, with the gain of the network in brackets."""
    lines = _header(["predictor", *strata])
    for part in ("nulls", "network"):
        for name in strata["all"][part]:
            cells = [
                format_measures(row[part][name])
                + (f" ({format_measures(row['gain'][name], '+')})" if part == "network" else "")
                for row in strata.values()
            ]
            lines.append(_row([name, *cells]))
    return [*lines, _row(["cells", *(f"{row['cells']:,}".replace(",", " ") for row in strata.values())])]


def paired_table(strata: Mapping[str, Any], name: str) -> list[str]:
    """Mean gain over the best null model of each crust, with its interval."""
    lines = _header([f"{name}: gain, mean of crusts", *strata])
    for measure, title in zip(MEASURES, ("PA", "MPA", "FWIoU"), strict=True):
        lines.append(_row([title, *(interval(row["paired"][name][measure]) for row in strata.values())]))
    return lines


def wrong_table(kinds: Mapping[str, Any], name: str) -> list[str]:
    """One line for each kind of crusts."""
    columns = [
        "best null, all",
        f"{name}, all",
        "PA, paired",
        "FWIoU, paired",
        FAR,
        DEEP,
        "another crust's gravity, all",
    ]
    lines = _header(["crusts", *columns])
    for kind, strata in kinds.items():
        best = np.max(list(strata["all"]["nulls"].values()), axis=0)
        pairs = [interval(strata["all"]["paired"][name][measure]) for measure in ("pa", "fwiou")]
        cells = [
            f"{format_measures(strata[each]['network'][name])} ({format_measures(strata[each]['gain'][name], '+')})"
            if each in strata
            else "-"
            for each in ("all", FAR, DEEP)
        ]
        control = format_measures(strata["all"]["gain"][SHIFTED_INPUT], "+")
        lines.append(_row([title_of(kind), format_measures(best), cells[0], *pairs, *cells[1:], control]))
    return lines


def coverage_table(kinds: Mapping[str, Any]) -> list[str]:
    """Coverage of 80 % sets in percent, and the calibration error over all cells."""
    first = next(iter(kinds.values()))
    lines = _header(["80 % sets hold the true class, percent", *first, "ECE, all"])
    for kind, strata in kinds.items():
        coverage = [f"{100 * strata[each]['coverage']:.0f}" if each in strata else "-" for each in first]
        lines.append(_row([title_of(kind), *coverage, f"{strata['all']['ece']:.3f}"]))
    return lines


def thickness_table(found: Mapping[str, Any]) -> list[str]:
    """Scores of the thickness of the cover over all cells, a line for each method."""
    lines = _header(
        [
            "method",
            "rmse, m",
            "bias, m",
            "mean absolute error, m",
            "rank correlation",
            "80 % interval holds",
            "width, m",
        ]
    )
    for name, strata in found.items():
        row = strata["all"]
        cells = [
            f"{row['rmse_m']:.0f}",
            f"{row['bias_m']:+.0f}",
            f"{row['mae_m']:.0f}",
            _number(row["rank_correlation"]),
        ]
        interval = [f"{100 * row['coverage']:.0f} %", f"{row['width_m']:.0f}"] if "coverage" in row else ["-", "-"]
        lines.append(_row([name, *cells, *interval]))
    return lines


def thickness_strata_table(found: Mapping[str, Any], kind: str, measure: str) -> list[str]:
    """One measure of each method by stratum; `kind` is distance or cover."""
    first = next(iter(found.values()))[kind]
    scale = 100 if measure == "coverage" else 1
    lines = _header([f"{'km to outcrop' if kind == 'distance' else 'true thickness'}", *first])
    for name, strata in found.items():
        rows = strata[kind].values()
        if all(measure in row or not row["nodes"] for row in rows):
            values = [row.get(measure) for row in rows]
            digits = 2 if measure == "rank_correlation" else 0
            lines.append(_row([name, *("-" if each is None else f"{scale * each:.{digits}f}" for each in values)]))
    return [*lines, _row(["cells", *(f"{row['nodes']:,}".replace(",", " ") for row in first.values())])]


def thickness_kinds_table(kinds: Mapping[str, Any], simple: tuple[str, ...]) -> list[str]:
    """The best of the simple methods and the others on each kind of crusts: rmse, and coverage where there is one."""
    others = [name for name in next(iter(kinds.values()))["methods"] if name not in simple]
    columns = [f"{name}: rmse, m" for name in simple] + [f"{name}: rmse, m (holds)" for name in others]
    lines = _header(["crusts", *columns, *(f"{name}: change of rmse" for name in others)])
    for kind, result in kinds.items():
        found = {name: strata["all"] for name, strata in result["methods"].items()}
        best = min(found[name]["rmse_m"] for name in simple)
        cells = [f"{found[name]['rmse_m']:.0f}" for name in simple]
        cells += [f"{found[name]['rmse_m']:.0f} ({100 * found[name]['coverage']:.0f} %)" for name in others]
        cells += [f"{100 * (found[name]['rmse_m'] / best - 1):+.0f} %" for name in others]
        lines.append(_row([title_of(kind), *cells]))
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def interval(found: Mapping[str, Any]) -> str:
    """`+7.1 (+5.4 to +8.8)`; bold if it excludes zero."""
    if found["low"] is None:
        return "-" if found["mean"] is None else f"{found['mean']:+.1f}"
    text = f"{found['mean']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"
    return f"**{text}**" if found["low"] > 0 or found["high"] < 0 else text


def format_measures(values: Any, sign: str = "") -> str:
    """`50.6/43.6/33.7`, or with signs."""
    return "/".join(f"{each:{sign}.1f}" for each in values)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _header(cells: list[str]) -> list[str]:
    return [_row(cells), "|" + "---|" * len(cells)]
