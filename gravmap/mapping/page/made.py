"""The report's closing parts: limits in plain words, whose data it rests on and on what terms, how it was made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from gravmap.download import known_sources
from gravmap.mapping.layers import COVERED, EXTRAPOLATED, NEAR
from gravmap.mapping.page.facts import Facts
from gravmap.mapping.page.maps import field_words
from gravmap.mapping.page.words import area, listed, missing, percent, text


def limits(facts: Facts) -> str:
    """What the map cannot say, in plain words, with this map's own figures."""
    taught = "simulated crusts" if facts.simulated else "outcrop"
    told = [
        f"Nobody has seen the bedrock under the cover. Its classes here are what a network, taught on {taught}, makes"
        " of the gravity above; only boreholes and other measurements can confirm them.",
        "Gravity feels density and depth, not age or name. Rocks of one density look alike, and a deep body looks like"
        " a faint, broad shallow one.",
        "The map gives no depth, no thickness of the cover and no density.",
    ]
    if facts.simulated:
        told.append(
            "Real crust need not be like the simulated: other densities, older folds, rocks that no class of the legend"
            " stands for. Scores and probabilities hold for crusts like the simulated ones alone."
        )
    if facts.settings.get("class_offsets"):
        told.append(
            "Under cover the class shown is not always the likeliest: numbers fitted on simulated crusts"
            " (class_offsets in provenance.json) give rare classes their place. Probabilities are without them."
        )
    hidden = facts.ground.of_evidence(NEAR, COVERED, EXTRAPOLATED)
    if facts.ground.has_evidence and hidden:
        beyond = facts.ground.of_evidence(EXTRAPOLATED)
        told.append(
            f"{percent(beyond / hidden)} of the ground under cover ({area(beyond)}) has gravity unlike any that the"
            " network was taught on. Its classes there are extrapolated."
        )
    recipe: dict[str, Any] = next((run.model.get("field_recipe", {}) for run in facts.runs if run.used), {})
    level = float(recipe.get("input_height_m") or 0)
    if level:
        told.append(
            f"The gravity grid lies {level / 1000:g} km above the ellipsoid, not at the ground: short wavelengths are"
            " weak in it, and heights of continuation count from there."
        )
    spacing = recipe.get("spacing_deg")
    if spacing:
        nodes = float(max(spacing))
        told.append(
            f"The gravity grid has a node every {_arc(nodes)}, about {111 * nodes:.2g} km: bodies smaller than a few of"
            " these cannot be told apart."
        )
    upsampling = float(facts.sheet.tags.get("GRAVMAP_UPSAMPLING", facts.settings.get("upsampling", 1)) or 1)
    if upsampling > 1.01:
        told.append(f"The map's cells are {upsampling:.3g} times finer than the gravity grid; that adds no detail.")
    if any(word in str(facts.record.get("sources", "")).lower() for word in ("wgm2012", "egm2008")):
        told.append(
            "Much of the land gravity behind EGM2008 and WGM2012 in Central Asia was predicted from topography: short"
            " wavelengths there may show terrain rather than rock."
        )
    absent = [name for run in facts.runs if run.used for name in run.test.get("absent", [])]
    if absent:
        names = listed(dict.fromkeys(absent))
        ground = "in the test crusts" if facts.simulated else "on the held-out ground"
        told.append(f"{names} did not occur {ground}, so nothing is known of how well it is found.")
    return '<ul class="limits">' + "".join(f"<li>{text(each)}</li>" for each in told) + "</ul>"


def sources(facts: Facts) -> str:
    """Whose data the map rests on, and on what terms."""
    listed_sources = [
        each for each in facts.record.get("sources", []) if each.get("role") not in ("fields", "labels", "tiles")
    ]
    if not listed_sources:
        return missing("No source is on record: say where gravity and geology came from before you pass this map on.")
    return '<ul class="sources">' + "".join(_source(each) for each in listed_sources) + "</ul>"


