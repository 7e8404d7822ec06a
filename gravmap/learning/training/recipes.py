"""Whole recipes of training by name, or from a file: every value of a :class:`TrainConfig` that is not said.

"default" is ours; "paper" is Liu et al. 2024 to the letter, with our value only where it gives none; "crusts" is for
training on simulated crusts. A file is
TOML with the names of TrainConfig's attributes as keys (but for those that say what is taught where), an
[augmentation] table, and `base`, the recipe it changes. What a user says beside a recipe beats it.
"""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

from gravmap.errors import InputError, OptionError
from gravmap.learning.sampling.augmentation import PAPER, Augmentation
from gravmap.learning.training.config import TrainConfig

RECIPES = ("default", "paper", "crusts")

LONG = 600
"""Epochs of the paper's run; the numbers of the default recipe are given for it."""

SHORT = 60
"""A run of fewer epochs leaves neither optimiser the time to settle."""


NOT_HOW = ("recipe", "model", "device", "seed", "from_tiles", "context", "init", "augmentation")


def make_config(recipe: str = "default", **said: Any) -> TrainConfig:
    """The configuration of a run.

    Parameters
    ----------
    recipe : str
        "default", "paper", "crusts", or the path of a TOML file.
    **said
        Attributes of :class:`TrainConfig` that beat the recipe's; None is not said.

    Raises
    ------
    OptionError
        There is no such recipe, or a value makes no sense.
    InputError
        The file cannot be read, has an unknown key or a value of a wrong type.
    """
    wanted = {name: value for name, value in said.items() if value is not None}
    base, written = recipe, {}
    if recipe.endswith(".toml"):
        written = _read(Path(recipe))
        base = written.pop("base", "default")
    if base not in RECIPES:
        raise OptionError(
            f"There is no recipe named {base!r}.", f"Choose one of {', '.join(RECIPES)}, or the path of a .toml file."
        )
    asked = {**written, **wanted}
    values = {"default": _default, "paper": _paper, "crusts": _crusts}[base](asked)
    if "augmentation" in written:
        merged = {**vars(values.get("augmentation", Augmentation())), **written.pop("augmentation")}
        values["augmentation"] = Augmentation(**merged)
    return TrainConfig(**{**values, **written, **wanted, "recipe": recipe})


def _default(asked: dict[str, Any]) -> dict[str, Any]:
    """Ours: Adam, then SGD, in 600 epochs at most; a half cosine where there is no time for two phases.

    The numbers of epochs are those of 600 and shrink with a shorter run, so that each phase has its share.
    """
    epochs = int(asked.get("epochs", LONG))
    hurried = asked.get("time_limit_s") is not None or epochs < SHORT
    if asked.get("schedule", "cosine" if hurried else "adam-sgd") == "cosine":
        return {"epochs": epochs, "schedule": "cosine"}
    part = min(1.0, epochs / LONG)

    def shrunk(count: int) -> int:
        return max(1, round(part * count))

    return {
        "epochs": epochs,
        "schedule": "adam-sgd",
        "patience": max(10, shrunk(100)),
        # The moving average remembers the same share of the run.
        "switch_smoothing": 0.9 ** (1 / part),
        "switch_window": shrunk(20),
        "switch_from": shrunk(50),
        "switch_by": shrunk(300),
        "sgd_warmup_epochs": 5 * part,
        "sgd_milestones": tuple(shrunk(count) for count in (50, 100, 150)),
        "topk_warmup": 10 / LONG,
    }


def _crusts(asked: dict[str, Any]) -> dict[str, Any]:
    """For simulated crusts: a residual U-Net, all pixels and classes alike, gravity changed a little."""
    return {
        **({} if {"model", "architecture"} & set(asked) else {"model": "residual-unet"}),
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
        "precision": "bfloat16" if _quick_in_half() else "auto",
        "channels_last": True,
        # Crusts strike in every direction, so none needs turning.
        "augmentation": Augmentation(rotate_share=0.0, noise=(0.0, 0.05), offset_mgal=0.5),
    }


def _quick_in_half() -> bool:
    """Whether this CPU multiplies in bfloat16: twice as fast, and such a network is taught as well."""
    import torch  # here: a recipe is read where nothing is trained

    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _paper(_: dict[str, Any]) -> dict[str, Any]:
    """The paper's; where it is silent (when Adam ends, what the warm-up starts from) as in ours."""
    return {
        "epochs": LONG,
        "batch_size": 16,
        "lr": 1e-3,
        "even_scales": False,
        "patience": None,
        "clip": None,
        "schedule": "adam-sgd",
        "sgd_milestones": tuple(range(50, LONG, 50)),
        "lr_floor": 0.0,
        "topk_base": "all",
        "topk_warmup": 0.0,
        "augmentation": PAPER,
    }


def _read(path: Path) -> dict[str, Any]:
    """A recipe file's values, checked."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing.", f"Name a recipe: {', '.join(RECIPES)}.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is no readable TOML: {error}.") from None
    kinds = {"base": str, **{name: kind for name, kind in _kinds(TrainConfig).items() if name not in NOT_HOW}}
    changes = table.pop("augmentation", {})
    if not isinstance(changes, dict):
        raise InputError(f"{path}: augmentation is a table.", "Write [augmentation] and its keys below.")
    values = {name: _value(path, name, value, kinds) for name, value in table.items()}
    if changes:
        known = _kinds(Augmentation)
        values["augmentation"] = {name: _value(path, name, value, known) for name, value in changes.items()}
    return values


def _kinds(of: type) -> dict[str, Any]:
    """Type of each attribute."""
    hints = typing.get_type_hints(of)
    return {item.name: hints[item.name] for item in fields(of)}


def _value(path: Path, name: str, value: Any, kinds: dict[str, Any]) -> Any:
    """A value of the type its attribute has: a whole number may stand for a float, a list for a tuple."""
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
            counted = Ellipsis in inner or typing.get_origin(choice) is list or len(value) == len(inner)
            whole = all(type(item) is int for item in value)
            number = all(type(item) in (int, float) for item in value)
            if counted and (whole if inner[0] is int else number):
                return typing.get_origin(choice)(inner[0](item) for item in value)
    raise InputError(f"{path}: {name} = {value!r} is of a wrong type.", f"It takes {_told(kind)}.")


def _told(kind: Any) -> str:
    """A type in words."""
    names = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}
    choices = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    told = [names.get(choice, "a list of numbers") for choice in choices if choice is not type(None)]
    return " or ".join(told)
