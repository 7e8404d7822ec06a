"""`gravmap reproduce`: the tables and figures of a paper from raw files, with one command."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gravmap.errors import InputError
from gravmap.files import remove_folder, write_json, write_text
from gravmap.records import read_record
from gravmap.workspace import Workspace

from .options import (
    Command,
    device_option,
    dry_run_option,
    option,
    output_option,
    overwrite_option,
    refuse_contradiction,
    seed_option,
)
from .session import Session, command_options

if TYPE_CHECKING:
    from gravmap.reproduce.plan import Plan

RECORD = "reproduce.json"
PARTS = ("data", "runs", "maps", "figures")
HEIGHT = "10km"
CRUST_SOUTH_WEST = {"quick": (82.0, 43.0), "laptop": (82.0, 43.0), "full": (65.0, 40.0)}
MAPPED = "ggmnet-22"
RESUMABLE = "to be gone on with"  # the state in --json of a run that was stopped


@dataclass(frozen=True)
class Data:
    """The gravity and map to train on.

    Attributes
    ----------
    kind : str
        ``crust``, ``wgm2012`` or ``files``.
    description : str
        In words, for the first line of the page.
    gravity : Path or None
        A user's grid.
    maps : list of (str, str)
        A user's maps and their legends.
    """

    kind: str
    description: str
    gravity: Path | None
    maps: list[tuple[str, str]]

    @property
    def record(self) -> dict[str, Any]:
        """The data of a folder, as JSON values."""
        return {
            "data": self.description,
            "gravity": str(self.gravity or ""),
            "maps": [list(pair) for pair in self.maps],
        }


@click.command(
    "reproduce",
    cls=Command,
    short_help="Reproduce the tables and figures of Liu et al. (2024).",
    epilog="""\b
Examples:
  gravmap reproduce liu2024
  gravmap reproduce liu2024 --map MY_MAP.gpkg ics -o mine
  gravmap reproduce liu2024 --gravity MY_GRID.nc --map MY_MAP.gpkg ics -o mine
  gravmap reproduce liu2024 --profile full --gpus 4""",
)
@click.argument("paper", type=click.Choice(["liu2024"]))
@option(
    "--profile",
    type=click.Choice(["quick", "laptop", "full"]),
    default="quick",
    show_default=True,
    help="quick: GGMNet for minutes, under 45 in all on 2 cores; laptop: all networks as briefly, a night on 2 to 8 "
    "cores; full: the paper's training, for GPUs.",
)
@option(
    "--data",
    type=click.Choice(["crust", "wgm2012"]),
    excludes=("gravity",),
    help="crust: a synthetic one, offline, its bedrock known (default but of full); wgm2012: the downloads of"
    " `gravmap fetch` (default of full).",
)
@option(
    "--gravity",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    excludes=("data",),
    metavar="FILE",
    help="Your own grid, instead of WGM2012; with --map.",
)
@option(
    "--map",
    "maps",
    type=(click.Path(exists=True), str),
    multiple=True,
    metavar="FILE LEGEND",
    help="Your own map and its legend (without --gravity: for WGM2012); may be repeated, and an earlier one wins.",
)
@option("--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs to train on (default: full all, else 0).")
@device_option("Where to train; auto: profile full on the GPUs, the others on the CPU.")
@output_option("Folder to work in (default: gravmap-liu2024).", "DIR")
@option("--steps-per-epoch", type=click.IntRange(min=1), hidden=True, old_names=["--steps"], help="For tests.")
@seed_option
@dry_run_option
@overwrite_option
@command_options()
def command(
    session: Session,
    paper: str,
    profile: str,
    data: str | None,
    gravity: Path | None,
    maps: tuple[tuple[str, str], ...],
    gpus: int | None,
    device: str,
    output: Path | None,
    steps_per_epoch: int | None,
    seed: int,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Reproduce the tables and figures of Liu et al. 2024 (doi 10.3389/feart.2024.1407173), as far as the data allow.

    From gravity and a map to the depth study (Table 4), the ablation (5), the comparison with other networks (6),
    scores by class (7), curves, held-out blocks and the map, on one page: liu2024.html, .md and .json, with the
    paper's numbers beside ours, and baselines beside both. Runs the commands of a real project in the folder. Called
    again, it resumes where it was stopped.
    """
    refuse_contradiction(gpus, device)
    from gravmap.reproduce.plan import load_plan

    chosen = _choose(profile, data, gravity, maps)
    root = output or session.workspace.root / "gravmap-liu2024"
    plan = load_plan(profile)
    if steps_per_epoch is not None:
        plan.settings["train"] += ["--steps-per-epoch", str(steps_per_epoch)]
    if gpus is not None:
        plan.settings["device"] = ["--gpus", str(gpus)]
    elif device != "auto":
        plan.settings["device"] = ["--gpus", "0"] if device == "cpu" else ["--device", "cuda"]
    record = {"paper": paper, "profile": profile, **chosen.record, "seed": seed, "steps": steps_per_epoch}
    _require_device(plan)
    anew = _starts_anew(root, record, overwrite)
    if dry_run:
        return _print_plan(session, plan, chosen, root, anew)
    start = time.monotonic()
    replaced = [root / part for part in PARTS] if anew else []
    legends = [Path(name) for _, name in chosen.maps]
    session.writing(
        [root / RECORD], [gravity, *(Path(file) for file, _ in maps), *legends], True, folders=replaced, lock=root
    )
    if anew:
        for part in replaced:
            remove_folder(part)
        write_json(root / RECORD, record)
    place = Workspace(root)
    session.say(f"Profile {profile}, data: {chosen.description}. {plan.settings['note']}")
    region = _prepare(session, place, plan, chosen, seed)
    for number, each in enumerate(plan.runs, 1):
        done = (place.runs / each.name / "scores.json").exists()
        title = f"Network {number} of {len(plan.runs)}: {each.label}, {each.protocol}"
        session.say(f"\n{title}{' (trained already)' if done else ''}")
        if each.missing:
            session.warn(f"{each.name} is left out. {each.missing}")
        elif not done:
            _train(session, place, plan, each.words(root, plan.settings, seed), each.name)
    if not (place.maps / region / "report.html").exists():
        filling = ["--fill-unmapped"] if _mostly_unmapped(place, region) else []
        session.run(root, ["predict", "--region", region, "--run", f"blocks-{MAPPED}", *filling, "--overwrite"])

    from gravmap.reproduce.results import Made, write_results

    truth = place.raw / "truth.tif"
    made = Made(
        place,
        plan,
        chosen.description,
        seed,
        region,
        truth if chosen.kind == "crust" else None,
        session.command_line,
        _maps(place, chosen),
    )
    with session.progress("Figure 5") as progress:
        paths = write_results(made, device=_device(plan), progress=progress)
    session.say(f"\nDone in {(time.monotonic() - start) / 60:.0f} min. Look at:")
    for path in paths.values():
        session.say(f"  {path}")
    session.result(
        {
            "files": {name: str(path) for name, path in paths.items()},
            **read_record(paths["json"], dict[str, Any], "gravmap reproduce"),
        }
    )


