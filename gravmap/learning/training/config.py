"""Configuration of a training run, as it is saved with the weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from gravmap.errors import OptionError
from gravmap.learning.data.cover_masks import CUTS
from gravmap.learning.data.outcrop_context import CONTEXT
from gravmap.learning.sampling.augmentation import Augmentation
from gravmap.learning.training.loss import CLASS_WEIGHTS, OHEM_KEEP_FRACTION, SMALL_WEIGHT, TOPK_BASES
from gravmap.learning.training.schedule import SCHEDULES, switch_epoch
from gravmap.network.precision import PRECISIONS
from gravmap.records import PretrainedRecord, parse_record, record


@record
@dataclass(frozen=True)
class TrainConfig:
    """Configuration of a training run.

    The defaults are those of a short run; :func:`gravmap.learning.make_config` makes whole recipes and saves their name
    in `recipe`.

    Attributes
    ----------
    recipe : str
        Name of the recipe the values come from.
    model : str
        A name that `gravmap.network.build` knows, or a name of your own for `architecture`.
    architecture : dict, optional
        Architecture record (`gravmap.network.build_from_dict`) to use instead of the name's.
    inputs : list of str, optional
        Input channels (`gravmap.learning.data.channels`); by default the fields of the dataset.
    context : str, optional
        "outcrop": the mapped outcrop is part of the input, and the network starts from it
        (`gravmap.learning.data.outcrop_context`).
    cuts : int
        Number of synthetic cover masks in use at a time, for training on a region with context.
    init : dict, optional
        Pre-trained weights to fine-tune, `WarmStart.init` of
        :func:`gravmap.learning.training.warm_start.load_pretrained`.
    device : str
        "cpu" or "cuda".
    epochs : int
        Maximum number of epochs.
    steps : int, optional
        Steps per epoch; by default the number of training windows divided by the batch size.
    batch_size : int
        Crops per step, over all processes.
    micro_batch : int, optional
        Micro-batch size: crops per forward pass and process. Gradients are accumulated over the micro-batches of a
        batch. It is halved during the run when memory runs out.
    lr : float
        Peak learning rate.
    seed : int
        Seed of weights and crops.
    from_tiles : bool
        Crops are cut from tile files; set by :func:`gravmap.learning.train`.
    tile_size_px : int, optional
        Pixels across a window; by default that of the tile set.
    scales_deg : list of float, optional
        Use only windows of these sizes, degrees.
    even_scales : bool
        Sample all window sizes with equal probability, instead of all windows.
    evaluate_every : int
        Epochs between scores on the tuning blocks.
    patience : int, optional
        Early-stopping patience: stop after this many epochs without a better FWIoU on the tuning blocks. Under
        "adam-sgd" only epochs of SGD count.
    time_limit_s : float, optional
        Time limit in seconds, including the final evaluation. Under "cosine" the learning rate and the OHEM keep
        fraction follow the time used.
    clip : float, optional
        Maximum norm of the gradient (gradient clipping); None does not clip.
    average : float
        Decay of the exponential moving average (EMA) of the weights, which is then scored and saved in place of the
        weights; 0 uses the weights themselves.
    schedule : str
        "cosine": Adam with warm-up and cosine annealing. "adam-sgd": Adam at a constant learning rate, then SGD.
    switch : str
        When SGD takes over: "plateau", or "epoch:N" after N epochs.
    switch_smoothing, switch_window, switch_gain : float, int, float
        Plateau: the moving average (with this decay) of the training loss of the epochs has decreased by less than
        the fraction `switch_gain` over `switch_window` epochs.
    switch_from, switch_by : int
        Epochs before which a plateau is ignored, and after which SGD takes over in any case.
    sgd_momentum, sgd_weight_decay : float
        Momentum and weight decay of SGD. Adam has no weight decay.
    sgd_warmup_epochs, sgd_warmup_from : float
        Linear warm-up of SGD: epochs, and initial fraction of `lr`.
    sgd_milestones, sgd_decay : tuple of int, float
        Epochs of SGD after which its learning rate is multiplied by `sgd_decay` (step decay).
    lr_floor : float
        Minimum learning rate of SGD.
    topk_share : float
        OHEM keep fraction: the fraction of an image's pixels, those with the largest loss, that enter the loss.
    topk_base : str
        What the fraction refers to: the "valid" pixels, or "all" pixels of the image.
    topk_warmup : float
        Fraction of the run over which the keep fraction falls from 1 to `topk_share`.
    class_weight : str
        "enet", "inverse", "sqrt", "effective" or "none"; see :func:`gravmap.learning.training.loss.class_weights`.
    small_weight : float
        Weight of pixels in small bodies.
    thickness_weight : float
        Weight of the loss of the thickness of the cover (:func:`gravmap.learning.training.loss.pinball_km`) beside that
        of the class, on crusts with outcrop as context; 0 trains a network without that output.
    freeze_statistics : bool
        Batch normalisation uses its running statistics and does not update them: for fine-tuning on little data, and
        to compare runs whose processes see different micro-batches.
    precision : str
        Precision of the network: "float32", "bfloat16" (autocast), or "auto", which is bfloat16 on a GPU that has it
        (Ampere and later) and float32 elsewhere. The loss is computed in float32. Scores and maps have the same
        precision on a GPU and float32 on a CPU. A run's model.json has the precision that was used.
    channels_last : bool
        Use the channels-last memory format.
    compile : bool
        Compile the network with torch.compile; where that fails, a warning says so and the network is used as it is.
    tensorboard : bool
        Also write TensorBoard event files.
    augmentation : Augmentation
        Augmentation of the training crops.

    Raises
    ------
    OptionError
        A value is not one of those named here, or is out of range.

    Examples
    --------
    >>> from gravmap.learning import TrainConfig
    >>> config = TrainConfig(model="ggmnet-tiny", epochs=20, lr=3e-3, patience=5)
    >>> TrainConfig.from_json(config.to_json()) == config
    True
    """

    recipe: str = ""
    model: str = "ggmnet"
    architecture: dict[str, Any] | None = None
    inputs: list[str] | None = None
    context: str | None = None
    cuts: int = CUTS
    init: PretrainedRecord | None = None
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
    thickness_weight: float = 0.5
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
                    f"{name} = {getattr(self, name)!r} is not valid.", f"Choose one of {', '.join(choices)}."
                )
        if self.context not in (None, CONTEXT):
            raise OptionError(f"context = {self.context!r} is not valid.", f"Choose {CONTEXT}, or omit it.")
        switch_epoch(self.switch)
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise OptionError(f"{name} = {value:g} is out of range.", f"Choose a value from {low:g} to {high:g}.")

    def to_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read what :meth:`to_json` wrote; fields that an older version did not have get their defaults."""
        return parse_record(text, cls, "The configuration of the run", "Train anew under another --name.")


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
    ("thickness_weight", 0, 1e3),
    ("small_weight", 0, 1e6),
    ("seed", 0, 2**63 - 1),
    ("tile_size_px", 1, 1 << 16),
)
