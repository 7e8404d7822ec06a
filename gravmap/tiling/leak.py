"""Leak report: how much of the held-out data training sees, measured on the roles of cells and windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.labels import Labels
from gravmap.lattice import BUFFER, COVER, EQUATORIAL_RADIUS_KM, FLATTENING, TEST, TRAIN, TUNE, UNUSABLE
from gravmap.tiling.patches import Patches, covered_patches, make_patches, to_cells
from gravmap.tiling.splits import Split, split_settings
from gravmap.tiling.training_arrays import open_split

_FIRST_TRIES = 2000


def nearest_pair_km(
    one: NDArray[np.bool_], other: NDArray[np.bool_], bounds_wsen: tuple[float, float, float, float]
) -> float | None:
    """Length of the shortest geodesic from the centre of a cell of one set to that of a cell of the other.

    Only cells at the rim of their set can be nearest. They are compared by the straight line through the
    ellipsoid; the result is the geodesic of the nearest pair.

    Parameters
    ----------
    one, other : ndarray, shape (rows, columns), bool
        North-up rasters of the same extent.
    bounds_wsen : tuple of float
        Their outer edges, degrees.

    Returns
    -------
    float or None
        km on WGS 84; 0 when the sets share a cell, None when one is empty.
    """
    if (one & other).any():
        return 0.0
    first, second = _rim(one), _rim(other)
    if not len(first) or not len(second):
        return None
    if len(first) < len(second):
        first, second = second, first
    from pyproj import Geod
    from scipy.spatial import KDTree

    there, here = _degrees(first, one.shape, bounds_wsen), _degrees(second, one.shape, bounds_wsen)
    tree = KDTree(_points_km(there))
    points = _points_km(here)
    # The distance of a few points bounds the search for all others, most of which are far away.
    some = np.linspace(0, len(points) - 1, min(_FIRST_TRIES, len(points))).astype(np.intp)
    bound = float(tree.query(points[some])[0].min())
    away, index = tree.query(points, distance_upper_bound=bound * (1 + 1e-9) + 1e-9)
    nearest = int(np.argmin(away))
    ends = here[nearest], there[index[nearest]]
    _, _, metres = Geod(ellps="WGS84").inv(ends[0][1], ends[0][0], ends[1][1], ends[1][0])
    return float(metres) / 1000


def _rim(cells: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Rows and columns (n, 2) of the cells next to one outside their set, or at the raster's edge."""
    inner = cells.copy()
    inner[1:] &= cells[:-1]
    inner[:-1] &= cells[1:]
    inner[:, 1:] &= cells[:, :-1]
    inner[:, :-1] &= cells[:, 1:]
    inner[[0, -1]] = False
    inner[:, [0, -1]] = False
    return np.argwhere(cells & ~inner)


def _degrees(
    cells: NDArray[np.intp], shape: tuple[int, ...], bounds_wsen: tuple[float, float, float, float]
) -> NDArray[np.float64]:
    """Latitude and longitude (n, 2) of cell centres."""
    west, south, east, north = bounds_wsen
    steps = np.array([(south - north) / shape[0], (east - west) / shape[1]])
    return np.asarray((north, west) + (cells + 0.5) * steps)


