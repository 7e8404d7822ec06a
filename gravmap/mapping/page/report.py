"""The report of a map: a self-contained HTML page for screen and print."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gravmap.download.sources import known_sources
from gravmap.files import write_text
from gravmap.lattice import KM_PER_DEGREE
from gravmap.mapping.layers import EXTRAPOLATED, OUTCROP, UNDER_COVER, UNMAPPED
from gravmap.mapping.page.crusts import is_outside, prior_verdicts
from gravmap.mapping.page.facts import Facts, field_words
from gravmap.mapping.page.maps import (
    class_ages,
    comparison_maps,
    evidence_map,
    gravity_map,
    main_map,
    thickness_map,
    uncertainty_map,
    unmapped_ground,
)
from gravmap.mapping.page.scores import (
    compare_with_baselines,
    hidden_outcrop,
    mean_of,
    reliability_section,
    scores_section,
    verdict,
)
from gravmap.mapping.page.words import listed, render
from gravmap.mapping.record.data_sources import credit, file_attributes, file_name
from gravmap.records import RESAMPLED_FROM, STATED_HEIGHT, FieldRecipe

REPORT = "report.html"


def write_report(folder: Path, facts: Facts, fields: Path | None = None) -> Path:
    """Write ``report.html`` into the folder of a map.

    Each missing part is replaced by a line that names it.

    Parameters
    ----------
    folder : Path
        A finished map.
    facts : Facts
        What :func:`gravmap.mapping.page.facts.gather` read there and from its training runs.
    fields : Path, optional
        ``data/fields.nc``, for the residual gravity.

    Returns
    -------
    Path
        The page.
    """
    path = folder / REPORT
    write_text(path, page(facts, fields))
    return path


def page(facts: Facts, fields: Path | None) -> str:
    """The page as HTML."""
    return render(
        "report.html.j2",
        title=facts.title,
        everywhere=facts.sheet.everywhere,
        without_geology=facts.without_geology,
        unmapped=unmapped_ground(facts),
        starts_from_outcrop=any(facts.settings.get("starts_from_outcrop", [])),
        verdict=verdict(facts),
        prior_headlines=[str(each["headline"]) for each in prior_verdicts(facts)],
        glance=_glance(facts),
        main=main_map(facts),
        comparison=comparison_maps(facts),
        uncertainty=uncertainty_map(facts),
        evidence=evidence_map(facts),
        thickness=thickness_map(facts),
        areas=_areas(facts),
        scores=scores_section(facts),
        reliability=reliability_section(facts),
        gravity=gravity_map(facts, fields),
        limits=_limits(facts),
        sources=_sources(facts),
        made=_made(facts),
    )


def _glance(facts: Facts) -> dict[str, Any]:
    """Numbers of the summary; None for those not known."""
    areas = facts.areas
    hidden = areas.of_evidence(*UNDER_COVER)
    protocol, scored = facts.held_out, [run for run in facts.simulated if run.test]
    tested = hidden_outcrop(facts)
    return {
        "km2": areas.mapped_km2 + areas.unmapped_km2,
        "bounds_wsen": facts.sheet.bounds_wsen,
        # Where outcrop is predicted too, it counts as near outcrop: what is cover is not known from the files.
        "covered": None if facts.sheet.everywhere else areas.covered,
        "extrapolated": areas.of_evidence(EXTRAPOLATED) / hidden if areas.has_evidence and hidden else None,
        "on_crusts": bool(facts.simulated),
        "region_unlike": is_outside(prior_verdicts(facts)),
        "held_out": None if protocol is None else mean_of([run for run in protocol.runs if run.used], "pa"),
        "best_baseline": ((protocol and compare_with_baselines(protocol)["baseline"]) or {}).get("accuracy"),
        "hidden": tested[0]["scores"]["pa"] if len(tested) == 1 and protocol is None else None,
        "crusts": mean_of(scored, "pa") if scored and protocol is None and not tested else None,
    }


def _areas(facts: Facts) -> dict[str, Any]:
    """For each class: its area, that under cover, and its recall, if known."""
    areas, ages = facts.areas, class_ages(facts)
    shown = [entry for entry in facts.sheet.classes if areas.of_class(entry["index"]) > 0]
    scored = [run for run in facts.used if run.test]
    found = scored[0].test.get("per_class", {}) if len(scored) == 1 and scored[0].kind != "random" else {}
    whole = areas.of_evidence()
    largest = max((areas.of_class(entry["index"]) for entry in shown), default=0.0)
    rows = []
    for entry in shown:
        index = entry["index"]
        outcrop, cover = areas.of_class(index, OUTCROP), areas.of_class(index, *UNDER_COVER)
        rows.append(
            {
                "name": entry["name"],
                "colour": entry["colour"],
                "age": ages.get(index, ""),
                "km2": areas.of_class(index),
                "fraction": areas.of_class(index) / whole,
                "outcrop_km2": outcrop,
                "cover_km2": cover,
                "outcrop_bar": outcrop / largest,
                "cover_bar": cover / largest,
                "unmapped_km2": areas.of_class(index, UNMAPPED),
                "recall": found.get(entry["name"], {}).get("recall"),
            }
        )
    return {
        "rows": rows,
        "km2": whole,
        "outcrop_km2": areas.of_evidence(OUTCROP),
        "cover_km2": areas.of_evidence(*UNDER_COVER),
        "unmapped_km2": areas.of_evidence(UNMAPPED),
        "has_evidence": areas.has_evidence,
        "has_recall": bool(found),
        "on_crusts": bool(found) and scored[0].simulated,
    }


def _limits(facts: Facts) -> dict[str, Any]:
    """Numbers for the section on the limits of the map."""
    areas = facts.areas
    hidden, beyond = areas.of_evidence(*UNDER_COVER), areas.of_evidence(EXTRAPOLATED)
    recipe = next((run.model["field_recipe"] for run in facts.used if "field_recipe" in run.model), FieldRecipe())
    # What this map was made from, which may have been resampled to what the network was trained on.
    fields: dict[str, Any] = facts.record.get("fields", {}).get("recipe", {})
    spacing = float(max(fields.get(RESAMPLED_FROM) or recipe.get("spacing_deg") or [0.0]))
    absent = dict.fromkeys(name for run in facts.used for name in run.test.get("absent", []))
    sources = str(facts.record.get("sources", "")).lower()
    return {
        "on_crusts": bool(facts.simulated),
        "region_unlike": is_outside(prior_verdicts(facts)),
        "class_offsets": bool(facts.settings.get("class_offsets")),
        "extrapolated": beyond / hidden if areas.has_evidence and hidden else None,
        "extrapolated_km2": beyond,
        "height_km": float(recipe.get("input_height_m") or 0) / 1000,
        "spacing": _arc(spacing) if spacing else "",
        "resampled": RESAMPLED_FROM in fields,
        "stated_km": float(fields[STATED_HEIGHT]) / 1000 if STATED_HEIGHT in fields else None,
        "spacing_km": KM_PER_DEGREE * spacing,
        "upsampling": float(facts.sheet.tags.get("GRAVMAP_UPSAMPLING", facts.settings.get("upsampling", 1)) or 1),
        "terrain_fill": any(word in sources for word in ("wgm2012", "egm2008")),
        "absent": list(absent),
    }


def _sources(facts: Facts) -> list[dict[str, Any]]:
    """Data sources with citations and terms; unknown values are empty."""
    return [
        _source(each)
        for each in facts.record.get("sources", [])
        if each.get("role") not in ("fields", "labels", "tiles")
    ]


def _source(record: dict[str, Any]) -> dict[str, Any]:
    known = known_sources().get(str(record.get("known_as") or ""))
    file, own = file_name(record), file_attributes(record)
    named = record.get("title") or record.get("name") or (known.title if known else own.get("title"))
    name = str(named or file or "unnamed")
    roles = {"gravity": "Gravity", "map": "Geological map", "layer": f"Layer {record.get('layer', '')}"}
    cited = credit(record)
    role = roles.get(str(record.get("role")), str(record.get("role", "")))
    uses = listed(str(each) for each in record.get("used_for", []))
    return {
        "name": name,
        "kind": ", for ".join(part for part in (role, uses) if part),
        "file": file if file != name else "",
        "citation": cited if record.get("citation") else cited[:1].upper() + cited[1:],
        "says": {key: own[key] for key in ("source", "references", "comment") if key in own},
        "terms": str(record.get("licence") or (known.terms if known else "")),
        "url": next((str(record[key]) for key in ("url", "source") if str(record.get(key, "")).startswith("http")), ""),
        "sha256": str(record.get("sha256") or ""),
    }


def _made(facts: Facts) -> dict[str, Any] | None:
    """Command, networks, versions and checksums; None without a record."""
    record = facts.record
    if not record:
        return None
    versions = {"gravmap": str(record.get("made_by", "")).removeprefix("gravmap "), **_flat(record.get("versions", {}))}
    return {
        "command": str(record.get("command") or ""),
        "networks": [
            (run.name, run.model.get("model"), [field_words(name) for name in run.channels]) for run in facts.used
        ],
        "created": str(record.get("created", "")).replace("T", " "),
        "versions": {name: version for name, version in versions.items() if version},
        "files": {"Read": _checksums(record.get("inputs")), "Written": _checksums(record.get("outputs"))},
        "departures": list(record.get("deviations") or []),
    }


def _checksums(files: Any) -> list[tuple[str, str]]:
    """Role or file name with its SHA-256, from a table or a list of records."""
    named: Iterable[tuple[str, Any]] = (
        files.items()
        if isinstance(files, dict)
        else [(str(each.get("role") or each.get("name") or each.get("path")), each) for each in files or []]
    )
    return [(name, str(each["sha256"])) for name, each in named if isinstance(each, dict) and each.get("sha256")]


def _flat(versions: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in dict(versions or {}).items():
        found |= _flat(value) if isinstance(value, dict) else {str(name): str(value)}
    return found


def _arc(degrees: float) -> str:
    if degrees >= 1:
        return f"{degrees:g}°"
    return f"{60 * degrees:.3g}′" if degrees >= 1 / 60 - 1e-9 else f"{3600 * degrees:.3g}″"
