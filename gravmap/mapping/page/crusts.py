"""What the report says of networks that were taught on simulated crusts, where the bedrock under cover is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gravmap.mapping.page.facts import Facts, RunFacts
from gravmap.mapping.page.inside_prior import inside_prior
from gravmap.mapping.page.words import count, figure, missing, percent, text

_PREDICTORS = {
    "network": "network",
    "network_likeliest": "network, its likeliest class",
    "nearest_outcrop": "nearest outcrop",
    "label_diffusion": "label diffusion",
    "foreign_gravity": "network on another crust's gravity",
}
_NULLS = {"nearest_outcrop": "taking the nearest outcrop", "label_diffusion": "letting the outcrop spread out"}
_MEASURES = {"pa": "Accuracy", "mpa": "Mean accuracy", "fwiou": "Weighted overlap"}


def best_case(runs: Sequence[RunFacts]) -> str:
    """The scores on test crusts in sentences, and what they are worth."""
    said = [told for run in runs if (told := _score(run, len(runs) > 1))]
    if not said:
        return (
            "This map's network was taught on simulated crusts and scored nowhere: nothing is known of how good it is."
        )
    return (
        f"{' '.join(said)} Those crusts come from the generator that taught the network: this"
        " is the best case, and no measure of skill on real ground."
    )


def _score(run: RunFacts, of_several: bool) -> str:
    table = run.test.get("under_cover", {}).get("strata", {})
    if not table.get("all", {}).get("nodes"):
        return ""
    row = table["all"]
    null = max(_NULLS, key=lambda each: float(row[each]["pa"]))
    said = (
        f"Under the cover of {_crusts(run)} that it never saw, the network{' ' + run.name if of_several else ''} named"
        f" {percent(row['network']['pa'])} of the bedrock right; {_NULLS[null]}, which needs no gravity,"
        f" {percent(row[null]['pa'])}."
    )
    behind = [measure for measure in _MEASURES if _gain(row, measure) <= 0]
    if len(behind) == len(_MEASURES):
        return f"{said} No better than without gravity."
    return f"{said} In {' and '.join(_MEASURES[each].lower() for each in behind)} it is no better." if behind else said


def crusts_section(facts: Facts, run: RunFacts) -> str:
    """What a network was taught on, and how it did on crusts it never saw, by distance and by cover."""
    found = run.test.get("under_cover", {})
    parts = [f"<h3>Simulated crusts: {text(run.name)}</h3>", f"<p>{text(taught(run))}</p>"]
    parts.append(
        _table(found["strata"], "by distance from mapped outcrop")
        if found.get("strata", {}).get("all", {}).get("nodes")
        else missing("It was not scored on test crusts.")
    )
    if found.get("cover"):
        parts.append(_table(found["cover"], "by thickness of the cover"))
    parts.append(
        f'<div class="say"><p>{text("Test crusts are drawn like those it learned from, by the same generator.")}'
        " On real ground expect less: nothing here measures that.</p></div>"
    )
    return "".join([*parts, _prior(facts, run)])


def taught(run: RunFacts) -> str:
    """On what, in a sentence or two."""
    record = run.taught_on
    prior, seeds = record.get("prior", {}), record.get("seeds", {})
    shape = " x ".join(str(each) for each in record.get("shape", []))
    said = (
        f"The network was taught on {count(len(seeds.get('train', [])))} simulated crusts, not on any real ground:"
        f" layers and intrusions drawn from the prior {prior.get('name', 'that is not on record')}, whose bedrock under"
        " cover is known, and the gravity they would have."
    )
    return f"{said} Each has {shape} cells." if shape else said


def prior_headlines(facts: Facts) -> list[str]:
    """Whether the region is like the crusts that the map's networks were taught on, a sentence for each prior."""
    found = [_verdict(facts, run) for run in facts.simulated]
    told = (f"Is this region like those crusts? {verdict['headline']}" for verdict in found if verdict is not None)
    return list(dict.fromkeys(told))


def _verdict(facts: Facts, run: RunFacts) -> dict[str, Any] | None:
    """What was found when the region was held against the prior of a run; None where nobody asked."""
    prior = run.taught_on.get("prior", {})
    verdicts: list[dict[str, Any]] = facts.settings.get("prior_verdicts", [])
    return next((each for each in verdicts if each.get("prior", {}).get("sha256") == prior.get("sha256")), None)