def _choose(profile: str, data: str | None, gravity: Path | None, maps: tuple[tuple[str, str], ...]) -> Data:
    """The data to train on, or a usage error."""
    if gravity is not None and data is not None:
        raise click.UsageError("--data and --gravity exclude each other.")
    if gravity is not None and not maps:
        raise click.UsageError("--gravity needs --map FILE LEGEND: the classes to predict from the field.")
    if maps and data == "crust":
        raise click.UsageError("A synthetic crust has a map of its own: leave --map out, or use --data wgm2012.")
    pairs = [(str(Path(file).resolve()), _legend(name)) for file, name in maps]
    if maps:
        field = "WGM2012" if gravity is None else gravity.name
        description = f"{field} and {', '.join(Path(file).name for file, _ in maps)}"
        return Data("wgm2012" if gravity is None else "files", description, gravity and gravity.resolve(), pairs)
    kind = data or ("wgm2012" if profile == "full" else "crust")
    description = "a synthetic crust" if kind == "crust" else "WGM2012 and the USGS maps that gravmap fetch gets"
    return Data(kind, description, None, pairs)


def _maps(place: Workspace, data: Data) -> list[tuple[Path, str]]:
    """The maps and their legends, given or fetched; none for a crust."""
    from gravmap.download.present import fetched_maps

    if data.kind == "crust" or data.maps:
        return [(Path(file), legend) for file, legend in data.maps]
    return [(path, legend) for legend, path in fetched_maps(place.raw)]


def _legend(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).is_file() else name


def _starts_anew(root: Path, wanted: dict[str, Any], overwrite: bool) -> bool:
    """Whether to start anew rather than resume; refuse a folder that was started with other options."""
    record = root / RECORD
    if not record.exists():
        if root.exists() and any(root.iterdir()):
            raise InputError(f"{root} exists and holds other files.", "Name another folder with -o.")
        return True
    stored = read_record(record, dict[str, Any], "gravmap reproduce")
    others = [f"{key} {stored.get(key)!r}" for key in wanted if stored.get(key) != wanted[key]]
    if others and not overwrite:
        raise InputError(
            f"{root} was started with {', '.join(others)}.", "Name another folder with -o, or start anew: --overwrite."
        )
    return bool(others) or overwrite


