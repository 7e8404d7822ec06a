"""The options of `gravmap search` as one object, and the search they describe."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravmap.errors import InputError, OptionError
from gravmap.outputs import check_outputs
from gravmap.records import read_record
from gravmap.workspace import check_name

if TYPE_CHECKING:
    from gravmap.learning import RegionDataset
    from gravmap.search.config import SearchConfig

MOST_PX = 1024
"""Pixels per window side without --size: a supernet at twice that takes four times the memory."""

RESUMABLE = {"time_limit_s", "device", "gpus", "random", "compare", "compare_epochs", "compare_steps", "compare_seeds"}
"""What may change when a search is resumed; everything else is the search's own."""

CONFIG_NAMES = {"steps_per_epoch": "steps"}
"""Options whose attribute of SearchConfig has another name."""


@dataclass(frozen=True)
class SearchOptions:
    """The options of `gravmap search` as parsed; None is an option that was not given.

    Attributes
    ----------
    given : mapping of str to str
        Names of the options on the command line, and how they are written.
    """

    given: Mapping[str, str]
    gpus: int | None
    device: str
    depth: int
    thin: bool
    pretrain_epochs: int
    epochs: int
    steps_per_epoch: int
    batch_size: int
    tile_size_px: int | None
    windows_deg: tuple[float, ...]
    inputs: str | None
    split: str
    fold: int
    flops_weight: float
    architecture_lr: float
    time_limit_s: float | None
    random: int | None
    compare: bool
    compare_epochs: int
    compare_steps: int
    compare_seeds: int
    name: str | None
    resume: bool
    seed: int
    dry_run: bool
    overwrite: bool

    @property
    def config_values(self) -> dict[str, Any]:
        """The options that are attributes of SearchConfig, but for those not given."""
        from gravmap.search.config import SearchConfig

        known = {field.name for field in dataclasses.fields(SearchConfig)} - {"inputs", "device"}
        named = {CONFIG_NAMES.get(name, name): value for name, value in vars(self).items()}
        return {name: value for name, value in named.items() if name in known and value is not None}


def configure(
    options: SearchOptions, dataset: RegionDataset, inputs: list[str] | None, device: str, stored: dict[str, Any]
) -> SearchConfig:
    """The configuration of the search; a resumed one keeps its own, but for its time limit and device."""
    from gravmap.search.config import SearchConfig

    if stored:
        config = SearchConfig.from_json(json.dumps(stored["options"]))
        return dataclasses.replace(config, device=device, time_limit_s=options.time_limit_s)
    values = {**options.config_values, "device": device, "scales_deg": list(options.windows_deg) or None}
    if inputs is not None:
        values["inputs"] = inputs
    values.setdefault("tile_size_px", min(int(dataset.meta["tile_size_px"]), MOST_PX))
    return SearchConfig(**values)


def refuse_existing(run_dir: Path, overwrite: bool) -> None:
    """Refuse to replace a search; one that was stopped before its first checkpoint does not count."""
    files = {path.name for path in run_dir.iterdir() if not path.name.startswith(".")} if run_dir.is_dir() else set()
    stopped = {"search.json", "last.json"} <= files and not read_record(
        run_dir / "search.json", dict[str, Any], "gravmap search"
    ).get("finished")
    if stopped and not overwrite:
        raise InputError(
            f"{run_dir} holds a search that was stopped.",
            f"`gravmap search --resume --name {run_dir.name}` resumes it; --overwrite replaces it.",
        )
    if not files <= {"search.json", "last.safetensors"}:
        check_outputs([], [], overwrite, folders=[run_dir])


def search_to_resume(runs: Path, name: str | None) -> tuple[Path, dict[str, Any]]:
    """The named search, or the one that was written last, and its record."""
    found = [runs / check_name(name, "a run") / "search.json"] if name else list(runs.glob("*/search.json"))
    states = sorted((path for path in found if path.exists()), key=lambda path: path.stat().st_mtime)
    if not states:
        raise InputError(
            f"There is no search {name!r} in {runs}." if name else f"No search in {runs} can be resumed.",
            "`gravmap search` starts one.",
        )
    run_dir = states[-1].parent
    if not (run_dir / "last.json").exists():
        raise InputError(
            f"The search {run_dir.name} was stopped before its first checkpoint.",
            f"`gravmap search --name {run_dir.name} --overwrite` starts it again.",
        )
    from gravmap.search.loop import read_search_record

    return run_dir, read_search_record(run_dir)


def resumed_options(name: str, options: SearchOptions, record: dict[str, Any]) -> SearchOptions:
    """The options with the data, and without --device the device, of the stored search.

    Raises
    ------
    OptionError
        An option differs from the search's own, and would change its course.
    """
    from gravmap.learning.data.channels import expand, fields_read
    from gravmap.search.config import SearchConfig

    config = SearchConfig.from_json(json.dumps(record["options"]))
    stored: dict[str, Any] = {
        **dataclasses.asdict(config),
        "inputs": ",".join(record["inputs"]),
        "split": record["split"].get("name", "blocks"),
        "fold": record["split"].get("fold", 0),
        "windows_deg": tuple(config.scales_deg or ()),
    }
    for option_name, written in options.given.items():
        key = CONFIG_NAMES.get(option_name, option_name)
        if option_name in RESUMABLE or key not in stored:
            continue
        value = getattr(options, option_name)
        if option_name == "inputs":
            value = ",".join(expand(str(value), fields_read(record["inputs"])[0]))
        if value != stored[key]:
            raise OptionError(
                f"{name} was started with another {written}: {stored[key]}.",
                "Leave it out, or start another search with --name.",
            )
    device = options.device
    if options.gpus is None and device == "auto":
        device = config.device
    return dataclasses.replace(
        options, inputs=stored["inputs"], split=stored["split"], fold=stored["fold"], device=device
    )
