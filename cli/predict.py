"""`gravmap predict`: the map of a region."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import ANGLE, LENGTH, chosen_region, device_option, dry_run_option, overwrite_option, region_options
from .predict_priors import PriorQuestion, tell_verdicts
from .session import Session, command_options

if TYPE_CHECKING:
    from gravmap.mapping import Clip, Options
    from gravmap.regions import Region


@click.command("predict", epilog="Example: gravmap predict --region junggar")
@region_options
@click.option(
    "--polygon", metavar="FILE", help="Map the polygons of a file, in any coordinate system; the rest is empty."
)
@click.option(
    "--run",
    "runs",
    multiple=True,
    metavar="NAME",
    help="Training run, or a model that gravmap ships (default: the newest, runs/latest, else the shipped "
    "crusts-central-asia); may be repeated: runs predict together.",
)
@click.option(
    "--scales",
    type=ANGLE,
    multiple=True,
    metavar="ANGLE",
    help="Window size; may be repeated (default: those trained on, on a CPU without 1deg).",
)
@click.option("--resolution", type=ANGLE, metavar="ANGLE", help="Cell size (default: the nodes of the gravity grid).")
@click.option("--flips", is_flag=True, help="See every window in four mirror images: four times the work.")
@click.option("--everywhere", is_flag=True, help="Predict on the outcrop too, instead of showing it as mapped.")
@click.option(
    "--near",
    type=LENGTH,
    default="25km",
    show_default=True,
    metavar="LENGTH",
    help="How far from mapped outcrop counts as near it, in evidence.tif.",
)
@click.option("--crs", metavar="EPSG:CODE", help="Coordinate system of the files (default: EPSG:4326).")
@click.option(
    "--no-prior-check",
    is_flag=True,
    help="Do not ask whether the region is like the simulated crusts that the network was taught on (a minute or so).",
)
@click.option("-o", "--output", metavar="DIR", help="Folder of the map (default: maps/REGION).")
@click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="Share the windows among N GPUs; 0 is the CPU.")
@device_option
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Windows at a time.")
@overwrite_option
@dry_run_option
@command_options()
def command(
    session: Session,
    region: str | None,
    bbox: tuple[float, ...] | None,
    polygon: str | None,
    runs: tuple[str, ...],
    scales: tuple[float, ...],
    resolution: float | None,
    flips: bool,
    everywhere: bool,
    near: float,
    crs: str | None,
    no_prior_check: bool,
    output: str | None,
    gpus: int | None,
    device: str,
    batch_size: int,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Predict bedrock lithology of a region and write its map.

    Mapped outcrop is shown as mapped; the network names the bedrock under cover. Writes lithology.tif and .gpkg,
    probability.tif, uncertainty.tif, evidence.tif, styles for QGIS, pictures for print, report.html, a STAC item and
    provenance.json into maps/REGION/. A run that was stopped goes on where it stopped when the command is given again.
    Where nothing was trained, the network that gravmap ships is used, taught on simulated crusts alone. For a network
    taught on crusts, the region is held against such crusts, and the page says whether it is like them. Residuals that
    a network reads and data/fields.nc lacks are made on the spot, into a file beside it.
    """
    if polygon is not None and (region is not None or bbox):
        raise click.UsageError("--polygon excludes --region and --bbox.")
    box = chosen_region(session, region, bbox)
    if box is None and polygon is None:
        raise click.UsageError(
            "Say which region: --region NAME (junggar, liu2024, tarim ...), --bbox W S E N or --polygon FILE."
        )
    if gpus is not None and device == "cpu" and gpus:
        raise click.UsageError("--gpus and --device cpu exclude each other.")
    from gravmap.workspace import SHIPPED, require

    workspace = session.workspace
    fields = require(workspace.fields, "gravmap residual --height 10km")
    shipped = not runs and not (workspace.runs / "latest").exists()
    folders = [workspace.run(SHIPPED)] if shipped else [workspace.run(name) for name in runs or (None,)]
    labels = workspace.labels if workspace.labels.exists() else None

    from gravmap.learning.data.outcrop_context import is_context, measured_names
    from gravmap.mapping import Clip, Options, predict, read_clip
    from gravmap.mapping.compatibility import require_labels
    from gravmap.mapping.missing_heights import missing_heights
    from gravmap.mapping.predictor import device_and_processes

    processes = 1
    if gpus is not None:
        device, processes = device_and_processes(gpus)
    place = box if box is not None else read_clip(Path(str(polygon)))
    name = region or (Path(polygon).stem if polygon else "bbox_" + "_".join(f"{side:g}" for side in bbox or ()))
    folder = Path(output) if output else workspace.maps / name
    options = Options(
        scales_deg=scales or None,
        resolution_deg=resolution,
        everywhere=everywhere,
        flips=flips,
        near_km=near / 1000,
        crs=crs,
        device=device,
        processes=processes,
        batch_size=batch_size,
    )
    if labels is None and not everywhere:
        session.say(f"{workspace.labels} is missing, so every cell is predicted (`gravmap rasterize` makes it).")
    reads = _about_models(session, folders, shipped, place)
    require_labels(labels, any(map(is_context, reads)))
    question = PriorQuestion.of([] if no_prior_check else folders)
    lacking = missing_heights(fields, measured_names(reads))
    if lacking:
        fields = _with_heights(session, fields, lacking, dry_run)
    if dry_run and question.taught_on:
        session.say(f"Would hold the region against {question.told} first: a minute or so, the first time.")
    if dry_run and not fields.exists():
        return
    if dry_run:
        _foretell(session, fields, folders, labels, place, folder, options)
        return
    around = place.region if isinstance(place, Clip) else place
    check_prior = question.asked(fields, labels, around, workspace.crusts)
    if check_prior is not None:
        session.say(
            f"First the region is held against {question.told}: a minute or so, and nothing the next time;"
            " --no-prior-check leaves it out."
        )
    with session.progress(f"predict {name}") as progress:
        made = predict(
            fields,
            folders,
            place,
            folder,
            name=name,
            labels_path=labels,
            tiles_path=workspace.tiles if (workspace.tiles / "index.json").exists() else None,
            options=options,
            overwrite=overwrite,
            command=session.command_line,
            check_prior=check_prior,
            progress=progress,
        )
    tell_verdicts(session, made.verdicts)
    rows, columns = made.plan.grid.shape
    resumed = f" ({made.resumed} of them from the run that was stopped)" if made.resumed else ""
    session.say(
        f"Mapped {columns} x {rows} cells of {name} ({made.plan.region}) with "
        f"{', '.join(path.name for path in folders)}, {len(made.plan.jobs)} windows{resumed}:"
    )
    for path in made.files.values():
        session.say(f"  {path}")
    session.result(
        {
            "files": {file: str(path) for file, path in made.files.items()},
            "cells": [rows, columns],
            "windows": len(made.plan.jobs),
            "resumed": made.resumed,
            "device": made.plan.device,
            "summary": asdict(made.summary),
            "prior_verdicts": list(made.verdicts),
        }
    )


