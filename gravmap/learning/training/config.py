"""How to train: every choice of a run, as it is saved with the weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from gravmap.errors import OptionError
from gravmap.learning.data.cover_masks import CUTS
from gravmap.learning.data.outcrop_context import CONTEXT
from gravmap.learning.sampling.augmentation import Augmentation
from gravmap.learning.training.loss import CLASS_WEIGHTS, OHEM_KEEP_FRACTION, SMALL_WEIGHT, TOPK_BASES
from gravmap.learning.training.schedule import SCHEDULES, switch_epoch

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    The values as they stand are those of a short run; :func:`gravmap.learning.training.recipes.make_config` gives whole
    recipes, and saves their name in `recipe`.

    Attributes
    ----------
    recipe : str
        The recipe the values came from, for the record.
    model : str
        A name that `gravmap.network.build` knows, or what an architecture of one's own is called.
    architecture : dict, optional
        Record of a network's architecture (`gravmap.network.build_from_dict`), instead of the name's.
    inputs : list of str, optional
        Channels the network reads (`gravmap.learning.data.channels`); by default the fields of the ground as they are.
    context : str, optional
        "outcrop": the network also reads what is mapped around, and starts from it
        (`gravmap.learning.data.outcrop_context`).
    cuts : int
        Covers cut into a region's outcrop that are in use at a time, where it is taught with context.
    init : dict, optional
        Whose weights it begins with, and how their input is made
        (`gravmap.learning.training.warm_start.load_pretrained`).
    device : str
        "cpu" or "cuda".
    epochs : int
        At most this many.
    steps : int, optional
        Steps per epoch; by default the training windows divided by the batch.
    batch_size : int
        Crops per step over all processes.
    micro_batch : int, optional
        Crops a process takes at once; gradients are summed over the parts of a batch. Where memory does not
        suffice it is halved in the course of a run.
    lr : float
        Highest learning rate.
    seed : int
        Of weights and crops.
    from_tiles : bool
        Crops were cut from tile files; said by the reader that :func:`gravmap.learning.train` is given.
    tile_size_px : int, optional
        Pixels across a window; by default the tile set's.
    scales_deg : list of float, optional
        Use only windows of these sizes, degrees.
    even_scales : bool
        Draw window sizes evenly (else windows).
    evaluate_every : int
        Epochs between scores on the tuning blocks.
    patience : int, optional
        Stop after this many epochs without a better FWIoU; under "adam-sgd" only epochs after the switch count.
    time_limit_s : float, optional
        Stop in good order after this many seconds; under "cosine" rate and mining follow the clock.
    clip : float, optional
        Greatest norm of the gradient; None leaves it alone.
    average : float
        Score and keep not the last weights but their running average (exponential moving average), of
        which each step leaves this share; 0 takes the weights as they are.
    schedule : str
        "cosine": Adam, warm-up and half a cosine over the run. "adam-sgd": Adam at a constant rate, then SGD.
    switch : str
        When SGD takes over: "plateau", or "epoch:N" after N epochs.
    switch_smoothing, switch_window, switch_gain : float, int, float
        A plateau: the moving average (this smoothing) of the epochs' training loss has fallen by less than this
        share over so many epochs.
    switch_from, switch_by : int
        Number of epochs before which a plateau does not count, and after which SGD takes over at the latest.
    sgd_momentum, sgd_weight_decay : float
        Of SGD. Adam has no weight decay.
    sgd_warmup_epochs, sgd_warmup_from : float
        SGD's rate rises linearly, step by step, from this share of `lr`, over so many epochs.
    sgd_milestones, sgd_decay : tuple of int, float
        After so many epochs of SGD its rate is multiplied by this.
    lr_floor : float
        SGD's rate does not fall below it.
    topk_share : float
        Share of an image's pixels that teach, in the end.
    topk_base : str
        Share of what: the "valid" pixels, or "all".
    topk_warmup : float
        Share of the run over which it falls from all of them.
    class_weight : str
        "enet", "inverse", "sqrt", "effective" or "none"; see :func:`gravmap.learning.training.loss.class_weights`.
    small_weight : float
        Weight of pixels in small bodies.
    freeze_statistics : bool
        Normalise with the running statistics as they are instead of each batch's: for going on with a
        network on little data, and to compare runs whose processes see different parts of a batch.
    precision : str
        Of the network in training: "float32", "bfloat16" (autocast) or "auto", which is bfloat16 on CUDA and float32
        on a CPU. The loss and all scores are in float32.
    channels_last : bool
        Keep the channels of a pixel together in memory.
    compile : bool
        Compile the network with torch.compile.
    tensorboard : bool
        Write TensorBoard's event files beside metrics.csv.
    augmentation : Augmentation
        How crops are changed.

    Raises
    ------
    OptionError
        A value is none of those named here, or makes no sense.
    """

    recipe: str = ""
    model: str = "ggmnet"
    architecture: dict[str, Any] | None = None
    inputs: list[str] | None = None
    context: str | None = None
    cuts: int = CUTS
    init: dict[str, Any] | None = None
    device: str = "cpu"
    epochs: int = 100
    steps: int | None = None
    batch_size: int = 16
    micro_batch: int | None = None
    lr: float = 1e-3
    seed: int = 0
    from_tiles: bool = False
    tile_size_px: int | None = None
    scales_deg: list[float] | None = None
    even_scales: bool = True
    evaluate_every: int = 1
    patience: int | None = None
    time_limit_s: float | None = None
    clip: float | None = 5.0
    average: float = 0.0
    schedule: str = "cosine"
    switch: str = "plateau"
    switch_smoothing: float = 0.9
    switch_window: int = 20
    switch_gain: float = 0.01
    switch_from: int = 50
    switch_by: int = 300
    sgd_momentum: float = 0.9
    sgd_weight_decay: float = 5e-4
    sgd_warmup_epochs: float = 5.0
    sgd_warmup_from: float = 0.1
    sgd_milestones: tuple[int, ...] = (50, 100, 150)
    sgd_decay: float = 0.1
    lr_floor: float = 1e-6
    topk_share: float = OHEM_KEEP_FRACTION
    topk_base: str = "valid"
    topk_warmup: float = 0.1
    class_weight: str = "enet"
    small_weight: float = SMALL_WEIGHT
    freeze_statistics: bool = False
    precision: str = "auto"
    channels_last: bool = False
    compile: bool = False
    tensorboard: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name, choices in (
            ("schedule", SCHEDULES),
            ("topk_base", TOPK_BASES),
            ("class_weight", CLASS_WEIGHTS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in choices:
                raise OptionError(
                    f"{getattr(self, name)!r} is no value of {name}.", f"Choose one of {', '.join(choices)}."
                )
        if self.context not in (None, CONTEXT):
            raise OptionError(f"{self.context!r} is no context.", f"Choose {CONTEXT}, or leave it out.")
        switch_epoch(self.switch)
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise OptionError(f"{name} = {value:g} makes no sense.", f"It lies between {low:g} and {high:g}.")

    @property
    def half(self) -> bool:
        """Whether the network is trained under bfloat16 autocast."""
        return self.precision == "bfloat16" or (self.precision == "auto" and self.device == "cuda")

    def to_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read what :meth:`to_json` wrote; what an older version did not know has its default."""
        values = {name: value for name, value in json.loads(text).items() if name in _names(cls)}
        changes = values.pop("augmentation", {})
        augmentation = Augmentation(
            **{name: _tuples(value) for name, value in changes.items() if name in _names(Augmentation)}
        )
        if "sgd_milestones" in values:
            values["sgd_milestones"] = tuple(values["sgd_milestones"])
        return cls(**values, augmentation=augmentation)


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("epochs", 1, 1e9),
    ("steps", 1, 1e9),
    ("batch_size", 1, 1e9),
    ("micro_batch", 1, 1e9),
    ("evaluate_every", 1, 1e9),
    ("cuts", 1, 1e9),
    ("patience", 1, 1e9),
    ("lr", 0, 1e3),
    ("clip", 1e-12, 1e30),
    ("average", 0, 0.999999),
    ("switch_smoothing", 0, 1),
    ("switch_window", 1, 1e9),
    ("switch_gain", 0, 1),
    ("switch_from", 0, 1e9),
    ("switch_by", 1, 1e9),
    ("sgd_momentum", 0, 1),
    ("sgd_weight_decay", 0, 1),
    ("sgd_warmup_epochs", 0, 1e9),
    ("sgd_warmup_from", 0, 1),
    ("sgd_decay", 0, 1),
    ("lr_floor", 0, 1e3),
    ("topk_share", 1e-9, 1),
    ("topk_warmup", 0, 1),
    ("small_weight", 0, 1e6),
)


def _names(kind: type) -> set[str]:
    return {item.name for item in fields(kind)}


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
