"""The data that `gravmap train` and `gravmap search` train on: the tile set's region, or simulated crusts."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravmap.errors import InputError
from gravmap.workspace import require

from .options import usable_cores
from .residual import add_missing_heights, say_missing_heights
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gravmap.learning import RegionDataset
    from gravmap.learning.data.splits import DatasetSplits
    from gravmap.records import PretrainedRecord
    from gravmap.synthetic.prior import Prior
    from gravmap.tiling import TileDataset


@dataclasses.dataclass(frozen=True)
class CrustOptions:
    """Which simulated crusts to train on.

    Attributes
    ----------
    prior : Prior
        What they are sampled from.
    count : int
        Crusts in the training set.
    shape : (int, int)
        Rows and columns of 2 arc-minutes.
    """

    prior: Prior
    count: int
    shape: tuple[int, int]


def open_region(session: Session, from_tiles: bool) -> TileDataset | None:
    """Refuse a tile set that is missing or incomplete; open its tile files where crops are cut from them."""
    from gravmap.tiling import TileDataset
    from gravmap.tiling.resumable_folder import refuse_unfinished

    tiles = session.workspace.tiles
    refuse_unfinished(tiles)
    require(tiles / "index.json", "gravmap tile")
    if not from_tiles:
        return None
    # Every file is read once, to find those that were edited.
    with session.progress("Checking tiles") as progress:
        return TileDataset(tiles, progress=progress)


def region_dataset(
    session: Session,
    inputs: str | None,
    split: str,
    fold: int,
    *,
    leak_accepted_by: str | None = None,
    init: PretrainedRecord | None = None,
    dry_run: bool = False,
) -> tuple[RegionDataset, list[str] | None]:
    """Read the fields and labels of the tile set; residuals that it lacks are computed, once all else was checked.

    Parameters
    ----------
    inputs : str, optional
        The value of --input.
    leak_accepted_by : str, optional
        What accepts a split whose held-out labels are seen in training: "--allow-leak".
    init : mapping, optional
        Of the run to fine-tune (`TrainConfig.init`), which must fit the tile set.
    dry_run : bool
        Compute missing residuals, but keep no file of them.

    Returns
    -------
    RegionDataset
    list of str, optional
        The channels, with short names expanded; None where `inputs` is.
    """
    from gravmap.gravity.missing_heights import MissingHeightsError
    from gravmap.learning import RegionDataset
    from gravmap.learning.data.channels import SHORT, InputChannels, expand, fields_read
    from gravmap.learning.data.outcrop_context import measured_names
    from gravmap.learning.training.warm_start import refuse_incompatible
    from gravmap.tiling import load_arrays
    from gravmap.tiling.training_arrays import read_index

    place = session.workspace
    names: list[str] | None = None
    channels = None
    if inputs:
        short = set(SHORT) & {name.strip() for name in inputs.split(",")}
        # Which residual a short name means is recorded in the tile set.
        first = read_index(place.tiles)["channel"] if short else ""
        names = expand(inputs, first)
        channels = fields_read(names)
    where: dict[str, Any] = {"split": split, "fold": fold}
    missing: list[float] = []
    try:
        arrays = load_arrays(place.tiles, channels=channels, **where)
    except MissingHeightsError as lacking:
        missing = lacking.heights_m
        arrays = load_arrays(place.tiles, **where)
    if init is not None:
        meta = arrays["meta"]
        theirs = measured_names(InputChannels.from_list(init["inputs"]).names)
        ours = names or list(meta["channels"])
        refuse_incompatible(init, theirs, ours, meta["classes"], meta["field_recipe"], str(meta.get("legend_toml", "")))
    _check_leak(session, arrays, leak_accepted_by)
    if missing:
        with tempfile.TemporaryDirectory(prefix="gravmap-") as scratch:
            if dry_run:
                say_missing_heights(session, place.fields, missing)
            path = add_missing_heights(session, place.fields, missing, Path(scratch) if dry_run else None)
            arrays = load_arrays(place.tiles, channels=channels, fields_path=path, **where)
    return RegionDataset.from_arrays(arrays), names


def crust_datasets(
    session: Session, crusts: CrustOptions, inputs: str | None, windows_deg: Sequence[float], dry_run: bool
) -> tuple[DatasetSplits, list[str]]:
    """Simulate the crusts, or read those that are cached; for a dry run only one, to measure a step.

    Returns
    -------
    DatasetSplits
        Training, tuning and test crusts.
    list of str
        The channels, with short names expanded.
    """
    from gravmap.learning.data.channel_kinds import SCALE
    from gravmap.learning.data.channels import expand, fields_read, fixed_std
    from gravmap.learning.data.crust_data import crust_seeds, crust_splits
    from gravmap.synthetic import crust_pool
    from gravmap.synthetic.pool import CHANNELS

    prior = crusts.prior
    names = expand(inputs, CHANNELS[0]) if inputs else list(CHANNELS)
    channels = fields_read(names)
    for name in set(names) - {SCALE}:
        fixed_std(name)  # refuses what a network for any region cannot read, before crusts are simulated
    seeds = crust_seeds(crusts.count)
    cache = None if dry_run else session.workspace.crusts
    pool: dict[str, Any] = {
        "shape": crusts.shape,
        "channels": channels,
        "cache": cache,
        "processes": 1 if dry_run else usable_cores(),
    }
    record = {
        "prior": {"name": prior.name, "sha256": prior.sha256, "text": prior.text},
        "count": crusts.count,
        "shape": list(crusts.shape),
        "channels": channels,
    }
    wanted = {"train": seeds["train"][:1], "tune": [], "test": []} if dry_run else seeds
    with session.progress("Simulating crusts") as progress:
        datasets = crust_splits(
            lambda some, listener: crust_pool(prior, some, progress=listener, **pool),
            wanted,
            record,
            scales_deg=list(windows_deg) or None,
            cache=cache,
            progress=progress,
        )
    return dataclasses.replace(datasets, record=datasets.record | {"seeds": seeds}), names


def _check_leak(session: Session, arrays: dict[str, Any], accepted_by: str | None) -> None:
    """Refuse, or state, that training sees held-out labels, as measured on the arrays themselves."""
    from gravmap.tiling import leak_report
    from gravmap.tiling.leak import LEAK_LIMIT

    report = leak_report(arrays, distances=False)
    (fold,) = report.folds
    if fold.leak <= LEAK_LIMIT:
        return
    seen = (
        f"in fold {fold.fold} training sees the labels of {100 * fold.leak:.1f} % of the held-out bedrock "
        f"({fold.seen_km2:,.0f} of {fold.held_out_km2:,.0f} km2)"
    )
    if accepted_by is None:
        raise InputError(
            f"The split {report.name!r} leaks: {seen}.",
            "--split blocks does not leak; `train --allow-leak` trains all the same, for comparison with the paper.",
        )
    session.say(f"The split {report.name!r} leaks, accepted by {accepted_by}: {seen}; its scores measure memory.")
