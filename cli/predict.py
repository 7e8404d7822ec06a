"""`gravmap predict`: the bedrock map of a region."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import complete
from .options import (
    ANGLE,
    LENGTH,
    Command,
    chosen_region,
    device_option,
    dry_run_option,
    map_name,
    option,
    option_group,
    origin,
    output_option,
    overwrite_option,
    refuse_contradiction,
    region_options,
    report_device,
    window_option,
)
from .predict_checks import CrustChecks, print_checks
from .residual import add_missing_heights, say_missing_heights
from .session import Session, command_options

if TYPE_CHECKING:
    from gravmap.learning.training.distributed import Group
    from gravmap.mapping import Options
    from gravmap.mapping.clip import Clip
    from gravmap.mapping.plan import Plan
    from gravmap.mapping.predictor import Predictor
    from gravmap.regions import Region


@dataclass(frozen=True)
class PredictOptions:
    """The options of `gravmap predict` as parsed; None is an option that was not given."""

    region: str | None
    bbox: tuple[float, ...] | None
    polygon: Path | None
    runs: tuple[str, ...]
    windows_deg: tuple[float, ...]
    resolution_deg: float | None
    flips: bool
    everywhere: bool
    fill_unmapped: bool
    near_m: float
    crs: str | None
    no_prior_check: bool
    output: Path | None
    explore: bool
    gpus: int | None
    device: str
    batch_size: int
    overwrite: bool
    dry_run: bool

    def check(self) -> None:
        """Refuse options that contradict each other, or lack a region.

        Raises
        ------
        click.UsageError
            They do.
        """
        if self.polygon is not None and (self.region is not None or self.bbox):
            raise click.UsageError(f"--polygon excludes --region and --bbox{origin('polygon', 'region', 'bbox')}.")
        if self.polygon is None and self.region is None and not self.bbox:
            raise click.UsageError(
                "Name a region: --region NAME (junggar, liu2024, tarim ...), --bbox W S E N or --polygon FILE."
            )
        refuse_contradiction(self.gpus, self.device)

    @property
    def name(self) -> str:
        """The name of the map: that of the region, of the polygon's file, or the sides of the box."""
        if self.polygon is not None:
            return self.polygon.stem
        return map_name(self.region, self.bbox)


@click.command(
    "predict",
    cls=Command,
    short_help="Predict the bedrock lithology map of a region.",
    epilog="""\b
Examples:
  gravmap predict --region junggar
  gravmap predict --polygon basin.gpkg --run one --run two --flips""",
)
@option_group(
    "Data",
    region_options,
    option(
        "--polygon",
        type=click.Path(path_type=Path),
        excludes=("region", "bbox"),
        metavar="FILE",
        help="Map the polygons of a file, in any coordinate system; cells outside are empty.",
    ),
)
@option_group(
    "Network",
    option(
        "--run",
        "runs",
        multiple=True,
        metavar="NAME",
        shell_complete=complete.runs,
        help="Training run, or a model shipped with gravmap (default: the newest run, runs/latest, else the shipped "
        "crusts-central-asia); may be repeated: the runs are averaged as an ensemble.",
    ),
    window_option("Window size; may be repeated (default: the training sizes, on a CPU without 1deg)."),
    option(
        "--flips",
        is_flag=True,
        help="Test-time augmentation: average the logits of each window over its four flips; four times the cost.",
    ),
)
@option_group(
    "Map",
    option(
        "--resolution",
        "resolution_deg",
        type=ANGLE,
        metavar="ANGLE",
        help="Cell size (default: the nodes of the gravity grid).",
    ),
    option("--everywhere", is_flag=True, help="Predict on outcrop too, instead of showing it as mapped."),
    option(
        "--fill-unmapped",
        is_flag=True,
        help="Predict ground that is neither outcrop nor cover on the geological map, too, instead of leaving it "
        "blank; needed where this is over half of the region.",
    ),
    option(
        "--near",
        "near_m",
        type=LENGTH,
        default="25km",
        show_default=True,
        metavar="LENGTH",
        help="Distance to mapped outcrop within which a cell counts as near it, in evidence.tif.",
    ),
    option("--crs", metavar="EPSG:CODE", help="Coordinate system of the files (default: EPSG:4326)."),
    option(
        "--no-prior-check",
        is_flag=True,
        help="For a network trained on simulated crusts: neither compare the region with them nor test the network at "
        "hidden outcrop of the region (about a minute).",
    ),
)
@option_group(
    "Runtime",
    option(
        "--gpus",
        type=click.IntRange(min=0),
        metavar="N",
        help="GPUs of this machine to distribute the windows over (default: 1); 0 computes on the CPU.",
    ),
    device_option(),
    option(
        "--batch-size", type=click.IntRange(min=1), metavar="N", default=1, show_default=True, help="Windows per batch."
    ),
)
@option_group(
    "Output",
    output_option("Folder of the map (default: maps/REGION).", "DIR"),
    option(
        "--explore",
        is_flag=True,
        help="Write explore.html, too, a map to explore in a browser: as `gravmap explore` does afterwards.",
    ),
    overwrite_option,
    dry_run_option,
)
@command_options()
def command(session: Session, **options: Any) -> None:
    """Predict the bedrock lithology of a region and write its map.

    Mapped outcrop is shown as mapped; the network predicts the bedrock under mapped cover. What data/labels.tif shows
    as neither (lakes, unusable codes, beyond the map) stays blank. Writes lithology.tif and .gpkg,
    probability.tif, uncertainty.tif, evidence.tif, second_class.tif, gravity.tif, with a geological map
    outcrop_distance.tif and null_model.tif (the class without gravity), map.qgz (a QGIS project), pictures for print,
    report.html, a STAC item and provenance.json into maps/REGION/, and with a network trained on simulated crusts
    cover_thickness.tif: the thickness of the cover in metres, with an 80 % interval. The same command resumes a run
    that was stopped.

    Without a training run, the network shipped with gravmap is used, which was trained on simulated crusts only. A
    network trained on crusts is tested at outcrop of the region, which is hidden from it block by block, and the region
    is compared with such crusts: the report begins with what was found.
    Residuals that a network reads and data/fields.nc lacks are computed, into a file beside it.

    Under torchrun or srun the processes share the windows, on one machine or several with a common file system; the
    first one writes the map.
    """
    run_prediction(session, PredictOptions(**options))


