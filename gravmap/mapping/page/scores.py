"""What the report says of quality: scores on held-out ground beside null models, and whether probabilities hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gravmap.learning.evaluation.null_models import NULL_MODELS
from gravmap.mapping.page.charts import reliability_svg
from gravmap.mapping.page.crusts import best_case, calibration_strata, crusts_section
from gravmap.mapping.page.facts import Facts, Protocol, RunFacts
from gravmap.mapping.page.words import THIN, count, figure, listed, missing, percent, swatch, text
from gravmap.tiling.leak import LEAK_LIMIT

_MEASURES = (("pa", "Accuracy"), ("mpa", "Mean accuracy"), ("miou", "Mean overlap"), ("fwiou", "Weighted overlap"))


def verdict(facts: Facts) -> str:
    """What the scores mean for a reader of the map, in one or two sentences."""
    protocol = facts.honest
    if facts.simulated:
        said = best_case(facts.simulated)
        return said if protocol is None else f"{_on_held_out_ground(protocol)} {said}"
    if protocol is None:
        return "This map's network was not scored on held-out blocks of ground: nothing is known of how good it is."
    return _on_held_out_ground(protocol)


def _on_held_out_ground(protocol: Protocol) -> str:
    runs = [run for run in protocol.runs if run.used]
    # Several runs: their mean, since to choose the best by its score here would flatter the map.
    pa, fwiou = mean_of(runs, "pa"), mean_of(runs, "fwiou")
    who = "the network named" if len(runs) == 1 else f"the {len(runs)} networks named, each alone and on average,"
    places = count(runs[0].test["places"])
    said = f"On {places} places of outcrop kept from training, {who} {percent(pa)} of the bedrock right"
    if not protocol.nulls:
        return f"{said}. What a guess without a network scores there is not known."
    name, null = max(protocol.nulls.items(), key=lambda item: float(item[1]["pa"]))
    behind = [each for each, row in protocol.nulls.items() if row["pa"] >= pa]
    also = [each for each, row in protocol.nulls.items() if row["fwiou"] >= fwiou]
    said += f"; {plain_null(name)}, which needs no network, {percent(null['pa'])}."
    if not behind and not also:
        return f"{said} Better than every null model here."
    if behind and also:
        return f"{said} No better than the null models: read colours under cover as a question, not as an answer."
    return f"{said} Better than the null models in one measure and not in another: read the map with care."


def mean_of(runs: Sequence[RunFacts], key: str) -> float:
    """The mean over runs of one score on the test ground."""
    return float(sum(float(run.test[key]) for run in runs) / len(runs))


def plain_null(name: str) -> str:
    """A null model as part of a sentence."""
    return next((model.phrase for model in NULL_MODELS.values() if model.title == name), name)


def scores_section(facts: Facts) -> str:
    """Every protocol's table; a protocol that nobody trained under says so."""
    simulated = facts.simulated
    parts = []
    if simulated:
        parts.append(
            "<p>Under this region's cover nothing can be checked. What can be checked is the cover of simulated crusts,"
            " whose bedrock is known. Beside the network stand null models, which use the same outcrop and no gravity;"
            " and the network itself on another crust's gravity: what it then loses is what gravity gives.</p>"
        )
        parts += [crusts_section(facts, run) for run in simulated]
    if len(simulated) == sum(run.used for run in facts.runs) and not facts.protocols:
        return "".join([*parts, _WORDS])
    if not simulated:
        parts.append(
            "<p>Under cover nothing can be checked. What can be checked is outcrop that was kept from training. Beside"
            " the network stand null models: what the same labels give without any network.</p>"
        )
    parts += [
        f"<p>{text(run.name)} began with the weights of a network taught on simulated crusts (prior"
        f" {text(run.begun_on.get('prior', {}).get('name', 'not on record'))}).</p>"
        for run in facts.runs
        if run.used and run.begun_on
    ]
    held = [each for each in facts.protocols if each.kind != "random"]
    random = [each for each in facts.protocols if each.kind == "random"]
    parts += [_protocol(each) for each in held]
    if not held:
        parts.append("<h3>Held-out blocks of ground</h3>")
        parts.append(missing("No network of this report was scored on held-out blocks: not trained."))
    parts += [_protocol(each) for each in random]
    if not random:
        parts.append("<h3>Random windows, as in Liu et al. (2024)</h3>")
        parts.append(missing("No network of this report was scored so: not trained."))
    return "".join([*parts, _WORDS])


_WORDS = (
    '<p class="soft">Accuracy: share of places named right. Mean accuracy: the same class by class, then averaged.'
    " Overlap: of the ground that is or was named a class, the share where both agree (IoU); weighted by how common"
    " the class is (FWIoU). Every place, a node of the gravity grid, counts once.</p>"
)


