"""Make the network that gravmap ships: trained on simulated crusts of a prior, without data of any region.

The first three steps take three hours on a core and can be stopped and resumed:

    gravmap train --on crusts --count 400 --epochs 100 --steps-per-epoch 400 --time-limit 75min \
        --device cpu --name crusts400
    gravmap train --on crusts --count 800 --init crusts400 --lr 0.0015 --epochs 100 --steps-per-epoch 800 \
        --time-limit 27min --device cpu --name crusts800
    gravmap train --on crusts --count 1200 --init crusts800 --lr 0.0015 --epochs 100 --steps-per-epoch 1200 \
        --time-limit 56min --device cpu --name crusts1200
    python benchmarks/ship_crusts.py runs/crusts1200 gravmap/models/crusts-central-asia

The last command writes the weights as float16, with the same scores, and all other files that `gravmap predict` needs.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gravmap.files import read_json, write_json
from gravmap.learning.calibration.applicability import FILE as REACH
from gravmap.learning.calibration.temperature import FILE as CALIBRATION
from gravmap.learning.calibration.temperature import read_calibration, write_calibration
from gravmap.learning.training.checkpoint import MODEL, load_model, write_pair

MAX_WEIGHTS_BYTES = 4_000_000


def ship(run: Path, folder: Path) -> int:
    """Write a finished run as a shipped model; returns the size of all its files in bytes."""
    network, spec = load_model(run)
    calibration = read_calibration(run)
    if not spec.taught_on.get("on") or calibration is None or not (run / "scores.json").exists():
        raise SystemExit(f"{run} is not a finished run on crusts.")
    # Running statistics may exceed the range of float16; they are few numbers.
    float16_weights = {
        name: value.to(torch.float16) if value.is_floating_point() and "running_" not in name else value
        for name, value in network.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    record = asdict(spec)
    record["recipe"]["init"] = _initial_run(spec.recipe.get("init"))
    write_pair(folder, MODEL, float16_weights, record)
    measured = {key: value for key, value in calibration.record.items() if key not in ("format", "model_sha256")}
    write_calibration(folder, measured)
    shutil.copyfile(run / REACH, folder / REACH)
    write_json(folder / "scores.json", read_json(run / "scores.json", "gravmap train"))
    for path in folder.iterdir():
        path.chmod(0o644)  # readable for every user of an installation
    return sum(path.stat().st_size for path in folder.iterdir())


def _initial_run(init: dict[str, Any] | None) -> dict[str, Any] | None:
    """The initial run without local paths; the text of the prior is in `taught_on` already."""
    if init is None:
        return None
    training_data = {**init["taught_on"], "prior": {**init["taught_on"]["prior"], "text": ""}}
    return {"run": init["run"], "weights_sha256": init["weights_sha256"], "taught_on": training_data}


if __name__ == "__main__":
    total = ship(Path(sys.argv[1]), Path(sys.argv[2]))
    weights = (Path(sys.argv[2]) / f"{MODEL}.safetensors").stat().st_size
    print(json.dumps({"weights_bytes": weights, "bytes": total, "of_which_calibration": CALIBRATION}))
    if weights > MAX_WEIGHTS_BYTES:
        raise SystemExit(f"The weights take {weights} bytes, more than {MAX_WEIGHTS_BYTES}.")
