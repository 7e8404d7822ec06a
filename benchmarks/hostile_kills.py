"""Commands killed at a rename or at a random moment, and run again."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile_workspace import FAULTS, TRAIN, Tally, run


def kill_at_rename(number: int, after: bool) -> Callable[[], None]:
    """Kill the process at its `number`-th rename."""

    def prepare() -> None:
        real, count = os.replace, 0

        def replace(*args: Any, **options: Any) -> None:
            nonlocal count
            count += 1
            if count == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*args, **options)
            if count == number and after:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace

    return prepare


def commands_to_kill() -> list[tuple[list[str], list[str]]]:
    """Each command that writes, and one that checks what it wrote."""
    tile = ["tile", "--window", "1deg", "--size", "64", "--block", "0.5deg", "--buffer", "0.05deg", "--folds", "3"]
    return [
        (
            ["crust", "--shape", "40", "40", "-o", "new"],
            ["residual", "new/gravity.nc", "--height", "5km", "-n", "-o", "x.nc"],
        ),
        (["residual", "in/nc4.nc", "--height", "5km", "--overwrite"], [*tile, "-n", "--overwrite"]),
        (
            ["rasterize", "in/map.gpkg", "--legend", "crust", "--resolution", "30arcsec", "--overwrite"],
            [*tile, "-n", "--overwrite"],
        ),
        ([*tile, "--overwrite"], ["verify", "data/tiles"]),
        (["split", "--add", "blocks", "--name", "q1", "--block", "0.6deg", "--folds", "3"], ["verify", "data/tiles"]),
        ([*TRAIN, "--name", "new"], ["verify", "runs/new"]),
        (["predict", "--region", "r", "--run", "a", "--no-prior-check", "--overwrite"], ["verify", "maps/r"]),
        (["export", "a", "--format", "torch", "--output", "new.pt2"], ["verify", "runs/a"]),
        (
            ["legend", "draft", "in/map.gpkg", "--field", "CLASS", "-o", "new.toml"],
            ["legend", "check", "in/map.gpkg", "--legend", "new.toml"],
        ),
    ]


def kill_all(workspace: Path, count: int, seed: int, only: str, tally: Tally) -> None:
    """Kill commands at renames and at random moments, and run them again; nothing that was there may be lost."""
    chosen = [pair for pair in commands_to_kill() if only in " ".join(pair[0])]
    trials, lengths = workspace.parent / "trials", {}
    for number in range(count):
        args, check = chosen[number % len(chosen)]
        rng = random.Random(f"{seed}-{number}-kill")
        where = f"kill {' '.join(args[:2])}"
        copy = trials / f"k{number}"
        shutil.copytree(workspace, copy, copy_function=os.link)
        if where not in lengths:
            started = time.monotonic()
            whole = run(args, copy)
            if whole.status:
                raise SystemExit(f"{where}: status {whole.status} {whole.text}")
            lengths[where] = time.monotonic() - started
            shutil.rmtree(copy)
            shutil.copytree(workspace, copy, copy_function=os.link)
        there = {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()}
        turn = number // len(chosen)
        if turn % 4 < 3:
            step, after = 1 + (turn // 4 * 3 + turn % 4) % 14, rng.random() < 0.5
            moment = f"{'after' if after else 'before'} rename {step}"
            run(args, copy, kill_at_rename(step, after))
        else:
            wait = rng.uniform(0.05, 0.95) * lengths[where]
            moment = f"at {wait:.2f} s"
            run(args, copy, kill_after_s=wait)
        ended = run(args, copy)
        if ended.status == 3 and (hint := re.search(r"`gravmap ([^`]+)`", ended.text)):
            ended = run(hint[1].split(), copy)
        elif ended.status == 3 and "--overwrite" in ended.text:
            # The first one was whole already.
            ended = run([*args, "--overwrite"], copy)
        # A sidecar that describes the old raster goes before the new one comes, and is written again.
        gone = [str(path) for path in there if not (copy / path).exists()]
        kind = "same"
        if ended.kind in FAULTS or ended.status:
            kind = "LOST" if ended.status in (2, 3, 4, 5) else ended.kind
        elif gone:
            kind = "LOST"
        if kind == "same":
            checked = run(check, copy)
            if checked.status or checked.kind in FAULTS:
                kind, ended = "LOST", checked
        if kind == "same" and any(copy.rglob("*.partial-*")):
            # A hidden file; the next command removes it, unless another process has got the number of the killed one.
            kind = "same, with a temporary file"
        tally.add(where, kind, f"[{number}] {moment}: gone {gone}; again: status {ended.status} {ended.text[-300:]!r}")
        shutil.rmtree(copy, ignore_errors=True)