def run_prediction(session: Session, options: PredictOptions) -> None:
    """Predict the map that the options describe, alone or with the processes of a group, and print its files."""
    options.check()
    box = chosen_region(session, options.region, options.bbox)
    from gravmap.workspace import require

    fields = require(session.workspace.fields, "gravmap residual --height 10km")

    from gravmap.learning.training.distributed import ALONE, group_variables, process_group
    from gravmap.mapping.inference import RESUME_HINT, join_inference
    from gravmap.mapping.predictor import device_and_processes, resolve_device

    variables = group_variables(os.environ)
    if variables is not None:
        device = options.device if options.gpus is None else "cuda" if options.gpus else "cpu"
        processes = int(variables["WORLD_SIZE"])
        if variables["RANK"] != "0":
            session.verbosity, session.json = -1, False
            if options.dry_run:
                return
    else:
        device, processes = (options.device, 1) if options.gpus is None else device_and_processes(options.gpus)
    map_options = _map_options(options, device, processes)
    joined = nullcontext(ALONE) if options.dry_run else process_group(resolve_device(device), resume=RESUME_HINT)
    with joined as group:
        if group.rank:
            join_inference(group)
        else:
            _predict(session, options, fields, box, map_options, group)


def _predict(
    session: Session, options: PredictOptions, fields: Path, box: Region | None, map_options: Options, group: Group
) -> None:
    """Predict the map, and print its files, in the first process of a group."""
    from gravmap.workspace import SHIPPED

    workspace = session.workspace
    shipped = not options.runs and not workspace.latest.exists()
    folders = [workspace.run(SHIPPED)] if shipped else [workspace.run(name) for name in options.runs or (None,)]
    labels = workspace.labels if workspace.labels.exists() else None

    from gravmap.gravity.missing_heights import missing_heights, residual_name
    from gravmap.learning.data.outcrop_context import is_context, measured_names
    from gravmap.mapping import predict, read_clip
    from gravmap.mapping.clip import Clip
    from gravmap.mapping.compatibility import require_labels
    from gravmap.mapping.prediction import plan_prediction
    from gravmap.mapping.predictor import Predictor, resolve_device
    from gravmap.mapping.record.provenance import read_provenance

    place = box if box is not None else read_clip(Path(str(options.polygon)))
    folder = options.output or workspace.maps / options.name
    if labels is None and not options.everywhere:
        session.say(
            f"{workspace.labels} is missing, so every cell is predicted (`gravmap rasterize` makes it): outcrop, cover"
            " and unmapped ground are not told apart."
        )
    if not options.runs and not shipped:
        session.say(
            f"The network is {folders[0].name}, the newest run; --run {SHIPPED} takes the one shipped with gravmap."
        )
    channels = _describe_models(session, folders, shipped, place)
    _say_unread_layers(session, fields, channels)
    require_labels(labels, any(map(is_context, channels)))
    checks = CrustChecks.of([] if options.no_prior_check else folders)
    missing = missing_heights(fields, measured_names(channels))
    if missing or options.dry_run:  # else `predict` makes the same checks
        with Predictor(fields, folders, map_options.device, to_compute=[*map(residual_name, missing)]) as predictor:
            plan = plan_prediction(predictor, place, folder, labels, map_options, overwrite=options.overwrite)
            if options.dry_run:
                say_missing_heights(session, fields, missing)
                if checks.trained_on:
                    session.say(
                        f"Would first compare the region with {checks.reference} and predict hidden outcrop: about a "
                        "minute, the first time."
                    )
                return _print_plan(session, predictor, plan, labels, folder, map_options)
    fields = add_missing_heights(session, fields, missing)
    around = place.region if isinstance(place, Clip) else place
    check = checks.function(fields, labels, around, workspace.crusts, str(resolve_device(map_options.device)))
    if check is not None:
        session.say(
            f"First the region is compared with {checks.reference}, and outcrop is hidden from the network and"
            " predicted: about a minute the first time; --no-prior-check skips this."
        )
    with session.progress(f"predict {options.name}") as progress:
        made = predict(
            fields,
            folders,
            place,
            folder,
            name=options.name,
            labels_path=labels,
            tiles_path=workspace.tiles if (workspace.tiles / "index.json").exists() else None,
            options=map_options,
            overwrite=options.overwrite,
            command=session.command_line,
            check=check,
            progress=progress,
            group=group,
        )
    print_checks(session, made.checks)
    rows, columns = made.plan.grid.shape
    resumed = f" ({made.resumed} of them from the run that was stopped)" if made.resumed else ""
    session.say(
        f"Mapped {columns} x {rows} cells of {options.name} ({made.plan.region}) with "
        f"{', '.join(path.name for path in folders)}, {len(made.plan.jobs)} windows{resumed}:"
    )
    for path in made.files.values():
        session.say(f"  {path}")
    if labels is not None:
        _say_unmapped(session, made.summary.unmapped, map_options)
    report_device(session, map_options.device, made.plan.device)
    verdict = read_provenance(made.folder)["verdict"]
    session.say(f"{verdict['sentence']} {verdict['reason']}".strip())
    session.say(f"Read {made.files['report.html']} first.")
    session.result(
        {
            "files": {file: str(path) for file, path in made.files.items()},
            "cells": [rows, columns],
            "windows": len(made.plan.jobs),
            "resumed": made.resumed,
            "device": made.plan.device,
            "summary": asdict(made.summary),
            "unmapped": None if labels is None else made.summary.unmapped,
            "prior_verdicts": list(made.checks.prior_verdicts),
            "hidden_outcrop": list(made.checks.hidden_outcrop),
            "verdict": verdict,
        }
    )


