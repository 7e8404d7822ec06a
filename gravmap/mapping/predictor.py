"""Trained networks together with the fields they read: compatibility checks, the plan of a map, and its cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

from gravmap.errors import DeviceError, OptionError
from gravmap.geology.legend import Legend
from gravmap.learning.calibration.applicability import AreaOfApplicability, read_area_of_applicability
from gravmap.learning.calibration.by_distance import DistanceTemperature
from gravmap.learning.calibration.temperature import Calibration, read_calibration
from gravmap.learning.calibration.thickness import ThicknessInterval
from gravmap.learning.data.outcrop_context import measured_names
from gravmap.learning.training.checkpoint import ModelSpec, check_recorded, load_model
from gravmap.mapping.clip import Clip
from gravmap.mapping.compatibility import check_ensemble, check_fields, legend_from_spec
from gravmap.mapping.map_grid import map_grid
from gravmap.mapping.outcrop_file import FieldsWithOutcrop, OutcropFile
from gravmap.mapping.plan import FLIPS, Plan, windows_by_scale
from gravmap.network.cost import peak_bytes, seconds_per_pass
from gravmap.network.deform import backend
from gravmap.network.outcrop_start import has_thickness
from gravmap.network.precision import scoring_precision
from gravmap.regions import Region
from gravmap.units import describe_angle

CPU_MIN_SCALE_DEG = 2.0
"""Smallest window that is used on a CPU by default: windows of 1 degree take days for a basin."""


@dataclass(frozen=True)
class EnsembleMember:
    """The trained network of one run, with its calibration.

    Attributes
    ----------
    folder : Path
        The run.
    network : nn.Module
        In evaluation mode, on the device.
    spec : ModelSpec
        Architecture, input channels and classes.
    calibration : Calibration or None
        Temperatures; None if the run has none.
    applicability : AreaOfApplicability or None
        Area of applicability; None if the run has none.
    """

    folder: Path
    network: nn.Module
    spec: ModelSpec
    calibration: Calibration | None
    applicability: AreaOfApplicability | None

    def temperature(self, scales_deg: Sequence[float]) -> float:
        """Return the temperature for logits averaged over these window sizes; 1 if it was not fitted."""
        return 1.0 if self.calibration is None else self.calibration.temperature(scales_deg)

    def divisor(self, scales_deg: Sequence[float]) -> float | DistanceTemperature:
        """Return the temperature, as a function of the distance to mapped outcrop if the run fitted one."""
        return 1.0 if self.calibration is None else self.calibration.divisor(scales_deg)

    @property
    def thickness_interval(self) -> ThicknessInterval | None:
        """Calibration of the thickness of the cover, factors of 1 if it was not fitted; None without this output."""
        if not has_thickness(self.network):
            return None
        return ThicknessInterval() if self.calibration is None else self.calibration.thickness


@dataclass(frozen=True)
class CostEstimate:
    """Estimated cost of predicting a map with one window size.

    Attributes
    ----------
    scale_deg : float
        Side of the windows, degrees.
    windows : int
        Number of windows.
    seconds : float
        Time on one device, over all runs and flips.
    disk_bytes : int
        Temporary disk space, until the map is finished.
    chosen : bool
        Whether the plan uses this window size.
    """

    scale_deg: float
    windows: int
    seconds: float
    disk_bytes: int
    chosen: bool


class Predictor:
    """One or several trained networks and the fields they read, checked to be compatible; a context manager.

    Parameters
    ----------
    fields_path : Path
        ``data/fields.nc`` of `gravmap residual`.
    run_folders : Path or sequence of Path
        Training runs: ``model.json`` and ``model.safetensors``. Several are averaged as an ensemble.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    outcrop : OutcropFile, optional
        Outcrop context, for networks that read it; may be assigned to ``fields.outcrop`` later.
    to_compute : sequence of str
        Residuals that the file lacks and that will be computed: for the checks and the plan.

    Attributes
    ----------
    members : tuple of EnsembleMember
        The networks.
    fields : FieldReader
        The open file of the fields.
    device : str
        ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        The fields lack a channel or were computed with other settings than those that a network was trained on; a run
        is damaged; or the runs have different classes or fields.
    OptionError
        `run_folders` is empty.
    DeviceError
        The device is not available.

    Examples
    --------
    A network with random weights beside a small field, and the plan of a map:

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import xarray as xr
    >>> from gravmap.gravity import residual_fields, write_fields
    >>> from gravmap.learning.training.checkpoint import ModelSpec, save_model
    >>> from gravmap.mapping.predictor import Predictor
    >>> from gravmap.network import build
    >>> from gravmap.regions import Region
    >>> folder = Path(tempfile.mkdtemp())
    >>> lat, lon = np.arange(42, 48.01, 0.1), np.arange(79, 86.01, 0.1)
    >>> bouguer = 30 * np.sin(lon) * np.cos(lat)[:, None]
    >>> grid = xr.DataArray(bouguer, {"lat": lat, "lon": lon}, ("lat", "lon"), attrs={"units": "mGal"})
    >>> fields = residual_fields(grid, [10_000.0])
    >>> write_fields(fields, folder / "fields.nc")
    >>> network = build("unet", in_channels=1, classes=2)
    >>> spec = ModelSpec(
    ...     model="unet",
    ...     architecture=network.architecture.to_dict(),
    ...     inputs=[{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 10.0}],
    ...     classes=[{"index": k, "name": name, "colour": "#808080"} for k, name in enumerate(("old", "young"), 1)],
    ...     tile_size_px=64,
    ...     scales_deg=[2.5, 5.0],
    ...     field_recipe=json.loads(fields.attrs["gravmap_recipe"]),
    ...     split={"name": "none"},
    ...     seed=0,
    ... )
    >>> save_model(folder / "run", network, spec)
    >>> with Predictor(folder / "fields.nc", folder / "run", "cpu") as predictor:
    ...     plan = predictor.plan(Region(81, 44, 84, 46))
    ...     costs = predictor.estimate_costs(plan)
    >>> plan.grid.shape, {scale: len(windows) for scale, windows in plan.windows.items()}
    ((21, 31), {2.5: 25, 5.0: 6})
    >>> [cost.windows for cost in costs if cost.chosen]
    [25, 6]
    """

    def __init__(
        self,
        fields_path: Path,
        run_folders: Path | Sequence[Path],
        device: str = "auto",
        outcrop: OutcropFile | None = None,
        to_compute: Sequence[str] = (),
    ) -> None:
        self.device = resolve_device(device)
        folders = [run_folders] if isinstance(run_folders, Path) else list(run_folders)
        if not folders:
            raise OptionError("No training run is given.", "Name at least one with --run.")
        members = []
        for folder in folders:
            network, spec = load_model(folder, self.device)
            check_recorded(folder / "scores.json", "Restore it, or train again: the report of a map shows the scores.")
            members.append(
                EnsembleMember(folder, network, spec, read_calibration(folder), read_area_of_applicability(folder))
            )
        self.members = tuple(members)
        check_ensemble([(member.folder, member.spec) for member in self.members])
        self.fields = FieldsWithOutcrop(fields_path, outcrop)
        try:
            for member in self.members:
                check_fields(self.fields, member.spec, to_compute)
        except BaseException:
            self.fields.close()
            raise

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.fields.close()

    @property
    def legend(self) -> Legend:
        """The classes that the networks predict."""
        return legend_from_spec(self.members[0].spec)

    @property
    def required_fields(self) -> tuple[str, ...]:
        """Names of the fields in the file without which a cell is not predicted: all but layers that are masked."""
        return tuple(dict.fromkeys(name for member in self.members for name in member.spec.input.required))

    @property
    def gravity_names(self) -> tuple[str, ...]:
        """Fields in mGal that a map stores: those that a network reads, else the default residual; and the Bouguer."""
        read = [name for name in measured_names(self.required_fields) if self.fields.unit(name) == "mGal"]
        names = read or ([self.fields.default_residual] if self.fields.residuals else [])
        return tuple(dict.fromkeys([*names, *(["bouguer"] if "bouguer" in self.fields.names else [])]))

    @property
    def reads_outcrop(self) -> bool:
        """Whether any network reads outcrop context."""
        return any(member.spec.input.reads_outcrop for member in self.members)

    @property
    def class_offsets(self) -> list[float] | None:
        """Offset added to the log probability of each class before the class of a cell is chosen.

        The mean over the networks; None if no network has offsets: then the most probable class is chosen.
        """
        found = [member.calibration.offsets if member.calibration else None for member in self.members]
        if not any(found):
            return None
        classes = len(self.members[0].spec.classes)
        return [sum(each[index] if each else 0.0 for each in found) / len(found) for index in range(classes)]

    @property
    def trained_scales(self) -> list[float]:
        """Window sizes, degrees, that every network was trained on."""
        first, *others = ([float(scale) for scale in member.spec.scales_deg] for member in self.members)
        return [scale for scale in first if all(_contains(scale, other) for other in others)]

    def plan(
        self,
        region: Region,
        scales_deg: Sequence[float] | None = None,
        resolution_deg: float | None = None,
        *,
        clip: Clip | None = None,
        flips: bool = False,
    ) -> Plan:
        """Lay out the cells and windows of a map.

        Parameters
        ----------
        region : Region
            Bounding box of the map.
        scales_deg : sequence of float, optional
            Window sizes, degrees; by default those that the networks were trained on, on a CPU only those of at least
            2 degrees.
        resolution_deg : float, optional
            Cell size, degrees; by default the cells are the nodes of the gravity grid.
        clip : Clip, optional
            Cells whose centre lies outside it are no data.
        flips : bool
            Test-time augmentation: average the logits of each window over its four flips.

        Raises
        ------
        InputError
            The region extends beyond the fields.
        OptionError
            A network was not trained on one of the window sizes, or the networks have no window size in common.
        """
        if clip is not None:
            half = float(self.fields.lon[1] - self.fields.lon[0]) / 2
            clip = clip.turned_into(float(self.fields.lon[0]) - half, float(self.fields.lon[-1]) + half)
            region = clip.region
        grid = map_grid(self.fields.lat[::-1], self.fields.lon, region, resolution_deg)
        windows = windows_by_scale(grid, self.fields.nodes_wsen, self._scales(scales_deg), clip)
        sizes = tuple(member.spec.tile_size_px for member in self.members)
        classes = len(self.members[0].spec.classes)
        thickness_runs = tuple(run for run, member in enumerate(self.members) if has_thickness(member.network))
        return Plan(region, grid, windows, self.device, sizes, classes, clip, flips, thickness_runs=thickness_runs)

    def _scales(self, chosen: Sequence[float] | None) -> list[float]:
        trained = self.trained_scales
        if not trained:
            each = "; ".join(
                f"{member.folder.name}: {', '.join(map(describe_angle, member.spec.scales_deg))}"
                for member in self.members
            )
            raise OptionError(
                f"The runs have no window size in common ({each}).", "Choose runs trained on a common window size."
            )
        if chosen:
            unknown = [scale for scale in chosen if not _contains(scale, trained)]
            if unknown:
                raise OptionError(
                    f"The network was not trained on windows of {', '.join(map(describe_angle, unknown))}.",
                    f"It was trained on {', '.join(map(describe_angle, trained))}.",
                )
            return list(dict.fromkeys(chosen))
        if self.device == "cpu":
            return [scale for scale in trained if scale >= CPU_MIN_SCALE_DEG] or trained
        return trained

    def estimate_costs(self, plan: Plan) -> list[CostEstimate]:
        """Estimate the cost of each window size that the networks were trained on, whether or not the plan uses it."""
        images = len(FLIPS) if plan.flips else 1
        seconds = images * sum(
            seconds_per_pass(member.network, member.spec.input.width, member.spec.tile_size_px, self.device)
            for member in self.members
        )
        windows = windows_by_scale(plan.grid, self.fields.nodes_wsen, self.trained_scales, plan.clip)
        every_scale = replace(plan, windows=windows)
        return [
            CostEstimate(
                scale,
                len(bounds),
                seconds * len(bounds),
                every_scale.window_bytes(scale),
                _contains(scale, plan.windows),
            )
            for scale, bounds in windows.items()
        ]

    def network_bytes(self, batch_size: int = 1) -> int:
        """Estimate the memory of the largest network for a batch of windows on the device: weights and activations."""
        deformable = backend(torch.device(self.device).type)
        return max(
            peak_bytes(
                member.network,
                member.spec.input.width,
                member.spec.tile_size_px,
                batch_size,
                precision=scoring_precision(member.network),
                deformable=deformable,
            )
            for member in self.members
        )


def _contains(scale: float, scales: Iterable[float]) -> bool:
    return any(math.isclose(scale, other) for other in scales)


def device_and_processes(gpus: int) -> tuple[str, int]:
    """Convert a number of GPUs to a device and a number of processes: one process per GPU; 0 is the CPU.

    Raises
    ------
    DeviceError
        Fewer CUDA devices are available.

    Examples
    --------
    >>> from gravmap.mapping.predictor import device_and_processes
    >>> device_and_processes(0)
    ('cpu', 1)
    """
    if not gpus:
        return "cpu", 1
    found = torch.cuda.device_count()
    if gpus > found:
        hint = f"Use --gpus {found}." if found else "Use --gpus 0 or --device cpu to compute on the CPU."
        raise DeviceError(f"--gpus {gpus} needs {gpus} CUDA device(s); torch finds {found}.", hint)
    return "cuda", gpus


def resolve_device(device: str) -> str:
    """Return ``cpu`` or ``cuda``; ``auto`` is ``cuda`` if torch finds a GPU.

    Raises
    ------
    DeviceError
        `device` is ``cuda`` and torch finds no GPU.

    Examples
    --------
    >>> from gravmap.mapping.predictor import resolve_device
    >>> resolve_device("cpu")
    'cpu'
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("torch finds no CUDA device.", "Use --device cpu, or run `gravmap doctor` for details.")
    return device