def _prepare(session: Session, place: Workspace, plan: Plan, data: Data, seed: int) -> str:
    """Make fields, labels and tiles where they are missing; return the name of the region to map."""
    root = place.root
    source: list[str] = []
    maps: list[str] = []
    if data.kind == "crust":
        source = [str(place.raw / "gravity.nc")]
        maps = ["--map", str(place.raw / "map.gpkg"), "crust"]
        if not (place.raw / "crust.json").exists():
            _make_crust(session, place, plan, seed)
    else:
        maps = [word for file, legend in data.maps for word in ("--map", file, legend)]
        source = [str(data.gravity)] if data.gravity else []
        if not data.gravity and not place.fields.exists():
            session.run(root, ["fetch", *(["wgm2012"] if maps else [])])
    if not place.fields.exists():
        session.run(root, ["residual", *source, "--height", HEIGHT])
    if not place.labels.exists():
        session.run(root, ["rasterize", *maps])
    if not (place.tiles / "index.json").exists():
        sizes = plan.settings["windows"]["crust" if data.kind == "crust" else "other"]
        windows = [word for size in sizes for word in ("--window", size)]
        splits = [word for split in ("blocks", "random") for word in ("--split", split)]
        size = ["--size", str(plan.settings["size_px"])]
        # Crops are cut from the native grids: tile files would only use disk space.
        session.run(root, ["tile", *windows, *size, *splits, "--index-only", "--seed", str(seed)])
    return _region(place, data)


def _make_crust(session: Session, place: Workspace, plan: Plan, seed: int) -> None:
    from gravmap.synthetic import make_crust
    from gravmap.synthetic.files import write_crust

    rows, columns = plan.settings["crust"]
    session.say(f"A synthetic crust of {rows} x {columns} cells, half of it under cover, its bedrock known.")
    crust = make_crust(seed, (rows, columns), CRUST_SOUTH_WEST[plan.profile])
    for path in write_crust(crust, place.raw).values():
        session.say(f"  {path}")


def _region(place: Workspace, data: Data) -> str:
    """Junggar where the fields cover it, as in the paper; else their whole extent."""
    from gravmap.gravity.field_reader import fields_region
    from gravmap.regions import find_region

    whole = fields_region(place.fields)
    junggar = find_region("junggar", place.regions)
    if data.kind != "crust" and whole.contains(junggar):
        return "junggar"
    name = "crust" if data.kind == "crust" else "study"
    sides = ", ".join(f"{side:.10g}" for side in (whole.west, whole.south, whole.east, whole.north))
    write_text(place.regions, f"{name} = [{sides}]\n")
    return name


def _mostly_unmapped(place: Workspace, region: str) -> bool:
    """Whether `gravmap predict` would refuse the region for what the geological map leaves out."""
    from gravmap.geology.labels import LabelFile
    from gravmap.gravity.field_reader import FieldReader
    from gravmap.mapping.assemble import unmapped_fraction
    from gravmap.mapping.compatibility import MOST_UNMAPPED
    from gravmap.mapping.map_grid import map_grid
    from gravmap.regions import find_region

    with FieldReader(place.fields) as fields, LabelFile(place.labels) as labels:
        grid = map_grid(fields.lat[::-1], fields.lon, find_region(region, place.regions))
        return unmapped_fraction(labels, grid) > MOST_UNMAPPED


def _train(session: Session, place: Workspace, plan: Plan, words: list[str], name: str) -> None:
    """Train, or resume a run that was killed."""
    if (place.runs / name / "last.json").exists():
        session.run(place.root, ["train", "--name", name, "--resume", *plan.settings["device"]])
    else:
        session.run(place.root, ["train", *words, *plan.settings["device"], "--overwrite"])


def _require_device(plan: Plan) -> None:
    """Refuse GPUs that are not there, before data are made.

    Raises
    ------
    DeviceError
        There are fewer than the runs would train on.
    """
    import torch

    from gravmap.learning.training.distributed import choose_device

    words = dict(zip(plan.settings["device"][::2], plan.settings["device"][1::2], strict=True))
    gpus = words.get("--gpus")
    choose_device(None if gpus is None else int(gpus), words.get("--device"), torch.cuda.device_count())


def _device(plan: Plan) -> str:
    """The device that draws predictions for the figures: the one used for training."""
    import torch

    return "cpu" if plan.settings["device"] == ["--gpus", "0"] or not torch.cuda.is_available() else "cuda"


def _print_plan(session: Session, plan: Plan, data: Data, root: Path, anew: bool) -> None:
    """Print the runs, and which of them exist."""
    session.say(f"Profile {plan.profile}, data: {data.description}. {plan.settings['note']}")
    session.say(f"Would work in {root}, and train {len(plan.runs)} networks:")
    rows = []
    wide = max(len(each.name) for each in plan.runs)
    for each in plan.runs:
        done = not anew and (root / "runs" / each.name / "scores.json").exists()
        started = not anew and (root / "runs" / each.name / "last.json").exists()
        # Scripts read this word; people read another.
        state = "left out" if each.missing else "done" if done else RESUMABLE if started else "to be trained"
        session.say(f"  {each.name:<{wide}} {each.label:<36} {'to be resumed' if state == RESUMABLE else state}")
        rows.append({"name": each.name, "network": each.network, "protocol": each.protocol, "state": state})
    session.say(
        f"Then the map of {'junggar or ' if data.kind != 'crust' else ''}the whole region, and {root / 'liu2024.html'}."
    )
    session.result({"folder": str(root), "profile": plan.profile, "data": data.description, "runs": rows})
