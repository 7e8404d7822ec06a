"""Windows: square boxes of several sizes that cover a region up to its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gravmap.errors import OptionError
from gravmap.regions import Region
from gravmap.units import describe_angle

# Sizes and strides that give the 536 windows of Liu et al. 2024 over 65-95° E, 40-55° N: 450 + 55 + 27 + 4.
PAPER_SCALES_DEG = ((1.0, 1.0), (5.0, 2.5), (10.0, 2.5), (15.0, 5.0))

_TOLERANCE_DEG = 1e-6


@dataclass(frozen=True)
class Scale:
    """Windows of one size.

    Attributes
    ----------
    size_deg, stride_deg : float
        Side of a window and step from one to the next, degrees.
    rows, columns : int
        How many; rows from the north, columns from the west.
    """

    size_deg: float
    stride_deg: float
    rows: int
    columns: int

    @property
    def name(self) -> str:
        """Folder of the scale's tiles: ``5deg``, ``2.5deg``."""
        return f"{round(self.size_deg, 6):g}deg"


def default_stride_deg(size_deg: float) -> float:
    """The paper's stride for the paper's sizes; half a window for any other."""
    for size, stride in PAPER_SCALES_DEG:
        if abs(size - size_deg) < _TOLERANCE_DEG:
            return stride
    return size_deg / 2


def _starts(extent_deg: float, size_deg: float, stride_deg: float) -> list[float]:
    """Offsets of the windows along one axis: regular, and a last one that ends at the far edge."""
    steps = math.floor((extent_deg - size_deg) / stride_deg + _TOLERANCE_DEG)
    starts = [step * stride_deg for step in range(steps + 1)]
    if starts[-1] + size_deg < extent_deg - _TOLERANCE_DEG:
        starts.append(extent_deg - size_deg)
    return starts


def _check(region: Region, size_deg: float, stride_deg: float) -> None:
    if not size_deg > 0 or not stride_deg > 0:
        raise OptionError(
            f"A window of {size_deg:g} with a stride of {stride_deg:g} degrees is not valid.", "Both must be positive."
        )
    if stride_deg > size_deg + _TOLERANCE_DEG:
        raise OptionError(
            f"A stride of {describe_angle(stride_deg)} leaves gaps between windows of {describe_angle(size_deg)}.",
            "A stride is at most the size of its window.",
        )
    if size_deg > min(region.width_deg, region.height_deg) + _TOLERANCE_DEG:
        raise OptionError(
            f"A window of {describe_angle(size_deg)} does not fit into the region {region}.",
            "Choose a smaller --window.",
        )


def windows(region: Region, size_deg: float, stride_deg: float) -> list[Region]:
    """Windows of one size that cover a region.

    They start at the north-west corner and advance by the stride; where the last step leaves a gap, one more
    window ends at the region's edge. Every point of the region lies in at least one window, and no window
    extends beyond the region.

    Parameters
    ----------
    region : Region
        The region to cover.
    size_deg, stride_deg : float
        Side of a window, and step from one to the next, degrees; the stride is at most the size.

    Returns
    -------
    list of Region
        Row by row from the north, each row from the west.

    Raises
    ------
    OptionError
        The size does not fit into the region, or the stride leaves gaps.

    Examples
    --------
    >>> from gravmap.regions import Region
    >>> from gravmap.tiling.windows import windows
    >>> boxes = windows(Region(80, 42, 84, 46), size_deg=2, stride_deg=1)
    >>> len(boxes), boxes[0].bounds_wsen
    (9, (80, 44, 82, 46))
    """
    _check(region, size_deg, stride_deg)
    souths = [region.north - start - size_deg for start in _starts(region.height_deg, size_deg, stride_deg)]
    wests = [region.west + start for start in _starts(region.width_deg, size_deg, stride_deg)]
    # The far edge is taken from the region, without a rounding error.
    return [
        Region(west, max(south, region.south), min(west + size_deg, region.east), south + size_deg)
        for south in souths
        for west in wests
    ]


def plan_scales(
    region: Region, sizes_deg: Sequence[float] = (), strides_deg: Sequence[float] = ()
) -> tuple[list[Scale], list[str]]:
    """The scales that fit a region, and notes on what differs from the options.

    A size larger than the region is left out; if none fits, windows as large as the region's shorter side
    are used instead.

    Parameters
    ----------
    region : Region
        The region to cover.
    sizes_deg : sequence of float
        Sides of the windows; empty for the paper's four.
    strides_deg : sequence of float
        One per size, one for all, or empty for the default ones.

    Raises
    ------
    OptionError
        The numbers of sizes and strides do not match, a size is given twice, or a stride leaves gaps.
    """
    sizes = list(sizes_deg) or [size for size, _ in PAPER_SCALES_DEG]
    strides = list(strides_deg) or [default_stride_deg(size) for size in sizes]
    if len(strides) == 1:
        strides *= len(sizes)
    if len(strides) != len(sizes):
        raise OptionError(
            f"{len(strides)} strides were given for {len(sizes)} window sizes.",
            "Give one --stride per --window, or one for all.",
        )
    if len({f"{size:.6f}" for size in sizes}) != len(sizes):
        raise OptionError("A window size was given twice.", "Give each --window once.")
    shorter = min(region.width_deg, region.height_deg)
    scales, notes = [], []
    for size, stride in zip(sizes, strides, strict=True):
        if size > shorter + _TOLERANCE_DEG:
            notes.append(f"Windows of {describe_angle(size)} do not fit into {region} and are left out.")
        else:
            scales.append(_scale(region, size, stride))
    if not scales:
        notes[:] = [
            f"No window size fits into {region}: windows of {describe_angle(shorter)}, its shorter side, instead."
        ]
        scales.append(_scale(region, shorter, shorter / 2))
    elif notes and (half := math.floor(shorter / 2)) > max(scale.size_deg for scale in scales):
        notes.append(f"`--window {half}deg` makes windows that show a network more of the surroundings.")
    return scales, notes


def _scale(region: Region, size_deg: float, stride_deg: float) -> Scale:
    _check(region, size_deg, stride_deg)
    rows = len(_starts(region.height_deg, size_deg, stride_deg))
    return Scale(size_deg, stride_deg, rows, len(_starts(region.width_deg, size_deg, stride_deg)))
