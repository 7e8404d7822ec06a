"""`gravmap explain`: attribute a mapped class to the gravity field (integrated gradients)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import complete
from .options import (
    Command,
    chosen_region,
    device_option,
    dry_run_option,
    map_name,
    option,
    output_option,
    overwrite_option,
    region_options,
    report_device,
    window_option,
)
from .residual import fields_for, heights_to_add, say_missing_heights
from .session import Session, command_options


@click.command(
    "explain",
    cls=Command,
    short_help="Attribute a mapped class to the gravity around it.",
    epilog="Example: gravmap explain --region junggar --class Permian",
)
@region_options
@option(
    "--run",
    metavar="NAME",
    shell_complete=complete.runs,
    help="Training run, or a model shipped with gravmap (default: the newest run, else the shipped model).",
)
@option("--class", "class_name", metavar="NAME", help="Class to explain (default: the most common one).")
@window_option("Window size; may be repeated (default: those of `gravmap predict`).")
@option(
    "--integration-steps",
    type=click.IntRange(min=1),
    metavar="N",
    default=32,
    show_default=True,
    old_names=["--steps"],
    help="Points of the path from zero anomaly to the field.",
)
@output_option("Folder of the files (default: maps/REGION).", "DIR")
@device_option()
@overwrite_option
@dry_run_option
@command_options()
def command(
    session: Session,
    region: str | None,
    bbox: tuple[float, ...] | None,
    run: str | None,
    class_name: str | None,
    windows_deg: tuple[float, ...],
    integration_steps: int,
    output: Path | None,
    device: str,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Map which gravity counts for a class in a region, and which against it (integrated gradients).

    Writes attribution.tif (a band for each input field of the network, in units of the logit), attribution.png and
    attribution.json into maps/REGION/, beside the map. The values of all nodes sum to the difference between the
    logits of the region and those of a field without anomalies. `gravmap predict --overwrite` removes these files
    together with the old map.
    """
    box = chosen_region(session, region, bbox)
    if box is None:
        raise click.UsageError("Name a region: --region NAME (junggar, liu2024, tarim ...) or --bbox W S E N.")
    from gravmap.workspace import SHIPPED, require

    workspace = session.workspace
    require(workspace.fields, "gravmap residual --height 10km")
    network = workspace.run(SHIPPED if run is None and not workspace.latest.exists() else run)
    if dry_run and (missing := heights_to_add(session, network)):
        say_missing_heights(session, workspace.fields, missing)
        return session.result({"missing_heights_m": missing})
    fields = fields_for(session, network)
    name = map_name(region, bbox)
    folder = output or workspace.maps / name
    labels = workspace.labels if workspace.labels.exists() else None

    from gravmap.mapping.explain import FILES, check_explanation, count_forward_passes, explain
    from gravmap.mapping.predictor import Predictor
    from gravmap.progress import describe_time

    inputs = [fields, labels, network]
    session.writing([folder / file for file in FILES], inputs, overwrite, dry_run, lock=folder)
    with Predictor(fields, network, device) as predictor:
        plan = predictor.plan(box, windows_deg or None)
        passes = count_forward_passes(plan, integration_steps)
        chosen: dict[str, Any] = {"labels_path": labels, "class_name": class_name, "overwrite": overwrite}
        check_explanation(predictor, plan, folder, **chosen)
        # A gradient costs about three passes.
        seconds = sum(cost.seconds for cost in predictor.estimate_costs(plan) if cost.chosen) * (
            3 * integration_steps + 2
        )
        if dry_run:
            session.say(f"Would read {fields} and {network}")
            session.say(f"Would write attribution.tif, .png and .json into {folder}")
        session.say(
            f"{passes} passes of {plan.tile_size_px[0]} px, about {describe_time(seconds)} on {plan.device}"
            f"{'' if seconds < 120 else '; less with a smaller --bbox'}."
        )
        if dry_run:
            session.result({"passes": passes, "seconds": seconds, "device": plan.device})
            return
        with session.progress(f"explain {name}") as progress:
            made = explain(
                predictor,
                plan,
                folder,
                labels_path=labels,
                class_name=class_name,
                steps=integration_steps,
                overwrite=overwrite,
                command=session.command_line,
                progress=progress,
            )
    for line in made.lines():
        session.say(line)
    if not made.complete:
        session.warn(
            f"This is a large error: use more than {integration_steps} --integration-steps, or interpret with care."
        )
    for path in made.files.values():
        session.say(f"  {path}")
    report_device(session, device, plan.device)
    session.result({"files": {key: str(path) for key, path in made.files.items()}, **made.record})
