"""A trained network beside the fields it is to read: do they fit, what would be computed, and the probabilities."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gravmap.errors import DeviceError, InputError, OptionError
from gravmap.gravity import field_recipe, open_fields
from gravmap.learning.channels import InputChannels
from gravmap.learning.checkpoint import ModelSpec, load_model
from gravmap.learning.mosaic import covering_windows, predict_logits
from gravmap.mapping.raster import MapGrid, map_grid
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.units import format_angle

# Windows of a degree would mean thousands of full tiles; on a CPU that is days for a basin.
CPU_SCALES_FROM_DEG = 2.0


@dataclass(frozen=True)
class Plan:
    """What a prediction will read, compute and write.

    Attributes
    ----------
    region : Region
        What is mapped.
    grid : MapGrid
        Cells of the map.
    windows : dict of float to (n, 4) float array
        Scale in degrees to windows W S E N.
    device : str
        ``cpu`` or ``cuda``.
    tile_size_px : int
        Each window is this many pixels wide.
    """

    region: Region
    grid: MapGrid
    windows: dict[float, NDArray[np.float64]]
    device: str
    tile_size_px: int

    @property
    def passes(self) -> int:
        """How many windows go through the network."""
        return sum(len(windows) for windows in self.windows.values())


class Predictor:
    """A trained network beside the fields it is to read, checked to fit each other.

    Parameters
    ----------
    fields_path : Path
        ``data/fields.nc`` of `gravmap residual`.
    run_folder : Path
        A training run: ``model.json`` and ``model.safetensors``.
    device : str
        ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        The fields were made by another recipe than those the network was trained on, or lack a channel.
    DeviceError
        No such device.
    """

    def __init__(self, fields_path: Path, run_folder: Path, device: str = "auto") -> None:
        self.fields_path = fields_path
        self.run_folder = run_folder
        self.device = _device(device)
        self.network, self.spec = load_model(run_folder, self.device)
        self.network.eval()
        self.dataset = open_fields(fields_path)
        self.inputs = self.spec.input
        _check_fields(self.dataset, self.inputs, fields_path)
        _check_recipe(field_recipe(self.dataset), self.spec, fields_path)
        self.lat = self.dataset["lat"].values.astype(np.float64)
        self.lon = self.dataset["lon"].values.astype(np.float64)

    def plan(self, region: Region, scales_deg: list[float] | None = None, resolution_deg: float | None = None) -> Plan:
        """Lay cells and windows over a region.

        Parameters
        ----------
        region : Region
            What to map.
        scales_deg : list of float, optional
            Window sizes; by default those the network was trained on, on a CPU without the smallest.
        resolution_deg : float, optional
            Cell size; by default the nodes of the gravity grid.

        Raises
        ------
        InputError
            The region reaches beyond the fields.
        OptionError
            A scale the network has never seen.
        """
        grid = map_grid(self.lat, self.lon, region, resolution_deg)
        limit = (float(self.lon[0]), float(self.lat[0]), float(self.lon[-1]), float(self.lat[-1]))
        scales = self._scales(scales_deg)
        west, south, east, north = grid.bounds_wsen
        inside = (max(west, limit[0]), max(south, limit[1]), min(east, limit[2]), min(north, limit[3]))
        windows = {scale: covering_windows(inside, scale, limit) for scale in scales}
        return Plan(region, grid, windows, self.device, self.spec.tile_size_px)

    def _scales(self, asked: list[float] | None) -> list[float]:
        trained = [float(scale) for scale in self.spec.scales_deg]
        if asked:
            unknown = [scale for scale in asked if not any(math.isclose(scale, known) for known in trained)]
            if unknown:
                raise OptionError(
                    f"The network was not trained on windows of {', '.join(map(format_angle, unknown))}.",
                    f"It knows: {', '.join(map(format_angle, trained))}.",
                )
            return asked
        if self.device == "cpu":
            return [scale for scale in trained if scale >= CPU_SCALES_FROM_DEG] or trained
        return trained

    def seconds_per_pass(self) -> float:
        """Measured time of one window through the network on this device (a smaller one, scaled by area)."""
        probe = min(self.spec.tile_size_px, 256)
        sample = torch.zeros(1, self.inputs.width, probe, probe, device=self.device)
        with torch.inference_mode():
            self.network(sample)  # the first pass pays for choosing kernels
            start = time.perf_counter()
            self.network(sample)
            if self.device == "cuda":
                torch.cuda.synchronize()
        return (time.perf_counter() - start) * (self.spec.tile_size_px / probe) ** 2

    def probability(self, plan: Plan, batch_size: int = 1, progress: Progress = silent) -> NDArray[np.float32]:
        """Class probabilities on the cells of a plan: softmax of logits blended over windows, averaged over scales.

        Parameters
        ----------
        plan : Plan
            From :meth:`plan`.
        batch_size : int
            Windows at a time; changes memory and speed, not the result.
        progress : Progress
            Told after every batch of windows.

        Returns
        -------
        (K, ny, nx) float32
            North up; NaN where the fields are unknown or no window reaches.
        """
        stack = np.stack([self.dataset[name].values for name in self.inputs.fields]).astype(np.float32)[:, ::-1]
        known: NDArray[np.bool_] = np.asarray(np.isfinite(stack).all(axis=0))
        fields = np.where(known, stack, 0).astype(np.float32)
        nodes = (float(self.lon[0]), float(self.lat[0]), float(self.lon[-1]), float(self.lat[-1]))
        total = np.zeros((len(self.spec.classes), *plan.grid.shape), np.float32)
        reached = np.zeros(plan.grid.shape, np.int32)
        done = 0
        for scale, windows in plan.windows.items():
            report = _from(progress, done, plan.passes, f"windows of {format_angle(scale)}")
            logits = predict_logits(
                self.network,
                fields,
                nodes,
                windows,
                plan.tile_size_px,
                plan.grid.lat_deg,
                plan.grid.lon_deg,
                inputs=self.inputs,
                device=self.device,
                batch_size=batch_size,
                progress=report,
            )
            finite = np.isfinite(logits).all(axis=0)
            total[:, finite] += logits[:, finite]
            reached += finite
            done += len(windows)
        mean = total / np.maximum(reached, 1)
        mean -= mean.max(axis=0)
        exponent = np.exp(mean)
        probability: NDArray[np.float32] = (exponent / exponent.sum(axis=0)).astype(np.float32)
        blind = (reached == 0) | ~_nearest(known, self.lat[::-1], self.lon, plan.grid)
        probability[:, blind] = np.nan
        return probability


_AS_TRAINED = "Make the fields as the network's were (`gravmap residual`), or train on these (`gravmap train`)."


def _from(progress: Progress, start: int, whole: int, title: str) -> Progress:
    """A listener for one part of a longer work."""

    def part(done: int, total: int, note: str = "") -> None:
        progress(start + done, whole, title)

    return part


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise DeviceError("No CUDA device is seen by torch.", "Add --device cpu, or see `gravmap doctor`.")
    return asked


def _check_fields(dataset: Any, inputs: InputChannels, path: Path) -> None:
    """Refuse fields that lack what the network reads, or have it in another unit."""
    absent = [name for name in inputs.fields if name not in dataset]
    if absent:
        raise InputError(
            f"{path} has no field {', '.join(absent)}, which the network reads.",
            "Make it as it was made for training: `gravmap residual` with the same --height, --derivatives and so on,"
            " or `gravmap rasterize --faults`.",
        )
    for name, unit in zip(inputs.fields, inputs.units, strict=True):
        found = str(dataset[name].attrs.get("units", unit))
        if found != unit:
            raise InputError(f"{path} has {name} in {found}; the network was trained on it in {unit}.", _AS_TRAINED)


def _check_recipe(found: dict[str, Any], spec: ModelSpec, path: Path) -> None:
    wanted = spec.field_recipe
    # Which other heights lie in the file does not matter: each field says its own height in its name.
    keys = sorted((wanted.keys() | found.keys()) - {"channels", "heights_m", "by_channel"})
    differing = [key for key in keys if not _same(wanted.get(key), found.get(key))]
    if differing:
        words = "; ".join(f"{key}: trained on {wanted.get(key)!r}, found {found.get(key)!r}" for key in differing)
        raise InputError(
            f"{path} was made by another recipe than the network was trained on ({words}).",
            _AS_TRAINED,
        )
    # A channel that another command added has a recipe of its own, which matters to a network that reads it.
    own, other = wanted.get("by_channel", {}), found.get("by_channel", {})
    for name in spec.channels:
        if own.get(name) != other.get(name):
            raise InputError(
                f"{name} in {path} was made by another recipe than the network was trained on"
                f" (trained on {own.get(name)!r}, found {other.get(name)!r}).",
                "Make it from the same files with the same cap (`gravmap rasterize --faults ... --fault-cap ...`),"
                " or train on this one (`gravmap train`).",
            )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _nearest(
    mask: NDArray[np.bool_], lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64], grid: MapGrid
) -> NDArray[np.bool_]:
    """The value of a node mask at the node nearest to each cell; latitudes descending."""
    step_lat = (lat_deg[0] - lat_deg[-1]) / (lat_deg.size - 1)
    step_lon = (lon_deg[-1] - lon_deg[0]) / (lon_deg.size - 1)
    row = np.clip(np.rint((lat_deg[0] - grid.lat_deg) / step_lat).astype(int), 0, lat_deg.size - 1)
    col = np.clip(np.rint((grid.lon_deg - lon_deg[0]) / step_lon).astype(int), 0, lon_deg.size - 1)
    near: NDArray[np.bool_] = mask[row[:, None], col[None, :]]
    return near