def _prior(facts: Facts, run: RunFacts) -> str:
    """Whether the region is like such crusts, as `gravmap prior-check --prior` says it; or that nobody asked."""
    prior, verdict = run.taught_on.get("prior", {}), _verdict(facts, run)
    head = "<h3>Is this region like those crusts?</h3>"
    if verdict is not None and "quantities" in verdict:
        return head + inside_prior(verdict)
    if verdict is not None:  # it could not be told
        return head + missing(" ".join([verdict["headline"], *verdict["advice"]]))
    return head + missing(
        "That was not checked when this map was made. A network meets what it was not taught where the answer is no:"
        f" gravmap prior-check --prior {prior.get('name', 'NAME')} tells."
    )


def _table(strata: Mapping[str, Any], by: str) -> str:
    """Every predictor by stratum: three measures each, in percent."""
    shown = {name: row for name, row in strata.items() if row["nodes"]}
    heads = "".join(
        f'<th scope="col" class="n">{text("all cells" if name == "all" else name)}<br>'
        f"<small>{count(row['nodes'])} cells</small></th>"
        for name, row in shown.items()
    )
    blocks = []
    for measure, title in _MEASURES.items():
        rows = "".join(
            f'<tr{" class=ours" if key == "network" else ""}><th scope="row">{text(label)}</th>'
            + "".join(f'<td class="n">{percent(row[key][measure], 1)}</td>' for row in shown.values())
            + "</tr>"
            for key, label in _PREDICTORS.items()
            if all(key in row for row in shown.values())
        )
        blocks.append(f'<tbody><tr class="part"><th colspan="{1 + len(shown)}">{title}</th></tr>{rows}</tbody>')
    return (
        f'<div class="wide strata"><table><thead><tr><th scope="col">Under cover, {by}</th>'
        f"{heads}</tr></thead>{''.join(blocks)}</table></div>"
    )


def calibration_strata(run: RunFacts) -> str:
    """Calibration error and coverage before and after, by distance from outcrop and by thickness of cover."""
    part = run.calibration.get("test") or {}
    if not part.get("nodes") or not part.get("strata"):
        return ""
    tables, words = [], {"distance": "from mapped outcrop", "cover": "of cover"}
    for kind, strata in part["strata"].items():
        rows = {f"{name} {words.get(kind, '')}": row for name, row in strata.items() if row["nodes"]}
        tables += [
            f'<tr><th scope="row">{text(name)}</th><td class="n optional">{count(row["nodes"])}</td>'
            + "".join(f'<td class="n">{figure(row[when]["ece"])}</td>' for when in ("before", "after"))
            + "".join(f'<td class="n">{percent(row[when]["coverage"])}</td>' for when in ("before", "after"))
            + f'<td class="n optional">{figure(row["after"]["set_size"], 1)}</td></tr>'
            for name, row in rows.items()
        ]
    heads = (
        '<th scope="col" class="n optional">Cells</th><th scope="col" class="n">Error before</th>'
        '<th scope="col" class="n">Error after</th><th scope="col" class="n">80 % sets right before</th>'
        '<th scope="col" class="n">After</th><th scope="col" class="n optional">Classes in a set</th>'
    )
    ground = "test crusts" if run.simulated else "test blocks"
    return (
        f"<p>By distance and cover, on the {ground}. The classes that together hold 80 % of the probability should"
        " hold the true one in 80 % of the cells: fewer, and the network is too sure; more, and it is not sure"
        " enough.</p>"
        f'<div class="wide"><table><thead><tr><th scope="col">Where</th>{heads}</tr></thead>'
        f"<tbody>{''.join(tables)}</tbody></table></div>"
    )


def _crusts(run: RunFacts) -> str:
    number = len(run.taught_on.get("seeds", {}).get("test", [])) or len(run.test["under_cover"].get("crusts", []))
    return f"{count(number)} simulated crusts"


def _gain(row: Mapping[str, Any], measure: str) -> float:
    return float(row["network"][measure]) - max(float(row[null][measure]) for null in _NULLS)
