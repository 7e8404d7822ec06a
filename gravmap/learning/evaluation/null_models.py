"""Null models of a dataset: predictions from the training labels without a network, at the nodes a run is scored on.

Every null model uses exactly the labels that training uses. Under a split by random windows these include most of the
nodes that are scored, as they do for the network.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError, OptionError
from gravmap.lattice import TEST, TUNE, spacing_yx_km
from gravmap.learning.data.dataset import RegionDataset, is_bedrock, known_labels, to_target
from gravmap.learning.data.local_statistics import local_statistics
from gravmap.learning.data.outcrop_context import without_context
from gravmap.learning.evaluation import baselines
from gravmap.learning.evaluation.metrics import confusion, scores

Labels = NDArray[np.uint8]

MAX_DIFFUSION_NODES = 3_000_000
"""Label diffusion needs about 1.3 kB per node under cover; larger grids are left out."""


@dataclass(frozen=True)
class NullModel:
    """A prediction of classes without a network.

    Attributes
    ----------
    title : str
        Its name in a table.
    phrase : str
        The same as part of a sentence: "... predicts 40 % correctly".
    solves_diffusion : bool
        Solves one large sparse linear system.
    needs_sklearn : bool
        Needs scikit-learn, from the extra ``peers``.
    """

    title: str
    phrase: str
    solves_diffusion: bool = False
    needs_sklearn: bool = False


NULL_MODELS = {
    "majority": NullModel("majority class", "predicting the most frequent class everywhere"),
    "nearest_outcrop": NullModel("nearest outcrop, no gravity", "taking the class of the nearest outcrop"),
    "label_diffusion": NullModel(
        "label diffusion, no gravity", "diffusing classes from the outcrop", solves_diffusion=True
    ),
    "label_diffusion_gravity": NullModel(
        "label diffusion guided by gravity",
        "diffusing classes from the outcrop, slower across gravity gradients",
        solves_diffusion=True,
    ),
    "location_forest": NullModel(
        "random forest, position only", "a random forest on position alone", needs_sklearn=True
    ),
    "gravity_forest": NullModel(
        "random forest, fields only", "a random forest on the fields alone", needs_sklearn=True
    ),
    "gravity_boosting": NullModel(
        "gradient boosting, fields only", "boosted trees on the fields alone", needs_sklearn=True
    ),
    "nearest_in_gravity": NullModel("nearest in gravity, no position", "taking the class of the most similar gravity"),
    "topography_forest": NullModel(
        "random forest, topography only", "a random forest on topography alone", needs_sklearn=True
    ),
}
"""Every null model by the key used in files and options, in the order of tables."""

QUICK = ("majority", "nearest_outcrop", "label_diffusion", "label_diffusion_gravity", "nearest_in_gravity")
"""Null models that take seconds and need no extra package: those of the demo and of a map's report."""


def labelled_mask(dataset: RegionDataset, role: int = TEST) -> NDArray[np.bool_]:
    """Nodes of one role whose bedrock is mapped; shape (ny, nx)."""
    labels, roles = dataset.node_truth()
    found: NDArray[np.bool_] = is_bedrock(labels) & (roles == role)
    return found


def held_out_mask(dataset: RegionDataset, role: int = TEST) -> NDArray[np.bool_]:
    """As :func:`labelled_mask`, for use where at least one node must be scored.

    Raises
    ------
    InputError
        There is no such node.
    """
    counted = labelled_mask(dataset, role)
    if not counted.any():
        blocks = "tuning" if role == TUNE else "test"
        raise InputError(
            f"No bedrock is mapped in the {blocks} blocks: there is nothing to score.",
            "Choose another --fold when training.",
        )
    return counted


def unavailable_null_models(dataset: RegionDataset, topography: NDArray[np.floating] | None = None) -> dict[str, str]:
    """Null models that cannot be computed for a dataset, with the reason.

    Parameters
    ----------
    dataset : RegionDataset
        The dataset that a network was trained on.
    topography : (ny, nx) float, optional
        Heights at the dataset's nodes.

    Returns
    -------
    dict of str to str
        Key of :data:`NULL_MODELS` to the reason.
    """
    reasons = {}
    has_sklearn = importlib.util.find_spec("sklearn") is not None
    for key, model in NULL_MODELS.items():
        if key == "topography_forest" and topography is None:
            reasons[key] = "no grid of topography was given"
        elif model.needs_sklearn and not has_sklearn:
            reasons[key] = 'scikit-learn is not installed: pip install "gravmap[peers]"'
        elif model.solves_diffusion and dataset.field_valid.size > MAX_DIFFUSION_NODES:
            reasons[key] = (
                f"{dataset.field_valid.size} nodes are too many for its memory (at most {MAX_DIFFUSION_NODES})"
            )
    return reasons


