"""Training recipes: default values of a :class:`TrainConfig`, by name or from a file.

"default" is gravmap's; "paper" is that of Liu et al. 2024, with gravmap's value only where the paper gives none (listed
in docs/deviations.md); "crusts" is for training on simulated crusts, "cpu" for a region on a CPU. A recipe file is TOML
with the names of TrainConfig's attributes as keys (except :data:`NOT_IN_FILE`), an [augmentation] table, and `base`,
the recipe it modifies. Options given by the user override the recipe. What a recipe says of the data is in
:func:`recipe_data` and :func:`grid_windows`.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravmap.errors import InputError, OptionError
from gravmap.learning.sampling.augmentation import PAPER, Augmentation
from gravmap.learning.training.config import TrainConfig
from gravmap.records import read_record

if TYPE_CHECKING:
    from gravmap.learning.data.dataset import RegionDataset

RECIPES = ("default", "paper", "crusts", "cpu")

PAPER_EPOCHS = 600
"""Epochs of the paper's run, to which the epoch numbers of the default recipe refer."""

PAPER_CROPS_PER_GPU = 4
"""Crops in a batch of the paper for each GPU; a CPU counts as one."""

CPU_TIME_LIMIT_S = 2 * 3600.0
"""Time limit of the recipe "cpu"; none with a number of epochs."""

MIN_ADAM_SGD_EPOCHS = 60
"""With fewer epochs, neither optimizer would have time to converge."""

NOT_IN_FILE = (
    "recipe", "model", "architecture", "inputs", "device", "seed", "from_tiles", "context", "init", "augmentation",
)  # fmt: skip
"""Attributes that a recipe file cannot set: they describe what is trained where, not how."""


@dataclass(frozen=True)
class RecipeData:
    """The data that a recipe trains on, unless the user names others.

    Attributes
    ----------
    inputs : str, optional
        Input channels as of ``--input``, with commas between them; None for the field of the tile set.
    split : str
        Split of the tile set.
    may_leak : bool
        Whether training on that split is part of the recipe although training sees held-out labels.
    """

    inputs: str | None = None
    split: str = "blocks"
    may_leak: bool = False


def recipe_data(recipe: str = "default") -> RecipeData:
    """Return the data that a recipe trains on.

    Parameters
    ----------
    recipe : str
        As for :func:`make_config`.

    Raises
    ------
    OptionError, InputError
        As :func:`make_config`.

    Examples
    --------
    The paper's networks see the residual as colours, and are scored on random windows:

    >>> from gravmap.learning.training.recipes import recipe_data
    >>> recipe_data("paper")
    RecipeData(inputs='rgb', split='random', may_leak=True)
    """
    base, _ = _base_and_changes(recipe)
    return RecipeData("rgb", "random", may_leak=True) if base == "paper" else RecipeData()


def at_grid_resolution(recipe: str) -> bool:
    """Whether windows have the grid's resolution (:func:`grid_windows`) under a recipe, not that of the tile set."""
    return _base_and_changes(recipe)[0] == "cpu"


def grid_windows(dataset: RegionDataset, scales_deg: Sequence[float] = ()) -> tuple[list[float], int]:
    """Choose windows whose pixels are about as large as the cells of the grid.

    Parameters
    ----------
    dataset : RegionDataset
        The data.
    scales_deg : sequence of float
        Sizes of windows to use, degrees; by default the one that scores are computed with.

    Returns
    -------
    list of float
        Sizes of the windows, degrees.
    int
        Pixels across a window: about one for each cell in a window of the size that scores are computed with. The
        nearest multiple of 128, because GGMNet pads crops, which are half as wide, to multiples of 64 pixels.

    Examples
    --------
    >>> from gravmap.learning import RegionDataset
    >>> from gravmap.learning.training.recipes import grid_windows
    >>> from gravmap.tiling import load_arrays
    >>> dataset = RegionDataset.from_arrays(load_arrays("data/tiles"))
    >>> dataset.fields.shape, dataset.field_nodes_wsen.tolist()  # 10 cells a degree
    ((1, 51, 81), [80.0, 43.0, 88.0, 48.0])
    >>> grid_windows(dataset)
    ([5.0], 128)
    """
    from gravmap.learning.evaluation.held_out import scoring_scale  # here: it loads torch

    scales = sorted(set(scales_deg)) or [scoring_scale(dataset.window_scale_deg.tolist())]
    _, south, _, north = dataset.field_nodes_wsen
    cells = scoring_scale(scales) * (dataset.fields.shape[1] - 1) / (north - south)
    return scales, GRID_STEP_PX * max(1, round(cells / GRID_STEP_PX))


