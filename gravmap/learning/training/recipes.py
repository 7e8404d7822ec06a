"""Training recipes: default values of a :class:`TrainConfig`, by name or from a file.

"default" is gravmap's; "paper" is that of Liu et al. 2024, with gravmap's value only where the paper gives none;
"crusts" is for training on simulated crusts. A recipe file is TOML with the names of TrainConfig's attributes as keys
(except :data:`NOT_IN_FILE`), an [augmentation] table, and `base`, the recipe it modifies. Options given by the user
override the recipe.
"""

from __future__ import annotations

import difflib
import types
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

from gravmap.errors import InputError, OptionError
from gravmap.learning.sampling.augmentation import PAPER, Augmentation
from gravmap.learning.training.config import TrainConfig
from gravmap.records import read_record

RECIPES = ("default", "paper", "crusts")

PAPER_EPOCHS = 600
"""Epochs of the paper's run, to which the epoch numbers of the default recipe refer."""

MIN_ADAM_SGD_EPOCHS = 60
"""With fewer epochs, neither optimizer would have time to converge."""

NOT_IN_FILE = ("recipe", "model", "device", "seed", "from_tiles", "context", "init", "augmentation")
"""Attributes that a recipe file cannot set: they describe what is trained where, not how."""


def make_config(recipe: str = "default", **options: Any) -> TrainConfig:
    """Make the configuration of a run from a recipe.

    Parameters
    ----------
    recipe : str
        "default", "paper", "crusts", or the path of a TOML file.
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
    >>> config = make_config("paper", model="ggmnet-small", epochs=100)
    >>> config.schedule, config.lr, config.epochs, config.topk_base
    ('adam-sgd', 0.001, 100, 'all')
    """
    given = {name: value for name, value in options.items() if value is not None}
    base, written = recipe, {}
    if recipe.endswith(".toml"):
        written = _read(Path(recipe))
        base = written.pop("base", "default")
    if base not in RECIPES:
        raise OptionError(
            f"Unknown recipe {base!r}.", f"Choose one of {', '.join(RECIPES)}, or the path of a .toml file."
        )
    values = {"default": _default, "paper": _paper, "crusts": _crusts}[base]({**written, **given})
    if "augmentation" in written:
        merged = {**vars(values.get("augmentation", Augmentation())), **written.pop("augmentation")}
        values["augmentation"] = Augmentation(**merged)
    return TrainConfig(**{**values, **written, **given, "recipe": recipe})


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


def _fast_bfloat16() -> bool:
    """Return whether this CPU multiplies in bfloat16: twice as fast, with equal scores."""
    import torch  # here, because recipes are also read by commands that do not load torch

    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _paper(_: dict[str, Any]) -> dict[str, Any]:
    """Return the paper's recipe; what it does not give (end of Adam, start of the warm-up) is gravmap's."""
    return {
        "epochs": PAPER_EPOCHS,
        "batch_size": 16,
        "lr": 1e-3,
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
