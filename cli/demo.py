"""`gravmap demo`: all steps of a project on a synthetic crust whose bedrock is known."""

from __future__ import annotations

import time
from pathlib import Path

import click

from .options import Command, output_option, overwrite_option, seed_option
from .session import Session, command_options

# Sizes that fit two cores and three minutes. A real project needs none of these options.
SHAPE = (240, 360)  # of the crust; those that the shipped network was trained on are as large
WINDOW, TILE_PX = "7deg", 224  # the largest that fit, at pixels as wide as the cells
REGIONS = "regions.toml"  # written first
# A third of the recipe's learning rate, with which 200 steps lead away from label diffusion, where training begins.
TRAINING = ("--epochs", "10", "--steps-per-epoch", "20", "--lr", "0.001")


@click.command(
    "demo",
    cls=Command,
    short_help="Run all steps on a synthetic crust, offline, in minutes.",
    epilog="Example: gravmap demo",
)
@click.argument("old_output", metavar="", required=False, type=click.Path(path_type=Path))
@output_option("Folder to work in (default: gravmap-demo).", "DIR")
@seed_option
@overwrite_option
@command_options()
def command(session: Session, old_output: Path | None, output: Path | None, seed: int, overwrite: bool) -> None:
    """Run all steps of a project on a synthetic crust, offline, on the CPU, in minutes.

    Simulates a crust whose bedrock under cover is known, then runs the commands of a real project on its gravity and
    its surface map. A GGMNet is trained on its outcrop. The map of this network, that of the GGMNet shipped with
    gravmap (trained on other simulated crusts) and two baselines are scored under cover and drawn beside the truth.
    """
    start = time.monotonic()
    if old_output is not None:
        session.warn(f"The argument {old_output} is deprecated: use -o {old_output}.")
    root = output or old_output or session.workspace.root / "gravmap-demo"
    from gravmap.errors import InputError
    from gravmap.files import write_text
    from gravmap.records import read_model
    from gravmap.reproduce.demo import SCORES
    from gravmap.workspace import SHIPPED, shipped_model

    session.writing([root / REGIONS], [], True, lock=root)
    # What a demo left that was stopped may be replaced.
    stopped = (root / REGIONS).exists() and (root / REGIONS).read_text().startswith("demo = [")
    stopped = stopped and not (root / SCORES).exists()
    if root.exists() and any(root.iterdir()) and not (overwrite or stopped):
        raise InputError(
            f"{root} exists already.", "Add --overwrite to run the demo in it again, or name another folder with -o."
        )
    trained_on = read_model(shipped_model()).get("taught_on", {})
    channels = list(trained_on["channels"])

    session.say(
        "A synthetic crust: fault-bounded belts, plutons and basins, half of it under cover, its bedrock known."
    )
    from gravmap.synthetic import make_crust
    from gravmap.synthetic.files import write_crust

    crust = make_crust(seed, SHAPE, sub=1)
    raw = root / "data" / "raw"
    west, south, east, north = crust.bounds_wsen
    write_text(root / REGIONS, f"demo = [{west:.10g}, {south:.10g}, {east:.10g}, {north:.10g}]\n")
    files = write_crust(crust, raw)
    for path in files.values():
        session.say(f"  {path}")

    # A second run may replace what the first one wrote, and nothing else.
    again = ["--overwrite"] if overwrite or stopped else []
    gravity, geology = str(files["gravity"]), str(files["map"])
    # Both networks have the same architecture and inputs: only the training data differ.
    heights = [word for name in channels for word in ("--height", name.removeprefix("residual_"))]
    kind = ["--context", "outcrop", "--recipe", "crusts", "--input", ",".join(channels)]
    session.run(root, ["residual", gravity, *heights, *again])
    session.run(root, ["rasterize", geology, "--legend", "crust", *again])
    session.run(root, ["tile", "--window", WINDOW, "--size", str(TILE_PX), "--seed", str(seed), *again])
    session.run(root, ["train", "--gpus", "0", *kind, *TRAINING, "--name", "outcrop", "--seed", str(seed), *again])
    session.run(root, ["predict", "--region", "demo", *again])
    beside = root / "maps" / "demo-crusts"
    session.run(root, ["predict", "--region", "demo", "--run", SHIPPED, "-o", str(beside), *again])

    from gravmap.reproduce.demo import CRUSTS, OUTCROP, score_demo

    found = score_demo(root, files["truth"], seed, {OUTCROP: root / "maps" / "demo", CRUSTS: beside}, trained_on)
    for line in ["", *found.lines, "", *found.conclusions]:
        session.say(line)
    took = time.monotonic() - start
    session.say("")
    session.say(f"All steps took {took:.0f} s. Look at:")
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
  gravmap predict --region junggar        (with the shipped network: nothing is trained)
Then test whether a network trained on the region's own outcrop beats the baselines on held-out blocks:
  gravmap tile
  gravmap train --context outcrop --init crusts-central-asia --gpus 4
  gravmap evaluate --baselines"""
