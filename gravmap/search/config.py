"""How to search for an architecture: every choice of a search, as it is saved with what was found."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from gravmap.errors import OptionError
from gravmap.learning.sampling.augmentation import Augmentation
from gravmap.learning.training.config import PRECISIONS
from gravmap.learning.training.loss import CLASS_WEIGHTS, OHEM_KEEP_FRACTION, SMALL_WEIGHT
from gravmap.network.presets import tiny
from gravmap.search.space import SearchSpace


@dataclass(frozen=True)
class SearchConfig:
    """How to search.

    Rates, optimisers and epochs are those of FasterSeg's search (Chen et al. 2019, arXiv:1912.10917).

    Attributes
    ----------
    depth : int
        Cells per branch.
    chis : tuple of int
        Expansion ratios to choose from.
    thin : bool
        Encoder and head of `ggmnet-tiny`, for a CPU.
    inputs : list of str, optional
        Channels that are read (`gravmap.learning.data.channels`); by default the fields of the area as they are.
    device : str
        "cpu" or "cuda".
    pretrain_epochs : int
        Epochs in which weights are taught alone.
    epochs : int
        Epochs after these, in which architecture and weights take turns.
    steps : int
        Steps per epoch.
    batch_size : int
        Crops per step.
    tile_size_px : int, optional
        Pixels across a window, crops are half as wide; by default the tile set's.
    scales_deg : list of float, optional
        Use only windows of these sizes, degrees.
    even_scales : bool
        Draw window sizes evenly (else windows).
    seed : int
        Of halves, weights, crops, widths and candidates.
    time_limit_s : float, optional
        Stop in good order after so many seconds; both phases have their share of it.
    flops_weight : float
        Weight of the expected multiply-adds, as a share of the largest network's, beside the loss that chooses.
    pretrain_lr, lr, lr_decay, momentum, weight_decay, clip : float
        Of the weights: SGD, its rate in the two phases, multiplied by `lr_decay` after each epoch; greatest norm of
        the gradient.
    architecture_lr : float
        Of the architecture's parameters.
    architecture_betas : tuple of float
        Of their Adam; they have no weight decay.
    temperature : tuple of float
        Of the widths' Gumbel-softmax, at the beginning and at the end of the second phase.
    sampled_paths : int
        Candidates whose paths are drawn, beside those of the rules.
    calibration_batches, score_batches : int
        Batches on which a candidate's normalisation is measured anew, and on which it is scored.
    topk_share, class_weight, small_weight
        Of the loss (:class:`gravmap.learning.TrainConfig`).
    precision : str
        "float32", "bfloat16" (autocast) or "auto", which is bfloat16 on CUDA.
    augmentation : Augmentation
        How crops are changed.

    Raises
    ------
    OptionError
        A value makes no sense.
    """

    depth: int = 22
    chis: tuple[int, ...] = (2, 4, 6, 8)
    thin: bool = False
    inputs: list[str] | None = None
    device: str = "cpu"
    pretrain_epochs: int = 20
    epochs: int = 30
    steps: int = 400
    batch_size: int = 4
    tile_size_px: int | None = None
    scales_deg: list[float] | None = None
    even_scales: bool = True
    seed: int = 0
    time_limit_s: float | None = None
    flops_weight: float = 0.0
    pretrain_lr: float = 2e-2
    lr: float = 1e-2
    lr_decay: float = 0.978
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 5.0
    architecture_lr: float = 3e-4
    architecture_betas: tuple[float, float] = (0.5, 0.999)
    temperature: tuple[float, float] = (1.0, 0.1)
    sampled_paths: int = 20
    calibration_batches: int = 8
    score_batches: int = 16
    topk_share: float = OHEM_KEEP_FRACTION
    class_weight: str = "enet"
    small_weight: float = SMALL_WEIGHT
    precision: str = "auto"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name, choices in (("class_weight", CLASS_WEIGHTS), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise OptionError(
                    f"{getattr(self, name)!r} is no value of {name}.", f"Choose one of {', '.join(choices)}."
                )
        if self.batch_size < 2:
            raise OptionError(
                "A batch of one crop has no spread for batch normalisation to work with.", "--batch-size 2 or more."
            )
        for name in ("pretrain_epochs", "epochs", "steps", "calibration_batches", "score_batches"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} = {getattr(self, name)} makes no sense.", "It is at least 1.")
        if not self.flops_weight >= 0 or not self.architecture_lr >= 0 or self.sampled_paths < 0:
            raise OptionError("flops_weight, architecture_lr and sampled_paths are not negative.")
        if not min(self.temperature) > 0:
            raise OptionError(f"A temperature of {min(self.temperature):g} makes no sense.", "It is above 0.")

    @property
    def half(self) -> bool:
        """Whether networks run under bfloat16 autocast."""
        return self.precision == "bfloat16" or (self.precision == "auto" and self.device == "cuda")

    @property
    def space(self) -> SearchSpace:
        """What may be chosen.

        Raises
        ------
        OptionError
            The branches are too short for a choice.
        """
        if not self.thin:
            return SearchSpace(self.depth, self.chis)
        small = tiny()
        return SearchSpace(self.depth, self.chis, encoder=small.encoder, head=small.head, arm_norm=small.arm_norm)

    @property
    def epochs_in_all(self) -> int:
        """Of both phases."""
        return self.pretrain_epochs + self.epochs

    def to_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SearchConfig:
        """Read what :meth:`to_json` wrote; what an older version did not know has its default."""
        known = {item.name for item in fields(cls)}
        values: dict[str, Any] = {name: value for name, value in json.loads(text).items() if name in known}
        for name in ("chis", "architecture_betas", "temperature"):
            if name in values:
                values[name] = tuple(values[name])
        changes = values.pop("augmentation", {})
        spans: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()
        }
        return cls(**values, augmentation=Augmentation(**spans))
