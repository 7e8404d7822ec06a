"""Prior check: compare a region of a workspace with crusts simulated from a prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gravmap.errors import InputError, OptionError
from gravmap.prior_check.quantities import quantities
from gravmap.prior_check.statistics import region_statistics, simulated_statistics
from gravmap.prior_check.verdict import MIN_CRUSTS, Verdict, compare_quantities, leave_one_out_states, overall_state
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.synthetic.pool import CHANNELS
from gravmap.synthetic.prior import Prior, read_prior
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
    r"""Compare a region with a prior: statistics of its field and map with those of simulated crusts of the same size.

    Parameters
    ----------
    fields_path, labels_path : Path
        ``data/fields.nc`` and ``data/labels.tif`` of a workspace.
    prior : Prior
        The distribution of the crusts.
    region : Region, optional
        Part of the fields; all by default.
    channels : sequence of str, optional
        Residuals to compare, such as those that a network reads; all must be in the file. By default all residuals of
        the fields.
    count : int
        Number of crusts; their seeds are 0 to count - 1.
    processes : int
        Number of parallel processes.
    cache : Path, optional
        Folder for cached statistics of the crusts.
    progress : callable
        Called after every part of the region and every crust, with a note.

    Returns
    -------
    Verdict

    Raises
    ------
    OptionError
        There are too few crusts.
    InputError
        As :func:`gravmap.prior_check.statistics.region_statistics`; or no statistic can be compared.

    Examples
    --------
    >>> from pathlib import Path
    >>> from gravmap.prior_check import prior_verdict
    >>> from gravmap.regions import Region
    >>> from gravmap.synthetic import load_prior
    >>> fields, labels = Path("data/fields.nc"), Path("data/labels.tif")
    >>> verdict = prior_verdict(fields, labels, load_prior("wide"), region=Region(80, 43, 83, 46), count=12)
    >>> verdict.state in ("inside", "at the edge", "outside")
    True
    """
    if count < MIN_CRUSTS:
        raise OptionError(
            f"{count} crusts are too few for a comparison.", f"Use {MIN_CRUSTS} or more; the default is {COUNT}."
        )
    required = tuple(channels) if channels is not None else None
    parts = 0

    def report_region(done: int, total: int, note: str = "") -> None:
        nonlocal parts
        parts = total
        progress(done, total + count, f"part {done} of {total} of the region")

    def report_crusts(done: int, total: int, note: str = "") -> None:
        progress(parts + done, parts + count, f"crusts of {prior.name}")

    region_result = region_statistics(Path(fields_path), Path(labels_path), region, required, report_region)
    simulated = simulated_statistics(
        prior,
        range(count),
        region_result.shape,
        region_result.how,
        processes=processes,
        cache=cache,
        progress=report_crusts,
    )
    chosen = quantities(region_result.channels, region_result.class_names)
    places = compare_quantities(chosen, [box.statistics for box in region_result.boxes], simulated)
    if not places:
        raise InputError(
            "No statistic of the region can be compared with crusts.",
            " ".join(region_result.left_out) or "Check its labels.",
        )
    compared = {place.quantity.key for place in places}
    missing = [quantity for quantity in chosen if quantity.key not in compared]
    left_out = list(region_result.left_out)
    if not left_out and missing:
        left_out.append(
            f"{', '.join(quantity.label for quantity in missing)}: the boxes are too small, the nodes too far"
            " apart, or too few of them known."
        )
    absent = [name for name in CHANNELS if name not in region_result.channels]
    if channels is None and absent:
        names = sorted(
            {*region_result.channels, *absent}, key=lambda name: parse_length_m(name.removeprefix("residual_"))
        )
        options = " ".join(f"--height {name.removeprefix('residual_')}" for name in names)
        left_out.append(
            f"{', '.join(absent)}, which networks trained on crusts usually read: the fields lack them"
            f" (`gravmap residual {options} --overwrite`)."
        )
    return Verdict(
        prior=prior.name,
        prior_sha256=prior.sha256,
        state=overall_state(places),
        places=places,
        left_out=tuple(left_out),
        boxes=tuple(box.bounds_wsen for box in region_result.boxes),
        crusts=count,
        shape=region_result.shape,
        leave_one_out=leave_one_out_states([place.quantity for place in places], simulated),
    )


def run_verdict(
    taught_on: dict[str, Any],
    fields_path: Path,
    labels_path: Path,
    *,
    run: str = "RUN",
    region: Region | None = None,
    count: int = COUNT,
    processes: int = 1,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Verdict | None:
    """Compare a region with the prior that a network was trained on.

    Parameters
    ----------
    taught_on : dict
        Record of the network's training data: ``on`` is ``crusts``, ``prior`` has ``name`` and ``text``, ``channels``
        are the fields that the network reads.
    run : str
        Name of the network.
    fields_path, labels_path, region, count, processes, cache, progress
        As in :func:`prior_verdict`.

    Returns
    -------
    Verdict or None
        None if the network was not trained on simulated crusts.

    Raises
    ------
    InputError
        As :func:`prior_verdict`; or the recorded prior is damaged.
    """
    if taught_on.get("on") != "crusts":
        return None
    recorded = taught_on["prior"]
    prior = read_prior(recorded["text"], f"the prior {recorded['name']} of the run")
    channels = [name for name in taught_on["channels"] if name.startswith("residual_")]
    found = prior_verdict(
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
    return replace(found, run=run)
