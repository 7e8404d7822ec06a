"""Crusts as training arrays, simulated in parallel and cached on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import signal
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import GravmapError, InputError, OptionError
from gravmap.files import atomic_path
from gravmap.geology import load_legend
from gravmap.geology.legend_file import legend_to_toml
from gravmap.gravity.derivatives import DERIVATIVE_HEIGHT_M, DERIVATIVES
from gravmap.gravity.fields import residual_fields
from gravmap.gravity.fields_file import field_recipe
from gravmap.gravity.patch import OPERATOR_VERSION
from gravmap.progress import Progress, silent
from gravmap.records import parse_record
from gravmap.regions import Region
from gravmap.synthetic.crust import LEGEND, Crust, draw_crust
from gravmap.synthetic.prior import Prior
from gravmap.units import format_length, parse_length_m

Made = TypeVar("Made", covariant=True)


class Task(Protocol[Made]):
    """A picklable piece of work whose result may be cached."""

    def make(self) -> Made:
        """Compute the result, and cache it where there is a cache."""

    def read(self) -> Made | None:
        """The cached result; None where there is none, or it is damaged."""


def run_in_processes(tasks: Sequence[Task[Made]], processes: int, progress: Progress = silent) -> list[Made]:
    """Results of tasks: cached ones are read, the others computed in parallel.

    Parameters
    ----------
    tasks : sequence of Task
        What to read or compute.
    processes : int
        Number of worker processes; 1 computes in this process.
    progress : callable
        Called with the number of results so far and the number of tasks.

    Returns
    -------
    list
        Results in the order of `tasks`.

    Raises
    ------
    GravmapError
        A worker process was killed.
    """
    found = {index: cached for index, task in enumerate(tasks) if (cached := task.read()) is not None}
    missing = [index for index in range(len(tasks)) if index not in found]
    progress(len(found), len(tasks), "crusts")
    for number, made in _results([tasks[index] for index in missing], processes):
        found[missing[number]] = made
        progress(len(found), len(tasks), "crusts")
    return [found[index] for index in range(len(tasks))]


def _results(tasks: Sequence[Task[Made]], processes: int) -> Iterator[tuple[int, Made]]:
    """Compute all tasks; yield index and result of each as it finishes."""
    if processes <= 1 or len(tasks) <= 1:
        for index, task in enumerate(tasks):
            yield index, task.make()
        return
    # Not "fork": a process forked from this one could inherit locks that its threads hold.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted({type(task).__module__ for task in tasks}))
    executor = ProcessPoolExecutor(min(processes, len(tasks)), mp_context=context, initializer=_ignore_ctrl_c)
    try:
        running = {executor.submit(task.make): index for index, task in enumerate(tasks)}
        for finished in as_completed(running):
            yield running[finished], finished.result()
    except BrokenProcessPool:
        raise GravmapError(
            "A worker process that simulates crusts was killed, perhaps for lack of memory.",
            "Use fewer processes. Finished crusts are reused if there is a cache.",
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _ignore_ctrl_c() -> None:
    """Ignore Ctrl-C, which a terminal sends to every process: the parent handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


log = logging.getLogger(__name__)

CHANNELS = ("residual_5km", "residual_10km", "residual_20km", "residual_40km", "residual_80km")
"""Default input channels of a network that is trained on crusts."""

CRUST_VERSION = 3
"""Increased whenever a prior and a seed give another crust than before, which invalidates cached crusts."""

_DERIVATIVES = {f"{name}_{format_length(DERIVATIVE_HEIGHT_M)}": unit for name, (_, unit) in DERIVATIVES.items()}


