"""`gravmap reproduce`: a paper's tables and figures from raw files, with one command."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gravmap.errors import InputError
from gravmap.files import read_json, write_json, write_text
from gravmap.workspace import Workspace

from .chain import run
from .options import dry_run_option, overwrite_option, seed_option
from .session import Session, command_options

if TYPE_CHECKING:
    from gravmap.reproduce import Plan

RECORD = "reproduce.json"
PARTS = ("data", "runs", "maps", "figures", "architectures")
HEIGHT = "10km"
CRUST_SOUTH_WEST = {"quick": (82.0, 43.0), "full": (65.0, 40.0)}
MAPPED = "ggmnet-22"


@dataclass(frozen=True)
class Data:
    """What is learned from.

    Attributes
    ----------
    kind : str
        ``crust``, ``wgm2012`` or ``files``.
    told : str
        In words, for the page's first line.
    gravity : Path or None
        A user's grid.
    maps : list of (str, str)
        A user's maps and their legends.
    """

    kind: str
    told: str
    gravity: Path | None
    maps: list[tuple[str, str]]

    @property
    def record(self) -> dict[str, Any]:
        """What a folder is begun with, as JSON values."""
        return {"data": self.told, "gravity": str(self.gravity or ""), "maps": [list(pair) for pair in self.maps]}


@click.command(
    "reproduce",
    epilog="""\b
Examples:
  gravmap reproduce liu2024
  gravmap reproduce liu2024 --map MY_MAP.gpkg ics -o mine
  gravmap reproduce liu2024 --gravity MY_GRID.nc --map MY_MAP.gpkg ics -o mine
  gravmap reproduce liu2024 --profile full --gpus 4""",
)
@click.argument("paper", type=click.Choice(["liu2024"]))
@click.option(
    "--profile",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="quick: small networks and few steps, under 45 minutes on 2 cores; full: the paper's, for GPUs.",
)
@click.option(
    "--data",
    type=click.Choice(["crust", "wgm2012"]),
    help="crust: a synthetic one, offline, its bedrock known (default of quick); wgm2012: what `gravmap fetch` gets"
    " (default of full).",
)
@click.option(
    "--gravity",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A grid of yours, instead of WGM2012; with --map.",
)
@click.option(
    "--map",
    "maps",
    type=(click.Path(exists=True), str),
    multiple=True,
    metavar="FILE LEGEND",
    help="A map of yours and its legend (without --gravity: for WGM2012); may be repeated, and an earlier one wins.",
)
@click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs to train on (default: full all, quick 0).")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder (default: gravmap-liu2024).")
@click.option("--steps", type=click.IntRange(min=1), hidden=True, help="Of an epoch; for tests.")
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
    output: Path | None,
    steps: int | None,
    seed: int,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Reproduce the tables and figures of Liu et al. 2024 (doi 10.3389/feart.2024.1407173), as far as the data allow.

    From gravity and a map to the depth study (Table 4), the ablation (5), the comparison with other networks (6),
    scores class by class (7), curves, held-out ground and the map, on one page: liu2024.html, .md and .json,
    the paper's numbers beside ours, null models beside both. Runs the commands of a real project in the folder.
    Stopped, it goes on where it was when it is called again.
    """
    from gravmap.reproduce import load_plan

    chosen = _choose(profile, data, gravity, maps)
    root = output or session.workspace.root / "gravmap-liu2024"
    plan = load_plan(profile)
    if steps is not None:
        plan.settings["train"] += ["--steps", str(steps)]
    if gpus is not None:
        plan.settings["device"] = ["--gpus", str(gpus)]
    asked = {"paper": paper, "profile": profile, **chosen.record, "seed": seed, "steps": steps}
    anew = _begin_anew(root, asked, overwrite)
    if dry_run:
        return _tell(session, plan, chosen, root, anew)
    start = time.monotonic()
    if anew:
        for part in PARTS:
            shutil.rmtree(root / part, ignore_errors=True)
        write_json(root / RECORD, asked)
    place = Workspace(root)
    session.say(f"Profile {profile}, data: {chosen.told}. {plan.settings['note']}")
    region = _prepare(session, place, plan, chosen, seed)
    for number, each in enumerate(plan.runs, 1):
        done = (place.runs / each.name / "scores.json").exists()
        told = f"Network {number} of {len(plan.runs)}: {each.label}, {each.protocol}"
        session.say(f"\n{told}{' (there already)' if done else ''}")
        if each.missing:
            session.warn(f"{each.name} is left out. {each.missing}")
        elif not done:
            _train(session, place, plan, each.words(root / "architectures", plan.settings, seed), each.name)
    if not (place.maps / region / "report.html").exists():
        run(session, root, ["predict", "--region", region, "--run", f"blocks-{MAPPED}", "--overwrite"])

    from gravmap.reproduce.results import Made, write_results

    truth = place.raw / "truth.tif"
    made = Made(place, plan, chosen.told, seed, region, truth if chosen.kind == "crust" else None, session.command_line)
    with session.progress("Figure 5") as progress:
        paths = write_results(made, device=_device(plan), progress=progress)
    session.say(f"\nDone in {(time.monotonic() - start) / 60:.0f} min. Look at:")
    for path in paths.values():
        session.say(f"  {path}")
    session.result({"files": {name: str(path) for name, path in paths.items()}, **read_json(paths["json"], "this")})