def _map_options(options: PredictOptions, device: str, processes: int) -> Options:
    """The options as the library takes them."""
    from gravmap.mapping import Options

    return Options(
        scales_deg=options.windows_deg or None,
        resolution_deg=options.resolution_deg,
        everywhere=options.everywhere,
        fill_unmapped=options.fill_unmapped,
        flips=options.flips,
        near_km=options.near_m / 1000,
        crs=options.crs,
        device=device,
        processes=processes,
        batch_size=options.batch_size,
        explore=options.explore,
    )


def _say_unmapped(session: Session, fraction: float, options: Options) -> None:
    """Say how much of the region no geological map covers, and what happens to it."""
    if not fraction:
        return
    percent = f"{100 * fraction:.1f} %" if fraction >= 0.001 else "Under 0.1 %"
    start = f"{percent} of the region is unmapped (neither outcrop nor cover in data/labels.tif)"
    if options.fill_unmapped:
        session.warn(f"{start} and is predicted all the same: --fill-unmapped.")
    else:
        session.say(f"{start} and is left blank; --fill-unmapped predicts it, too.")


def _describe_models(session: Session, folders: list[Path], shipped: bool, place: Region | Clip) -> list[str]:
    """Print which networks trained on simulated crusts are used; return the channels that any network reads."""
    from gravmap.mapping.clip import Clip
    from gravmap.mapping.page.crusts import read_under_cover, score_sentences, training_sentence
    from gravmap.mapping.page.facts import trained_on_crusts
    from gravmap.mapping.page.words import THIN
    from gravmap.records import read_model

    channels: list[str] = []
    box = place.region if isinstance(place, Clip) else place
    for folder in folders:
        model = read_model(folder)
        channels += [str(each["field"]) for each in model.get("inputs", []) if each.get("field")]
        trained_on = model.get("taught_on", {})
        if not trained_on_crusts(trained_on):
            continue
        around = " around label diffusion" if model["architecture"].get("kind") == "outcrop-start" else ""
        sentences = [
            training_sentence(trained_on, f"The network {folder.name} ({model['model']}{around})"),
            score_sentences([("", read_under_cover(folder))]),
        ]
        if shipped:
            sentences.insert(0, "No network was trained here, so the one shipped with gravmap is used.")
        session.say(" ".join(sentences).replace(THIN, " "))
        if shipped:
            session.say(f"`gravmap train --init {folder.name}` fine-tunes it on this region's outcrop.")
        rows, columns = trained_on.get("shape", [0, 0])
        if rows and (box.height_deg > rows / 30 + 1e-6 or box.width_deg > columns / 30 + 1e-6):
            session.say(
                f"The region ({box.width_deg:.3g} x {box.height_deg:.3g} degrees) is larger than the crusts "
                f"({columns / 30:.3g} x {rows / 30:.3g}): the network sees windows of "
                f"{max(model['scales_deg']):g} degrees."
            )
    return list(dict.fromkeys(channels))


