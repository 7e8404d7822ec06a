"""The null models on an area: what the same labels give without any network, on the nodes a run is scored on.

Each knows the labels that training sees, no more and no less; under a split by random windows that includes nearly
all it is scored on, as it does for the network.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError, OptionError
from gravmap.lattice import TEST, TRAIN, TUNE, UNUSABLE
from gravmap.learning.data.dataset import RegionDataset, to_target
from gravmap.learning.data.local_statistics import local_statistics
from gravmap.learning.data.outcrop_context import without_context
from gravmap.learning.evaluation import baselines
from gravmap.learning.evaluation.metrics import confusion, scores

Labels = NDArray[np.uint8]

MOST_NODES = 3_000_000
"""Beyond it label diffusion takes gigabytes (about 1.3 kB for each node under cover), and is left out."""


@dataclass(frozen=True)
class NullModel:
    """A way to name classes without a network.

    Attributes
    ----------
    title : str
        Its name in a table.
    told : str
        The same as a part of a sentence: "... names 40 % right".
    diffuses : bool
        Solves one large system of equations.
    learns : bool
        Needs scikit-learn, of the extra ``peers``.
    """

    title: str
    told: str
    diffuses: bool = False
    learns: bool = False


NULL_MODELS = {
    "majority": NullModel("majority class", "naming the commonest class everywhere"),
    "nearest_outcrop": NullModel("nearest outcrop, no gravity", "taking the class of the nearest outcrop"),
    "label_diffusion": NullModel(
        "label diffusion, no gravity", "letting classes spread out from the outcrop", diffuses=True
    ),
    "label_diffusion_gravity": NullModel(
        "label diffusion guided by gravity",
        "letting classes spread out from the outcrop where gravity is even",
        diffuses=True,
    ),
    "location_forest": NullModel(
        "random forest, position only", "a random forest that knows the place alone", learns=True
    ),
    "gravity_forest": NullModel("random forest, gravity only", "a random forest on gravity alone", learns=True),
    "gravity_boosting": NullModel("gradient boosting, gravity only", "boosted trees on gravity alone", learns=True),
    "nearest_in_gravity": NullModel("nearest in gravity, no position", "taking what looks alike in gravity"),
    "topography_forest": NullModel(
        "random forest, topography only", "a random forest on topography alone", learns=True
    ),
}
"""Every null model under the name that files and options know it by, in the order of tables."""

QUICK = ("majority", "nearest_outcrop", "label_diffusion", "label_diffusion_gravity", "nearest_in_gravity")
"""Those that take seconds and need nothing but gravmap: what the demo and a map's report show."""


def known_labels(area: RegionDataset) -> Labels:
    """The classes at nodes that training sees: 1..K there, 0 elsewhere; shape (ny, nx)."""
    labels, _ = area.node_truth()
    return np.where(_bedrock(labels) & seen_in_training(area), labels, 0).astype(np.uint8)


def seen_in_training(area: RegionDataset) -> NDArray[np.bool_]:
    """Nodes whose label training sees: in cells to learn from, inside a training window; shape (ny, nx)."""
    lat, lon = area.node_lat, area.node_lon
    rows, columns = area.label_rows(lat), area.label_columns(lon)
    inside = (rows >= 0)[:, None] & (columns >= 0)[None, :]
    to_learn = inside & (area.role[rows[:, None], columns[None, :]] == TRAIN)
    covered = np.zeros(to_learn.shape, bool)
    for west, south, east, north in area.windows[area.window_role == TRAIN]:
        covered[np.ix_((lat >= south) & (lat <= north), (lon >= west) & (lon <= east))] = True
    return np.asarray(to_learn & covered)


def labelled(area: RegionDataset, role: int = TEST) -> NDArray[np.bool_]:
    """Nodes of one role whose bedrock is mapped; shape (ny, nx)."""
    labels, roles = area.node_truth()
    found: NDArray[np.bool_] = _bedrock(labels) & (roles == role)
    return found


def held_out(area: RegionDataset, role: int = TEST) -> NDArray[np.bool_]:
    """As :func:`labelled`, where something must be there to be scored.

    Raises
    ------
    InputError
        There is none.
    """
    counted = labelled(area, role)
    if not counted.any():
        blocks = "tuning" if role == TUNE else "test"
        raise InputError(
            f"No bedrock is mapped in the {blocks} blocks, so nothing can be scored there.",
            "Choose another --fold when training.",
        )
    return counted


def left_out(area: RegionDataset, topography: NDArray[np.floating] | None = None) -> dict[str, str]:
    """Null models that cannot be made here, each with the reason in words.

    Parameters
    ----------
    area : RegionDataset
        What a network was taught on.
    topography : (ny, nx) float, optional
        Heights at the area's nodes.
    """
    reasons = {}
    learns = importlib.util.find_spec("sklearn") is not None
    for key, model in NULL_MODELS.items():
        if key == "topography_forest" and topography is None:
            reasons[key] = "no grid of topography is given"
        elif model.learns and not learns:
            reasons[key] = 'scikit-learn is not installed: pip install "gravmap[peers]"'
        elif model.diffuses and area.field_valid.size > MOST_NODES:
            reasons[key] = f"{area.field_valid.size} nodes are too many for its memory (at most {MOST_NODES})"
    return reasons