def _choose(profile: str, data: str | None, gravity: Path | None, maps: tuple[tuple[str, str], ...]) -> Data:
    """What is learned from, or a usage error."""
    if gravity is not None and data is not None:
        raise click.UsageError("--data and --gravity exclude each other.")
    if gravity is not None and not maps:
        raise click.UsageError("--gravity needs --map FILE LEGEND: the classes to learn from the field.")
    if maps and data == "crust":
        raise click.UsageError("A synthetic crust has a map of its own: leave --map out, or take --data wgm2012.")
    pairs = [(str(Path(file).resolve()), _legend(name)) for file, name in maps]
    if maps:
        field = "WGM2012" if gravity is None else gravity.name
        told = f"{field} and {', '.join(Path(file).name for file, _ in maps)}"
        return Data("wgm2012" if gravity is None else "files", told, gravity and gravity.resolve(), pairs)
    kind = data or ("crust" if profile == "quick" else "wgm2012")
    told = "a synthetic crust" if kind == "crust" else "WGM2012 and the USGS maps that gravmap fetch gets"
    return Data(kind, told, None, pairs)


def _legend(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).is_file() else name


def _begin_anew(root: Path, asked: dict[str, Any], overwrite: bool) -> bool:
    """Whether the folder is to be begun, not gone on with; refuse one that was begun with other words."""
    record = root / RECORD
    if not record.exists():
        if root.exists() and any(root.iterdir()):
            raise InputError(f"{root} exists and holds something else.", "Name another folder with -o.")
        return True
    began = read_json(record, "gravmap reproduce")
    others = [f"{key} {began.get(key)!r}" for key in asked if began.get(key) != asked[key]]
    if others and not overwrite:
        raise InputError(
            f"{root} was begun with {', '.join(others)}.", "Name another folder with -o, or begin anew: --overwrite."
        )
    return bool(others) or overwrite


def _prepare(session: Session, place: Workspace, plan: Plan, data: Data, seed: int) -> str:
    """Fields, labels and tiles, each where it is missing; gives the name of the region to map."""
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
            run(session, root, ["fetch", *(["wgm2012"] if maps else [])])
    if not place.fields.exists():
        run(session, root, ["residual", *source, "--height", HEIGHT])
    if not place.labels.exists():
        run(session, root, ["rasterize", *maps])
    if not (place.tiles / "index.json").exists():
        sizes = plan.settings["windows"]["crust" if data.kind == "crust" else "other"]
        windows = [word for size in sizes for word in ("--window", size)]
        splits = [word for split in ("blocks", "random") for word in ("--split", split)]
        size = ["--size", str(plan.settings["size_px"])]
        # Crops are cut from the native grids: the tile files themselves would only take room.
        run(session, root, ["tile", *windows, *size, *splits, "--index-only", "--seed", str(seed)])
    return _region(place, data)


def _make_crust(session: Session, place: Workspace, plan: Plan, seed: int) -> None:
    from gravmap.synthetic import make_crust, write_crust

    rows, columns = plan.settings["crust"]
    session.say(f"A synthetic crust of {rows} x {columns} cells, half of it under cover, the truth known.")
    crust = make_crust(seed, (rows, columns), CRUST_SOUTH_WEST[plan.profile])
    for path in write_crust(crust, place.raw).values():
        session.say(f"  {path}")


def _region(place: Workspace, data: Data) -> str:
    """Junggar where the fields hold it, as in the paper; else all of them."""
    from gravmap.gravity import fields_region
    from gravmap.regions import find_region

    whole = fields_region(place.fields)
    junggar = find_region("junggar", place.regions)
    if data.kind != "crust" and whole.contains(junggar):
        return "junggar"
    name = "crust" if data.kind == "crust" else "study"
    sides = ", ".join(f"{side:.10g}" for side in (whole.west, whole.south, whole.east, whole.north))
    write_text(place.regions, f"{name} = [{sides}]\n")
    return name


def _train(session: Session, place: Workspace, plan: Plan, words: list[str], name: str) -> None:
    """Train anew, or go on with what a kill left."""
    if (place.runs / name / "last.json").exists():
        run(session, place.root, ["train", "--name", name, "--resume", *plan.settings["device"]])
    else:
        run(session, place.root, ["train", *words, *plan.settings["device"], "--overwrite"])


def _device(plan: Plan) -> str:
    """Where networks are asked for the pictures: where they were trained."""
    import torch

    return "cpu" if plan.settings["device"] == ["--gpus", "0"] or not torch.cuda.is_available() else "cuda"


def _tell(session: Session, plan: Plan, data: Data, root: Path, anew: bool) -> None:
    """The runs, and what is there of them."""
    session.say(f"Profile {plan.profile}, data: {data.told}. {plan.settings['note']}")
    session.say(f"Would work in {root}, and train {len(plan.runs)} networks:")
    rows = []
    for each in plan.runs:
        done = not anew and (root / "runs" / each.name / "scores.json").exists()
        begun = not anew and (root / "runs" / each.name / "last.json").exists()
        state = "left out" if each.missing else "done" if done else "to be gone on with" if begun else "to be trained"
        session.say(f"  {each.name:<30} {each.label:<36} {state}")
        rows.append({"name": each.name, "network": each.network, "protocol": each.protocol, "state": state})
    session.say(
        f"Then the map of {'junggar or ' if data.kind != 'crust' else ''}the whole, and {root / 'liu2024.html'}."
    )
    session.result({"folder": str(root), "profile": plan.profile, "data": data.told, "runs": rows})
