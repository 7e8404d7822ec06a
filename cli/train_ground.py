"""The ground that `gravmap train` teaches on: the tile set's region, or simulated crusts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gravmap.errors import InputError
from gravmap.files import read_json
from gravmap.workspace import Workspace, require

from .options import usable_cores
from .session import Session

if TYPE_CHECKING:
    from gravmap.learning import RegionDataset
    from gravmap.learning.data.splits import DatasetSplits
    from gravmap.synthetic import Prior
    from gravmap.tiling import TileDataset

CRUSTS = "crusts"
COUNT = 100
SHAPE = (240, 360)
PRIOR = "central-asia"

# Options of a region's tile set, and of crusts: the ones say nothing where the others count.
OF_REGIONS = ("split", "fold", "allow_leak", "from_tiles", "cuts")
OF_CRUSTS = ("prior", "count", "shape")


def refuse_options(on: str, context: str | None) -> None:
    """Refuse options that say nothing about the ground that was chosen.

    Raises
    ------
    click.UsageError
        One was given.
    """
    asked = click.get_current_context()
    for name in OF_REGIONS if on == CRUSTS else OF_CRUSTS:
        if asked.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = next(each.opts[0] for each in asked.command.params if each.name == name)
            other = "a region's tile set, not for --on crusts" if on == CRUSTS else "--on crusts alone"
            raise click.UsageError(f"{option} is for {other}.")
    if asked.params["cuts"] is not None and on != CRUSTS and context == "none":
        raise click.UsageError("--cuts is for --context outcrop.")


def chosen_defaults(place: Workspace, options: dict[str, Any]) -> dict[str, Any]:
    """What was not said: the recipe and the context, which depend on the ground; and what another run decides.

    Raises
    ------
    click.UsageError
        Another network or context is asked for than that of the run it is to begin with.
    InputError
        There is no such run, or it is damaged.
    """
    crusts = options["on"] == CRUSTS
    asked = options["context"]
    chosen: dict[str, Any] = {"recipe": options["recipe"] or (CRUSTS if crusts else "default")}
    chosen["context"] = asked or ("outcrop" if crusts else "none")
    if options["init"] is not None:
        chosen |= _as_begun(place.run(options["init"]), options)
        if asked not in (None, chosen["context"]):
            raise click.UsageError(f"--context {asked}: {options['init']} was trained with {chosen['context']}.")
    chosen["context"] = None if chosen["context"] == "none" else chosen["context"]
    if options["cuts"] is not None and chosen["context"] is None:
        raise click.UsageError("--cuts is for --context outcrop.")
    return chosen


def _as_begun(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The options that another run decides: its network, what that reads, and the size of its pixels."""
    from gravmap.learning.training.warm_start import load_pretrained

    for name in ("model", "architecture"):
        if options[name] is not None:
            raise click.UsageError(f"--{name} and --init exclude each other: the network is that of {folder.name}.")
    begun = load_pretrained(folder)
    taken: dict[str, Any] = {
        "begun": begun,
        "init": begun.init,
        "model": begun.model,
        "architecture": begun.architecture,
    }
    taken["context"] = begun.context or "none"
    taken["inputs"] = options["inputs"] or ",".join(begun.measured)
    return taken


def region_ground(place: Workspace, options: dict[str, Any], may_leak: bool) -> RegionDataset:
    """Read the fields that are asked for; the names in `options` are written out on the way."""
    from gravmap.learning import RegionDataset
    from gravmap.learning.data.channels import SHORT, expand, fields_read
    from gravmap.tiling import load_arrays

    channels = None
    if options["inputs"]:
        short = set(SHORT) & {name.strip() for name in options["inputs"].split(",")}
        # The tile set knows which residual comes first.
        first = str(read_json(place.tiles / "index.json", "gravmap tile").get("channel", "")) if short else ""
        options["inputs"] = expand(options["inputs"], first)
        channels = fields_read(options["inputs"])
    arrays = load_arrays(place.tiles, channels=channels, split=options["split"], fold=options["fold"])
    if not may_leak:
        _refuse_leak(arrays)
    return RegionDataset.from_arrays(arrays)


