"""`gravmap predict`: the map of a region."""

from __future__ import annotations

import click

from .options import ANGLE, chosen_region, dry_run_option, overwrite_option, region_options
from .session import Session, command_options


@click.command("predict", epilog="Example: gravmap predict --region junggar")
@region_options
@click.option("--run", metavar="NAME", help="Training run (default: the newest, runs/latest).")
@click.option(
    "--scales",
    type=ANGLE,
    multiple=True,
    metavar="ANGLE",
    help="Window size; may be repeated (default: those trained on, on a CPU without 1deg).",
)
@click.option("--resolution", type=ANGLE, metavar="ANGLE", help="Cell size (default: the nodes of the gravity grid).")
@click.option("--everywhere", is_flag=True, help="Predict on the outcrop too, instead of showing it as mapped.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Windows at a time.")
@overwrite_option
@dry_run_option
@command_options()
def command(
    session: Session,
    region: str | None,
    bbox: tuple[float, ...] | None,
    run: str | None,
    scales: tuple[float, ...],
    resolution: float | None,
    everywhere: bool,
    device: str,
    batch_size: int,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Predict bedrock lithology of a region and write its map.

    Mapped outcrop is shown as mapped; the network names the bedrock under cover. Writes lithology.tif,
    probability.tif, quicklook.png and provenance.json into maps/REGION/.
    """
    box = chosen_region(session, region, bbox)
    if box is None:
        raise click.UsageError("Say which region: --region NAME (junggar, liu2024, tarim ...) or --bbox W S E N.")
    from gravmap.units import format_angle
    from gravmap.workspace import require

    workspace = session.workspace
    fields = require(workspace.fields, "gravmap residual --height 10km")
    run_folder = workspace.run(run)
    name = region or "bbox_" + "_".join(f"{side:g}" for side in box.bounds_wsen)
    folder = workspace.maps / name
    labels = workspace.labels if workspace.labels.exists() else None

    from gravmap.mapping import Predictor, predict

    if dry_run:
        predictor = Predictor(fields, run_folder, device)
        plan = predictor.plan(box, list(scales) or None, resolution)
        seconds = predictor.seconds_per_pass()
        session.say(f"Would read {fields}, {run_folder}" + (f", {labels}" if labels and not everywhere else ""))
        session.say(f"Would write {plan.grid.shape[1]} x {plan.grid.shape[0]} cells into {folder}")
        for scale, windows in plan.windows.items():
            session.say(
                f"  {len(windows)} windows of {format_angle(scale)}, {plan.tile_size_px} px: "
                f"about {seconds * len(windows):.0f} s on {plan.device}"
            )
        session.result({"cells": plan.grid.shape, "windows": plan.passes, "seconds": seconds * plan.passes})
        return
    if labels is None and not everywhere:
        session.say(f"{workspace.labels} is missing, so every cell is predicted (`gravmap rasterize` makes it).")
    with session.progress(f"predict {name}") as progress:
        made = predict(
            fields,
            run_folder,
            box,
            folder,
            name=name,
            labels_path=labels,
            scales_deg=list(scales) or None,
            resolution_deg=resolution,
            everywhere=everywhere,
            device=device,
            batch_size=batch_size,
            overwrite=overwrite,
            command=session.command_line,
            progress=progress,
        )
    rows, cols = made.lithology.shape
    session.say(f"Mapped {cols} x {rows} cells of {name} ({box}) with {run_folder.name}, {made.plan.passes} windows:")
    for path in made.files.values():
        session.say(f"  {path}")
    session.result(
        {
            "files": {file: str(path) for file, path in made.files.items()},
            "cells": [rows, cols],
            "windows": made.plan.passes,
            "device": made.plan.device,
        }
    )