def _about_models(session: Session, folders: list[Path], shipped: bool, place: Region | Clip) -> list[str]:
    """Say which networks there are where that is no region's own; gives the channels that any of them reads."""
    from gravmap.files import read_json
    from gravmap.mapping import Clip
    from gravmap.mapping.page.crusts import read_under_cover, score_sentences, training_sentence
    from gravmap.mapping.page.facts import trained_on_crusts
    from gravmap.mapping.page.words import THIN

    reads: list[str] = []
    box = place.region if isinstance(place, Clip) else place
    for folder in folders:
        model = read_json(folder / "model.json", "gravmap train")
        reads += [str(each["field"]) for each in model.get("inputs", []) if each.get("field")]
        taught: dict[str, Any] = model.get("taught_on") or {}
        if not trained_on_crusts(taught):
            continue
        said = [
            training_sentence(taught, f"The network {folder.name}"),
            score_sentences([("", read_under_cover(folder))]),
        ]
        if shipped:
            said.insert(0, "No network was trained here, so the one that gravmap ships is used.")
        session.say(" ".join(said).replace(THIN, " "))
        if shipped:
            session.say(f"`gravmap train --init {folder.name}` fine-tunes it on this region's outcrop.")
        rows, columns = taught.get("shape", (0, 0))
        if rows and (box.height_deg > rows / 30 + 1e-6 or box.width_deg > columns / 30 + 1e-6):
            session.say(
                f"The region ({box.width_deg:.3g} x {box.height_deg:.3g} degrees) is larger than the crusts "
                f"({columns / 30:.3g} x {rows / 30:.3g}): it is seen in windows of {max(model['scales_deg']):g}"
                " degrees."
            )
    return list(dict.fromkeys(reads))


