"""All kinds of split: made for labels and windows, stored in an index, and read again."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NotRequired, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from gravmap.errors import InputError, OptionError
from gravmap.lattice import COVER, UNUSABLE
from gravmap.records import Bounds, Count, Ge, Le, Pair, record
from gravmap.regions import Region
from gravmap.tiling.blocks import BUFFER_DEG, FOLDS, BlockSplit, split_blocks
from gravmap.tiling.label_statistics import count_classes
from gravmap.tiling.random_split import RandomSplit, split_random
from gravmap.tiling.strict_split import StrictSplit, split_strict

log = logging.getLogger(__name__)

KINDS: dict[str, type[BlockSplit] | type[RandomSplit]] = {
    "blocks": BlockSplit,
    "random": RandomSplit,
    "strict": StrictSplit,
}
# Assignments of blocks and windows: long lists that are not needed beside the roles.
ASSIGNMENTS = ("fold_of_block", "tuning_blocks", "roles_of_window")


_ANEW = "`gravmap tile --overwrite` makes the tile set again."


@record
class StoredSplit(TypedDict):
    """Entry of a split in ``index.json``: its settings, the assignment of its kind, and what its leak report found."""

    name: str
    kind: str
    folds: Annotated[int, Ge(1), Le(1000)]
    seed: int
    block_deg: NotRequired[Pair]
    buffer_deg: NotRequired[Annotated[float, Ge(0)]]
    region_wsen: NotRequired[Bounds]
    fold_of_block: NotRequired[list[list[int]]]
    tuning_blocks: NotRequired[list[list[Count]]]
    share: NotRequired[float]
    roles_of_window: NotRequired[list[str]]
    leak: float
    leak_of_fold: list[float]
    training_windows: list[dict[str, int]]


class Split(Protocol):
    """Interface of a split: the roles of cells and of windows in each of its folds."""

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Name in the tile set."""

    @property
    def folds(self) -> int:
        """Number of folds."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings: what differs from the options given."""

    def roles(
        self, fold: int, shape: tuple[int, int], bounds_wsen: tuple[float, float, float, float]
    ) -> NDArray[np.uint8]:
        """The role of every cell of a raster (0 train, 1 tune, 2 test, 3 ignored), north-up."""

    def window_roles(self, fold: int, boxes_wsen: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The role of every window (0 train, 1 tune, 2 test, 3 not used)."""

    def columns(self, boxes_wsen: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """Columns of ``index.parquet``."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description, from which :func:`read_split` makes the split again."""


def split(
    labels: NDArray[np.uint8],
    bounds_wsen: tuple[float, float, float, float],
    windows: Sequence[Region] | NDArray[np.float64],
    kind: str = "blocks",
    *,
    region: Region | None = None,
    folds: int = FOLDS,
    block_deg: float | None = None,
    buffer_deg: float = BUFFER_DEG,
    seed: int = 0,
    name: str | None = None,
) -> Split:
    """Split a label raster and its windows into training, tuning and test data.

    Parameters
    ----------
    labels : ndarray, shape (rows, columns), uint8
        North-up; 0 cover, 1, 2, ... bedrock, 255 not usable.
    bounds_wsen : tuple of float
        Outer edges of the labels, degrees.
    windows : sequence of Region, or ndarray of shape (n, 4)
        The windows; as numbers west, south, east, north, degrees.
    kind : str
        ``blocks`` (labels of held-out blocks are hidden), ``strict`` (windows that touch such a block are not used)
        or ``random`` (the paper's, which leaks).
    region : Region, optional
        Divided into blocks; by default the extent of the windows.
    folds : int
        At least 3.
    block_deg, buffer_deg : float
        Side of a block and width of the buffer around it, degrees; not for ``random``.
    seed : int
        Seed of the assignment.
    name : str, optional
        Name of the split; default its kind.

    Returns
    -------
    Split
        ``.roles(fold, shape, bounds_wsen)`` gives the role of every cell of a raster and
        ``.window_roles(fold, windows)`` that of every window: 0 train, 1 tune, 2 test, 3 not used.

    Raises
    ------
    OptionError
        Unknown kind, or invalid options.
    InputError
        Labels and windows do not overlap, or hold too little bedrock.

    Examples
    --------
    >>> import numpy as np
    >>> from gravmap.regions import Region
    >>> from gravmap.tiling.splits import split
    >>> from gravmap.tiling.windows import windows
    >>> region = Region(80, 42, 90, 47)
    >>> labels = np.random.default_rng(0).integers(1, 4, (100, 200)).astype(np.uint8)
    >>> drawn = split(labels, region.bounds_wsen, windows(region, 5, 2.5), "blocks", folds=3, block_deg=2.5)
    >>> roles = drawn.roles(0, labels.shape, region.bounds_wsen)
    >>> [int((roles == role).sum()) > 0 for role in (0, 1, 2)]  # train, tune, test
    [True, True, True]
    """
    check_kinds([kind])
    boxes = np.array([w.bounds_wsen if isinstance(w, Region) else tuple(w) for w in windows], dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise OptionError("No windows to split.", "Give Regions, or rows of west, south, east, north.")
    if region is None:
        region = Region(*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    if region.intersection(Region(*bounds_wsen)) is None:
        raise InputError(
            f"The windows lie in {region} and the labels in {Region(*bounds_wsen)}: they do not overlap.",
            "Make labels for the region of the windows.",
        )
    rest: dict[str, Any] = {"folds": folds, "seed": seed, "name": name or kind}
    if kind == "random":
        return split_random(outcrop_fractions(labels, bounds_wsen, boxes), **rest)
    rest |= {"block_deg": block_deg, "buffer_deg": buffer_deg}
    if kind == "strict":
        return split_strict(labels, bounds_wsen, region, boxes, **rest)
    return split_blocks(labels, bounds_wsen, region, **rest)


def outcrop_fractions(
    labels: NDArray[np.uint8], bounds_wsen: tuple[float, float, float, float], boxes_wsen: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fraction of each window's cells that are bedrock, shape (n,)."""
    west, south, east, north = bounds_wsen
    cell_deg2 = (east - west) * (north - south) / labels.size
    cells = (boxes_wsen[:, 2] - boxes_wsen[:, 0]) * (boxes_wsen[:, 3] - boxes_wsen[:, 1]) / cell_deg2
    bedrock = count_classes(labels, bounds_wsen, boxes_wsen)[:, COVER + 1 : UNUSABLE].sum(axis=1)
    return np.asarray(np.minimum(bedrock / cells, 1.0), dtype=np.float64)


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse unknown kinds of splits."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise OptionError(f"Unknown kind of split: {', '.join(unknown)}.", f"Use {', '.join(KINDS)}.")


def check_name(name: str) -> None:
    """Refuse a name that cannot be part of file and column names."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", name):
        raise OptionError(f"{name!r} is not a valid name of a split.", "Use up to 40 letters, digits, -, _ and dots.")


def split_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a stored split, without its assignment of blocks or windows."""
    return {key: value for key, value in stored.items() if key not in ASSIGNMENTS}


def read_split(stored: StoredSplit) -> Split:
    """Make the split that an index describes.

    Raises
    ------
    InputError
        Of a kind that this version does not support, or with an assignment that does not fit its settings.
    """
    name, kind = stored["name"], stored["kind"]
    if kind not in KINDS:
        raise InputError(f"The split {name!r} is of an unknown kind: {kind!r}.", _ANEW)
    try:
        check_name(name)  # it becomes part of names of files and columns
        if kind != RandomSplit.kind and "block_deg" not in stored:  # needed where splits are listed
            raise KeyError("block_deg")
        made = KINDS[kind].from_dict(stored)
        if made.folds != stored["folds"]:
            raise ValueError(f"it has roles for {made.folds} of {stored['folds']} folds")
    except KeyError as error:
        raise InputError(f"The split {name!r} has no {error.args[0]!r} in index.json.", _ANEW) from None
    except (ValueError, OverflowError, OptionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"The split {name!r} in index.json is damaged: {reason}.", _ANEW) from None
    return made


def draw_splits(
    kinds: Sequence[str],
    labels: NDArray[np.uint8],
    bounds_wsen: tuple[float, float, float, float],
    region: Region,
    boxes_wsen: NDArray[np.float64],
    **options: Any,
) -> tuple[list[Split], list[str]]:
    """The splits of a new tile set, and notes about them.

    Parameters
    ----------
    kinds : sequence of str
        Kinds to make; if empty, every kind that is possible for the region (``blocks`` always).
    labels, bounds_wsen, region, boxes_wsen
        As in :func:`split`.
    **options
        ``folds``, ``block_deg``, ``buffer_deg``, ``seed``.
    """
    check_kinds(kinds)
    drawn: list[Split] = []
    notes: list[str] = []
    for kind in dict.fromkeys(kinds or KINDS):
        try:
            drawn.append(split(labels, bounds_wsen, boxes_wsen, kind, region=region, **options))
        except InputError as error:
            # A kind that was not requested does not fail the tile set; it can be added later.
            if kinds or kind == "blocks":
                raise
            notes.append(f"Left out the split {kind}. {error.message}")
        else:
            notes += [f"Split {kind}: {note}" for note in drawn[-1].notes]
    return drawn, notes