def _source(record: dict[str, Any]) -> str:
    known = known_sources().get(str(record.get("known_as") or record.get("legend") or ""))
    file = PurePath(str(record.get("file") or record.get("path") or "")).name
    name = str(record.get("title") or record.get("name") or (known.title if known else "") or file or "unnamed")
    role = {"gravity": "Gravity", "map": "Geological map"}.get(str(record.get("role")), str(record.get("role", "")))
    uses = listed(str(each) for each in record.get("used_for", []))
    kind = ", for ".join(part for part in (role, uses) if part)
    citation = record.get("citation") or (known.citation if known else "")
    terms = record.get("licence") or (known.terms if known else "")
    address = next((str(record[key]) for key in ("url", "source") if str(record.get(key, "")).startswith("http")), "")
    lines = [
        f"<strong>{text(name)}</strong>",
        f'<span class="soft">{text(kind)}{": " + text(file) if file and file != name else ""}</span>',
        f"<span>{text(citation)}</span>" if citation else "<span>No citation came with it.</span>",
        f"<span>Terms: {text(terms)}</span>" if terms else "<span>Terms: not on record; ask its owner.</span>",
        f'<span><a href="{text(address)}">{text(address)}</a></span>' if address else "",
        f'<span class="hash">SHA-256 {text(record["sha256"])}</span>' if record.get("sha256") else "",
    ]
    return f"<li>{''.join(lines)}</li>"


def made(facts: Facts) -> str:
    """Command, network, versions and hashes."""
    record = facts.record
    if not record:
        return missing("This map has no provenance.json: how it was made is not on record.")
    networks = "; ".join(
        f"{run.name}: {run.model.get('model')} on {listed(field_words(name) for name in run.channels)}"
        for run in facts.runs
        if run.used
    )
    versions = {"gravmap": str(record.get("made_by", "")).removeprefix("gravmap "), **_flat(record.get("versions", {}))}
    parts = [
        f"<pre>{text(record.get('command') or 'the command is not on record')}</pre>",
        f"<p>{text(networks)}.</p>" if networks else "",
        f'<p class="soft">Made {text(str(record.get("created", "")).replace("T", " "))}, with '
        + text(", ".join(f"{name} {version}" for name, version in versions.items() if version))
        + ".</p>",
        _hashes("Read", record.get("inputs")),
        _hashes("Written", record.get("outputs")),
        _departures(record.get("deviations")),
        '<p class="soft">The whole record is provenance.json beside this page;'
        " <code>gravmap verify</code> checks it.</p>",
    ]
    return "".join(parts)


def _departures(told: Any) -> str:
    """Where the map departs from the paper it follows."""
    if not told:
        return ""
    rows = "".join(f"<li>{text(each)}</li>" for each in told)
    return f'<h3>Departures from Liu et al. (2024)</h3><ul class="departures">{rows}</ul>'


def _hashes(title: str, files: Any) -> str:
    if not files:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th><td class="hash">{text(each["sha256"])}</td></tr>'
        for name, each in _named(files)
        if isinstance(each, dict) and each.get("sha256")
    )
    head = f'<tr><th scope="col">{title}</th><th scope="col">SHA-256</th></tr>'
    return f'<table class="files"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def _named(files: Any) -> Iterable[tuple[str, Any]]:
    """Role or file name with its record, whether a table or a list of records."""
    if isinstance(files, dict):
        return files.items()
    return [(str(each.get("role") or each.get("name") or each.get("path")), each) for each in files]


def _flat(versions: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in dict(versions or {}).items():
        found |= _flat(value) if isinstance(value, dict) else {str(name): str(value)}
    return found


def _arc(degrees: float) -> str:
    if degrees >= 1:
        return f"{degrees:g}°"
    return f"{60 * degrees:.3g}′" if degrees >= 1 / 60 - 1e-9 else f"{3600 * degrees:.3g}″"
