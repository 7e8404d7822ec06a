"""From gravity fields and trained networks to the map of a region."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gravmap import __version__
from gravmap.files import check_room, sha256
from gravmap.geology import LabelFile
from gravmap.learning.data.outcrop_context import DISTANCE, distance_km_from_channel
from gravmap.mapping.assemble import Assembler
from gravmap.mapping.blend import Blender, blocks
from gravmap.mapping.clip import Clip
from gravmap.mapping.compatibility import check_labels, need_labels
from gravmap.mapping.files.writer import MapFiles, MapWriter, Summary
from gravmap.mapping.finish import Origin, finish_map
from gravmap.mapping.inference import Work, out_of_memory, run_inference, run_inference_in_processes
from gravmap.mapping.options import Options, Verdicts, settings, tags
from gravmap.mapping.outcrop_file import OutcropFile, lay_outcrop
from gravmap.mapping.plan import FOLDER, Plan
from gravmap.mapping.predict import check_folder
from gravmap.mapping.predictor import Predictor
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.tiling.resumable_folder import ResumableFolder, unfinished_bytes, write_unfinished
from gravmap.units import format_angle


@dataclass(frozen=True)
class Prediction:
    """A finished map.

    Attributes
    ----------
    folder : Path
        Where it lies.
    files : dict of str to Path
        What was written, by file name.
    plan : Plan
        Grid, windows, device.
    summary : Summary
        Cells and areas, class by class and by what they rest on.
    resumed : int
        Windows that a stopped run had finished.
    verdicts : sequence of mapping
        Whether the region is like the crusts of the priors that networks were taught on; empty where nobody asked.
    """

    folder: Path
    files: dict[str, Path]
    plan: Plan
    summary: Summary
    resumed: int
    verdicts: Verdicts


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
    check_prior: Callable[[Progress], Verdicts] | None = None,
    progress: Progress = silent,
) -> Prediction:
    """Map the bedrock of a region and write the map's files.

    By default the mapped outcrop is shown as mapped and the network names the bedrock under cover only.

    All is written into ``<out_folder>.partial``, which takes its place at the end. A run that was stopped leaves it
    there, and the next one with the same inputs and options goes on with the windows it finished.

    Parameters
    ----------
    fields_path : Path
        ``data/fields.nc``.
    run_folders : Path or sequence of Path
        One training run, or several that predict together: the mean of their probabilities.
    region : Region or Clip
        What to map: a box, or polygons (:func:`gravmap.mapping.clip.read_clip`).
    out_folder : Path
        The map's folder.
    name : str
        The region's name, for the record.
    labels_path : Path, optional
        ``data/labels.tif``; without it every cell is the network's.
    tiles_path : Path, optional
        ``data/tiles``: the report scores null models on the ground that the runs were scored on.
    options : Options, optional
        All else.
    overwrite : bool
        Replace an earlier map.
    command : str
        The command line as typed, for the record.
    check_prior : callable, optional
        Asked, before the first window and after everything that may be refused, whether the region is like the crusts
        that networks were taught on: gives one verdict for each prior, for the record and the page, which shows them
        for the networks taught on that prior.
    progress : Progress
        Told after every window, then after every block of the map.

    Raises
    ------
    InputError
        Files that do not fit each other, a region beyond the fields, or an earlier map.
    OptionError
        A scale no network knows, a coordinate system PROJ does not know, a folder that is none.
    DeviceError
        No such device, or its memory is too small.
    """
    began = time.monotonic()
    options = options or Options()
    check_folder(out_folder, overwrite)
    clip = region if isinstance(region, Clip) else None
    box = region.region if isinstance(region, Clip) else region
    with Predictor(fields_path, run_folders, options.device) as predictor:
        plan = predictor.plan(box, options.scales_deg, options.resolution_deg, clip=clip, flips=options.flips)
        need_labels(labels_path, predictor.reads_outcrop)
        if labels_path is not None:
            _check_labels(labels_path, predictor, options.everywhere)
        check_room(
            out_folder,
            plan.disk_bytes - unfinished_bytes(out_folder),
            "The map and its windows take",
            "Free some space, choose a coarser --resolution or fewer --window options, or another --output.",
        )
        inputs = _inputs(fields_path, predictor, labels_path, clip)
        hashes = {role: sha256(path) for role, path in inputs.items()}
        verdicts = () if check_prior is None else check_prior(progress)
        with write_unfinished(
            out_folder, _recipe(plan, hashes, predictor.reads_outcrop), plan.files(), parts="windows"
        ) as unfinished:
            resumed = len(unfinished.kept)
            made = _write(unfinished, predictor, plan, options, labels_path, progress)
            origin = Origin(
                name,
                command,
                settings(name, plan, options, labels_path, predictor, verdicts),
                fields_path,
                [member.folder for member in predictor.members],
                labels_path,
                tiles_path,
                {} if clip is None else {"polygon": clip.path},
                began,
            )
            progress(1, 1, "pictures and report")
            finish_map(unfinished.folder, out_folder, predictor.legend, plan, origin)
            shutil.rmtree(unfinished.folder / FOLDER)  # not before: whatever stops the rest costs no window
    files = {path.name: path for path in sorted(out_folder.iterdir())}
    return Prediction(out_folder, files, plan, made.summary, resumed, verdicts)


def _write(
    unfinished: ResumableFolder,
    predictor: Predictor,
    plan: Plan,
    options: Options,
    labels_path: Path | None,
    progress: Progress,
) -> MapFiles:
    """The windows that are missing, the blocks made from all of them, and the map's files."""
    labels = None if labels_path is None else LabelFile(labels_path)
    try:
        grid, fields = plan.grid, predictor.fields

        def distance_km(rows: slice, columns: slice) -> NDArray[np.float64]:
            return distance_km_from_channel(fields.between(DISTANCE, grid.lat_deg[rows], grid.lon_deg[columns]))

        divisors = [member.divisor(list(plan.windows)) for member in predictor.members]
        assembler = Assembler(
            predictor,
            plan,
            Blender(plan, unfinished.folder, divisors, distance_km),
            labels,
            everywhere=options.everywhere,
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
        ) as writer:
            if labels_path is not None and predictor.reads_outcrop:
                progress(0, 1, "outcrop spreads out")
                fields.outcrop = _lay_outcrop(unfinished, predictor, plan, labels_path)
            _make_missing(unfinished, predictor, plan, options, progress)
            squares = list(blocks(grid.shape))
            for done, (rows, columns) in enumerate(squares):
                progress(done, len(squares), "blocks of the map")
                writer.write(assembler.block(rows, columns))
            progress(len(squares), len(squares), "files of the map")
            return writer.finish(progress)
    finally:
        if labels is not None:
            labels.close()