def crust_arrays(crust: Crust, channels: Sequence[str] = CHANNELS) -> dict[str, Any]:
    """Convert a crust to the arrays that a network is trained on, north-up, laid out as those of a tile set.

    The channels are computed by `gravmap.gravity.residual_fields`, as ``gravmap residual`` does, from the gravity of
    the region and its collar.

    Parameters
    ----------
    crust : Crust
        With `Crust.around`, if available: without it residuals near the sides of the region are less accurate.
    channels : sequence of str
        ``bouguer``, ``residual_H``, ``regional_H``, ``band_H_H`` with heights such as 10km, or a derivative such as
        ``tilt_2km``.

    Returns
    -------
    dict
        ``fields`` (C, ny, nx) float32; ``field_valid`` (ny, nx) bool; ``field_nodes_wsen`` (4,); ``labels`` (ny, nx)
        uint8, the surface map: 0 under cover; ``label_bounds_wsen`` (4,); ``small`` (ny, nx) uint8, all 0; ``role``
        (ny, nx) uint8, all 0 (train); ``windows`` (0, 4), ``window_scale_deg`` (0,), ``window_role`` (0,), empty: the
        caller adds windows; ``meta``, JSON-serialisable, with the channels, classes and, under ``crust``, prior, seed
        and parameters. In addition to the arrays of a region dataset: ``truth`` (ny, nx) uint8, the bedrock below the
        cover, 1..10, everywhere; and ``cover_m`` (ny, nx) float32, the thickness of the cover, metres.

    Raises
    ------
    OptionError
        A channel name is unknown.

    Examples
    --------
    >>> from gravmap.synthetic import make_crust
    >>> from gravmap.synthetic.pool import crust_arrays
    >>> crust = make_crust(seed=1, shape=(8, 12), sub=1, margin=4, collar=4)
    >>> arrays = crust_arrays(crust, ["residual_10km", "residual_40km"])
    >>> arrays["fields"].shape, arrays["labels"].shape
    ((2, 8, 12), (8, 12))
    >>> bool((arrays["labels"] == crust.surface[::-1]).all())  # north-up
    True
    """
    recipe, values = _channels(crust, channels)
    legend = load_legend(LEGEND)
    west, south, east, north = crust.bounds_wsen
    lat, lon = crust.gravity["lat"].values, crust.gravity["lon"].values
    rows, columns = crust.truth.shape
    return {
        "fields": values,
        "field_valid": np.ones((rows, columns), dtype=bool),
        "field_nodes_wsen": np.array([lon[0], lat[0], lon[-1], lat[-1]]),
        "labels": np.ascontiguousarray(crust.surface[::-1]),
        "label_bounds_wsen": np.array(crust.bounds_wsen),
        "small": np.zeros((rows, columns), dtype=np.uint8),
        "role": np.zeros((rows, columns), dtype=np.uint8),
        "windows": np.zeros((0, 4)),
        "window_scale_deg": np.zeros(0),
        "window_role": np.zeros(0, dtype=np.uint8),
        "truth": np.ascontiguousarray(crust.truth[::-1]),
        "cover_m": np.ascontiguousarray(crust.cover_thickness_m[::-1]),
        "meta": {
            "channels": list(channels),
            "channel_units": [_unit_of(name) for name in channels],
            "classes": [
                {"index": entry.index, "name": entry.name, "colour": entry.colour, "age": entry.age}
                for entry in legend.bedrock
            ],
            "region_wsen": [west, south, east, north],
            "field_recipe": recipe,
            "sources": [],
            "legend_toml": legend_to_toml(legend),
            "crust": {"seed": crust.seed, **crust.parameters},
        },
    }


def _channels(crust: Crust, channels: Sequence[str]) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """The recipe of the fields, and the fields themselves, shape (C, ny, nx), north-up."""
    heights = sorted({height for name in channels for height in _heights_of(name)})
    grid = crust.gravity if crust.around is None else crust.around
    fields = residual_fields(
        grid,
        # residual_fields needs a height, which derivatives do not have.
        heights or [10_000.0],
        Region(*crust.bounds_wsen),
        with_derivatives=any(_is_derivative(name) for name in channels),
    )
    planes = []
    for name in channels:
        if name.startswith("band_"):
            below, above = (f"regional_{format_length(height)}" for height in _heights_of(name))
            planes.append(fields[below].values - fields[above].values)
        else:
            planes.append(fields[name].values)
    return field_recipe(fields) | {"channels": list(channels)}, np.stack(planes)[:, ::-1].astype(np.float32, order="C")


