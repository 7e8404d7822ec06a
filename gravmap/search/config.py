"""Configuration of an architecture search, saved with its result."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from gravmap.errors import OptionError
from gravmap.learning.sampling.augmentation import Augmentation
from gravmap.learning.training.loss import CLASS_WEIGHTS, OHEM_KEEP_FRACTION, SMALL_WEIGHT
from gravmap.network.precision import PRECISIONS
from gravmap.network.presets import tiny
from gravmap.records import parse_record, record
from gravmap.search.space import SearchSpace


@record
@dataclass(frozen=True)
class SearchConfig:
    """Configuration of an architecture search.

    Learning rates, optimizers and epochs are those of FasterSeg's search (Chen et al. 2019, arXiv:1912.10917).

    Attributes
    ----------
    depth : int
        Cells per branch.
    chis : tuple of int
        Expansion ratios to choose from.
    thin : bool
        Use the encoder and head of `ggmnet-tiny`, for a CPU.
    inputs : list of str, optional
        Input channels (`gravmap.learning.data.channels`); by default the fields of the dataset.
    device : str
        "cpu" or "cuda".
    pretrain_epochs : int
        Epochs of the first phase, in which only the weights are trained.
    epochs : int
        Epochs of the second phase, in which architecture and weights are trained in turn.
    steps : int
        Steps per epoch.
    batch_size : int
        Crops per step.
    tile_size_px : int, optional
        Pixels across a window, crops are half as wide; by default that of the tile set.
    scales_deg : list of float, optional
        Use only windows of these sizes, degrees.
    even_scales : bool
        Sample window sizes uniformly (else windows).
    seed : int
        Random seed of data split, weights, crops, widths and candidates.
    time_limit_s : float, optional
        End the search after so many seconds; both phases get their part of it.
    flops_weight : float
        Weight of the expected multiply-adds, as a fraction of the largest network's, in the loss of the architecture.
    pretrain_lr, lr, lr_decay, momentum, weight_decay, clip : float
        Of the weights: SGD with a learning rate for each phase, multiplied by `lr_decay` after each epoch; maximum norm
        of the gradient.
    architecture_lr : float
        Learning rate of the architecture parameters.
    architecture_betas : tuple of float
        Betas of their Adam optimizer; they have no weight decay.
    temperature : tuple of float
        Of the Gumbel softmax of the widths, at the start and the end of the second phase.
    sampled_paths : int
        Number of candidates with sampled paths, besides those of the decoding rules.
    calibration_batches, score_batches : int
        Batches for a candidate's batch normalisation statistics, and for its score.
    topk_share, class_weight, small_weight
        Of the loss (:class:`gravmap.learning.TrainConfig`).
    precision : str
        "float32", "bfloat16" (autocast) or "auto", which is bfloat16 on a GPU that has it and float32 elsewhere.
    augmentation : Augmentation
        Augmentation of the crops.

    Raises
    ------
    OptionError
        A value is invalid.

    Examples
    --------
    >>> config = SearchConfig(depth=6, epochs=2)
    >>> config.total_epochs, SearchConfig.from_json(config.to_json()) == config
    (22, True)
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
                    f"{getattr(self, name)!r} is not a valid {name}.", f"Choose one of {', '.join(choices)}."
                )
        if self.batch_size < 2:
            raise OptionError("Batch normalisation needs more than one crop per batch.", "Use --batch-size 2 or more.")
        for name in ("pretrain_epochs", "epochs", "steps", "calibration_batches", "score_batches"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} = {getattr(self, name)} is invalid.", "It must be at least 1.")
        if not self.flops_weight >= 0 or not self.architecture_lr >= 0 or self.sampled_paths < 0:
            raise OptionError("flops_weight, architecture_lr and sampled_paths must not be negative.")
        if not min(self.temperature) > 0:
            raise OptionError(f"A temperature of {min(self.temperature):g} is invalid.", "It must be above 0.")

    @property
    def space(self) -> SearchSpace:
        """The search space.

        Raises
        ------
        OptionError
            The depth is too small.
        """
        if not self.thin:
            return SearchSpace(self.depth, self.chis)
        small = tiny()
        return SearchSpace(self.depth, self.chis, encoder=small.encoder, head=small.head, arm_norm=small.arm_norm)

    @property
    def total_epochs(self) -> int:
        """Epochs of both phases."""
        return self.pretrain_epochs + self.epochs

    def to_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SearchConfig:
        """Read what :meth:`to_json` wrote; options missing in older files get their defaults."""
        return parse_record(text, cls, "The options of the search", "Start a new search with another --name.")