GRID_STEP_PX = 128
"""Windows at the grid's resolution are a multiple of so many pixels wide."""


def make_config(recipe: str = "default", *, processes: int = 1, **options: Any) -> TrainConfig:
    """Make the configuration of a run from a recipe.

    Parameters
    ----------
    recipe : str
        "default", "paper", "crusts", "cpu", or the path of a TOML file.
    processes : int
        Number of GPUs that share a batch, 1 on a CPU: the batch of "paper" is 4 crops for each.
    **options
        Attributes of :class:`TrainConfig` that override the recipe's; None keeps the recipe's.

    Raises
    ------
    OptionError
        The recipe is unknown, or a value is out of range.
    InputError
        The file cannot be read, has an unknown key or a value of the wrong type.

    Examples
    --------
    >>> from gravmap.learning import make_config
    >>> config = make_config("paper", model="ggmnet-small", epochs=100, processes=4)
    >>> config.schedule, config.lr, config.epochs, config.batch_size, config.topk_base
    ('adam-sgd', 0.001, 100, 16, 'all')
    """
    given = {name: value for name, value in options.items() if value is not None}
    base, written = _base_and_changes(recipe)
    values = {"default": _default, "paper": _paper, "crusts": _crusts, "cpu": _cpu}[base]({**written, **given})
    if base == "paper":
        values["batch_size"] = PAPER_CROPS_PER_GPU * processes
    if "augmentation" in written:
        merged = {**vars(values.get("augmentation", Augmentation())), **written.pop("augmentation")}
        values["augmentation"] = Augmentation(**merged)
    return TrainConfig(**{**values, **written, **given, "recipe": recipe})


def _base_and_changes(recipe: str) -> tuple[str, dict[str, Any]]:
    """Return the named recipe, and the values that a recipe file changes in it."""
    base, written = recipe, {}
    if recipe.endswith(".toml"):
        written = _read(Path(recipe))
        base = written.pop("base", "default")
    if base not in RECIPES:
        raise OptionError(
            f"Unknown recipe {base!r}.", f"Choose one of {', '.join(RECIPES)}, or the path of a .toml file."
        )
    return base, written


def _default(options: dict[str, Any]) -> dict[str, Any]:
    """Return gravmap's recipe: Adam, then SGD, in at most 600 epochs; short runs use cosine annealing.

    The epoch numbers are those of a run of 600 epochs and are scaled down with shorter runs.
    """
    epochs = int(options.get("epochs", PAPER_EPOCHS))
    short = options.get("time_limit_s") is not None or epochs < MIN_ADAM_SGD_EPOCHS
    if options.get("schedule", "cosine" if short else "adam-sgd") == "cosine":
        return {"epochs": epochs, "schedule": "cosine"}
    part = min(1.0, epochs / PAPER_EPOCHS)

    def scaled(count: int) -> int:
        return max(1, round(part * count))

    return {
        "epochs": epochs,
        "schedule": "adam-sgd",
        "patience": max(10, scaled(100)),
        # The moving average covers the same fraction of the run.
        "switch_smoothing": 0.9 ** (1 / part),
        "switch_window": scaled(20),
        "switch_from": scaled(50),
        "switch_by": scaled(300),
        "sgd_warmup_epochs": 5 * part,
        "sgd_milestones": tuple(scaled(count) for count in (50, 100, 150)),
        "topk_warmup": 10 / PAPER_EPOCHS,
    }


