"""What a network owes to each field it reads: its scores once that field is read elsewhere.

Noise in single nodes would be a field such as no network has seen. So a field is read at another place of the same
area: mirrored at its sides and moved by a good part of its length, it keeps its waves, its values and its smoothness,
and says nothing of the ground below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gravmap.lattice import TEST
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import RegionDataset, to_label, to_target
from gravmap.learning.data.outcrop_context import is_context
from gravmap.learning.evaluation.evaluation import node_logits
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.null_models import Labels, held_out
from gravmap.progress import Progress, silent

MEASURES = ("pa", "mpa", "fwiou")
ALL = "all fields"
DRAWS = 5
OUTCROP = "mapped outcrop"


@dataclass(frozen=True)
class Reading:
    """A network, and how it reads an area.

    Attributes
    ----------
    network : nn.Module
        (N, C, H, W) -> (N, K, H, W).
    inputs : InputChannels
        How fields become its input.
    tile_size_px : int
        Pixels across a window.
    scale_deg : float
        Side of a window, degrees.
    device : str or torch.device
        Where it runs.
    batch_size : int
        Windows per call.
    """

    network: nn.Module
    inputs: InputChannels
    tile_size_px: int
    scale_deg: float
    device: str | torch.device = "cpu"
    batch_size: int = 1

    def map(self, area: RegionDataset, wanted: NDArray[np.bool_], progress: Progress = silent) -> Labels:
        """Classes 1..K at the wanted nodes of an area, 0 elsewhere and where no window reaches; (ny, nx)."""
        logits = node_logits(
            self.network,
            area,
            wanted,
            inputs=self.inputs,
            tile_size_px=self.tile_size_px,
            scale_deg=self.scale_deg,
            device=self.device,
            batch_size=self.batch_size,
            progress=progress,
        )
        reached = wanted & np.isfinite(logits[0])
        return np.where(reached, to_label(np.where(reached, logits, 0).argmax(0)), 0).astype(np.uint8)


@dataclass(frozen=True)
class Importance:
    """What reading one field elsewhere costs.

    Attributes
    ----------
    field : str
        Its name; :data:`ALL` for all that were measured moved together, :data:`OUTCROP` for those of the context.
    scores : dict of str to float
        Mean over the draws: pa, mpa, fwiou.
    loss : dict of str to float
        Score with the field as it is less that mean: what the network owes to it.
    spread : dict of str to float
        Standard deviation over the draws (0 of one draw).
    """

    field: str
    scores: dict[str, float]
    loss: dict[str, float]
    spread: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {"field": self.field, "scores": self.scores, "loss": self.loss, "spread": self.spread}


def shift_input(area: RegionDataset, offset_yx: tuple[int, int], names: Sequence[str] | None = None) -> RegionDataset:
    """An area whose fields are another place's: at node (i, j) stands what was at (i + dy, j + dx).

    Beyond the area its mirror image goes on, so there is no seam.

    Parameters
    ----------
    area : RegionDataset
        Its labels, roles and windows stay.
    offset_yx : (int, int)
        Nodes southward and eastward.
    names : sequence of str, optional
        The fields that move; by default all that were measured: outcrop as context stays.

    Raises
    ------
    ValueError
        The area has no such field.
    """
    names = [name for name in area.channels if not is_context(name)] if names is None else names
    moves = [area.channels.index(name) for name in names]
    rows, columns = (_mirrored(count, by) for count, by in zip(area.fields.shape[1:], offset_yx, strict=True))
    fields = area.fields.copy()
    fields[moves] = area.fields[moves][:, rows[:, None], columns[None, :]]
    return replace(area, fields=fields)


def draw_offsets(area: RegionDataset, draws: int, seed: int) -> list[tuple[int, int]]:
    """Ways to move an area's fields, each by half to one and a half of its length along both axes."""
    rng = np.random.default_rng(seed)
    high, wide = area.fields.shape[1:]
    return [
        (int(rng.integers(high // 2, 3 * high // 2)), int(rng.integers(wide // 2, 3 * wide // 2))) for _ in range(draws)
    ]


def on_shifted_input(
    reading: Reading,
    area: RegionDataset,
    role: int = TEST,
    *,
    draws: int = 1,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Labels]:
    """The null model of a network: what it says when it reads another place's gravity.

    Parameters
    ----------
    reading : Reading
        The network.
    area : RegionDataset
        What it was taught on.
    role : int
        TUNE or TEST.
    draws : int
        How many other places.
    seed : int
        Of their choice.
    progress : Progress
        Told the windows done of each.

    Returns
    -------
    list of (ny, nx) uint8
        Classes 1..K at the labelled nodes of the role, 0 elsewhere; one for each draw.

    Raises
    ------
    InputError
        No bedrock of that role.
    """
    wanted = held_out(area, role)
    return [reading.map(shift_input(area, offset), wanted, progress) for offset in draw_offsets(area, draws, seed)]


def permutation_importance(
    reading: Reading,
    area: RegionDataset,
    role: int = TEST,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Importance]:
    """Scores of a network that reads one field after another elsewhere, and at last all of them.

    Fields that tell the same (residuals of neighbouring heights) stand in for each other: each alone may then cost
    little, and all together much. Choose role TUNE when the answer decides anything about the network.

    Parameters
    ----------
    reading, area, role, seed
        As in :func:`on_shifted_input`.
    draws : int
        Other places for each field; the same for every field.
    progress : Progress
        Told the maps done.

    Returns
    -------
    list of Importance
        Of each field that the network reads, the greatest loss of fwiou first; :data:`ALL` last, where there are
        several.

    Raises
    ------
    InputError
        No bedrock of that role.
    """
    wanted = held_out(area, role)
    truth = to_target(area.node_truth()[0])
    whole, done = maps_needed(reading.inputs, draws), 0

    def score(there: RegionDataset) -> dict[str, float]:
        nonlocal done
        mapped = reading.map(there, wanted)
        counted = mapped > 0
        found = scores(confusion(truth[counted], to_target(mapped[counted]), len(area.classes)))
        progress(done := done + 1, whole)
        return {measure: float(found[measure]) for measure in MEASURES}

    as_it_is = score(area)
    offsets = draw_offsets(area, draws, seed)
    rows = []
    for name, together in _moved_together(reading.inputs):
        found = [score(shift_input(area, offset, together)) for offset in offsets]
        values = {measure: np.array([each[measure] for each in found]) for measure in MEASURES}
        rows.append(
            Importance(
                name,
                {measure: float(drawn.mean()) for measure, drawn in values.items()},
                {measure: float(as_it_is[measure] - drawn.mean()) for measure, drawn in values.items()},
                {measure: float(drawn.std(ddof=1)) if draws > 1 else 0.0 for measure, drawn in values.items()},
            )
        )
    return sorted(rows, key=lambda row: (row.field == ALL, -row.loss["fwiou"]))


def maps_needed(inputs: InputChannels, draws: int = DRAWS) -> int:
    """How many maps :func:`permutation_importance` makes of a network that reads these channels."""
    return 1 + len(_moved_together(inputs)) * draws


def _moved_together(inputs: InputChannels) -> list[tuple[str, list[str]]]:
    """Rows of the table, and the fields that each reads elsewhere: outcrop's fields all at once."""
    fields = list(inputs.measured)
    outcrop = [name for name in inputs.fields if is_context(name)]
    moved = [(name, [name]) for name in fields] + ([(OUTCROP, outcrop)] if outcrop else [])
    return moved + ([(ALL, fields)] if len(fields) > 1 else [])


def importance_table(rows: Sequence[Importance]) -> list[str]:
    """Lines of a table: what each field is worth, in points of PA, MPA and FWIoU."""
    lines = [f"{'points lost when read elsewhere':<34}{'PA':>13}{'MPA':>13}{'FWIoU':>13}"]
    for row in rows:
        cells = "".join(f"{100 * row.loss[key]:>+7.1f} ± {100 * row.spread[key]:>3.1f}" for key in MEASURES)
        lines.append(f"{row.field:<34}{cells}")
    return lines


def _mirrored(count: int, by: int) -> NDArray[np.int64]:
    """Nodes 0..count-1 moved along a line that is mirrored at both ends."""
    period = 2 * (count - 1)
    return np.abs((np.arange(count) + by + count - 1) % period - (count - 1))