def _protocol(protocol: Protocol) -> str:
    split = protocol.split
    places = protocol.runs[0].test["places"]
    fold = f"fold {split.get('fold', 0)} of {split['folds']}" if "folds" in split else "one fold"
    leak = split.get("leak")
    if isinstance(split.get("leak_of_fold"), list):
        leak = split["leak_of_fold"][int(split.get("fold", 0))]
    if protocol.kind == "random":
        title = "Random windows, as in Liu et al. (2024)"
        said = "Windows overlap, so this measures memory of the place, and says nothing of ground never seen."
    else:
        block = split.get("block_deg") or [None]
        size = f" of {float(block[0]):.3g}°" if block[0] else ""
        title = f"Held-out blocks{size}"
        said = "Whole blocks of ground were kept from training"
        said += f", labels within {split['buffer_deg']:g}° of them too." if split.get("buffer_deg") else "."
    if leak is None:
        said += " How much of it training saw was not measured."
    elif leak <= LEAK_LIMIT:
        said += (
            " Training saw none of the labels scored here." if leak == 0 else f" Training saw {percent(leak, 2)} of it."
        )
    else:
        said += f" Training saw the labels of {percent(leak, 1)} of it."
    rows = [_row(f"network {run.name}", run.test, ours=run.used) for run in protocol.runs]
    rows += [_row(name, row) for name, row in protocol.nulls.items()]
    head = "".join(f'<th scope="col" class="n{_narrow(key)}">{label}</th>' for key, label in _MEASURES)
    table = (
        f'<p class="told">{text(said)} Scored on {count(places)} places, {fold}.</p><div class="wide"><table>'
        f'<thead><tr><th scope="col">Predictor</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
    return f"<h3>{text(title)}</h3>{table}" + (missing(protocol.no_nulls) if protocol.no_nulls else "")


def _row(name: str, scores: dict[str, Any], ours: bool = False) -> str:
    cells = "".join(f'<td class="n{_narrow(key)}">{percent(scores.get(key), 1)}</td>' for key, _ in _MEASURES)
    return f'<tr{" class=ours" if ours else ""}><th scope="row">{text(name)}</th>{cells}</tr>'


def _narrow(key: str) -> str:
    """The style of a column that a narrow screen leaves out."""
    return " optional" if key == "miou" else ""


def reliability_section(facts: Facts) -> str:
    """Whether a probability of 0.7 is right in seven of ten cases, before and after calibration."""
    used = [run for run in facts.runs if run.used]
    told = [_reliability(run) for run in used if _measured(run)]
    silent = [run.name for run in used if not _measured(run)]
    if silent:
        told.append(missing(f"{listed(silent)}: no calibration was measured; probabilities are the network's own."))
    return "".join(told)


def _measured(run: RunFacts) -> bool:
    return any((run.calibration.get(role) or {}).get("after") for role in ("test", "tune"))


def _reliability(run: RunFacts) -> str:
    role = "test" if (run.calibration.get("test") or {}).get("after") else "tune"
    held = "crusts" if run.simulated else "blocks"
    part = run.calibration[role]
    before, after = part.get("before") or {}, part["after"]
    ground = (
        f"held-out test {held}, which the temperature was not chosen on"
        if role == "test"
        else f"tuning {held}, which the temperature was chosen on"
    )
    ece = f"{percent(before.get('ece'), 1)} before, {percent(after.get('ece'), 1)} after"
    described = f"Reliability diagram of {run.name}: expected calibration error {ece}."
    chart = reliability_svg(described, [("before", before.get("bins", [])), ("after", after.get("bins", []))])
    labels = (("ece", "Expected calibration error"), ("classwise_ece", "The same, class by class"))
    rows = "".join(
        f'<tr><th scope="row">{label}</th><td class="n">{percent(before.get(key), 1)}</td>'
        f'<td class="n">{percent(after.get(key), 1)}</td></tr>'
        for key, label in labels
    )
    rows += "".join(
        f'<tr><th scope="row">{label}</th><td class="n">{figure(before.get(key))}</td>'
        f'<td class="n">{figure(after.get(key))}</td></tr>'
        for key, label in (("nll", "Log loss"), ("brier", "Brier score"))
    )
    notes = "".join(map(missing, _told_once(run.calibration.get("notes", []))))
    heads = "".join(f'<th scope="col" class="n">{when}</th>' for when in ("before", "after"))
    return (
        f'<div class="believe"><figure>{chart}</figure><div><p>On the dashed line a class that is given 70&#8239;% is'
        " right in seven of ten places; below it the network is too sure of itself. A circle's area is its share of the"
        f" {count(part['nodes'])} places, all in {ground}.</p>"
        f'<ul class="key"><li>{swatch("", "ring")}<span>as the network gives them</span></li>'
        f"<li>{swatch('', 'dot')}<span>calibrated</span></li></ul>"
        f'<table class="reliable"><thead><tr><th scope="col">Measure</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        f'<p class="soft"><small>{text(run.name)}; logits divided by a temperature, by size of window:'
        f" {text(_temperatures(run))}.</small></p>{notes}</div></div>{calibration_strata(run)}"
    )


def _temperatures(run: RunFacts) -> str:
    """What logits are divided by, by size of window, and by distance where it follows that."""
    curves = run.calibration.get("by_distance", {})
    said = []
    for key, value in run.calibration["temperatures"].items():
        told = f"{float(value):.2f}"
        if key in curves:
            knots = zip(curves[key]["km"], curves[key]["temperature"], strict=True)
            following = ", ".join(f"{each:.2f} at {km:g}{THIN}km" for km, each in knots)
            told = f"{following} from mapped outcrop (one for all ground would be {told})"
        said.append(f"{key.replace('+', ' and ')} {told}")
    return "; ".join(said)


def _told_once(notes: Sequence[Any]) -> list[str]:
    """Notes on sizes of windows ("5deg+10deg: ..."), those of one wording together."""
    sizes: dict[str, list[str]] = {}
    for note in map(str, notes):
        size, colon, words = note.partition(": ")
        sizes.setdefault(words if colon else note, []).extend([size.replace("+", " and ")] if colon else [])
    return [f"{'; '.join(of)}: {words}" if of else words for words, of in sizes.items()]
