"""`gravmap explain`: where in the gravity a map's answer comes from."""

from __future__ import annotations

from pathlib import Path

import click

from .options import ANGLE, chosen_region, device_option, dry_run_option, overwrite_option, region_options
from .session import Session, command_options


@click.command("explain", epilog="Example: gravmap explain --region junggar --class Permian")
@region_options
@click.option("--run", metavar="NAME", help="Training run (default: the newest, runs/latest).")
@click.option("--class", "class_name", metavar="NAME", help="Class to explain (default: what most of it is named).")
@click.option(
    "--scales",
    type=ANGLE,
    multiple=True,
    metavar="ANGLE",
    help="Window size; may be repeated (default: those of `gravmap predict`).",
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=32, show_default=True, help="Points from no anomaly to the field."
)
@click.option("-o", "--output", metavar="DIR", help="Folder of the files (default: maps/REGION).")
@device_option
@overwrite_option
@dry_run_option
@command_options()
def command(
    session: Session,
    region: str | None,
    bbox: tuple[float, ...] | None,
    run: str | None,
    class_name: str | None,
    scales: tuple[float, ...],
    steps: int,
    output: str | None,
    device: str,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Say which gravity speaks for a class in a region, and which against it (integrated gradients).

    Writes attribution.tif (a band for each field the network reads, in units of the logit), attribution.png and
    attribution.json into maps/REGION/, beside the map. The values of all nodes sum to what the network's answer for the
    region has over that for ground without any anomaly. `gravmap predict --overwrite` removes them with the old map.
    """
    box = chosen_region(session, region, bbox)
    if box is None:
        raise click.UsageError("Say which region: --region NAME (junggar, liu2024, tarim ...) or --bbox W S E N.")
    from gravmap.workspace import require

    workspace = session.workspace
    fields = require(workspace.fields, "gravmap residual --height 10km")
    name = region or "bbox_" + "_".join(f"{side:g}" for side in bbox or ())
    folder = Path(output) if output else workspace.maps / name
    labels = workspace.labels if workspace.labels.exists() else None

    from gravmap.mapping import Predictor
    from gravmap.mapping.explain import count_forward_passes, explain

    with Predictor(fields, workspace.run(run), device) as predictor:
        plan = predictor.plan(box, scales or None)
        passes = count_forward_passes(plan, steps)
        if dry_run:
            # A gradient costs about three passes.
            seconds = sum(cost.seconds for cost in predictor.estimate_costs(plan) if cost.chosen) * (3 * steps + 2)
            session.say(f"Would read {fields} and {workspace.run(run)}")
            session.say(f"Would write attribution.tif, .png and .json into {folder}")
            session.say(
                f"  {passes} passes of {plan.tile_size_px[0]} px, about {seconds / 60:.0f} minutes on {plan.device}."
            )
            session.result({"passes": passes, "seconds": seconds, "device": plan.device})
            return
        with session.progress(f"explain {name}") as progress:
            made = explain(
                predictor,
                plan,
                folder,
                labels_path=labels,
                class_name=class_name,
                steps=steps,
                overwrite=overwrite,
                command=session.command_line,
                progress=progress,
            )
    for line in made.lines():
        session.say(line)
    if not made.complete:
        session.warn(f"That is much: take more --steps than {steps}, or read the raster with care.")
    for path in made.files.values():
        session.say(f"  {path}")
    session.result({"files": {key: str(path) for key, path in made.files.items()}, **made.record})