def _heights_of(channel: str) -> list[float]:
    """Continuation heights in the name of a channel, metres; empty for the field itself and its derivatives.

    Raises
    ------
    OptionError
        The channel name is unknown.
    """
    kind, *words = channel.split("_")
    count = {"residual": 1, "regional": 1, "band": 2}.get(kind, 0)
    if channel == "bouguer" or _is_derivative(channel):
        return []
    try:
        heights = [parse_length_m(word) for word in words]
    except OptionError:
        heights = []
    names = [format_length(height) for height in heights]
    if count == 0 or len(heights) != count or names != words or heights != sorted(set(heights)) or heights[0] <= 0:
        raise OptionError(
            f"Crusts have no channel {channel!r}.",
            "Channels are bouguer, residual_10km, regional_10km and band_10km_20km (with any heights), and the"
            f" derivatives {', '.join(_DERIVATIVES)}.",
        )
    return heights


def _is_derivative(channel: str) -> bool:
    return channel in _DERIVATIVES


def _unit_of(channel: str) -> str:
    return _DERIVATIVES.get(channel, "mGal")


def crust_pool(
    prior: Prior,
    seeds: Sequence[int],
    *,
    shape: tuple[int, int] = (240, 360),
    channels: Sequence[str] = CHANNELS,
    sub: int = 1,
    processes: int = 1,
    cache: Path | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Draw crusts from a prior and convert them to training arrays.

    Parameters
    ----------
    prior : Prior
        Distributions of their parameters, see `load_prior`.
    seeds : sequence of int
        Seed of each crust.
    shape, sub
        As in `draw_crust`.
    channels : sequence of str
        As in `crust_arrays`.
    processes : int
        Number of worker processes.
    cache : Path, optional
        Cache folder, one ``.npz`` file per crust; it can be deleted at any time.
    progress : callable
        Called after every crust.

    Returns
    -------
    list of dict
        Results of `crust_arrays`, in the order of the seeds.

    Examples
    --------
    >>> from gravmap.synthetic import crust_pool, load_prior
    >>> pool = crust_pool(load_prior(), seeds=[0, 1], shape=(6, 9), channels=["residual_10km"])
    >>> [arrays["meta"]["crust"]["seed"] for arrays in pool]
    [0, 1]
    >>> pool[0]["fields"].shape
    (1, 6, 9)
    """
    tasks = [
        _CrustTask(prior, int(seed), (int(shape[0]), int(shape[1])), tuple(channels), sub, cache) for seed in seeds
    ]
    return run_in_processes(tasks, processes, progress)


@dataclass(frozen=True)
class _CrustTask:
    """A crust of a pool: everything that determines it, and the cache folder."""

    prior: Prior
    seed: int
    shape: tuple[int, int]
    channels: tuple[str, ...]
    sub: int
    cache: Path | None

    @property
    def path(self) -> Path | None:
        """File in the cache, named after a hash of everything that determines the arrays."""
        if self.cache is None:
            return None
        key = [
            self.prior.sha256,
            CRUST_VERSION,
            OPERATOR_VERSION,
            self.seed,
            list(self.shape),
            list(self.channels),
            self.sub,
        ]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        return self.cache / f"crust-{self.seed}-{digest[:24]}.npz"

    def make(self) -> dict[str, Any]:
        """Simulate the crust; write it to the cache, if any."""
        arrays = crust_arrays(draw_crust(self.prior, self.seed, self.shape, sub=self.sub), self.channels)
        path = self.path
        if path is not None:
            plain = {name: value for name, value in arrays.items() if name != "meta"}
            with atomic_path(path) as temporary:
                np.savez(temporary, meta=np.array(json.dumps(arrays["meta"])), **plain)
        return arrays

    def read(self) -> dict[str, Any] | None:
        """The cached result; None where there is none, or it is damaged."""
        path = self.path
        if path is None or not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
            arrays["meta"] = parse_record(str(arrays["meta"]), dict[str, Any], str(path))
        except (InputError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s is damaged (%s): the crust is simulated again.", path, error)
            return None
        return arrays
