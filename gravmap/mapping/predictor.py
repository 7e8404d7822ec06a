"""One or several trained networks beside the fields they are to read: do they fit, and what would be computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

from gravmap.errors import DeviceError, OptionError
from gravmap.geology import Legend
from gravmap.learning.calibration.applicability import AreaOfApplicability, read_area_of_applicability
from gravmap.learning.calibration.by_distance import DistanceTemperature
from gravmap.learning.calibration.temperature import Calibration, read_calibration
from gravmap.learning.training.checkpoint import ModelSpec, load_model
from gravmap.mapping.clip import Clip
from gravmap.mapping.compatibility import check_ensemble, check_fields, legend_of
from gravmap.mapping.field_reader import FieldReader
from gravmap.mapping.map_grid import map_grid
from gravmap.mapping.outcrop_file import OutcropFile
from gravmap.mapping.plan import FLIPS, Plan, lay_windows
from gravmap.network.cost import peak_bytes, seconds_per_pass
from gravmap.regions import Region
from gravmap.units import describe_angle

# Windows of a degree would mean thousands of full tiles; on a CPU that is days for a basin.
CPU_SCALES_FROM_DEG = 2.0


@dataclass(frozen=True)
class Member:
    """One trained network, and what its run knows about it.

    Attributes
    ----------
    folder : Path
        The run.
    network : nn.Module
        In evaluation mode, on the device.
    spec : ModelSpec
        What shaped its input.
    calibration : Calibration or None
        Its temperatures; None where the run has none.
    reach : AreaOfApplicability or None
        Its training ground; None where the run has none.
    """

    folder: Path
    network: nn.Module
    spec: ModelSpec
    calibration: Calibration | None
    reach: AreaOfApplicability | None

    def temperature(self, scales_deg: Sequence[float]) -> float:
        """What logits averaged over these scales are divided by; 1 where nothing was measured."""
        return 1.0 if self.calibration is None else self.calibration.temperature(scales_deg)

    def divisor(self, scales_deg: Sequence[float]) -> float | DistanceTemperature:
        """The same, by distance to mapped outcrop where the run measured that."""
        return 1.0 if self.calibration is None else self.calibration.divisor(scales_deg)


@dataclass(frozen=True)
class Cost:
    """What one scale of a map takes.

    Attributes
    ----------
    scale_deg : float
        Side of the windows.
    windows : int
        How many there are.
    seconds : float
        An estimate for one device, over all runs and flips.
    disk_bytes : int
        Until the map is finished.
    chosen : bool
        Whether it is among the scales of the plan.
    """

    scale_deg: float
    windows: int
    seconds: float
    disk_bytes: int
    chosen: bool


class Predictor:
    """Trained networks beside the fields they are to read, checked to fit each other; a context manager.

    Parameters
    ----------
    fields_path : Path
        ``data/fields.nc`` of `gravmap residual`.
    run_folders : Path or sequence of Path
        Training runs: ``model.json`` and ``model.safetensors``. Several predict together.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    outcrop : OutcropFile, optional
        For networks that read it; may be given to `fields` later, before a window is.

    Raises
    ------
    InputError
        The fields were made by another recipe than those a network was trained on, or lack a channel; a run is damaged;
        runs do not fit each other.
    DeviceError
        No such device.
    """

    def __init__(
        self,
        fields_path: Path,
        run_folders: Path | Sequence[Path],
        device: str = "auto",
        outcrop: OutcropFile | None = None,
    ) -> None:
        self.device = choose_device(device)
        folders = [run_folders] if isinstance(run_folders, Path) else list(run_folders)
        if not folders:
            raise OptionError("No run is named.", "Give at least one --run.")
        members = []
        for folder in folders:
            network, spec = load_model(folder, self.device)
            members.append(Member(folder, network, spec, read_calibration(folder), read_area_of_applicability(folder)))
        self.members = tuple(members)
        check_ensemble([(member.folder, member.spec) for member in self.members])
        self.fields = FieldReader(fields_path, outcrop)
        try:
            for member in self.members:
                check_fields(self.fields, member.spec)
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
        """The classes that are told apart."""
        return legend_of(self.members[0].spec)

    @property
    def names(self) -> tuple[str, ...]:
        """Every field of the file that a network reads."""
        return tuple(dict.fromkeys(name for member in self.members for name in member.spec.input.measured))

    @property
    def reads_outcrop(self) -> bool:
        """Whether a network starts from mapped outcrop."""
        return any(member.spec.input.reads_outcrop for member in self.members)

    @property
    def class_offsets(self) -> list[float] | None:
        """What is added to the log chance of each class before one is shown; of several networks the mean.

        None where no network has any: then the likeliest is shown.
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
        return [scale for scale in first if all(_among(scale, other) for other in others)]

    def plan(
        self,
        region: Region,
        scales_deg: Sequence[float] | None = None,
        resolution_deg: float | None = None,
        *,
        clip: Clip | None = None,
        flips: bool = False,
    ) -> Plan:
        """Lay cells and windows over a region.

        Parameters
        ----------
        region : Region
            What to map.
        scales_deg : sequence of float, optional
            Window sizes; by default those the networks were trained on, on a CPU without the smallest.
        resolution_deg : float, optional
            Cell size; by default the nodes of the gravity grid.
        clip : Clip, optional
            Cells whose centre is outside are no data.
        flips : bool
            See every window in four mirror images.

        Raises
        ------
        InputError
            The region reaches beyond the fields.
        OptionError
            A scale that a network has never seen, or none that all have seen.
        """
        grid = map_grid(self.fields.lat[::-1], self.fields.lon, region, resolution_deg)
        windows = lay_windows(grid, self.fields.nodes_wsen, self._scales(scales_deg), clip)
        sizes = tuple(member.spec.tile_size_px for member in self.members)
        classes = len(self.members[0].spec.classes)
        return Plan(region, grid, windows, self.device, sizes, classes, clip, flips)

    def _scales(self, asked: Sequence[float] | None) -> list[float]:
        trained = self.trained_scales
        if not trained:
            each = "; ".join(
                f"{member.folder.name}: {', '.join(map(describe_angle, member.spec.scales_deg))}"
                for member in self.members
            )
            raise OptionError(f"The runs were trained on no window size in common ({each}).", "Name runs that were.")
        if asked:
            unknown = [scale for scale in asked if not _among(scale, trained)]
            if unknown:
                raise OptionError(
                    f"The network was not trained on windows of {', '.join(map(describe_angle, unknown))}.",
                    f"It knows: {', '.join(map(describe_angle, trained))}.",
                )
            return list(dict.fromkeys(asked))
        if self.device == "cpu":
            return [scale for scale in trained if scale >= CPU_SCALES_FROM_DEG] or trained
        return trained

    def costs(self, plan: Plan) -> list[Cost]:
        """What every scale the networks were trained on would take, whether it is in the plan or not."""
        images = len(FLIPS) if plan.flips else 1
        seconds = images * sum(
            seconds_per_pass(member.network, member.spec.input.width, member.spec.tile_size_px, self.device)
            for member in self.members
        )
        laid = lay_windows(plan.grid, self.fields.nodes_wsen, self.trained_scales, plan.clip)
        whole = Plan(plan.region, plan.grid, laid, plan.device, plan.tile_size_px, plan.classes, plan.clip, plan.flips)
        return [
            Cost(
                scale,
                len(windows),
                seconds * len(windows),
                whole.pass_bytes(scale),
                _among(scale, plan.windows),
            )
            for scale, windows in laid.items()
        ]

    def network_bytes(self, batch_size: int = 1) -> int:
        """Memory that the largest network needs for a batch of windows: weights, and what lives between its layers."""
        return max(
            peak_bytes(member.network, member.spec.input.width, member.spec.tile_size_px, batch_size)
            for member in self.members
        )


def _among(scale: float, scales: Iterable[float]) -> bool:
    return any(math.isclose(scale, other) for other in scales)


def device_of_gpus(gpus: int) -> tuple[str, int]:
    """Device and number of processes that `--gpus` asks for; 0 is the CPU.

    Raises
    ------
    DeviceError
        Fewer devices are there.
    """
    if not gpus:
        return "cpu", 1
    found = torch.cuda.device_count()
    if gpus > found:
        hint = f"--gpus {found} runs." if found else "--gpus 0 or --device cpu computes on the CPU."
        raise DeviceError(f"--gpus {gpus} was asked for, but {found} CUDA device(s) are there.", hint)
    return "cuda", gpus


def choose_device(asked: str) -> str:
    """Where to compute: "auto" is the GPU where torch sees one.

    Raises
    ------
    DeviceError
        CUDA was asked for and is not there.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise DeviceError("No CUDA device is seen by torch.", "Add --device cpu, or see `gravmap doctor`.")
    return asked
