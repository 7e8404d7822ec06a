"""Predict the map of a region from gravity fields and trained networks."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap import __version__
from gravmap.errors import InputError, OptionError
from gravmap.files import check_disk_space, sha256
from gravmap.geology.labels import LabelFile
from gravmap.learning.data.outcrop_context import DISTANCE, distance_km_from_channel
from gravmap.learning.evaluation.null_models import MAX_DIFFUSION_NODES
from gravmap.learning.training.distributed import ALONE, Group
from gravmap.mapping.assemble import Assembler, unmapped_fraction
from gravmap.mapping.blend import Blender, blocks
from gravmap.mapping.clip import Clip
from gravmap.mapping.compatibility import check_labels, check_mapped, require_labels
from gravmap.mapping.files.writer import MapFiles, MapWriter, Summary, output_grid
from gravmap.mapping.finish import MapInputs, finish_map
from gravmap.mapping.inference import run_jobs
from gravmap.mapping.options import Checks, Options, settings, tags
from gravmap.mapping.outcrop_file import mapped_outcrop, write_outcrop_context
from gravmap.mapping.page.crusts import is_outside
from gravmap.mapping.page.explore import require_bokeh
from gravmap.mapping.plan import WINDOWS_FOLDER, Plan
from gravmap.mapping.predictor import Predictor
from gravmap.mapping.record.provenance import THICKNESS
from gravmap.mapping.record.raster_content import fraction_thicker
from gravmap.outputs import check_outputs
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.tiling.resumable_folder import ResumableFolder, unfinished_bytes, write_unfinished
from gravmap.units import format_angle

log = logging.getLogger(__name__)

MAP_FILE_PREFIXES = (
    *("lithology", "probability", "uncertainty", "evidence", "map", "item", "provenance", "report"),
    *("second_class", "null_model", "comparison", "cover_thickness", "gravity", "outcrop_distance", "explore"),
    *("demo", "under_cover", "attribution"),
)
"""Names of a map's files start with one of these; a folder with any other file is not replaced."""