def _say_unread_layers(session: Session, fields: Path, channels: list[str]) -> None:
    """Say which layers of the fields the networks of the map do not read."""
    from gravmap.gravity.field_reader import FieldReader

    with FieldReader(fields) as reader:
        unread = [name for name in reader.layers if name not in channels]
    if unread:
        session.say(
            f"This map does not use {', '.join(unread)} of {fields}; `gravmap train --input"
            f" residual,{','.join(unread)}` trains a network that does, and --run names it."
        )


def _print_plan(
    session: Session, predictor: Predictor, plan: Plan, labels: Path | None, folder: Path, options: Options
) -> None:
    """Print what would be read, computed and written, and the cost of each window size."""
    from gravmap.progress import describe_time
    from gravmap.units import describe_angle, format_angle

    costs, memory = predictor.estimate_costs(plan), predictor.network_bytes(options.batch_size)
    rows, columns = plan.grid.shape
    sources = [predictor.fields.path, *(member.folder for member in predictor.members), *([labels] if labels else [])]
    session.say(f"Would read {', '.join(map(str, sources))}")
    session.say(f"Would write {columns} x {rows} cells into {folder}")
    if plan.thickness_runs:
        session.say("  cover_thickness.tif among them: the thickness of the cover")
    _say_unmapped(session, plan.unmapped or 0.0, options)
    for cost in costs:
        seconds = cost.seconds / max(1, min(options.processes, cost.windows))
        chosen = "chosen" if cost.chosen else "not chosen"
        sizes = ", ".join(f"{size} px" for size in sorted(set(plan.tile_size_px)))
        session.say(
            f"  {chosen:<10} {describe_angle(cost.scale_deg):>7}: {cost.windows} windows of {sizes}, "
            f"about {describe_time(seconds)} on {plan.device}, {cost.disk_bytes / 1e6:.0f} MB"
        )
    total = sum(cost.seconds for cost in costs if cost.chosen) / max(1, options.processes)
    where = "GPU memory" if plan.device == "cuda" else "memory"
    session.say(
        f"In all about {describe_time(total)}, up to {plan.disk_bytes / 1e6:.0f} MB of disk for temporary files, and "
        f"about {memory / 1e6:.0f} MB of {where} for a network and a batch of {options.batch_size} window(s)."
    )
    result: dict[str, Any] = {
        "cells": [rows, columns],
        "windows": len(plan.jobs),
        "seconds": total,
        "disk_bytes": plan.disk_bytes,
        "network_bytes": memory,
        "device": plan.device,
        "unmapped": plan.unmapped,
        "cover_thickness": bool(plan.thickness_runs),
        "scales": {format_angle(cost.scale_deg): asdict(cost) for cost in costs},
    }
    session.result(result)
