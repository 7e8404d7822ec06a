"""`gravmap demo`: the whole chain on a crust whose bedrock is known."""

from __future__ import annotations

import time
from pathlib import Path

import click

from .chain import run
from .options import overwrite_option, seed_option
from .session import Session, command_options

# Sizes that fit two cores and three minutes. A real run needs none of these options.
SHAPE = (240, 360)  # of the crust; those that taught the shipped network are as large
WINDOW, TILE_PX = "7deg", 224  # the largest that fit, at pixels as wide as the cells
TRAINING = ("--epochs", "10", "--steps", "20", "--time-limit", "60s")


@click.command("demo", epilog="Example: gravmap demo")
@click.argument("folder", metavar="[DIR]", required=False)
@seed_option
@overwrite_option
@command_options()
def command(session: Session, folder: str | None, seed: int, overwrite: bool) -> None:
    """Run the whole chain on a synthetic crust, offline, on the CPU, in minutes.

    Makes a crust whose bedrock under cover is known, then runs the very commands of a real project on its gravity
    and its surface map in DIR (default: gravmap-demo): a network is taught on its outcrop. Its map, that of the
    network which gravmap ships (taught on other simulated crusts), and two null models are scored under cover and
    drawn side by side with the truth.
    """
    start = time.monotonic()
    root = Path(folder) if folder else session.workspace.root / "gravmap-demo"
    from gravmap.errors import InputError
    from gravmap.files import read_json, write_text
    from gravmap.workspace import SHIPPED, shipped_model

    if root.exists() and any(root.iterdir()) and not overwrite:
        raise InputError(f"{root} exists already.", "Add --overwrite to run the demo in it anew, or name another DIR.")
    taught_on = read_json(shipped_model() / "model.json", "pip install gravmap")["taught_on"]
    channels = list(taught_on["channels"])

    session.say("A synthetic crust: fault-bounded belts, plutons and basins, half of it under cover, the truth known.")
    from gravmap.synthetic import make_crust, write_crust

    crust = make_crust(seed, SHAPE, sub=1)
    raw = root / "data" / "raw"
    files = write_crust(crust, raw)
    west, south, east, north = crust.bounds_wsen
    write_text(root / "regions.toml", f"demo = [{west:.10g}, {south:.10g}, {east:.10g}, {north:.10g}]\n")
    for path in files.values():
        session.say(f"  {path}")

    # A second run may replace what the first one wrote; nothing else is touched.
    again = ["--overwrite"] if overwrite else []
    gravity, geology = str(files["gravity"]), str(files["map"])
    # Both networks are of one kind and read the same: what differs is the ground that taught them.
    heights = [word for name in channels for word in ("--height", name.removeprefix("residual_"))]
    kind = ["--context", "outcrop", "--recipe", "crusts", "--input", ",".join(channels)]
    run(session, root, ["residual", gravity, *heights, *again])
    run(session, root, ["rasterize", geology, "--legend", "crust", *again])
    run(session, root, ["tile", "--window", WINDOW, "--size", str(TILE_PX), "--seed", str(seed), *again])
    run(session, root, ["train", "--gpus", "0", *kind, *TRAINING, "--name", "outcrop", "--seed", str(seed), *again])
    run(session, root, ["predict", "--region", "demo", *again])
    beside = root / "maps" / "demo-crusts"
    run(session, root, ["predict", "--region", "demo", "--run", SHIPPED, "-o", str(beside), *again])

    from gravmap.reproduce.demo import CRUSTS, OUTCROP, score_demo

    found = score_demo(root, files["truth"], seed, {OUTCROP: root / "maps" / "demo", CRUSTS: beside}, taught_on)
    for line in ["", *found.lines, "", *found.conclusions]:
        session.say(line)
    took = time.monotonic() - start
    session.say("")
    session.say(f"The whole chain took {took:.0f} s. Look at:")
    for picture in found.pictures:
        session.say(f"  {picture}")
    session.say(NEXT)
    session.result(
        {
            "seconds": took,
            "scores": found.scores,
            "said": found.conclusions,
            "pictures": [str(path) for path in found.pictures],
        }
    )


NEXT = """
Next, on real data, in an empty folder:
  gravmap fetch
  gravmap residual --height 10km
  gravmap rasterize
  gravmap predict --region junggar        (with the network taught on crusts: nothing is trained)
Then see whether a network taught on the region's own outcrop beats the null models on ground that was held out:
  gravmap tile
  gravmap train --context outcrop --init crusts-central-asia --gpus 4
  gravmap evaluate --baselines"""
