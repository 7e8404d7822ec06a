"""Damaged inputs and killed processes: what the commands do with them, counted.

    python benchmarks/hostile_inputs.py [--mutations 1200] [--kills 200] [--seed 0] [--only residual]

A small workspace is made with gravmap itself. For each mutation, one of its files (or the same grid or map in another
format) is damaged, and a command that reads it is run in a forked process with a limit of time and memory. For each
kill, a command is killed at one of its renames, or at a random moment, and run again.

Every mutation says whether the damage can be seen: a header that no longer fits the file can, another digit in a column
of numbers cannot. Counted are

- refused: exit status 2 to 5, with a message;
- same: status 0, and the result is that of the undamaged file, or there is no result to compare (a dry run);
- other: status 0 and another result, of damage that cannot be seen;
- WRONG: status 0 and another result although the damage can be seen;
- UNEXPECTED: "unexpected ...", a traceback, a raw warning, or exit status 1;
- HANG: over 10 s of processor time or 60 s in all;
- MEMORY: over 2 GB;
- LOST: an unfinished file that stays, a file of before that is gone, or the same command does not succeed.

The capitals are faults; the exit status is 1 if there is any.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hostile_kills import kill_all
from hostile_mutations import Mutator, of_bytes, of_geojson, of_json, of_netcdf, of_text, of_toml
from hostile_workspace import FAULTS, TRAIN, Tally, make_workspace, run


@dataclass
class Input:
    """A file, a command that reads it, and the result to compare (none of a dry run)."""

    path: str
    mutate: Mutator
    args: list[str]
    result: str | None = None
    # Whether every byte of the file is covered by a checksum, a length, or a hash in a record beside it.
    checked: bool = False


def inputs() -> list[Input]:
    """All the files that commands read."""
    grid = ["residual", "{}", "--height", "5km", "-o", "out.nc"]
    labels = [
        "rasterize",
        "{}",
        "--legend",
        "crust",
        "--bbox",
        "82",
        "46.7",
        "85",
        "48.9",
        "--resolution",
        "2arcmin",
        "-o",
        "out.tif",
    ]
    train = [*TRAIN, "-n", "--name", "new"]
    predict = ["predict", "--region", "r", "--run", "a", "-n", "--no-prior-check", "-o", "maps/new"]
    grids = {
        "nc4.nc": of_netcdf,
        "packed.nc": of_netcdf,
        "nc3.nc": of_netcdf,
        "plain.tif": of_bytes,
        "deflated.tif": of_bytes,
    }
    grids |= {
        "grid.xyz": of_text,
        "grid.gdf": of_text,
        "dsaa.grd": of_text,
        "surfer6.grd": of_bytes,
        "surfer7.grd": of_bytes,
    }
    found = [Input(f"in/{name}", mutate, grid, "out.nc") for name, mutate in grids.items()]
    maps = {"map.gpkg": of_bytes, "map.geojson": of_geojson, "map.zip": of_bytes}
    found += [Input(f"in/{name}", mutate, labels, "out.tif", name == "map.zip") for name, mutate in maps.items()]
    shp = [arg.replace("{}", "in/shp/map.shp") for arg in labels]
    found += [Input(f"in/shp/map.{part}", of_bytes, shp, "out.tif") for part in ("shp", "shx", "dbf", "prj", "cpg")]
    found += [
        Input("in/map.gpkg", of_bytes, ["legend", "check", "{}", "--legend", "crust"]),
        Input(
            "in/legend.toml",
            of_toml,
            [*[a.replace("{}", "in/map.gpkg").replace("crust", "in/legend.toml") for a in labels]],
        ),
        Input("in/prior.toml", of_toml, ["crust", "--prior", "{}", "--shape", "24", "24", "-o", "outcrust"]),
        Input(
            "regions.toml", of_toml, ["residual", "in/nc4.nc", "--height", "5km", "--region", "r", "-n", "-o", "out.nc"]
        ),
        Input("gravmap.toml", of_toml, ["residual", "in/nc4.nc", "-o", "out.nc"]),
        Input("gravmap.toml", of_toml, predict),
        Input("in/clip.geojson", of_geojson, ["predict", "--polygon", "{}", "--run", "a", "-n", "-o", "maps/new"]),
        Input("points.csv", of_text, ["evaluate", "a", "--points", "{}", "--class-field", "lith"]),
        Input("data/fields.nc", of_netcdf, train),
        Input("data/fields.nc", of_netcdf, predict),
        Input("data/labels.tif", of_bytes, train),
        Input("data/labels.tif", of_bytes, ["tile", "--window", "1deg", "--index-only", "--overwrite", "-n"]),
        Input("data/labels.legend.toml", of_toml, ["tile", "--window", "1deg", "--index-only", "--overwrite", "-n"]),
        Input("data/labels.legend.toml", of_toml, predict),
        Input("data/tiles/index.json", of_json, train),
        Input("data/tiles/index.json", of_json, ["split", "--report"]),
        Input("data/tiles/index.parquet", of_bytes, ["split", "--report"]),
        Input("runs/a/model.json", of_json, predict),
        Input("runs/a/model.safetensors", of_bytes, ["verify", "runs/a"], checked=True),
        Input("runs/a/model.safetensors", of_bytes, predict, checked=True),
        Input("runs/a/calibration.json", of_json, ["verify", "runs/a"], checked=True),
        Input("runs/a/scores.json", of_json, ["verify", "runs/a"], checked=True),
        Input("runs/a/reach.safetensors", of_bytes, ["verify", "runs/a"], checked=True),
        Input("runs/a/calibration.json", of_json, predict, checked=True),
        Input("runs/u/last.json", of_json, ["train", "--gpus", "0", "--resume", "--name", "u", "--epochs", "2"]),
        Input(
            "runs/u/last.safetensors", of_bytes, ["train", "--gpus", "0", "--resume", "--name", "u", "--epochs", "2"]
        ),
        Input("runs/a/model.json", of_json, ["verify", "runs/a"]),
        Input("maps/r/provenance.json", of_json, ["verify", "maps/r"]),
        Input("maps/r/lithology.tif", of_bytes, ["verify", "maps/r"], checked=True),
        Input("maps/r/lithology.gpkg", of_bytes, ["verify", "maps/r"]),
        Input("runs/latest", of_bytes, ["predict", "--region", "r", "-n", "-o", "maps/new", "--no-prior-check"]),
    ]
    return found


def result_of(path: Path) -> Any:
    """The values and the place of a grid or of a label raster."""
    if path.suffix == ".nc":
        import xarray as xr

        with xr.open_dataset(path) as grid:
            return [np.asarray(grid[name].values) for name in ("lat", "lon", "bouguer", "residual_5km")]
    import rasterio

    with rasterio.open(path) as raster:
        return [raster.read(1), np.asarray(raster.transform)]


def same_results(one: Any, other: Any) -> bool:
    """Whether two results agree, to the last digits of a text format."""
    return all(
        a.shape == b.shape and np.allclose(a.astype("f8"), b.astype("f8"), rtol=0, atol=2e-3, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )


def mutate_all(workspace: Path, count: int, seed: int, only: str, tally: Tally) -> None:
    """Damage `count` files, in turn one of each input."""
    chosen = [item for item in inputs() if only in f"{item.path} {' '.join(item.args)}"]
    right: dict[str, Any] = {}
    trials = workspace.parent / "trials"
    for number in range(count):
        item = chosen[number % len(chosen)]
        rng = random.Random(f"{seed}-{number}-{item.path}")
        args = [item.path if arg == "{}" else arg for arg in item.args]
        where = f"{item.path} <- {' '.join(args[:2])}"
        copy = trials / f"{number}"
        # Hard links: a command replaces files and never writes into them; the damaged file is written anew.
        shutil.copytree(workspace, copy, copy_function=os.link)
        if where not in right:
            ended = run(args, copy)
            if ended.status:
                raise SystemExit(f"{where}, undamaged: status {ended.status} {ended.text}")
            right[where] = result_of(copy / item.result) if item.result else None
            shutil.rmtree(copy)
            shutil.copytree(workspace, copy, copy_function=os.link)
        mutation = item.mutate(rng, (copy / item.path).read_bytes(), item.checked)
        same_bytes = mutation.data == (copy / item.path).read_bytes()
        (copy / item.path).unlink()
        (copy / item.path).write_bytes(mutation.data)
        ended = run(args, copy)
        kind = ended.kind
        if kind == "same" and item.result:
            if not (copy / item.result).exists():
                kind = "WRONG"
            elif not same_results(right[where], result_of(copy / item.result)):
                kind = "WRONG" if mutation.seen else "other"
        elif (
            kind == "same"
            and mutation.seen
            and not same_bytes
            and (item.checked or mutation.name in ("empty", "deep", "digits"))
        ):
            kind = "WRONG"
        if kind not in FAULTS and any(copy.rglob("*.partial-*")):
            kind = "LOST"
        used = f"{ended.cpu_s:.1f} s {ended.memory_bytes >> 20} MB"
        note = f"[{number}] {mutation.name}: status {ended.status} {used} {ended.text[-300:]!r}"
        tally.add(where, kind, note)
        shutil.rmtree(copy, ignore_errors=True)


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=1200)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only inputs whose path or command holds this text")
    parser.add_argument("--workspace", type=Path, help="keep the workspace here, and use it if it is there")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"

    # What every command needs, imported once before the forks.
    import geopandas  # noqa: F401
    import rasterio  # noqa: F401
    import rioxarray  # noqa: F401
    import torch

    import gravmap_cli

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    tally = Tally()
    with tempfile.TemporaryDirectory() as place:
        workspace = options.workspace or Path(place) / "workspace"
        if not workspace.exists():
            make_workspace(workspace)
        shutil.rmtree(workspace.parent / "trials", ignore_errors=True)
        (workspace.parent / "trials").mkdir()
        started = time.monotonic()
        mutate_all(workspace, options.mutations, options.seed, options.only, tally)
        kill_all(workspace, options.kills, options.seed, options.only, tally)
        faults = tally.report()
        print(
            f"{time.monotonic() - started:.0f} s, {faults} faults, gravmap of {Path(gravmap_cli.__file__).parent.name}"
        )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
