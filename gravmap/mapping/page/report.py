"""The report of a map: one page that stands alone, to read on a screen, to print, and to show to a colleague."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gravmap.files import read_json, write_text
from gravmap.mapping.layers import COVERED, EXTRAPOLATED, NEAR, OUTCROP
from gravmap.mapping.page.crusts import prior_headlines
from gravmap.mapping.page.facts import Facts, protocols_of, read_run
from gravmap.mapping.page.ground import measure_ground
from gravmap.mapping.page.made import limits, made, sources
from gravmap.mapping.page.maps import class_ages, doubts, gravity_map, main_map
from gravmap.mapping.page.scores import mean_of, reliability_section, scores_section, verdict
from gravmap.mapping.page.sheet import read_sheet
from gravmap.mapping.page.shell import html_page
from gravmap.mapping.page.words import about, bare_area, degrees, missing, percent, region_title, swatch, text

REPORT = "report.html"


def write_report(
    folder: Path,
    *,
    runs: Sequence[Path],
    fields: Path | None = None,
    tiles: Path | None = None,
    compared: Sequence[Path] = (),
    title: str = "",
) -> Path:
    """Write ``report.html`` into a map's folder, from the files there and the runs behind it.

    What is missing is said in one line in its place.

    Parameters
    ----------
    folder : Path
        A finished map: ``lithology.tif`` and, as far as there are, ``evidence.tif``, ``uncertainty.tif`` and
        ``provenance.json``.
    runs : sequence of Path
        Folders of the runs that the map was made with.
    fields : Path, optional
        ``data/fields.nc``, for the residual gravity.
    tiles : Path, optional
        The tile set of the runs, to score null models on the same ground.
    compared : sequence of Path
        Further runs whose scores stand beside them, such as one trained under the paper's random split.
    title : str
        The region's name; by default the record's, or the folder's.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        ``lithology.tif``, or a run's ``model.json``, is missing or damaged.
    """
    facts = gather(folder, runs=runs, tiles=tiles, compared=compared, title=title)
    path = folder / REPORT
    write_text(path, page(facts, fields))
    return path


def gather(
    folder: Path, *, runs: Sequence[Path], tiles: Path | None, compared: Sequence[Path] = (), title: str = ""
) -> Facts:
    """Read all that a report is written from; parameters as in :func:`write_report`."""
    known = [read_run(run, used=True) for run in runs] + [read_run(run, used=False) for run in compared]
    recorded = folder / "provenance.json"
    record = read_json(recorded, "gravmap predict") if recorded.exists() else {}
    name = title or str(record.get("settings", {}).get("region") or folder.resolve().name)
    return Facts(
        region_title(name), read_sheet(folder), measure_ground(folder), record, known, protocols_of(known, tiles)
    )


def page(facts: Facts, fields: Path | None) -> str:
    """The page as HTML."""
    sections = [
        ("map", "The map", main_map(facts)),
        ("doubt", "How sure it is, and what it rests on", doubts(facts)),
        ("areas", "How much of each", _areas(facts)),
        ("scores", "How good it is where that can be checked", scores_section(facts)),
        ("reliability", "Whether its probabilities can be believed", reliability_section(facts)),
        ("gravity", "The gravity it was read from", gravity_map(facts, fields)),
        ("limits", "What it cannot say", limits(facts)),
        ("sources", "Data, credits and terms", sources(facts)),
        ("made", "How it was made", made(facts)),
    ]
    body = "\n".join(
        f'<section id="{name}"><h2>{heading}</h2>\n{content}</section>' for name, heading, content in sections
    )
    title = text(facts.title)
    return html_page(
        title=f"{title}: bedrock under cover",
        over="Bedrock under cover, from gravity",
        heading=title,
        lead=f"{_lead(facts)}\n{_glance(facts)}",
        body=body,
        footer=" beside the map's files: lithology.tif, probability.tif, uncertainty.tif, evidence.tif and"
        " lithology.gpkg open in QGIS with these colours; map.pdf and uncertainty.pdf are for print.",
    )


def _lead(facts: Facts) -> str:
    around = " and the outcrop around" if any(facts.settings.get("starts_from_outcrop", [])) else ""
    if "everywhere" not in facts.sheet.tags.get("GRAVMAP_CONTENT", ""):
        said = (
            "Where bedrock crops out, this map shows it as geologists mapped it. Where sediments hide it, a network has"
            f" named it from the gravity above{around}."
        )
    else:
        said = f"A network has named the bedrock from the gravity above it{around}, on outcrop and under cover alike."
    told = "".join(f"<p>{text(each)}</p>" for each in (verdict(facts), *prior_headlines(facts)))
    return f'<p class="lead">{said}</p>\n<div class="say">{told}</div>'


def _glance(facts: Facts) -> str:
    counted, sheet = facts.ground, facts.sheet
    whole = counted.of_evidence()
    told = [(about(whole), f"mapped: {degrees(sheet.bounds_wsen)}")]
    hidden = counted.of_evidence(NEAR, COVERED, EXTRAPOLATED)
    if counted.has_evidence and whole:
        told.append((percent(hidden / whole), "of it under cover, where the class is predicted"))
    if counted.has_evidence and hidden:
        beyond = counted.of_evidence(EXTRAPOLATED) / hidden
        ground = "crusts it was taught on" if facts.simulated else "training ground"
        told.append((percent(beyond), f"of that with gravity unlike the {ground}"))
    if facts.honest is not None:
        right = mean_of([run for run in facts.honest.runs if run.used], "pa")
        nulls = [row["pa"] for row in facts.honest.nulls.values()]
        beside = f"; without a network {percent(max(nulls))}" if nulls else ""
        told.append((percent(right), f"right on held-out outcrop{beside}"))
    elif scored := [run for run in facts.simulated if run.test]:
        told.append((percent(mean_of(scored, "pa")), "right under the cover of simulated crusts, the best case"))
    return (
        '<dl class="glance">' + "".join(f"<div><dt>{text(words)}</dt><dd>{n}</dd></div>" for n, words in told) + "</dl>"
    )


def _areas(facts: Facts) -> str:
    """Class by class: how much ground, how much of it under cover, and how well it is found where that is known."""
    counted, ages = facts.ground, class_ages(facts)
    whole = counted.of_evidence()
    shown = [entry for entry in facts.sheet.classes if counted.of_class(entry["index"]) > 0]
    if not shown or not whole:
        return missing("The map has no cell with a class.")
    used = [run for run in facts.runs if run.used and run.test]
    found = used[0].test.get("per_class", {}) if len(used) == 1 and used[0].kind != "random" else {}
    largest = max(counted.of_class(entry["index"]) for entry in shown)
    split = counted.has_evidence
    rows = []
    for entry in shown:
        index = entry["index"]
        total, rock = counted.of_class(index), counted.of_class(index, OUTCROP)
        under = counted.of_class(index, NEAR, COVERED, EXTRAPOLATED)
        age = ages.get(index, "")
        cells = [f'<td class="n">{bare_area(total)}</td><td class="n optional">{percent(total / whole)}</td>']
        if split:
            cells.append(
                f'<td class="n optional">{bare_area(rock)}</td><td class="n">{bare_area(under)}</td>'
                '<td class="optional"><span class="parts" aria-hidden="true">'
                f'<i class="rock" style="width:{100 * rock / largest:.2f}%"></i>'
                f'<i class="under" style="width:{100 * under / largest:.2f}%"></i></span></td>'
            )
        if found:
            recall = found.get(entry["name"], {}).get("recall")
            cells.append(f'<td class="n">{percent(recall)}</td>')
        rows.append(
            f'<tr><th scope="row"><span class="class">{swatch(entry["colour"])}<span>{text(entry["name"])}'
            f"<small>{text(age)}</small></span></span></th>{''.join(cells)}</tr>"
        )
    head = [
        '<th scope="col">Class</th><th scope="col" class="n">Area, km²</th>',
        '<th scope="col" class="n optional">Share</th>',
    ]
    foot = [f'<th scope="row">All</th><td class="n">{bare_area(whole)}</td><td class="n optional">{percent(1.0)}</td>']
    if split:
        head.append(
            '<th scope="col" class="n optional">On outcrop, km²</th><th scope="col" class="n">Under cover, km²</th>'
            '<th scope="col" class="optional bits"><i class="bit rock"></i>outcrop <i class="bit under"></i>cover</th>'
        )
        rock, under = counted.of_evidence(OUTCROP), counted.of_evidence(NEAR, COVERED, EXTRAPOLATED)
        foot.append(
            f'<td class="n optional">{bare_area(rock)}</td><td class="n">{bare_area(under)}</td>'
            '<td class="optional"></td>'
        )
    if found:
        head.append(
            f'<th scope="col" class="n">Found {"on test crusts" if used[0].simulated else "on held-out outcrop"}</th>'
        )
        foot.append("<td></td>")
    return (
        '<p class="told">Square kilometres on the WGS 84 ellipsoid, every cell by its own area.</p>'
        '<div class="wide"><table>'
        f"<thead><tr>{''.join(head)}</tr></thead><tbody>{''.join(rows)}</tbody>"
        f"<tfoot><tr>{''.join(foot)}</tr></tfoot></table></div>"
    )
