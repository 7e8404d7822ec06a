"""Write the files that are made from a map's finished rasters: record, pictures, report and STAC item."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.geology.class_table import add_tag
from gravmap.geology.legend import Legend
from gravmap.learning.data.outcrop_context import in_short
from gravmap.mapping.files.qgis_project import write_qgis_project
from gravmap.mapping.page.explore import write_explore_page
from gravmap.mapping.page.facts import gather
from gravmap.mapping.page.figures import draw_pictures
from gravmap.mapping.page.report import write_report
from gravmap.mapping.page.scores import verdict
from gravmap.mapping.page.words import THIN, region_title
from gravmap.mapping.plan import Plan
from gravmap.mapping.record.data_sources import credit, file_name
from gravmap.mapping.record.provenance import read_provenance, update_checksums, write_provenance
from gravmap.mapping.record.stac import write_item
from gravmap.records import read_model
from gravmap.units import format_angle

VERDICT_TAG = "GRAVMAP_VERDICT"


@dataclass(frozen=True)
class MapInputs:
    """The inputs and settings of a map, for its record and report.

    Attributes
    ----------
    name : str
        Name of the region.
    command : str
        The command line.
    settings : mapping
        Every option with its value.
    fields : Path
        ``fields.nc``.
    runs : sequence of Path
        The training runs that predicted the map.
    labels, tiles : Path, optional
        Label raster; tile set of the runs, on which null models are scored.
    others : mapping of str to Path
        Role to path of all other input files.
    explore : bool
        Whether ``explore.html`` is written, too.
    start : float
        Start time, on the clock of ``time.monotonic``.
    """

    name: str
    command: str
    settings: Mapping[str, Any]
    fields: Path
    runs: Sequence[Path]
    labels: Path | None
    tiles: Path | None
    others: Mapping[str, Path] = field(default_factory=dict)
    explore: bool = False
    start: float = field(default_factory=time.monotonic)


def finish_map(folder: Path, home: Path, legend: Legend, plan: Plan, inputs: MapInputs) -> None:
    """Write ``map.qgz``, ``provenance.json``, pictures, ``report.html`` and ``item.json`` beside a map's rasters.

    Parameters
    ----------
    folder : Path
        Folder of the rasters.
    home : Path
        Folder that `folder` will be renamed to.
    legend : Legend
        Classes and colours.
    plan : Plan
        Grid, windows and device.
    inputs : MapInputs
        Inputs and settings.

    Raises
    ------
    InputError
        An input or a run has become missing or damaged.
    GravmapError
        Bokeh, which ``explore.html`` needs, is not installed.
    """
    write_provenance(
        folder,
        command=inputs.command,
        settings=inputs.settings,
        fields=inputs.fields,
        runs=inputs.runs,
        labels=inputs.labels,
        others=inputs.others,
        device=plan.device,
        seconds=time.monotonic() - inputs.start,
        home=home,
    )
    title = region_title(inputs.name)
    compared = runs_of_other_splits(inputs.runs)
    facts = gather(folder, runs=inputs.runs, tiles=inputs.tiles, compared=compared, title=title)
    found = verdict(facts)
    trust = {key: str(found[key]).replace(THIN, " ") for key in ("level", "sentence", "reason")}
    trusted = f"{trust['sentence']} {trust['reason']}".strip()
    add_tag(folder / "lithology.tif", VERDICT_TAG, trusted)
    write_qgis_project(folder, title, trusted)
    notes = [trusted, *_notes(folder, plan)]
    draw_pictures(folder, legend, title=title, notes=notes)
    # The report lists the files of the record, including the pictures.
    record = update_checksums(folder, verdict=trust)
    write_report(folder, replace(facts, record=record), inputs.fields)
    if inputs.explore:
        write_explore_page(folder)
    write_item(folder)
    update_checksums(folder)


def runs_of_other_splits(runs: Sequence[Path]) -> list[Path]:
    """Find the newest finished run of every split that none of `runs` was trained with.

    Parameters
    ----------
    runs : sequence of Path
        Folders of runs; the folders beside them are searched.
    """
    known = {_split_name(run) for run in runs}
    newest: dict[str, Path] = {}
    finished = {path.parent for run in runs for path in run.resolve().parent.glob("*/scores.json")}
    for run in sorted(finished, key=lambda path: (path / "scores.json").stat().st_mtime):
        split = _split_name(run)
        if split and split not in known:
            newest[split] = run
    return [newest[split] for split in sorted(newest)]


def _split_name(run: Path) -> str:
    try:
        return read_model(run).get("split", {}).get("name", "")
    except InputError:
        return ""  # not a run of gravmap: nothing to compare with


def _notes(folder: Path, plan: Plan) -> list[str]:
    """Return the lines below the pictures: networks, windows, cells, and the citations of the data."""
    record = read_provenance(folder)
    networks = sorted({f"{model['model']} on {_channels(model)}" for model in record["models"]})
    several = f", {len(record['models'])} networks together" if len(record["models"]) > 1 else ""
    scales = ", ".join(map(format_angle, plan.windows))
    cells = format_angle(plan.grid.spacing_deg[0])
    notes = [f"Network: {'; '.join(networks)}{several}; windows of {scales}; cells of {cells}."]
    if plan.grid.upsampling > 1.01:
        notes.append(f"The cells are {plan.grid.upsampling:.3g} times finer than the gravity grid: no detail is added.")
    for role, title in (("gravity", "Gravity"), ("map", "Geology")):
        credits_ = [_credit(source) for source in record["sources"] if source.get("role") == role]
        notes += [f"{title}: {'; '.join(dict.fromkeys(credits_))}."] if credits_ else []
    return notes


def _credit(source: Mapping[str, Any]) -> str:
    """The citation of a source; without one its file, so that a reader sees what is not credited."""
    if source.get("citation"):
        return str(source["citation"]).rstrip(".")
    return f"{file_name(source) or 'unnamed'}, {credit(source) or 'no citation on record'}"


def _channels(model: Mapping[str, Any]) -> str:
    return ", ".join(in_short(str(entry.get("field", entry["kind"])) for entry in model["inputs"]))
