"""A workspace's region held against crusts drawn from a prior."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gravmap.errors import InputError, OptionError
from gravmap.prior_check.quantities import quantities
from gravmap.prior_check.region import describe_region
from gravmap.prior_check.simulated import simulated_statistics
from gravmap.prior_check.verdict import FEWEST, Verdict, compare_quantities, leave_one_out_states, overall_state
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.synthetic import Prior
from gravmap.synthetic.pool import CHANNELS
from gravmap.synthetic.prior import read_prior
from gravmap.units import parse_length_m

COUNT = 32


def prior_verdict(
    fields_path: Path,
    labels_path: Path,
    prior: Prior,
    *,
    region: Region | None = None,
    channels: Sequence[str] | None = None,
    count: int = COUNT,
    processes: int = 1,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Verdict:
    """Is a region inside a prior? Its field and map beside those of simulated crusts of the same size.

    Parameters
    ----------
    fields_path, labels_path : Path
        ``data/fields.nc`` and ``data/labels.tif`` of a workspace.
    prior : Prior
        What the crusts are drawn from.
    region : Region, optional
        A part of the fields; all by default.
    channels : sequence of str, optional
        Residuals to compare, which must be there: those that a network reads. By default all that the fields have.
    count : int
        Crusts, seeds 0 to count - 1.
    processes : int
        Crusts made at the same time.
    cache : Path, optional
        Where the crusts' numbers are kept.
    progress : callable
        Told after every part of the region and every crust, with a note of which it was.

    Returns
    -------
    Verdict

    Raises
    ------
    OptionError
        Too few crusts.
    InputError
        As :func:`gravmap.prior_check.region.describe_region`; or nothing can be compared.
    """
    if count < FEWEST:
        raise OptionError(f"{count} crusts are too few to place a region among.", f"Take {FEWEST} or more; usual 32.")
    wanted = tuple(channels) if channels is not None else None
    parts = 0

    def part(done: int, total: int, note: str = "") -> None:
        nonlocal parts
        parts = total
        progress(done, total + count, f"part {done} of {total} of the region")

    def crust(done: int, total: int, note: str = "") -> None:
        progress(parts + done, parts + count, f"crusts of {prior.name} to hold the region against")

    described = describe_region(Path(fields_path), Path(labels_path), region, wanted, part)
    simulated = simulated_statistics(
        prior, range(count), described.shape, described.how, processes=processes, cache=cache, progress=crust
    )
    chosen = quantities(described.channels, described.class_names)
    places = compare_quantities(chosen, [box.statistics for box in described.boxes], simulated)
    if not places:
        raise InputError(
            "Nothing of the region can be compared with crusts.", " ".join(described.left_out) or "Check its labels."
        )
    told = {place.quantity.key for place in places}
    missing = [quantity for quantity in chosen if quantity.key not in told]
    left_out = list(described.left_out)
    if not left_out and missing:
        left_out.append(
            f"{', '.join(quantity.label for quantity in missing)}: the boxes are too small or the nodes too far apart,"
            " or too little is known of them."
        )
    absent = [name for name in CHANNELS if name not in described.channels]
    if channels is None and absent:
        every = sorted({*described.channels, *absent}, key=lambda name: parse_length_m(name.removeprefix("residual_")))
        words = " ".join(f"--height {name.removeprefix('residual_')}" for name in every)
        left_out.append(
            f"{', '.join(absent)}, which networks taught on crusts usually read: the fields lack them"
            f" (`gravmap residual {words} --overwrite`)."
        )
    return Verdict(
        prior=prior.name,
        prior_sha256=prior.sha256,
        state=overall_state(places),
        places=places,
        left_out=tuple(left_out),
        boxes=tuple(box.bounds_wsen for box in described.boxes),
        crusts=count,
        shape=described.shape,
        own=leave_one_out_states([place.quantity for place in places], simulated),
    )


def run_verdict(
    taught_on: dict[str, Any],
    fields_path: Path,
    labels_path: Path,
    *,
    region: Region | None = None,
    count: int = COUNT,
    processes: int = 1,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Verdict | None:
    """A region held against the prior that a network was taught on.

    Parameters
    ----------
    taught_on : dict
        What the network's record says of its ground: ``on`` is ``crusts``, ``prior`` has the ``name`` and ``text``,
        ``channels`` are the fields that it reads.
    fields_path, labels_path, region, count, processes, cache, progress
        As in :func:`prior_verdict`.

    Returns
    -------
    Verdict or None
        None when the network was not taught on crusts.

    Raises
    ------
    InputError
        As :func:`prior_verdict`; the record's prior is damaged.
    """
    if taught_on.get("on") != "crusts":
        return None
    told = taught_on["prior"]
    prior = read_prior(told["text"], f"the prior {told['name']} of the run")
    channels = [name for name in taught_on["channels"] if name.startswith("residual_")]
    return prior_verdict(
        fields_path,
        labels_path,
        prior,
        region=region,
        channels=channels or None,
        count=count,
        processes=processes,
        cache=cache,
        progress=progress,
    )
