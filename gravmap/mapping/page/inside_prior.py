"""Whether the region is like the simulated crusts that the network was taught on, as a section of the page."""

from __future__ import annotations

from typing import Any

import numpy as np

from gravmap.mapping.page.words import MINUS, text

_STATES = {"inside": "", "at the edge": "at the edge", "outside": "outside"}


def inside_prior(told: dict[str, Any]) -> str:
    """The verdict, what it means and what to do, and every quantity in a table; HTML.

    Parameters
    ----------
    told : dict
        As ``gravmap.prior_check.Verdict.to_dict`` gives it.
    """
    advice = "".join(f"<li>{text(sentence)}</li>" for sentence in told["advice"])
    left_out = "".join(f"<li>Not compared: {text(reason)}</li>" for reason in told["left_out"])
    groups: dict[str, str] = {}
    for quantity in told["quantities"]:
        groups[quantity["group"]] = groups.get(quantity["group"], "") + _row(quantity)
    bodies = "".join(
        f'<tbody><tr class="part"><th colspan="6">{text(group)}</th></tr>{rows}</tbody>'
        for group, rows in groups.items()
    )
    tall, wide = (cells / 30 for cells in told["shape"])
    boxes = len(told["boxes_wsen"])
    here = "one box" if boxes == 1 else f"the median of {boxes} overlapping boxes"
    return (
        f'<div class="say"><p>{text(told["headline"])}</p></div><ul class="limits">{advice}{left_out}</ul>'
        f'<p class="told">Here: {here}, {tall:.3g} by {wide:.3g} degrees, as large as the crusts.</p>'
        '<div class="wide"><table><thead><tr><th scope="col">Quantity</th><th scope="col" class="n">here</th>'
        '<th scope="col" class="n">crusts: least</th><th scope="col" class="n">median</th>'
        '<th scope="col" class="n">most</th><th scope="col"></th></tr></thead>'
        f"{bodies}</table></div>"
    )


def _row(quantity: dict[str, Any]) -> str:
    unit = f", {quantity['unit']}" if quantity["unit"] else ""
    crusts = quantity["crusts"]
    numbers = (np.median(quantity["here"]), min(crusts), np.median(crusts), max(crusts))
    cells = "".join(f'<td class="n">{f"{number:.3g}".replace("-", MINUS)}</td>' for number in numbers)
    label = quantity["label"][:1].upper() + quantity["label"][1:]
    return f'<tr><th scope="row">{text(label + unit)}</th>{cells}<td>{_STATES[quantity["state"]]}</td></tr>'