def null_maps(
    area: RegionDataset,
    role: int | None = TEST,
    *,
    seed: int = 0,
    which: Sequence[str] | None = None,
    topography: NDArray[np.floating] | None = None,
) -> dict[str, Labels]:
    """The maps of the null models, from the labels that training sees.

    Parameters
    ----------
    area : RegionDataset
        What a network was taught on; gravity-only models see its fields, but not outcrop as context.
    role : int or None
        TUNE or TEST: bedrock of that role must be there to score the maps on. None asks for nothing.
    seed : int
        Of forests and boosted trees.
    which : sequence of str, optional
        Keys of :data:`NULL_MODELS`; by default all that can be made here. Those that cannot are missing from the
        result, and :func:`left_out` says why.
    topography : (ny, nx) float, optional
        Heights at the area's nodes, m; NaN where unknown.

    Returns
    -------
    dict of str to (ny, nx) uint8 array
        Key to classes 1..K at the area's nodes, north up.

    Raises
    ------
    InputError
        Nothing is known, nothing is held out, or the topography lies on other nodes.
    OptionError
        No such null model.
    """
    if role is not None:
        held_out(area, role)
    unknown = [key for key in which or () if key not in NULL_MODELS]
    if unknown:
        raise OptionError(f"There is no null model {', '.join(unknown)}.", f"There are {', '.join(NULL_MODELS)}.")
    if topography is not None and topography.shape != area.field_valid.shape:
        raise InputError(
            f"The topography has {topography.shape} nodes, the gravity {area.field_valid.shape}.",
            "Bring it onto the nodes of the gravity grid.",
        )
    area = without_context(area)
    missing = left_out(area, topography)
    wanted = [key for key in NULL_MODELS if (which is None or key in which) and key not in missing]
    makers = _Makers(area, known_labels(area), seed, topography)
    return {key: getattr(makers, key)() for key in wanted}


def null_scores(
    area: RegionDataset, role: int = TEST, *, seed: int = 0, which: Sequence[str] | None = QUICK
) -> dict[str, dict[str, Any]]:
    """Scores of the null models on the nodes of one role.

    Parameters
    ----------
    area, role, seed, which
        As in :func:`null_maps`.

    Returns
    -------
    dict of str to dict
        Key of :data:`NULL_MODELS` to scores (:func:`gravmap.learning.evaluation.metrics.scores`).

    Raises
    ------
    InputError
        Nothing is known, or nothing is held out.
    """
    counted = held_out(area, role)
    names = [str(entry["name"]) for entry in area.classes]
    truth = to_target(area.node_truth()[0][counted])
    maps = null_maps(area, role, seed=seed, which=which)
    return {
        key: scores(confusion(truth, to_target(values[counted]), len(names)), names) for key, values in maps.items()
    }


@dataclass(frozen=True)
class _Makers:
    """One method for each key of :data:`NULL_MODELS`."""

    area: RegionDataset
    known: Labels
    seed: int
    topography: NDArray[np.floating] | None

    @property
    def spacing(self) -> tuple[float, float]:
        return baselines.spacing_yx_km(self.area.node_lat, self.area.node_lon)

    @property
    def gravity(self) -> NDArray[np.float64]:
        """What trees read: every field with its slope, mean and spread around."""
        valid = self.area.field_valid
        means = self.area.fields[:, valid].mean(axis=1)[:, None, None]
        return self.around(np.where(valid, self.area.fields - means, np.nan))

    def around(self, fields: NDArray[np.floating]) -> NDArray[np.float64]:
        return local_statistics(fields, self.area.node_lat, self.area.node_lon)

    def majority(self) -> Labels:
        return baselines.majority(self.known)

    def nearest_outcrop(self) -> Labels:
        return baselines.nearest_outcrop(self.known, self.area.node_lat, self.area.node_lon)

    def label_diffusion(self) -> Labels:
        return baselines.label_diffusion(self.known, self.spacing)

    def label_diffusion_gravity(self) -> Labels:
        return baselines.label_diffusion(self.known, self.spacing, self.area.fields)

    def nearest_in_gravity(self) -> Labels:
        return baselines.nearest_in_feature_space(self.known, self.area.fields, self.spacing)

    def location_forest(self) -> Labels:
        return baselines.random_forest(
            self.known, np.stack(np.meshgrid(self.area.node_lat, self.area.node_lon, indexing="ij")), self.seed
        )

    def gravity_forest(self) -> Labels:
        return baselines.random_forest(self.known, self.gravity, self.seed)

    def gravity_boosting(self) -> Labels:
        return baselines.boosted_trees(self.known, self.gravity, self.seed)

    def topography_forest(self) -> Labels:
        assert self.topography is not None
        heights = np.asarray(self.topography, np.float64)
        return baselines.random_forest(self.known, self.around((heights - np.nanmean(heights))[None]), self.seed)


def _bedrock(labels: Labels) -> NDArray[np.bool_]:
    return np.asarray((labels > 0) & (labels != UNUSABLE))