def _with_heights(session: Session, fields: Path, lacking: list[float], dry_run: bool) -> Path:
    """The file that holds the residuals which the networks read and `fields` lacks; made here, but in a dry run."""
    from gravmap.mapping.missing_heights import add_heights
    from gravmap.units import format_length

    heights = ", ".join(map(format_length, lacking))
    more = fields.with_name("fields-" + "-".join(map(format_length, lacking)) + ".nc")
    if dry_run:
        session.say(f"{fields} lacks the residuals of {heights}: they would be made first, into {more}.")
        session.result({"would_write": str(more), "heights": heights})
        return more
    with session.progress("residual") as progress:
        told = add_heights(fields, lacking, more, session.workspace.raw, progress)
    session.say(f"{fields} lacks the residuals of {heights}: they stand in {more}, made from {told}.")
    return more


def _foretell(
    session: Session,
    fields: Path,
    folders: list[Path],
    labels: Path | None,
    place: Region | Clip,
    folder: Path,
    options: Options,
) -> None:
    """Say what would be read, computed and written, and what it would take at every scale."""
    from gravmap.mapping import Clip, Predictor
    from gravmap.mapping.compatibility import require_labels
    from gravmap.progress import describe_time
    from gravmap.units import format_angle

    clip = place if isinstance(place, Clip) else None
    box = place.region if isinstance(place, Clip) else place
    with Predictor(fields, folders, options.device) as predictor:
        require_labels(labels, predictor.reads_outcrop)
        plan = predictor.plan(box, options.scales_deg, options.resolution_deg, clip=clip, flips=options.flips)
        costs, memory = predictor.estimate_costs(plan), predictor.network_bytes(options.batch_size)
    rows, columns = plan.grid.shape
    read = [fields, *folders, *([labels] if labels is not None else [])]
    session.say(f"Would read {', '.join(map(str, read))}")
    session.say(f"Would write {columns} x {rows} cells into {folder}")
    for cost in costs:
        seconds = cost.seconds / max(1, min(options.processes, cost.windows))
        chosen = "chosen" if cost.chosen else "not chosen"
        sizes = ", ".join(f"{size} px" for size in sorted(set(plan.tile_size_px)))
        session.say(
            f"  {chosen:<10} {format_angle(cost.scale_deg):>7}: {cost.windows} windows of {sizes}, "
            f"about {describe_time(seconds)} on {plan.device}, {cost.disk_bytes / 1e6:.0f} MB"
        )
    whole = sum(cost.seconds for cost in costs if cost.chosen) / max(1, options.processes)
    where = "GPU memory" if plan.device == "cuda" else "memory"
    session.say(
        f"In all about {describe_time(whole)}, up to {plan.disk_bytes / 1e6:.0f} MB of disk until it is finished, and "
        f"about {memory / 1e6:.0f} MB of {where} for a network and {options.batch_size} window(s) at a time."
    )
    result: dict[str, Any] = {
        "cells": [rows, columns],
        "windows": len(plan.jobs),
        "seconds": whole,
        "disk_bytes": plan.disk_bytes,
        "network_bytes": memory,
        "device": plan.device,
        "scales": {format_angle(cost.scale_deg): asdict(cost) for cost in costs},
    }
    session.result(result)
