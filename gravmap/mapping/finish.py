"""What is made from a map's finished rasters: its record, pictures, page and STAC item."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gravmap.geology import Legend
from gravmap.learning.data.outcrop_context import in_short
from gravmap.mapping.page.figures import draw_pictures
from gravmap.mapping.page.report import write_report
from gravmap.mapping.page.words import region_title
from gravmap.mapping.plan import Plan
from gravmap.mapping.record.provenance import read_provenance, update_checksums, write_provenance
from gravmap.mapping.record.stac import write_item
from gravmap.units import format_angle


@dataclass(frozen=True)
class Origin:
    """What a map was made from, for all that is said about it.

    Attributes
    ----------
    name : str
        The region's.
    command : str
        As typed.
    settings : mapping
        Every option with its value.
    fields : Path
        ``fields.nc``.
    runs : sequence of Path
        Runs that predicted.
    labels, tiles : Path, optional
        Label raster; tile set of the runs, on which null models are scored.
    others : mapping of str to Path
        Role to file of whatever else was read.
    began : float
        On the clock of ``time.monotonic``.
    """

    name: str
    command: str
    settings: Mapping[str, Any]
    fields: Path
    runs: Sequence[Path]
    labels: Path | None
    tiles: Path | None
    others: Mapping[str, Path] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)


def finish_map(folder: Path, home: Path, legend: Legend, plan: Plan, origin: Origin) -> None:
    """Write ``provenance.json``, pictures, ``report.html`` and ``item.json`` beside a map's rasters.

    Parameters
    ----------
    folder : Path
        Where the rasters lie now.
    home : Path
        Where the folder will stand.
    legend : Legend
        Classes and colours.
    plan : Plan
        Grid, windows, device.
    origin : Origin
        What it was made from.

    Raises
    ------
    InputError
        An input or a run is missing or damaged by now.
    """
    write_provenance(
        folder,
        command=origin.command,
        settings=origin.settings,
        fields=origin.fields,
        runs=origin.runs,
        labels=origin.labels,
        others=origin.others,
        device=plan.device,
        seconds=time.monotonic() - origin.began,
        home=home,
    )
    title = region_title(origin.name)
    draw_pictures(folder, legend, title=title, notes=_notes(folder, plan))
    update_checksums(folder)  # the page lists what is written so far, the pictures among it
    write_report(
        folder,
        runs=origin.runs,
        fields=origin.fields,
        tiles=origin.tiles,
        compared=runs_of_other_splits(origin.runs),
        title=title,
    )
    write_item(folder)
    update_checksums(folder)


def runs_of_other_splits(runs: Sequence[Path]) -> list[Path]:
    """Of every split that none of `runs` was trained under, the newest finished run beside them.

    Parameters
    ----------
    runs : sequence of Path
        Folders of runs.
    """
    known = {_split_of(run) for run in runs}
    found: dict[str, Path] = {}
    beside = {path.parent for run in runs for path in run.resolve().parent.glob("*/scores.json")}
    for run in sorted(beside, key=lambda path: (path / "scores.json").stat().st_mtime):
        split = _split_of(run)
        if split and split not in known:
            found[split] = run
    return [found[split] for split in sorted(found)]


def _split_of(run: Path) -> str:
    try:
        return str(json.loads((run / "model.json").read_text(encoding="utf-8"))["split"]["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # no run of ours: nothing to compare with


def _notes(folder: Path, plan: Plan) -> list[str]:
    """Lines under the pictures: the networks, the cells, whose data."""
    record = read_provenance(folder)
    networks = sorted({f"{model['model']} on {_channels(model)}" for model in record["models"]})
    several = f", {len(record['models'])} networks together" if len(record["models"]) > 1 else ""
    scales = ", ".join(map(format_angle, plan.windows))
    cells = format_angle(plan.grid.spacing_deg[0])
    notes = [f"Network: {'; '.join(networks)}{several}; windows of {scales}; cells of {cells}."]
    if plan.grid.upsampling > 1.01:
        notes.append(f"The cells are {plan.grid.upsampling:.3g} times finer than the gravity grid: no detail is added.")
    credits_ = [str(source["citation"]) for source in record["sources"] if source.get("citation")]
    notes += [f"Data: {'; '.join(dict.fromkeys(credits_))}."] if credits_ else []
    return notes


def _channels(model: Mapping[str, Any]) -> str:
    return ", ".join(in_short(str(entry.get("field", entry["kind"])) for entry in model["inputs"]))