def check_output_folder(folder: Path, overwrite: bool) -> None:
    """Refuse an output folder that must not be replaced.

    Raises
    ------
    InputError
        It contains a map and `overwrite` is false, or it contains files that gravmap did not write.
    OptionError
        It is a file, or the working directory is inside it.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise OptionError(f"{place} is a file, not a folder.", "Choose another --output.")
    if folder.resolve() in (here := Path.cwd().resolve(), *here.parents):
        raise OptionError(
            f"The map cannot be written to {folder}, because the command runs inside it.", "Choose another --output."
        )
    entries = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if entries and not overwrite:
        raise InputError(f"{folder} exists already.", "Add --overwrite to replace it.")
    others = [entry for entry in entries if entry.lstrip(".").split(".")[0] not in MAP_FILE_PREFIXES]
    if others:
        raise InputError(
            f"{folder} contains files that gravmap did not write: {', '.join(others[:4])}.",
            "A new map would replace the folder: move these files, or choose another --output.",
        )


@dataclass(frozen=True)
class Prediction:
    """A finished map.

    Attributes
    ----------
    folder : Path
        The map's folder.
    files : dict of str to Path
        Its files, by name.
    plan : Plan
        Grid, windows and device.
    summary : Summary
        Cells and areas by class and by evidence.
    resumed : int
        Number of jobs that a stopped run had finished.
    checks : Checks
        What was found out about networks that were not trained on the region; nothing without `check`.
    """

    folder: Path
    files: dict[str, Path]
    plan: Plan
    summary: Summary
    resumed: int
    checks: Checks


def predict(
    fields_path: Path,
    run_folders: Path | Sequence[Path],
    region: Region | Clip,
    out_folder: Path,
    *,
    name: str = "region",
    labels_path: Path | None = None,
    tiles_path: Path | None = None,
    options: Options | None = None,
    overwrite: bool = False,
    command: str = "",
    check: Callable[[Progress], Checks] | None = None,
    progress: Progress = silent,
    group: Group = ALONE,
) -> Prediction:
    """Predict the bedrock map of a region and write its files.

    By default mapped outcrop is shown as mapped, and the network predicts the bedrock under mapped cover only: ground
    that the geological map does not cover is left blank. A network that outputs the thickness of the cover gives
    ``cover_thickness.tif`` as well.

    Files are written into ``<out_folder>.partial``, which is renamed to `out_folder` at the end. If a run is stopped,
    the next one with the same inputs and options resumes it and keeps the windows that are finished.

    Parameters
    ----------
    fields_path : Path
        ``data/fields.nc``.
    run_folders : Path or sequence of Path
        One training run, or several as an ensemble: their probabilities are averaged.
    region : Region or Clip
        Area to map: a box, or polygons (:func:`read_clip`).
    out_folder : Path
        The map's folder.
    name : str
        Name of the region, for the record and the titles.
    labels_path : Path, optional
        ``data/labels.tif``; without it nothing is known of outcrop and cover, and every cell is predicted.
    tiles_path : Path, optional
        ``data/tiles``: the report compares the runs with null models on the test data of this tile set.
    options : Options, optional
        All other options.
    overwrite : bool
        Replace an existing map.
    command : str
        The command line, for the record.
    check : callable, optional
        Called once, after all checks of the inputs and before the first window, for networks that were not trained on
        the region: the record and the report show what it returns.
    progress : Progress
        Called after each window, then after each block of the map.
    group : Group
        Processes that share the windows. The first one calls this function, the others
        :func:`gravmap.mapping.inference.join_inference`; it alone writes the map.

    Returns
    -------
    Prediction
        Files, plan and summary.

    Raises
    ------
    InputError
        The files are not compatible, the region extends beyond the fields, more than half of it is on no geological map
        (and `options` does not fill that), or the folder contains an earlier map.
    OptionError
        A network was not trained on a window size, PROJ does not know the coordinate system, or `out_folder` is not a
        folder.
    DeviceError
        The device is not available, or its memory is too small.
    PeerError
        Another process of the group ended.
    GravmapError
        `options` wants ``explore.html``, and Bokeh is not installed.

    See Also
    --------
    gravmap.mapping.Predictor : the checks and the plan without the prediction.

    Examples
    --------
    A map by a network with random weights, which is saved as a run first:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from gravmap.geology import load_legend
    >>> from gravmap.gravity.field_reader import read_fields
    >>> from gravmap.learning.training.checkpoint import ModelSpec, save_model
    >>> from gravmap.mapping import Options, predict
    >>> from gravmap.network import build
    >>> from gravmap.regions import Region
    >>> network = build("ggmnet-tiny", in_channels=1, classes=10)
    >>> bedrock = load_legend("basement10").bedrock
    >>> classes = [{"index": each.index, "name": each.name, "colour": each.colour} for each in bedrock]
    >>> spec = ModelSpec(
    ...     model="ggmnet-tiny",
    ...     architecture=network.architecture.to_dict(),
    ...     inputs=[{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 10.0}],
    ...     classes=classes,
    ...     tile_size_px=64,
    ...     scales_deg=[2.5],
    ...     field_recipe=read_fields(Path("data/fields.nc"), ["residual_10km"]).recipe,
    ...     split={"name": "none"},
    ...     seed=0,
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(Path(folder, "run"), network, spec)
    ...     made = predict(
    ...         Path("data/fields.nc"),
    ...         Path(folder, "run"),  # a list of runs is an ensemble
    ...         Region(81, 44, 83, 46),
    ...         Path(folder, "map"),
    ...         labels_path=Path("data/labels.tif"),
    ...         options=Options(resolution_deg=0.1, device="cpu"),
    ...     )
    >>> made.plan.grid.shape, made.files["lithology.tif"].name
    ((20, 20), 'lithology.tif')
    """
    start = time.monotonic()
    options = options or Options()
    _check_inputs(out_folder, fields_path, run_folders, labels_path, region)
    clip = region if isinstance(region, Clip) else None
    check_output_folder(out_folder, overwrite)
    with Predictor(fields_path, run_folders, options.device) as predictor:
        plan = plan_prediction(predictor, region, out_folder, labels_path, options, overwrite=overwrite)
        input_files = _input_files(fields_path, predictor, labels_path, clip)
        hashes = {role: sha256(path) for role, path in input_files.items()}
        checks = Checks() if check is None else check(progress)
        with write_unfinished(
            out_folder,
            _window_settings(plan, hashes, predictor.reads_outcrop),
            plan.job_files(),
            parts="windows",
            overwrite=overwrite,
        ) as unfinished:
            resumed = len(unfinished.kept)
            written = _write_rasters(
                unfinished, predictor, plan, options, labels_path, is_outside(checks.prior_verdicts), progress, group
            )
            inputs = MapInputs(
                name,
                command,
                settings(name, plan, options, labels_path, predictor, checks),
                fields_path,
                [member.folder for member in predictor.members],
                labels_path,
                tiles_path,
                {} if clip is None else {"polygon": clip.path},
                options.explore,
                start,
            )
            progress(1, 1, "pictures and report")
            finish_map(unfinished.folder, out_folder, predictor.legend, plan, inputs)
            if plan.thickness_runs:
                _warn_of_thick_cover(unfinished.folder / THICKNESS, predictor)
            # Last: if anything before fails, the next run still finds its windows.
            shutil.rmtree(unfinished.folder / WINDOWS_FOLDER)
    files = {path.name: path for path in sorted(out_folder.iterdir())}
    return Prediction(out_folder, files, plan, written.summary, resumed, checks)


def _warn_of_thick_cover(path: Path, predictor: Predictor) -> None:
    """Warn where the cover is predicted thicker than any that the networks were calibrated on."""
    intervals = [member.thickness_interval for member in predictor.members]
    thickest = max((each.thickest_km for each in intervals if each is not None and each.thickest_km), default=None)
    fraction = 0.0 if thickest is None else fraction_thicker(path, 1000 * thickest)
    if fraction > 0:
        log.warning(
            "In %.2g %% of the cells under cover the cover is predicted thicker than on any simulated crust (%.1f km): "
            "extrapolated, not to be believed.",
            100 * fraction,
            thickest,
        )


def plan_prediction(
    predictor: Predictor,
    region: Region | Clip,
    out_folder: Path,
    labels_path: Path | None,
    options: Options,
    *,
    overwrite: bool = False,
) -> Plan:
    """Lay out a prediction and make all checks that precede it; nothing is written.

    Parameters
    ----------
    predictor : Predictor
        The networks and their fields.
    region, out_folder, labels_path, options, overwrite
        As in :func:`predict`.

    Raises
    ------
    GravmapError
        As :func:`predict`.
    """
    check_output_folder(out_folder, overwrite)
    if options.explore:
        require_bokeh()
    clip = region if isinstance(region, Clip) else None
    box = region.region if isinstance(region, Clip) else region
    plan = predictor.plan(box, options.scales_deg, options.resolution_deg, clip=clip, flips=options.flips)
    output_grid(plan.grid, options.crs)
    require_labels(labels_path, predictor.reads_outcrop)
    if labels_path is not None:
        _check_labels(labels_path, predictor, options.everywhere)
        with LabelFile(labels_path) as labels:
            unmapped = unmapped_fraction(labels, plan.grid, plan.clip)
        check_mapped(labels_path, unmapped, options.fill_unmapped)
        plan = replace(plan, unmapped=unmapped)
        if predictor.reads_outcrop:
            mapped_outcrop(predictor.fields.lat, predictor.fields.lon, labels_path, plan.windows)
    check_disk_space(
        out_folder,
        plan.disk_bytes - unfinished_bytes(out_folder),
        "The map and its windows take",
        "Free some space, choose a coarser --resolution or fewer --window options, or another --output.",
    )
    return plan


def _write_rasters(
    unfinished: ResumableFolder,
    predictor: Predictor,
    plan: Plan,
    options: Options,
    labels_path: Path | None,
    region_unlike: bool,
    progress: Progress,
    group: Group,
) -> MapFiles:
    """Run the jobs that are not finished, blend the windows block by block, and write rasters and polygons."""
    labels = None if labels_path is None else LabelFile(labels_path)
    try:
        grid, fields = plan.grid, predictor.fields
        (unfinished.folder / WINDOWS_FOLDER).mkdir(exist_ok=True)
        # Of another class table than the network's, as --everywhere allows it, outcrop is no null model.
        optional = not options.everywhere and fields.lat.size * fields.lon.size <= MAX_DIFFUSION_NODES
        if labels_path is not None and (predictor.reads_outcrop or optional):
            progress(0, 1, "outcrop context")
            path = unfinished.folder / WINDOWS_FOLDER / "outcrop.npy"
            with nullcontext() if predictor.reads_outcrop else suppress(InputError):  # no outcrop, or of one class
                fields.outcrop = write_outcrop_context(
                    path, fields.lat, fields.lon, labels_path, plan.windows, plan.classes
                )

        def distance_km(rows: slice, columns: slice) -> NDArray[np.float64]:
            return distance_km_from_channel(fields.interpolate(DISTANCE, grid.lat_deg[rows], grid.lon_deg[columns]))

        divisors = [member.divisor(list(plan.windows)) for member in predictor.members]
        assembler = Assembler(
            predictor,
            plan,
            Blender(
                plan,
                unfinished.folder,
                divisors,
                distance_km,
                [member.thickness_interval for member in predictor.members],
            ),
            labels,
            everywhere=options.everywhere,
            fill_unmapped=options.fill_unmapped,
            near_km=options.near_km,
        )
        with MapWriter(
            unfinished.folder,
            grid,
            predictor.legend,
            bands=assembler.bands,
            tags=tags(plan, predictor, labels_path, options),
            near_km=options.near_km,
            crs=options.crs,
            thickness=bool(plan.thickness_runs),
            class_layers=assembler.class_layers,
            gravity=predictor.gravity_names,
            outcrop=fields.outcrop is not None,
            region_unlike=region_unlike,
        ) as writer:
            run_jobs(unfinished, predictor, plan, options, progress, group)
            block_slices = list(blocks(grid.shape))
            for done, (rows, columns) in enumerate(block_slices):
                progress(done, len(block_slices), "blocks of the map")
                writer.write(assembler.block(rows, columns))
            progress(len(block_slices), len(block_slices), "files of the map")
            return writer.finish(progress)
    finally:
        if labels is not None:
            labels.close()


def _check_labels(path: Path, predictor: Predictor, everywhere: bool) -> None:
    with LabelFile(path) as labels:
        # With --everywhere the classes of the labels are not shown: they are only used as outcrop or not.
        if predictor.reads_outcrop or not everywhere:
            otherwise = "" if predictor.reads_outcrop else ", or --everywhere to predict outcrop, too"
            member = predictor.members[0]
            check_labels(labels.legend, member.spec, path, member.folder, otherwise)
        labels.check()


def _check_inputs(
    folder: Path, fields: Path, runs: Path | Sequence[Path], labels: Path | None, place: Region | Clip
) -> None:
    """Refuse a folder that cannot be written, or that holds what the map is made from."""
    folders = [runs] if isinstance(runs, Path) else runs
    polygon = place.path if isinstance(place, Clip) else None
    check_outputs([], [fields, *folders, labels, polygon], True, folders=[folder])


def _input_files(fields: Path, predictor: Predictor, labels: Path | None, clip: Clip | None) -> dict[str, Path]:
    """Return the input files of the map by role."""
    files = {"fields": fields}
    for number, member in enumerate(predictor.members):
        suffix = f"_{number + 1}" if len(predictor.members) > 1 else ""
        files[f"model{suffix}"] = member.folder / "model.safetensors"
        files[f"model_json{suffix}"] = member.folder / "model.json"
    if labels is not None:
        files["labels"] = labels
    if clip is not None:
        files["polygon"] = clip.path
    return files


def _window_settings(plan: Plan, hashes: dict[str, str], reads_outcrop: bool) -> dict[str, Any]:
    """Return everything that the windows' files depend on; a run with other values cannot be resumed."""
    cells = hashlib.sha256(plan.grid.lat_deg.tobytes() + plan.grid.lon_deg.tobytes()).hexdigest()
    irrelevant = {"polygon"} if reads_outcrop else {"labels", "polygon"}
    return {
        "gravmap": __version__,
        "inputs": {role: value for role, value in hashes.items() if role not in irrelevant},
        "cells_sha256": cells,
        "windows": {format_angle(scale): windows.tolist() for scale, windows in plan.windows.items()},
        "flips": plan.flips,
        "thickness_runs": list(plan.thickness_runs),
    }