def _lay_outcrop(unfinished: ResumableFolder, predictor: Predictor, plan: Plan, labels_path: Path) -> OutcropFile:
    """The outcrop that networks start from, in a file that goes with those of the windows."""
    (unfinished.folder / FOLDER).mkdir(exist_ok=True)
    path = unfinished.folder / FOLDER / "outcrop.npy"
    fields = predictor.fields
    return lay_outcrop(path, fields.lat, fields.lon, labels_path, plan.windows, plan.classes)


def _make_missing(
    unfinished: ResumableFolder, predictor: Predictor, plan: Plan, options: Options, progress: Progress
) -> None:
    """Put the windows through the networks that an earlier run has not finished."""
    missing = tuple(each for each in plan.passes if each.name not in unfinished.kept)
    done, whole = len(unfinished.kept), len(plan.passes)
    (unfinished.folder / FOLDER).mkdir(exist_ok=True)
    progress(done, whole, "windows")

    def finished(each: str, sums: tuple[str, ...]) -> None:
        nonlocal done
        unfinished.finish(each, sums)
        done += 1
        progress(done, whole, "windows")

    work = Work(
        predictor.fields.path,
        tuple(member.folder for member in predictor.members),
        missing,
        plan.grid.lat_deg,
        plan.grid.lon_deg,
        unfinished.folder,
        plan.flips,
        options.batch_size,
        predictor.fields.outcrop,
    )
    processes = min(options.processes, len(missing))
    try:
        if processes > 1:
            run_inference_in_processes(work, plan.device, processes, finished)
        else:
            run_inference(work, predictor, finished)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(error) from None


def _check_labels(path: Path, predictor: Predictor, everywhere: bool) -> None:
    with LabelFile(path) as labels:
        # Shown everywhere, the networks' classes meet none of the labels'; outcrop is outcrop in any legend.
        if predictor.reads_outcrop or not everywhere:
            check_labels(labels.legend, predictor.members[0].spec, path)
        labels.check()


def _inputs(fields: Path, predictor: Predictor, labels: Path | None, clip: Clip | None) -> dict[str, Path]:
    """Role to file of all that the map is made from."""
    inputs = {"fields": fields}
    for number, member in enumerate(predictor.members):
        suffix = f"_{number + 1}" if len(predictor.members) > 1 else ""
        inputs[f"model{suffix}"] = member.folder / "model.safetensors"
        inputs[f"model_json{suffix}"] = member.folder / "model.json"
    if labels is not None:
        inputs["labels"] = labels
    if clip is not None:
        inputs["polygon"] = clip.path
    return inputs


def _recipe(plan: Plan, hashes: dict[str, str], reads_outcrop: bool) -> dict[str, Any]:
    """All that shapes the windows' files; whatever else may change between a stopped run and the next."""
    cells = hashlib.sha256(plan.grid.lat_deg.tobytes() + plan.grid.lon_deg.tobytes()).hexdigest()
    beside = {"polygon"} if reads_outcrop else {"labels", "polygon"}
    shaping = {role: value for role, value in hashes.items() if role not in beside}
    return {
        "gravmap": __version__,
        "inputs": shaping,
        "cells_sha256": cells,
        "windows": {format_angle(scale): windows.tolist() for scale, windows in plan.windows.items()},
        "flips": plan.flips,
    }
