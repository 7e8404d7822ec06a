"""Make the network shipped with gravmap: trained on simulated crusts of a prior, not on the data of any region.

The trainings take three hours of one core and can be interrupted and resumed; their commands are in
docs/method/under_cover.md.

    python benchmarks/ship_crusts.py runs/crusts600 gravmap/models/crusts-central-asia

It writes the weights as float16, which does not change the scores, and the files that `gravmap predict` needs.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gravmap.files import sha256, write_json
from gravmap.geology import load_legend
from gravmap.geology.legend_file import legend_to_toml
from gravmap.learning.calibration.applicability import FILE as APPLICABILITY
from gravmap.learning.calibration.temperature import read_calibration, write_calibration
from gravmap.learning.training.checkpoint import MODEL, load_model, record_files, write_pair
from gravmap.records import read_record
from gravmap.synthetic.crust import LEGEND

MOST_BYTES = 10_000_000
"""Of the weights of all shipped networks together."""


def ship(run: Path, folder: Path) -> int:
    """Write a finished run as a shipped model; returns the size of its files in bytes."""
    network, spec = load_model(run)
    calibration = read_calibration(run)
    if not spec.taught_on.get("on") or calibration is None or not (run / "scores.json").exists():
        raise SystemExit(f"{run} is not a finished run on crusts.")
    # Running statistics of batch normalisation stay float32: they may exceed the range of float16, and are few.
    halves = {
        name: value.to(torch.float16) if value.is_floating_point() and "running_" not in name else value
        for name, value in network.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    record = asdict(spec)
    record["recipe"]["init"] = _pretrained(spec.recipe.get("init"))
    legend = load_legend(LEGEND)
    if [entry.name for entry in legend.bedrock] != [each["name"] for each in record["classes"]]:
        raise SystemExit(f"{run} was trained on other classes than those of today's crusts.")
    # Colours may have changed since the training.
    record["classes"] = [each | {"colour": e.colour} for each, e in zip(record["classes"], legend.bedrock, strict=True)]
    record["legend_toml"] = legend_to_toml(legend)
    write_pair(folder, MODEL, halves, record)
    measured = {key: value for key, value in calibration.record.items() if key not in ("format", "model_sha256")}
    write_calibration(folder, measured)
    shutil.copyfile(run / APPLICABILITY, folder / APPLICABILITY)
    write_json(folder / "scores.json", read_record(run / "scores.json", dict[str, Any], "gravmap train"))
    written = sorted(path for path in folder.iterdir() if path.stem != MODEL)
    record_files(folder, {path.name: sha256(path) for path in written})
    for path in folder.iterdir():
        path.chmod(0o644)  # readable by every user of an installation
    return sum(path.stat().st_size for path in folder.iterdir())


def _pretrained(init: dict[str, Any] | None) -> dict[str, Any] | None:
    """Record of the run that training started from, without local paths and the text of the prior."""
    if init is None:
        return None
    trained_on = {**init["taught_on"], "prior": {**init["taught_on"]["prior"], "text": ""}}
    return {"run": init["run"], "weights_sha256": init["weights_sha256"], "taught_on": trained_on}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the finished run")
    parser.add_argument("folder", type=Path, help="folder of the shipped model")
    options = parser.parse_args()
    size = ship(options.run, options.folder)
    weights = (options.folder / f"{MODEL}.safetensors").stat().st_size
    print(json.dumps({"weights_bytes": weights, "bytes": size}))
    together = sum(path.stat().st_size for path in options.folder.parent.glob(f"*/{MODEL}.safetensors"))
    if together > MOST_BYTES:
        raise SystemExit(f"The weights of all shipped networks take {together} bytes, more than {MOST_BYTES}.")


if __name__ == "__main__":
    main()