def null_maps(
    dataset: RegionDataset,
    role: int | None = TEST,
    *,
    seed: int = 0,
    which: Sequence[str] | None = None,
    topography: NDArray[np.floating] | None = None,
) -> dict[str, Labels]:
    """Class maps of the null models, computed from the training labels.

    Parameters
    ----------
    dataset : RegionDataset
        The dataset that a network was trained on. Models on gravity use its fields, layers included, but not the
        outcrop context.
    role : int or None
        TUNE or TEST: raise an error if no bedrock of that role is mapped. None: no such check.
    seed : int
        Random seed of forests and boosted trees.
    which : sequence of str, optional
        Keys of :data:`NULL_MODELS`; by default all that are available. Those that are not are missing from the result;
        see :func:`unavailable_null_models`.
    topography : (ny, nx) float, optional
        Heights at the dataset's nodes, m; NaN where unknown.

    Returns
    -------
    dict of str to (ny, nx) uint8 array
        Key to classes 1..K at the dataset's nodes, north up.

    Raises
    ------
    InputError
        No label is known, no node is held out, or the topography has another shape.
    OptionError
        Unknown null model.

    Examples
    --------
    On a tile set in ``data/tiles``:

    >>> from pathlib import Path
    >>> from gravmap.learning import RegionDataset, null_maps
    >>> from gravmap.tiling import load_arrays
    >>> dataset = RegionDataset.from_arrays(load_arrays(Path("data/tiles")))
    >>> maps = null_maps(dataset, which=["majority", "nearest_outcrop"])
    >>> {name: classes.shape == dataset.field_valid.shape for name, classes in maps.items()}
    {'majority': True, 'nearest_outcrop': True}
    """
    if role is not None:
        held_out_mask(dataset, role)
    unknown = [key for key in which or () if key not in NULL_MODELS]
    if unknown:
        raise OptionError(f"Unknown null model {', '.join(unknown)}.", f"Choose from {', '.join(NULL_MODELS)}.")
    if topography is not None and topography.shape != dataset.field_valid.shape:
        raise InputError(
            f"The topography has {topography.shape} nodes, the gravity {dataset.field_valid.shape}.",
            "Resample it to the nodes of the gravity grid.",
        )
    dataset = without_context(dataset)
    unavailable = unavailable_null_models(dataset, topography)
    wanted = [key for key in NULL_MODELS if (which is None or key in which) and key not in unavailable]
    maps = _NullMaps(dataset, known_labels(dataset), seed, topography)
    return {key: getattr(maps, key)() for key in wanted}


def null_scores(
    dataset: RegionDataset, role: int = TEST, *, seed: int = 0, which: Sequence[str] | None = QUICK
) -> dict[str, dict[str, Any]]:
    """Scores of the null models at the nodes of one role.

    Parameters
    ----------
    dataset, role, seed, which
        As in :func:`null_maps`.

    Returns
    -------
    dict of str to dict
        Key of :data:`NULL_MODELS` to scores (:func:`gravmap.learning.evaluation.metrics.scores`).

    Raises
    ------
    InputError
        No label is known, or no node is held out.
    """
    counted = held_out_mask(dataset, role)
    names = [str(entry["name"]) for entry in dataset.classes]
    truth = to_target(dataset.node_truth()[0][counted])
    maps = null_maps(dataset, role, seed=seed, which=which)
    return {
        key: scores(confusion(truth, to_target(values[counted]), len(names)), names) for key, values in maps.items()
    }


@dataclass(frozen=True)
class _NullMaps:
    """One method for each key of :data:`NULL_MODELS`."""

    dataset: RegionDataset
    known: Labels
    seed: int
    topography: NDArray[np.floating] | None

    @property
    def spacing(self) -> tuple[float, float]:
        return spacing_yx_km(self.dataset.node_lat, self.dataset.node_lon)

    @property
    def gravity(self) -> NDArray[np.float64]:
        """Features of the trees: local statistics of every field."""
        valid = self.dataset.field_valid
        fields = self.dataset.filled_fields()
        means = fields[:, valid].mean(axis=1)[:, None, None]
        return self.local_features(np.where(valid, fields - means, np.nan))

    def local_features(self, fields: NDArray[np.floating]) -> NDArray[np.float64]:
        return local_statistics(fields, self.dataset.node_lat, self.dataset.node_lon)

    def majority(self) -> Labels:
        return baselines.majority(self.known)

    def nearest_outcrop(self) -> Labels:
        return baselines.nearest_outcrop(self.known, self.dataset.node_lat, self.dataset.node_lon)

    def label_diffusion(self) -> Labels:
        return baselines.label_diffusion(self.known, self.spacing)

    def label_diffusion_gravity(self) -> Labels:
        return baselines.label_diffusion(self.known, self.spacing, self.dataset.filled_fields())

    def nearest_in_gravity(self) -> Labels:
        return baselines.nearest_in_feature_space(self.known, self.dataset.filled_fields(), self.spacing)

    def location_forest(self) -> Labels:
        return baselines.random_forest(
            self.known, np.stack(np.meshgrid(self.dataset.node_lat, self.dataset.node_lon, indexing="ij")), self.seed
        )

    def gravity_forest(self) -> Labels:
        return baselines.random_forest(self.known, self.gravity, self.seed)

    def gravity_boosting(self) -> Labels:
        return baselines.boosted_trees(self.known, self.gravity, self.seed)

    def topography_forest(self) -> Labels:
        assert self.topography is not None
        heights = np.asarray(self.topography, np.float64)
        return baselines.random_forest(
            self.known, self.local_features((heights - np.nanmean(heights))[None]), self.seed
        )