def _crusts(options: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe for simulated crusts: `ggmnet-grid`, plain cross-entropy, weak augmentation of gravity."""
    return {
        **({} if {"model", "architecture"} & set(options) else {"model": "ggmnet-grid"}),
        "epochs": 20,
        "steps": 100,
        "batch_size": 2,
        "lr": 3e-3,
        "schedule": "cosine",
        "topk_share": 1.0,
        "class_weight": "none",
        "small_weight": 1.0,
        "clip": 1.0,
        "average": 0.998,
        "precision": "bfloat16" if _fast_bfloat16() else "auto",
        "channels_last": True,
        # Simulated crusts strike in every direction already, so crops are not rotated.
        "augmentation": Augmentation(rotate_share=0.0, noise=(0.0, 0.05), offset_mgal=0.5),
    }


def _cpu(options: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe for a region on a CPU: a small network that is trained by the clock.

    All labelled pixels enter the loss, with equal weight but for their class: in short runs mining the hardest ones
    cost 2.4 points (docs/method/learning.md). Learning rate, clipping and average of the weights are those that
    `gravmap reproduce` uses for runs of minutes.
    """
    limit_s = None if "epochs" in options else CPU_TIME_LIMIT_S
    timed = {"time_limit_s": limit_s, **options}
    return {
        **_default(timed),
        **({} if {"model", "architecture"} & set(options) else {"model": "ggmnet-small"}),
        "time_limit_s": limit_s,
        "steps": 100,
        "batch_size": 8,
        "lr": 2e-3,
        "clip": 1.0,
        "average": 0.99,
        "topk_share": 1.0,
        "small_weight": 1.0,
    }


def _fast_bfloat16() -> bool:
    """Return whether this CPU multiplies in bfloat16: twice as fast, with equal scores."""
    import torch  # here, because recipes are also read by commands that do not load torch

    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _paper(_: dict[str, Any]) -> dict[str, Any]:
    """Return the paper's recipe but for its batch; what it does not give (end of Adam, warm-up's start) is ours."""
    return {
        "epochs": PAPER_EPOCHS,
        "lr": 1e-3,
        "precision": "float32",
        "even_scales": False,
        "patience": None,
        "clip": None,
        "schedule": "adam-sgd",
        "sgd_milestones": tuple(range(50, PAPER_EPOCHS, 50)),
        "lr_floor": 0.0,
        "topk_base": "all",
        "topk_warmup": 0.0,
        "augmentation": PAPER,
    }


def _read(path: Path) -> dict[str, Any]:
    """Read and check a recipe file."""
    if not path.exists():
        raise InputError(f"{path} is missing.", f"The named recipes are {', '.join(RECIPES)}.")
    table = read_record(path, dict[str, Any], toml=True)
    kinds = {"base": str, **{name: kind for name, kind in _kinds(TrainConfig).items() if name not in NOT_IN_FILE}}
    changes = table.pop("augmentation", {})
    if not isinstance(changes, dict):
        raise InputError(f"{path}: augmentation is not a table.", "Write [augmentation] and its keys below.")
    values = {name: _value(path, name, value, kinds) for name, value in table.items()}
    if changes:
        known = _kinds(Augmentation)
        values["augmentation"] = {name: _value(path, name, value, known) for name, value in changes.items()}
    return values


def _kinds(of: type) -> dict[str, Any]:
    """Return the type of each attribute."""
    hints = typing.get_type_hints(of)
    return {item.name: hints[item.name] for item in fields(of)}


def _value(path: Path, name: str, value: Any, kinds: dict[str, Any]) -> Any:
    """Convert a value to the type of its attribute: an integer to a float, a list to a tuple."""
    if name not in kinds:
        near = difflib.get_close_matches(name, list(kinds), n=1)
        raise InputError(
            f"{path}: unknown key {name!r}.", f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(kinds)}."
        )
    kind = kinds[name]
    choices = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for choice in choices:
        if choice is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if choice in (int, str, bool) and type(value) is choice:
            return value
        if typing.get_origin(choice) in (list, tuple) and isinstance(value, list):
            inner = typing.get_args(choice)
            right_length = Ellipsis in inner or typing.get_origin(choice) is list or len(value) == len(inner)
            integers = all(type(item) is int for item in value)
            numbers = all(type(item) in (int, float) for item in value)
            if right_length and (integers if inner[0] is int else numbers):
                return typing.get_origin(choice)(inner[0](item) for item in value)
    raise InputError(f"{path}: {name} = {value!r} has the wrong type.", f"Expected {_describe_type(kind)}.")


def _describe_type(kind: Any) -> str:
    """Describe a type for error messages."""
    names = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}
    choices = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return " or ".join(names.get(choice, "a list of numbers") for choice in choices if choice is not type(None))
