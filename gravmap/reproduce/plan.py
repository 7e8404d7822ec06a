"""The training runs of a profile, read from a table in the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gravmap.errors import OptionError
from gravmap.files import write_text
from gravmap.network.registry import describe
from gravmap.records import parse_record

PROFILES = ("quick", "laptop", "full")
PROTOCOLS = ("random", "blocks")
"""Splits in the order of the page: that of the paper first."""

RECIPE = "recipe.toml"
"""File of the recipe of a profile that has its own."""

TABLES = ("depth", "ablation", "comparison")


@dataclass(frozen=True)
class PlannedRun:
    """A network to train under one split.

    Attributes
    ----------
    name : str
        Name of its folder under ``runs/``: split, network and, but for the first, the seed.
    network : str
        Name of the network in the table; the same under every split.
    label : str
        Name of the network on the page.
    protocol : str
        The split, one of `PROTOCOLS`.
    seed : int
        Number of the run among those of this network and split, added to the seed of the reproduction.
    tables : tuple of str
        Tables that list it, of `TABLES`.
    model : str
        Value of ``train --model``.
    architecture : dict
        Argument of `gravmap.network.build_from_dict`; empty if the network is not available here.
    missing : str
        Reason why it is not available; empty if it is.
    """

    name: str
    network: str
    label: str
    protocol: str
    seed: int
    tables: tuple[str, ...]
    model: str
    architecture: dict[str, Any]
    missing: str = ""

    def words(self, folder: Path, profile: Mapping[str, Any], seed: int) -> list[str]:
        """Options of ``gravmap train`` for this run; the recipe of the profile goes to `folder`."""
        network = ["--model", self.model]
        split = ["--split", self.protocol, *(["--allow-leak"] if self.protocol == "random" else [])]
        if recipe := profile.get("recipe"):
            write_text(folder / RECIPE, recipe)
            network += ["--recipe", str(folder / RECIPE)]
        return ["--name", self.name, *network, *split, *profile["train"], "--seed", str(seed + self.seed)]


@dataclass(frozen=True)
class Plan:
    """A profile and its runs.

    Attributes
    ----------
    profile : str
        One of `PROFILES`.
    settings : dict
        Table of the profile: note, size_px, recipe, train, device, crust, windows, protocols.
    paper : dict
        Reference of the paper, its statements on the data, and `scores`: mpa and fwiou of each network in percent, on
        random windows; `sums` are the networks whose scores were added up from differences in the text.
    runs : list of PlannedRun
        Runs in the order of training.
    departures : list of dict
        Details that the paper leaves `open`, and the choice made `here`.
    """

    profile: str
    settings: dict[str, Any]
    paper: dict[str, Any]
    runs: list[PlannedRun]
    departures: list[dict[str, str]]

    def networks(self, table: str) -> list[PlannedRun]:
        """One run of each network of a table, in the order of the paper's table; none that the profile leaves out."""
        shown: dict[str, PlannedRun] = {}
        for run in self.runs:
            if table in run.tables:
                shown.setdefault(run.network, run)
        # By depth in the first table; in the ablation the reference, which has every part, comes last.
        key = (lambda run: run.network) if table in ("depth", "ablation") else (lambda run: "")
        found = sorted(shown.values(), key=key)
        if table == "ablation" and REFERENCE in shown:
            found = [*[run for run in found if run.network != REFERENCE], shown[REFERENCE]]
        return found


REFERENCE = "ggmnet-22"
"""GGMNet as in the paper: 22 cells per branch, with every part of the ablation."""


def load_plan(profile: str) -> Plan:
    """Read the runs of a profile.

    Raises
    ------
    OptionError
        The profile is unknown.
    """
    if profile not in PROFILES:
        raise OptionError(f"There is no profile {profile!r}.", f"Choose one of {', '.join(PROFILES)}.")
    text = resources.files("gravmap.reproduce").joinpath("liu2024.toml").read_text(encoding="utf-8")
    table = parse_record(text, dict[str, Any], "liu2024.toml", toml=True)
    settings = dict(table["profile"][profile])
    settings = {**table["profile"].get(settings.pop("base", ""), {}), **settings}
    runs = []
    for row in table["run"]:
        architecture, missing = _architecture(row["model"])
        label, model, tables = row["label"], row["model"], tuple(row["tables"])
        for protocol in PROTOCOLS:
            planned = settings["protocols"].get(protocol, {})
            for seed in range(planned.get(row["name"], planned.get("*", 0))):
                name = f"{protocol}-{row['name']}" + (f"-seed{seed}" if seed else "")
                runs.append(PlannedRun(name, row["name"], label, protocol, seed, tables, model, architecture, missing))
    runs.sort(key=lambda run: run.seed)  # stable: one run of every network before a second one of any
    scores = {row["name"]: dict(row["paper"]) for row in table["run"] if "paper" in row}
    return Plan(profile, settings, {**table["paper"], "scores": scores}, runs, table["departure"])


def _architecture(model: str) -> tuple[dict[str, Any], str]:
    """Architecture of a network by its name; if a package is missing, an empty one and the reason."""
    try:
        return describe(model), ""
    except OptionError as error:
        return {}, f"{error.message} {error.hint or ''}".strip()