def _points_km(lat_lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cartesian coordinates of points on the ellipsoid (n, 3), km."""
    lat, lon = np.radians(lat_lon).T
    e2 = FLATTENING * (2 - FLATTENING)
    radius = EQUATORIAL_RADIUS_KM / np.sqrt(1 - e2 * np.sin(lat) ** 2)
    return np.column_stack(
        [
            radius * np.cos(lat) * np.cos(lon),
            radius * np.cos(lat) * np.sin(lon),
            (1 - e2) * radius * np.sin(lat),
        ]
    )


LEAK_LIMIT = 0.001
"""Above this fraction of the held-out bedrock, `gravmap train` refuses a fold without --allow-leak."""

ROLES = {"train": TRAIN, "tune": TUNE, "test": TEST, "unused": BUFFER}


@dataclass(frozen=True)
class FoldLeak:
    """What training sees of the held-out data of one fold.

    Attributes
    ----------
    fold : int
        Number of the fold.
    held_out_km2 : float
        Area of bedrock in tuning and test data.
    seen_km2 : float
        Part of it whose labels are training labels, too.
    leak : float
        Their ratio, from 0 to 1.
    tune_leak, test_leak : float
        The same for tuning and for test data alone.
    ground_km2 : float
        Held-out area, with or without bedrock.
    gravity_seen : float
        Fraction of that area in training windows: training sees its gravity, if not its labels.
    distance_km : float or None
        Smallest distance from a held-out bedrock cell to a training label, between cell centres on the ellipsoid:
        0 where a cell is both; None when not measured or one of the two is missing.
    class_km2 : dict
        ``train``, ``tune``, ``test`` -> km² per class, in order of the classes.
    absent : dict
        ``train``, ``tune``, ``test`` -> indices of the classes of the map that are missing there.
    windows : dict
        ``train``, ``tune``, ``test``, ``unused`` -> scale (``"5deg"``) -> number of windows.
    """

    fold: int
    held_out_km2: float
    seen_km2: float
    leak: float
    tune_leak: float
    test_leak: float
    ground_km2: float
    gravity_seen: float
    distance_km: float | None
    class_km2: dict[str, list[float]]
    absent: dict[str, list[int]]
    windows: dict[str, dict[str, int]]


@dataclass(frozen=True)
class LeakReport:
    """What training sees of the held-out data of a split, fold by fold.

    Attributes
    ----------
    name, kind : str
        Name of the split, and its kind: ``blocks``, ``strict`` or ``random``.
    described : dict
        Settings of the split: folds, block, buffer, seed.
    classes : list of str
        Names of the classes, class 1 first.
    folds : list of FoldLeak
    """

    name: str
    kind: str
    described: dict[str, Any]
    classes: list[str]
    folds: list[FoldLeak]

    @property
    def leak(self) -> float:
        """Fraction of the held-out bedrock of all folds whose labels training sees."""
        return _fraction(sum(fold.seen_km2 for fold in self.folds), sum(fold.held_out_km2 for fold in self.folds))

    @property
    def distance_km(self) -> float | None:
        """The smallest distance of any fold."""
        found = [fold.distance_km for fold in self.folds if fold.distance_km is not None]
        return min(found, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "split": self.name,
            "kind": self.kind,
            "leak": self.leak,
            "distance_km": self.distance_km,
            **{key: value for key, value in self.described.items() if key not in ("name", "kind", "leak")},
            "classes": self.classes,
            "folds": [asdict(fold) for fold in self.folds],
        }


def leak_report(
    source: Path | str | Mapping[str, Any], split: str | None = None, *, distances: bool = True
) -> LeakReport:
    """Measure how much of the held-out data training sees.

    Parameters
    ----------
    source : Path or mapping
        Folder of a tile set, for all folds of one of its splits; or the arrays of one fold
        (:func:`gravmap.tiling.load_arrays`).
    split : str, optional
        Which split of the folder; default ``blocks``. Not for arrays, which are of one split.
    distances : bool
        Also search for the nearest pair of a held-out and a training cell, which takes most of the time.

    Raises
    ------
    InputError
        No tile set there, no such split, or its sources have changed.

    Examples
    --------
    >>> from gravmap.tiling import leak_report
    >>> report = leak_report("data/tiles", "blocks")
    >>> report.leak, len(report.folds)
    (0.0, 5)
    >>> leak_report("data/tiles", "random").leak > 0.5
    True
    """
    if not isinstance(source, Mapping):
        stored, drawn, raster, boxes = open_split(Path(source), split or "blocks")
        classes = [entry.name for entry in raster.legend.bedrock]
        return report_split(
            drawn,
            raster.values,
            raster.bounds_wsen,
            boxes,
            classes,
            described=split_settings(stored),
            distances=distances,
        )
    settings = dict(source["meta"].get("split", {}))
    classes = [str(entry["name"]) for entry in source["meta"]["classes"]]
    (fold,) = measure(
        source["labels"],
        tuple(source["label_bounds_wsen"]),
        source["windows"],
        [source["role"]],
        [source["window_role"]],
        len(classes),
        distances=distances,
        numbers=[int(settings.get("fold", 0))],
    )
    name = str(settings.get("name", split or "blocks"))
    return LeakReport(name, str(settings.get("kind", name)), settings, classes, [fold])


def report_split(
    split: Split,
    labels: NDArray[np.uint8],
    bounds_wsen: tuple[float, float, float, float],
    boxes_wsen: NDArray[np.float64],
    classes: list[str],
    *,
    described: dict[str, Any] | None = None,
    distances: bool = False,
) -> LeakReport:
    """The leak report of a split that is not in a tile set yet; arguments as in :func:`measure`."""
    roles = [split.roles(fold, labels.shape, bounds_wsen) for fold in range(split.folds)]
    window_roles = [split.window_roles(fold, boxes_wsen) for fold in range(split.folds)]
    folds = measure(labels, bounds_wsen, boxes_wsen, roles, window_roles, len(classes), distances=distances)
    return LeakReport(split.name, split.kind, described or split_settings(split.to_dict()), classes, folds)


def measure(
    labels: NDArray[np.uint8],
    bounds_wsen: tuple[float, float, float, float],
    boxes_wsen: NDArray[np.float64],
    roles: list[NDArray[np.uint8]],
    window_roles: list[NDArray[np.uint8]],
    classes: int,
    *,
    distances: bool = True,
    numbers: list[int] | None = None,
) -> list[FoldLeak]:
    """Measure the leak of folds whose roles are given.

    Parameters
    ----------
    labels : ndarray, shape (rows, columns), uint8
        North-up; 0 cover, 1 .. `classes` bedrock, 255 not usable.
    bounds_wsen : tuple of float
        Their outer edges, degrees.
    boxes_wsen : ndarray, shape (n, 4), float64
        The windows, degrees.
    roles : list of ndarray, shape (rows, columns), uint8
        Role of every cell, per fold.
    window_roles : list of ndarray, shape (n,), uint8
        Role of every window, per fold.
    classes : int
        Number of bedrock classes.
    distances : bool
        Whether to search for the nearest pairs.
    numbers : list of int, optional
        Numbers of the folds; default 0, 1, 2, ...
    """
    patches = make_patches(labels, bounds_wsen, boxes_wsen, roles, classes)
    return [
        _measure_fold(number, patches, place, windows, labels if distances else None, boxes_wsen, classes)
        for place, windows, number in zip(range(len(roles)), window_roles, numbers or range(len(roles)), strict=False)
    ]


def _measure_fold(
    number: int,
    patches: Patches,
    place: int,
    window_role: NDArray[np.uint8],
    labels: NDArray[np.uint8] | None,
    boxes_wsen: NDArray[np.float64],
    classes: int,
) -> FoldLeak:
    cell_role, area = patches.roles[place], patches.class_km2  # (R, C), (R, C, 2 + classes)
    bedrock, everything = area[:, :, 1 : classes + 1].sum(axis=-1), area.sum(axis=-1)
    # No crops are drawn from a window without a training label.
    training = (window_role == TRAIN) & patches.any_inside((cell_role == TRAIN) & (bedrock > 0))
    in_training = covered_patches(patches.shape, patches.touched[training])
    visible = in_training & (cell_role == TRAIN)
    held_out = held_out_roles(patches, place, window_role)
    out = (held_out == TUNE) | (held_out == TEST)
    masks = {"train": visible, "tune": held_out == TUNE, "test": held_out == TEST}
    class_km2 = {role: area[mask][:, 1 : classes + 1].sum(axis=0) for role, mask in masks.items()}
    mapped = area[:, :, 1 : classes + 1].sum(axis=(0, 1)) > 0
    distance = None
    if labels is not None:
        seen_cells = to_cells(patches, visible & (bedrock > 0))
        held_out_cells = to_cells(patches, out & (bedrock > 0))
        rock = (labels > COVER) & (labels < UNUSABLE)
        distance = nearest_pair_km(seen_cells & rock, held_out_cells & rock, patches.bounds_wsen)
    sides = [f"{side:g}deg" for side in np.round(boxes_wsen[:, 3] - boxes_wsen[:, 1], 6)]
    used = np.where((window_role == TRAIN) & ~training, BUFFER, window_role)
    names = sorted(set(sides), key=lambda side: float(side[:-3]))
    return FoldLeak(
        fold=number,
        held_out_km2=float(bedrock[out].sum()),
        seen_km2=float(bedrock[out & visible].sum()),
        leak=_fraction(bedrock[out & visible].sum(), bedrock[out].sum()),
        tune_leak=_fraction(bedrock[masks["tune"] & visible].sum(), bedrock[masks["tune"]].sum()),
        test_leak=_fraction(bedrock[masks["test"] & visible].sum(), bedrock[masks["test"]].sum()),
        ground_km2=float(everything[out].sum()),
        gravity_seen=_fraction(everything[out & in_training].sum(), everything[out].sum()),
        distance_km=distance,
        class_km2={role: [round(float(km2), 3) for km2 in found] for role, found in class_km2.items()},
        absent={role: (np.flatnonzero(mapped & (found == 0)) + 1).tolist() for role, found in class_km2.items()},
        windows={
            role: {
                name: sum(side == name for side, kept in zip(sides, used == value, strict=True) if kept)
                for name in names
            }
            for role, value in ROLES.items()
        },
    )


def held_out_roles(patches: Patches, place: int, window_role: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Role of each patch in one fold, (R, C): of its cells, or that of a held-out window over it."""
    roles = patches.roles[place].copy()
    for role in (TUNE, TEST):
        roles[covered_patches(patches.shape, patches.centred[window_role == role])] = role
    return roles


def _fraction(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0


def check_folds(report: LeakReport) -> None:
    """Refuse a split with a fold without bedrock to train or to test on.

    Raises
    ------
    InputError
        There is such a fold.
    """
    for fold in report.folds:
        for role, purpose in (("train", "train on"), ("test", "test on")):
            if not sum(fold.class_km2[role]):
                raise InputError(
                    f"Fold {fold.fold} of the split {report.name} has no bedrock to {purpose}.",
                    "Choose another --block, --buffer, --folds or --seed, or use a map with more bedrock.",
                )


def describe_split(drawn: Split, raster: Labels, boxes_wsen: NDArray[np.float64]) -> dict[str, Any]:
    """The entry of a split in ``index.json``: how to make it again, and how much it leaks.

    Raises
    ------
    InputError
        A fold has no bedrock to train on, or none to test on.
    """
    classes = [entry.name for entry in raster.legend.bedrock]
    report = report_split(drawn, raster.values, raster.bounds_wsen, boxes_wsen, classes)
    check_folds(report)
    return {**drawn.to_dict(), **measured(report)}


def measured(report: LeakReport) -> dict[str, Any]:
    """The part of a report that is stored in an index."""
    return {
        "leak": report.leak,
        "leak_of_fold": [fold.leak for fold in report.folds],
        "training_windows": [fold.windows["train"] for fold in report.folds],
    }
