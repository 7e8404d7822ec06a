"""The options of `gravmap train` as one object, and the training they describe."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gravmap.errors import InputError, OptionError
from gravmap.outputs import check_outputs
from gravmap.records import read_record
from gravmap.workspace import Workspace, check_name, require

from .options import refuse_contradiction, run_name
from .train_data import CrustOptions

if TYPE_CHECKING:
    from gravmap.learning import RegionDataset, TrainConfig
    from gravmap.learning.data.splits import DatasetSplits
    from gravmap.learning.training.warm_start import WarmStart

CRUSTS = "crusts"

# Options of a region's tile set, and of crusts: either kind means nothing to the other.
OF_REGIONS = ("split", "fold", "allow_leak", "from_tiles", "cover_masks")
OF_CRUSTS = ("prior", "count", "shape")

# What may change when a run is resumed; everything else is the run's own.
RESUMABLE = {
    "epochs", "time_limit_s", "micro_batch", "patience", "precision", "compile", "tensorboard", "gpus", "device",
}  # fmt: skip

# Options whose attribute of TrainConfig has another name.
CONFIG_NAMES = {"steps_per_epoch": "steps", "cover_masks": "cuts"}


@dataclass(frozen=True)
class TrainOptions:
    """The options of `gravmap train` as parsed; None is an option that was not given.

    Attributes
    ----------
    given : mapping of str to str
        Names of the options on the command line, and how they are written.
    """

    given: Mapping[str, str]
    gpus: int | None
    device: str
    on: str
    prior: str
    count: int
    shape: tuple[int, int]
    context: str | None
    cover_masks: int | None
    init: str | None
    model: str | None
    architecture: Path | None
    inputs: str | None
    split: str | None
    fold: int
    allow_leak: bool
    from_tiles: bool
    tile_size_px: int | None
    windows_deg: tuple[float, ...]
    recipe: str | None
    epochs: int | None
    steps_per_epoch: int | None
    batch_size: int | None
    micro_batch: int | None
    lr: float | None
    patience: int | None
    time_limit_s: float | None
    precision: str | None
    compile: bool | None
    tensorboard: bool | None
    name: str | None
    resume: bool
    seed: int
    dry_run: bool
    overwrite: bool

    def check(self) -> None:
        """Refuse options that contradict each other, or mean nothing for the data that were chosen.

        Raises
        ------
        click.UsageError
            There are such options.
        """
        refuse_contradiction(self.gpus, self.device)
        if self.resume:
            return
        crusts = self.on == CRUSTS
        for name in OF_REGIONS if crusts else OF_CRUSTS:
            if name in self.given:
                other = "a region's tile set, not for --on crusts" if crusts else "--on crusts alone"
                raise click.UsageError(f"{self.given[name]} is for {other}.")
        if self.cover_masks is not None and not crusts and self.context == "none":
            raise click.UsageError("--cover-masks is for --context outcrop.")
        if self.architecture is not None and self.model is not None:
            raise click.UsageError("--model and --architecture exclude each other.")

    @property
    def on_cpu(self) -> bool:
        """Whether to train on the CPU, which is never chosen unless it is named."""
        return self.device == "cpu" or self.gpus == 0

    @property
    def chosen_recipe(self) -> str:
        """The recipe that was given, or the default: on a region and a CPU, without a network or a size, "cpu"."""
        if self.recipe is not None or self.on == CRUSTS:
            return self.recipe or CRUSTS
        free = all(each is None for each in (self.model, self.architecture, self.init, self.tile_size_px))
        return "cpu" if self.on_cpu and free else "default"

    @property
    def config_values(self) -> dict[str, Any]:
        """The options that are attributes of TrainConfig, but for those not given."""
        from gravmap.learning import TrainConfig

        known = {field.name for field in dataclasses.fields(TrainConfig)}
        named = {CONFIG_NAMES.get(name, name): value for name, value in vars(self).items()}
        values = {name: value for name, value in named.items() if name in known and value is not None}
        # The setup resolves these: a file, a run and short names.
        return {name: value for name, value in values.items() if name not in ("architecture", "init", "inputs")}


@dataclass(frozen=True)
class TrainSetup:
    """A training that is fully described but for its data and device.

    Attributes
    ----------
    run_dir : Path
        Folder of the run.
    crusts : CrustOptions, optional
        The simulated crusts to train on; without them, the region.
    inputs : str, optional
        As of --input.
    split, fold : str, int
        What a region holds out.
    windows_deg : tuple of float
        Sizes of the windows; empty for all.
    from_tiles : bool
        Cut crops from the tile files.
    leak_accepted_by : str, optional
        What accepts a split whose held-out labels are seen in training: an option or a run.
    values : dict
        Attributes of TrainConfig that differ from the recipe's, or from the resumed run's.
    resumed : TrainConfig, optional
        Of the run to resume.
    pretrained : WarmStart, optional
        The run whose weights are fine-tuned.
    """

    run_dir: Path
    crusts: CrustOptions | None
    inputs: str | None
    split: str
    fold: int
    windows_deg: tuple[float, ...]
    from_tiles: bool
    leak_accepted_by: str | None
    values: dict[str, Any]
    resumed: TrainConfig | None = None
    pretrained: WarmStart | None = None

    def configure(
        self, dataset: RegionDataset | DatasetSplits, inputs: list[str] | None, device: str, processes: int
    ) -> TrainConfig:
        """The configuration of the training on `dataset`, whose channels are `inputs`, in so many processes."""
        from gravmap.learning import make_config
        from gravmap.learning.data.splits import DatasetSplits
        from gravmap.learning.training.curves import require_tensorboard
        from gravmap.learning.training.recipes import at_grid_resolution, grid_windows

        windows_deg = self.windows_deg
        values = {**self.values, "device": device}
        if inputs is not None:
            values["inputs"] = inputs
        if self.pretrained is not None and not windows_deg:
            scales, size = self.pretrained.windows_for(DatasetSplits.of(dataset).scales_deg)
            windows_deg = tuple(scales)
            values["tile_size_px"] = values.get("tile_size_px") or size
        values["scales_deg"] = list(windows_deg) or None
        if self.resumed is not None:
            config = dataclasses.replace(self.resumed, **values)
        else:
            config = make_config(processes=processes, **values)
            if self.pretrained is None and self.crusts is None and at_grid_resolution(config.recipe):
                scales, size = grid_windows(DatasetSplits.of(dataset).first, config.scales_deg or ())
                config = dataclasses.replace(config, scales_deg=scales, tile_size_px=config.tile_size_px or size)
        if config.tensorboard:
            require_tensorboard()
        if device == "cpu" and config.micro_batch is None:
            # A large crop takes gigabytes in a large network: on a CPU no more than two million pixels at once.
            crop_px = (config.tile_size_px or int(dataset.meta["tile_size_px"])) // 2
            micro_batch = min(max(2, 2**21 // crop_px**2), config.batch_size)
            config = dataclasses.replace(config, micro_batch=micro_batch if micro_batch < config.batch_size else None)
        return config


def new_setup(place: Workspace, options: TrainOptions) -> TrainSetup:
    """The setup of a new run, with the defaults that depend on its data and on the run it fine-tunes.

    Raises
    ------
    click.UsageError
        The options name another network or context than that of the run to fine-tune.
    OptionError
        There is no such network, architecture or prior.
    InputError
        The run to fine-tune is missing or damaged.
    """
    from gravmap.learning import make_config
    from gravmap.learning.training.recipes import recipe_data
    from gravmap.network.registry import describe, read_architecture
    from gravmap.synthetic import load_prior

    crusts = options.on == CRUSTS
    values = options.config_values | {"recipe": options.chosen_recipe}
    data = recipe_data(values["recipe"])
    context = options.context or ("outcrop" if crusts else "none")
    # A recipe's channels are of a region: colours span its own values, which the next crust does not share.
    pretrained, inputs = None, options.inputs or (None if crusts else data.inputs)
    if options.init is not None:
        pretrained = _pretrained(place.run(options.init), options)
        context = pretrained.context or "none"
        if options.context not in (None, context):
            raise click.UsageError(f"--context {options.context}: {options.init} was trained with {context}.")
        values |= {"init": pretrained.init, "model": pretrained.model, "architecture": pretrained.architecture}
        inputs = inputs or ",".join(pretrained.measured)
    elif options.architecture is not None:
        values |= {"model": options.architecture.stem, "architecture": read_architecture(options.architecture)}
    elif options.model is not None:
        describe(options.model)
    if options.cover_masks is not None and context == "none":
        raise click.UsageError("--cover-masks is for --context outcrop.")
    values.pop("context", None)
    if context != "none":
        values["context"] = context
    split = options.split or data.split
    by_recipe = f"--recipe {values['recipe']}" if data.may_leak and split == data.split else None
    return TrainSetup(
        run_dir=place.runs / run_name(options.name, make_config(**values).model),
        crusts=CrustOptions(load_prior(options.prior), options.count, options.shape) if crusts else None,
        inputs=inputs,
        split=split,
        fold=options.fold,
        windows_deg=options.windows_deg,
        from_tiles=options.from_tiles,
        leak_accepted_by="--allow-leak" if options.allow_leak else by_recipe,
        values=values,
        pretrained=pretrained,
    )


def _pretrained(folder: Path, options: TrainOptions) -> WarmStart:
    """The run to fine-tune; refuse another network than its own."""
    from gravmap.learning.training.warm_start import load_pretrained

    for name in ("model", "architecture"):
        if getattr(options, name) is not None:
            raise click.UsageError(f"--{name} and --init exclude each other: the network is that of {folder.name}.")
    return load_pretrained(folder)


def resumed_setup(place: Workspace, options: TrainOptions) -> TrainSetup:
    """The setup of the run to resume.

    Raises
    ------
    InputError
        There is no such run.
    OptionError
        An option differs from the run's own, and would change its course.
    """
    from gravmap.learning import TrainConfig
    from gravmap.learning.data.outcrop_context import measured_names
    from gravmap.learning.training.state import CheckpointRecord
    from gravmap.synthetic.prior import read_prior

    run_dir = _run_to_resume(place.runs, options.name)
    stored = read_record(run_dir / "last.json", CheckpointRecord, hint="Train anew under another --name.")
    crusts = stored.get("taught_on", {})
    resumed = TrainConfig.from_json(json.dumps(stored["config"]))
    stored_values: dict[str, Any] = {
        **dataclasses.asdict(resumed),
        "on": CRUSTS if crusts else "region",
        **{name: value for name, value in crusts.items() if name in OF_CRUSTS},
        "inputs": ",".join(measured_names(stored["inputs"])),
        "split": stored["split"].get("name", "blocks"),
        "fold": stored["split"].get("fold", 0),
        "windows_deg": tuple(resumed.scales_deg or ()),
    }
    for name, written in options.given.items():
        key = CONFIG_NAMES.get(name, name)
        if name in RESUMABLE or key not in stored_values:
            continue
        if not _same_option(name, getattr(options, name), stored_values[key]):
            raise OptionError(
                f"{run_dir.name} was started with another {written}: {_shown(stored_values[key])}.",
                "Leave it out, or start another training with --name.",
            )
    changed = {name: value for name, value in options.config_values.items() if name in options.given}
    crust_options = None
    if crusts:
        if lacking := [name for name in ("prior", "shape", "count") if name not in crusts]:
            raise InputError(
                f"{run_dir / 'last.json'} lacks taught_on.{lacking[0]}.", "Train anew under another --name."
            )
        prior = read_prior(crusts["prior"]["text"], f"the prior {crusts['prior']['name']} of the run")
        rows, columns = crusts["shape"]
        crust_options = CrustOptions(prior, crusts["count"], (rows, columns))
    return TrainSetup(
        run_dir=run_dir,
        crusts=crust_options,
        inputs=stored_values["inputs"],
        split=stored_values["split"],
        fold=stored_values["fold"],
        windows_deg=stored_values["windows_deg"],
        from_tiles=resumed.from_tiles,
        leak_accepted_by=f"the run {run_dir.name}",
        values={name: value for name, value in changed.items() if name in RESUMABLE},
        resumed=resumed,
    )


def _run_to_resume(runs: Path, name: str | None) -> Path:
    """The named run, or the one whose checkpoint was written last."""
    if name is not None:
        return require(runs / check_name(name, "a run") / "last.json", "gravmap train").parent
    # A search has a checkpoint of another kind.
    checkpoints = [path for path in runs.glob("*/last.json") if not (path.parent / "search.json").exists()]
    if not checkpoints:
        raise InputError(f"No run in {runs} can be resumed.", "`gravmap train` starts one.")
    return max(checkpoints, key=lambda path: path.stat().st_mtime).parent


# What a run has before its first checkpoint.
_BEFORE_CHECKPOINT = {"model.safetensors", "model.json", "last.safetensors", "search.json", "tensorboard"}


def stopped_run(run_dir: Path, overwrite: bool) -> bool:
    """Whether a run of this name was stopped, and can be resumed; refuse a complete one.

    A run that was stopped before its first checkpoint holds nothing to resume, and does not count.

    Raises
    ------
    InputError
        The folder is that of a complete run, or holds other files, and `overwrite` is false.
    """
    if overwrite or not run_dir.exists():
        return False
    files = {path.name for path in run_dir.iterdir() if not path.name.startswith(".")}
    if "scores.json" not in files and {"last.json", "last.safetensors"} <= files:
        return True
    if not all(name in _BEFORE_CHECKPOINT or name.startswith("nonfinite_batch") for name in files):
        check_outputs([], [], overwrite, folders=[run_dir])
    return False


def is_same_run(run_dir: Path, config: TrainConfig) -> bool:
    """Return True if a stopped run was started with this configuration.

    Raises
    ------
    InputError
        It was started with another one.
    """
    stored = read_record(run_dir / "last.json", dict[str, Any], "gravmap train").get("config", {})
    wanted = json.loads(json.dumps(dataclasses.asdict(config)))
    free = RESUMABLE | {"from_tiles"}
    if any(stored.get(key) != value for key, value in wanted.items() if key not in free):
        raise InputError(
            f"{run_dir} holds a run that was stopped, with other options.",
            f"`gravmap train --resume --name {run_dir.name}` resumes it; --overwrite replaces it.",
        )
    return True


def _same_option(name: str, given: Any, stored: Any) -> bool:
    """Whether an option means what is stored of the run, however it is written."""
    if name == "inputs":
        from gravmap.learning.data.channels import expand, fields_read

        given = ",".join(expand(given, fields_read(stored.split(","))[0]))
    elif name == "architecture":
        from gravmap.network.registry import read_architecture

        given = read_architecture(given)
    elif name == "context":
        given = None if given == "none" else given
    elif name == "init":
        stored = (stored or {}).get("run")
        given = Path(given).name
    elif name == "prior":
        from gravmap.synthetic import load_prior

        given, stored = load_prior(given).sha256, stored["sha256"]
    elif name == "shape":
        stored = tuple(stored)
    return bool(given == stored)


def _shown(value: Any) -> Any:
    """A stored value as it is written on the command line."""
    if value is None:
        return "none"
    return value.get("run") or value.get("name") or value.get("kind") if isinstance(value, dict) else value
