"""What is trained under a profile: a list of runs, read from one table in the package."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gravmap.errors import OptionError
from gravmap.files import write_json
from gravmap.network.architecture import Architecture
from gravmap.network.presets import ablation_switches, thin
from gravmap.network.registry import describe
from gravmap.network.smp import SmpArchitecture

PROFILES = ("quick", "full")
PROTOCOLS = ("random", "blocks")
"""Splits, in the order in which they are shown: the paper's first."""

TABLES = ("depth", "ablation", "comparison")


@dataclass(frozen=True)
class PlannedRun:
    """A network trained under one split.

    Attributes
    ----------
    name : str
        Of its folder under ``runs/``: split and network.
    network : str
        The table's name for the network; runs of one network under two splits share it.
    label : str
        In words.
    protocol : str
        The split, one of `PROTOCOLS`.
    tables : tuple of str
        Where it is shown, of `TABLES`.
    model : str
        What ``train --model`` takes; empty where only the architecture says what it is.
    architecture : dict
        Record that `gravmap.network.build_from_dict` takes; empty where the network is not available here.
    missing : str
        Why it cannot; empty where it can.
    """

    name: str
    network: str
    label: str
    protocol: str
    tables: tuple[str, ...]
    model: str
    architecture: dict[str, Any]
    missing: str = ""

    def words(self, folder: Path, profile: Mapping[str, Any], seed: int) -> list[str]:
        """Give the options of `gravmap train` that make it; an architecture without a name is written to `folder`."""
        network = ["--model", self.model]
        if not self.model:
            written = folder / f"{self.network}-small.json"
            write_json(written, self.architecture)
            network = ["--architecture", str(written)]
        split = ["--split", self.protocol, *(["--allow-leak"] if self.protocol == "random" else [])]
        return ["--name", self.name, *network, *split, *profile["train"], "--seed", str(seed)]


@dataclass(frozen=True)
class Plan:
    """A profile and its runs.

    Attributes
    ----------
    profile : str
        One of `PROFILES`.
    settings : dict
        The profile's table: note, size_px, train, device, crust, windows.
    paper : dict
        What the paper is, what its text says of the data, and `scores`: network to its mpa and fwiou in percent, on
        windows drawn at random.
    runs : list of PlannedRun
        In the order in which they are trained.
    departures : list of dict
        What the paper leaves `open`, and what stands `here`.
    """

    profile: str
    settings: dict[str, Any]
    paper: dict[str, Any]
    runs: list[PlannedRun]
    departures: list[dict[str, str]]

    def run_of(self, network: str, protocol: str) -> PlannedRun | None:
        """The run of a network under a split; None where the profile has none."""
        return next((run for run in self.runs if (run.network, run.protocol) == (network, protocol)), None)

    def networks(self, table: str) -> list[PlannedRun]:
        """One run of each network of a table, in the order of the paper's table."""
        shown: dict[str, PlannedRun] = {}
        for run in self.runs:
            if table in run.tables:
                shown.setdefault(run.network, run)
        # The reference stands among the depths in its place, and after the nets it grew from.
        key = (lambda run: run.network) if table in ("depth", "ablation") else (lambda run: "")
        found = sorted(shown.values(), key=key)
        if table == "ablation":
            found = [*[run for run in found if run.network != REFERENCE], shown[REFERENCE]]
        return found


REFERENCE = "ggmnet-22"
"""The network of the paper's title: 22 cells per branch, every part of the ablation."""


def load_plan(profile: str) -> Plan:
    """Read the table and make the list of runs of a profile.

    Raises
    ------
    OptionError
        There is no such profile.
    """
    if profile not in PROFILES:
        raise OptionError(f"There is no profile {profile!r}.", f"Choose one of {', '.join(PROFILES)}.")
    text = resources.files("gravmap.reproduce").joinpath("liu2024.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    settings = table["profile"][profile]
    runs = []
    for row in table["run"]:
        architecture, missing = _architecture(row, profile)
        for protocol in PROTOCOLS:
            planned = settings["protocols"].get(protocol, [])
            if "*" not in planned and row["name"] not in planned:
                continue
            label = row["label"] if isinstance(row["label"], str) else row["label"][profile]
            model, tables = row["full"] if profile == "full" else "", tuple(row["tables"])
            name = f"{protocol}-{row['name']}"
            runs.append(PlannedRun(name, row["name"], label, protocol, tables, model, architecture, missing))
    scores = {row["name"]: dict(row["paper"]) for row in table["run"] if "paper" in row}
    return Plan(profile, settings, {**table["paper"], "scores": scores}, runs, table["departure"])


def _architecture(row: Mapping[str, Any], profile: str) -> tuple[dict[str, Any], str]:
    """The record of a row's network under a profile; empty, and why, where a package is missing."""
    wanted = row[profile]
    if profile == "quick" and wanted["kind"] == Architecture.KIND:
        return thin(wanted["depth"], **ablation_switches(wanted["letter"])).to_dict(), ""
    if profile == "quick" and wanted["kind"] != SmpArchitecture.KIND:
        return dict(wanted), ""
    name = wanted if profile == "full" else f"smp:{wanted['arch']}:{wanted['encoder']}"
    try:
        return describe(name), ""
    except OptionError as error:
        return {}, f"{error.message} {error.hint or ''}".strip()