def open_region(session: Session, options: dict[str, Any]) -> TileDataset | None:
    """Refuse a tile set that is not there or not whole; open the tiles themselves where crops are cut from these."""
    from gravmap.tiling import TileDataset
    from gravmap.tiling.resumable_folder import refuse_unfinished

    tiles = session.workspace.tiles
    refuse_unfinished(tiles)
    require(tiles / "index.json", "gravmap tile")
    if not options["from_tiles"]:
        return None
    # Every file is read once, to see whether it was edited.
    with session.progress("Checking tiles") as progress:
        return TileDataset(tiles, progress=progress)


def crusts_ground(session: Session, options: dict[str, Any], dry_run: bool) -> DatasetSplits:
    """Make the crusts, or read those that are kept; of a dry run one, to measure a step on.

    The names in `options` are written out on the way.
    """
    from gravmap.learning.data.channels import expand, fields_read
    from gravmap.learning.data.crust_data import crust_seeds, crust_splits
    from gravmap.synthetic import crust_pool
    from gravmap.synthetic.pool import CHANNELS

    prior = _prior(options)
    options["inputs"] = expand(options["inputs"], CHANNELS[0]) if options["inputs"] else list(CHANNELS)
    channels = fields_read(options["inputs"])
    shape: tuple[int, int] = tuple(options["shape"])
    seeds = crust_seeds(options["count"])
    cache = None if dry_run else session.workspace.crusts
    made: dict[str, Any] = {
        "shape": shape,
        "channels": channels,
        "cache": cache,
        "processes": 1 if dry_run else usable_cores(),
    }
    record = {
        "prior": {"name": prior.name, "sha256": prior.sha256, "text": prior.text},
        "count": options["count"],
        "shape": list(shape),
        "channels": channels,
    }
    # Of a dry run one crust is enough to measure a step on.
    wanted = {"train": seeds["train"][:1], "tune": [], "test": []} if dry_run else seeds
    with session.progress("Making crusts") as progress:
        grounds = crust_splits(
            lambda some, told: crust_pool(prior, some, progress=told, **made),
            wanted,
            record,
            scales_deg=list(options["scales"]) or None,
            cache=cache,
            progress=progress,
        )
    return dataclasses.replace(grounds, record=grounds.record | {"seeds": seeds})


def taught_crusts(record: dict[str, Any]) -> dict[str, Any]:
    """Options that make the crusts of a run again, from what it says of them."""
    return {
        "on": CRUSTS,
        "prior": record["prior"],
        "count": int(record["count"]),
        "shape": tuple(record["shape"]),
    }


def _prior(options: dict[str, Any]) -> Prior:
    """The prior as asked for; of a run that goes on, the very text it began with."""
    from gravmap.synthetic import load_prior
    from gravmap.synthetic.prior import read_prior

    asked = options["prior"]
    if isinstance(asked, dict):
        return read_prior(asked["text"], f"the prior {asked['name']} of the run")
    return load_prior(asked)


def _refuse_leak(arrays: dict[str, Any]) -> None:
    """Refuse arrays whose held-out labels training would see, as measured on the arrays themselves."""
    from gravmap.tiling import LEAK_LIMIT, leak_report

    report = leak_report(arrays, distances=False)
    (fold,) = report.folds
    if fold.leak > LEAK_LIMIT:
        raise InputError(
            f"The split {report.name!r} leaks: in fold {fold.fold} training sees the labels of "
            f"{100 * fold.leak:.1f} % of the held-out bedrock ({fold.seen_km2:,.0f} of {fold.held_out_km2:,.0f} km2).",
            "--split blocks is honest; `train --allow-leak` learns all the same, for comparison with the paper.",
        )
