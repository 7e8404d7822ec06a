"""How to train: every choice of a run, as it is saved with the weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from gravmap.learning.loss import HARD_SHARE, SMALL_WEIGHT
from gravmap.learning.sampler import Augmentation


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes
    ----------
    model : str
        A name that `gravmap.network.build` knows, or what an architecture of one's own is called.
    architecture : dict, optional
        Record of a network's architecture (`gravmap.network.build_from_dict`), instead of the name's.
    inputs : list of str, optional
        Channels the network reads (`gravmap.learning.channels`); by default the fields of the area as they are.
    device : str
        "cpu" or "cuda".
    epochs : int
        At most this many.
    steps : int, optional
        Steps per epoch; by default the training windows divided by the batch.
    batch_size : int
        Crops per step over all processes.
    micro_batch : int, optional
        Crops a process takes at once; gradients are summed over the parts of a batch.
    lr : float
        Highest learning rate of Adam.
    seed : int
        Of weights and crops.
    tile_size_px : int, optional
        Pixels across a window; by default the tile set's.
    scales_deg : list of float, optional
        Use only windows of these sizes, degrees.
    even_scales : bool
        Draw window sizes evenly (else windows).
    evaluate_every : int
        Epochs between scores on the tuning blocks.
    patience : int, optional
        Stop after this many epochs without a better FWIoU.
    time_limit_s : float, optional
        Stop in good order after this many seconds; rate and mining follow the clock.
    clip : float
        Greatest norm of the gradient.
    hard_share : float
        Share of an image's pixels that teach, in the end.
    hard_until : float
        Share of the run over which it falls from all of them.
    small_weight : float
        Weight of pixels in small bodies.
    freeze_statistics : bool
        Normalise with the running statistics as they are instead of each batch's: for going on with a
        network on little data, and to compare runs whose processes see different parts of a batch.
    augmentation : Augmentation
        How crops are changed.
    """

    model: str = "ggmnet"
    architecture: dict[str, Any] | None = None
    inputs: list[str] | None = None
    device: str = "cpu"
    epochs: int = 100
    steps: int | None = None
    batch_size: int = 16
    micro_batch: int | None = None
    lr: float = 1e-3
    seed: int = 0
    tile_size_px: int | None = None
    scales_deg: list[float] | None = None
    even_scales: bool = True
    evaluate_every: int = 1
    patience: int | None = None
    time_limit_s: float | None = None
    clip: float = 5.0
    hard_share: float = HARD_SHARE
    hard_until: float = 0.1
    small_weight: float = SMALL_WEIGHT
    freeze_statistics: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)

    def to_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read what :meth:`to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        augmentation: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values["augmentation"].items()
        }
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in values.items() if name in known}
        return cls(**{**values, "augmentation": Augmentation(**augmentation)})
