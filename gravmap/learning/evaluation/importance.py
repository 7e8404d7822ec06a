"""Importance of each input field to a network: the loss of score when that field is shifted.

Noise at single nodes would be a field unlike any that a network has seen. Instead a field is shifted within the same
dataset, by a large part of its length with reflection at the edges: it keeps its spectrum, its values and its
smoothness, but no longer corresponds to the geology below (shifted-input control, a form of permutation importance).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.lattice import TEST, mask_name
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import RegionDataset, to_target
from gravmap.learning.data.outcrop_context import is_context
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.node_predictor import NodePredictor
from gravmap.learning.evaluation.null_models import held_out_mask
from gravmap.progress import Progress, silent

MEASURES = ("pa", "mpa", "fwiou")
ALL = "all fields"
DRAWS = 5
OUTCROP = "mapped outcrop"


@dataclass(frozen=True)
class Importance:
    """Loss of score when one field is shifted.

    Attributes
    ----------
    field : str
        Its name; :data:`ALL` for all measured fields shifted together, :data:`OUTCROP` for those of the outcrop
        context.
    scores : dict of str to float
        Mean over the shifts: pa, mpa, fwiou.
    loss : dict of str to float
        Score with the original field minus that mean.
    std : dict of str to float
        Standard deviation over the shifts (0 for a single one).
    """

    field: str
    scores: dict[str, float]
    loss: dict[str, float]
    std: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As stored in evaluation.json."""
        return {"field": self.field, "scores": self.scores, "loss": self.loss, "spread": self.std}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Importance:
        """Read what :meth:`to_dict` gives."""
        return cls(row["field"], row["scores"], row["loss"], row["spread"])


def shift_input(
    dataset: RegionDataset, offset_yx: tuple[int, int], names: Sequence[str] | None = None
) -> RegionDataset:
    """A dataset with shifted fields: node (i, j) gets the value at (i + dy, j + dx).

    Fields are reflected at their edges, so there is no seam.

    Parameters
    ----------
    dataset : RegionDataset
        Its labels, roles and windows stay.
    offset_yx : (int, int)
        Nodes southward and eastward.
    names : sequence of str, optional
        Fields to shift; by default all measured ones, without the outcrop context.

    Raises
    ------
    ValueError
        The dataset has no such field.
    """
    names = [name for name in dataset.channels if not is_context(name)] if names is None else names
    # A layer moves together with its mask.
    names = list(dict.fromkeys([*names, *(mask for mask in map(mask_name, names) if mask in dataset.channels)]))
    planes = [dataset.channels.index(name) for name in names]
    rows, columns = (
        _reflected_indices(count, by) for count, by in zip(dataset.fields.shape[1:], offset_yx, strict=True)
    )
    fields = dataset.fields.copy()
    fields[planes] = dataset.fields[planes][:, rows[:, None], columns[None, :]]
    return replace(dataset, fields=fields)


def draw_offsets(dataset: RegionDataset, draws: int, seed: int) -> list[tuple[int, int]]:
    """Random shifts of the fields, each by half to one and a half of their length along both axes."""
    rng = np.random.default_rng(seed)
    high, wide = dataset.fields.shape[1:]
    return [
        (int(rng.integers(high // 2, 3 * high // 2)), int(rng.integers(wide // 2, 3 * wide // 2))) for _ in range(draws)
    ]


def permutation_importance(
    predictor: NodePredictor,
    dataset: RegionDataset,
    role: int = TEST,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Importance]:
    r"""Scores of a network with one field shifted at a time, and with all of them shifted.

    Correlated fields (residuals of neighbouring heights) can replace each other: the importance of each may be small
    where that of all together is large. Use role TUNE if the result decides anything about the network.

    Parameters
    ----------
    predictor : NodePredictor
        The network.
    dataset : RegionDataset
        The dataset that the network was trained on.
    role : int
        TUNE or TEST.
    draws : int
        Shifts of each field; the same for every field.
    seed : int
        Random seed of the shifts.
    progress : Progress
        Called with the number of finished maps.

    Returns
    -------
    list of Importance
        For each field that the network reads, sorted by the loss of FWIoU, largest first; :data:`ALL` last, if there
        are several fields.

    Raises
    ------
    InputError
        No node of that role has a bedrock label.

    Examples
    --------
    For a run and the arrays of its tile set::

        predictor = load_node_predictor(Path("runs/one"))
        print("\n".join(importance_table(permutation_importance(predictor, dataset, role=TUNE))))
    """
    mask = held_out_mask(dataset, role)
    truth = to_target(dataset.node_truth()[0])
    whole, done = count_maps(predictor.inputs, draws), 0

    def score(shifted: RegionDataset) -> dict[str, float]:
        nonlocal done
        mapped = predictor.predict(shifted, mask)
        counted = mapped > 0
        found = scores(confusion(truth[counted], to_target(mapped[counted]), len(dataset.classes)))
        progress(done := done + 1, whole)
        return {measure: float(found[measure]) for measure in MEASURES}

    reference = score(dataset)
    offsets = draw_offsets(dataset, draws, seed)
    rows = []
    for name, fields in _field_groups(predictor.inputs):
        found = [score(shift_input(dataset, offset, fields)) for offset in offsets]
        values = {measure: np.array([each[measure] for each in found]) for measure in MEASURES}
        rows.append(
            Importance(
                name,
                {measure: float(each.mean()) for measure, each in values.items()},
                {measure: float(reference[measure] - each.mean()) for measure, each in values.items()},
                {measure: float(each.std(ddof=1)) if draws > 1 else 0.0 for measure, each in values.items()},
            )
        )
    return sorted(rows, key=lambda row: (row.field == ALL, -row.loss["fwiou"]))


def count_maps(inputs: InputChannels, draws: int = DRAWS) -> int:
    """Number of maps that :func:`permutation_importance` predicts with these channels."""
    return 1 + len(_field_groups(inputs)) * draws


def _field_groups(inputs: InputChannels) -> list[tuple[str, list[str]]]:
    """Rows of the table with the fields that each shifts; all channels of the outcrop context together."""
    fields = list(inputs.measured)
    outcrop = [name for name in inputs.fields if is_context(name)]
    groups = [(name, [name]) for name in fields] + ([(OUTCROP, outcrop)] if outcrop else [])
    return groups + ([(ALL, fields)] if len(fields) > 1 else [])


def importance_table(rows: Sequence[Importance]) -> list[str]:
    """Lines of a table: points of PA, MPA and FWIoU lost by shifting each field.

    Examples
    --------
    >>> lost = {"pa": 0.05, "mpa": 0.04, "fwiou": 0.031}
    >>> for line in importance_table([Importance("residual_10km", lost, lost, dict.fromkeys(lost, 0.004))]):
    ...     print(line)
    points lost with shifted input               PA          MPA        FWIoU
    residual_10km                        +5.0 ± 0.4   +4.0 ± 0.4   +3.1 ± 0.4
    """
    lines = [f"{'points lost with shifted input':<34}{'PA':>13}{'MPA':>13}{'FWIoU':>13}"]
    for row in rows:
        cells = "".join(f"{100 * row.loss[key]:>+7.1f} ± {100 * row.std[key]:>3.1f}" for key in MEASURES)
        lines.append(f"{row.field:<34}{cells}")
    return lines


def _reflected_indices(count: int, by: int) -> NDArray[np.int64]:
    """Indices 0..count-1 shifted along an axis that is reflected at both ends."""
    period = 2 * (count - 1)
    return np.abs((np.arange(count) + by + count - 1) % period - (count - 1))
