"""What a network was taught on where that is no region, and how far it is to be trusted, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gravmap.files import read_json
from gravmap.learning.data.splits import CRUSTS
from gravmap.learning.evaluation.under_cover import DIFFUSION, NETWORK, NULLS

FAR = "over 30 km"


def on_crusts(taught_on: Mapping[str, Any]) -> bool:
    """Whether it was simulated crusts."""
    return taught_on.get("on") == CRUSTS


def describe_training_data(taught_on: Mapping[str, Any]) -> str:
    """What it was taught on, as part of a sentence; `taught_on` as in a model's record."""
    prior = taught_on.get("prior", {}).get("name", "unknown")
    return f"{taught_on.get('count')} simulated crusts of the prior {prior}, and on no region's data"


def under_cover_of(folder: Path) -> dict[str, Any]:
    """Scores under the cover of crusts it never saw, from a run's ``scores.json``; empty where there are none."""
    path = folder / "scores.json"
    scored = read_json(path, "gravmap train") if path.exists() else {}
    return dict((scored.get("test") or {}).get("under_cover") or {})


def describe_trust(under_cover: Mapping[str, Any]) -> str:
    """How far it is to be trusted, in sentences.

    Parameters
    ----------
    under_cover : mapping
        As :func:`gravmap.learning.evaluation.under_cover.scores_under_cover` gives it; may be empty.
    """
    strata = under_cover.get("strata", {})
    if not strata.get("all", {}).get("nodes"):
        return "It was not scored on crusts it never saw: nothing is known of how good it is."
    whole = strata["all"]
    said = (
        f"On {len(under_cover.get('crusts', []))} crusts it never saw it named {_percent(whole[NETWORK])} of the "
        f"bedrock under cover right, label diffusion from the outcrop, which needs no network, "
        f"{_percent(whole[DIFFUSION])}"
    )
    far = strata.get(FAR, {})
    if far.get("nodes"):
        said += f"; {FAR} from outcrop {_percent(far[NETWORK])} and {_percent(far[DIFFUSION])}"
    if whole[NETWORK]["pa"] <= max(whole[null]["pa"] for null in NULLS):
        said += ". No better than without it"
    return f"{said}. Real ground differs from simulated crusts in ways that nobody has measured: expect less."


def _percent(row: Mapping[str, float]) -> str:
    return f"{100 * row['pa']:.0f} %"
