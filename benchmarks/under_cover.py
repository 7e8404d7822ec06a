"""A network taught on crusts beside null models, under the cover of crusts it never saw, also where its prior is wrong.

    python benchmarks/under_cover.py gravmap/models/crusts-central-asia --flips [--json FILE]
    python benchmarks/under_cover.py runs/crusts --crusts default central-asia wide --count 8

Scored are hidden cells, of the seeds from 0 on, which no training uses. `--crusts` names kinds of wrong_crusts.py, or
priors; by default all kinds. The first is told in full, the others in a line each.

- Null models: nearest outcrop, label diffusion, and label diffusion with each class's chance divided by the square root
  of its share of the outcrop. The gain, in brackets, is on the best of them, measure by measure.
- "network" is what `gravmap predict` shows under cover; with `--flips` also what `predict --flips` shows (each window
  in four mirror images, logits averaged), and then this is what is judged in all that follows.
- Tables of scores add up the confusion matrices of all crusts. The paired table scores each crust by itself and gives
  the mean of the differences to the best null model of that crust, with the 95 % interval of Student's t over crusts.
- Coverage: how often the classes that hold 80 % of the calibrated probability hold the true one.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cover_tables import (
    FLIPPED,
    FOREIGN,
    LIKELIEST,
    NETWORK,
    coverage_table,
    paired_table,
    scores_table,
    three,
    wrong_table,
)
from over_crusts import MEASURES, best_of, by_crust, gains, percent, t_interval
from torch import Tensor, nn
from wrong_crusts import CHANGES, crust_of, title_of

from gravmap.files import read_json, write_json
from gravmap.lattice import TEST
from gravmap.learning.calibration.by_distance import DistanceTemperature
from gravmap.learning.calibration.reliability import log_softmax, reliability
from gravmap.learning.calibration.temperature import Calibration, read_calibration
from gravmap.learning.data.crust_data import crust_dataset
from gravmap.learning.data.outcrop_context import context_names, measured_names
from gravmap.learning.data.splits import CRUSTS, DatasetSplits
from gravmap.learning.evaluation.held_out import HeldOutPredictions, default_scales, predict_held_out
from gravmap.learning.evaluation.under_cover import (
    EVERYWHERE,
    held_out_strata,
    in_stratum,
    null_predictions,
    with_other_gravity,
)
from gravmap.learning.training.checkpoint import load_model
from gravmap.synthetic.pool import crust_arrays

SPARED = "label diffusion / sqrt share"


class Flips(nn.Module):
    """A network's mean over four mirror images, as `gravmap predict --flips` takes it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Score (B, C, H, W) as (B, K, H, W)."""
        images = [self.network(x.flip(axes)).flip(axes) for axes in ((), (-1,), (-2,), (-2, -1))]
        return torch.stack(images).mean(0)


@dataclass(frozen=True)
class Judged:
    """A network, and how it is asked."""

    network: nn.Module
    spec: Any
    calibration: Calibration | None
    flips: bool

    @property
    def scales(self) -> list[float]:
        """Windows that a map is made with."""
        return default_scales(self.spec.scales_deg, "cpu")

    def ask(self, grounds: DatasetSplits, flips: bool) -> HeldOutPredictions:
        """What it says of hidden cells."""
        network = Flips(self.network) if flips else self.network
        how: dict[str, Any] = {"inputs": self.spec.input, "tile_size_px": self.spec.tile_size_px}
        return predict_held_out(network, grounds, self.scales, **how)

    def calibrated(self, held: HeldOutPredictions, distance_km: np.ndarray) -> np.ndarray:
        """Logits over temperatures, which may follow the distance to outcrop; (n, K)."""
        logits = held.mean_logits(self.scales, TEST)
        if self.calibration is None:
            return logits
        divisor = self.calibration.divisor(self.scales)
        if isinstance(divisor, DistanceTemperature):
            return logits / divisor.at(distance_km).astype(np.float32)[:, None]
        return logits / np.float32(divisor)

    def shown(self, calibrated: np.ndarray) -> np.ndarray:
        """The classes that its maps show."""
        offsets = None if self.calibration is None else self.calibration.offsets
        return (calibrated + np.array(offsets or 0, np.float32)).argmax(1)


def spared(area: Any) -> np.ndarray:
    """Label diffusion over the square root of each class's share of the outcrop, 0..K-1 at each node."""
    *chances, _, known = context_names(len(area.classes))
    first = area.channels.index(chances[0])
    logs = area.fields[first : first + len(chances)]
    mapped = area.fields[area.channels.index(known)] > 0
    share = np.bincount(logs.argmax(0)[mapped], minlength=len(chances)) + 1.0
    return (logs - 0.5 * np.log(share / share.sum())[:, None, None]).argmax(0)


def grounds_of(kind: str, seeds: range, channels: list[str], scales_deg: list[float]) -> DatasetSplits:
    """Crusts of a kind, to be scored on."""
    areas, cover_m = [], []
    for seed in seeds:
        arrays = crust_arrays(crust_of(kind, seed), channels)
        areas.append(crust_dataset(arrays, TEST, scales_deg))
        cover_m.append(arrays["cover_m"])
    return DatasetSplits(tuple(areas), (), tuple(areas), record={"on": CRUSTS}, cover_m=tuple(cover_m))


def score(judged: Judged, grounds: DatasetSplits) -> dict[str, Any]:
    """All there is to tell of a kind of crusts, stratum by stratum; JSON-able."""
    plain = judged.ask(grounds, flips=False)
    lying = held_out_strata(grounds, plain)
    distance = lying["distance"][0]
    calibrated = judged.calibrated(plain, distance)
    said, seen = {NETWORK: judged.shown(calibrated)}, calibrated
    if judged.flips:
        seen = judged.calibrated(judged.ask(grounds, flips=True), distance)
        said[FLIPPED] = judged.shown(seen)
    said[LIKELIEST] = seen.argmax(1)
    foreign = judged.ask(with_other_gravity(grounds, TEST), flips=judged.flips)
    said[FOREIGN] = judged.shown(judged.calibrated(foreign, distance))
    nulls, log_chances = nulls_of(grounds, plain.place), log_softmax(calibrated)
    strata = {name: np.ones(len(distance), bool) for name in EVERYWHERE}
    for what, (values, named) in lying.items():
        strata |= {
            ("cover " if what == "cover" else "") + name: in_stratum(values, each) for name, each in named.items()
        }
    told = {}
    for name, chosen in strata.items():
        if chosen.any():
            truth, crust = plain.target[chosen], plain.place[chosen, 0]
            ours, theirs = (
                {
                    each: by_crust(truth, values[chosen], crust, len(grounds.test), len(grounds.classes))
                    for each, values in maps.items()
                }
                for maps in (said, nulls)
            )
            sure = reliability(log_chances[chosen], truth)
            told[name] = {
                "cells": int(chosen.sum()),
                **compare(ours, theirs),
                **{key: sure[key] for key in ("coverage", "set_size", "ece", "nll")},
            }
    return told


def nulls_of(grounds: DatasetSplits, place: np.ndarray) -> dict[str, np.ndarray]:
    """What the null models name at the places that are scored."""
    found: dict[str, np.ndarray] = {}
    for number, area in enumerate(grounds.test):
        here = place[:, 0] == number
        for name, values in {**null_predictions(area), SPARED: spared(area)}.items():
            found.setdefault(name.replace("_", " "), np.zeros(len(place), np.int64))[here] = values.ravel()[
                place[here, 1]
            ]
    return found


def compare(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Scores of the network's maps and of the null models, pooled and paired, from confusions of each crust."""
    pooled = {each: percent(values.sum(0)) for each, values in ours.items()}
    best = best_of({each: values.sum(0) for each, values in theirs.items()})
    pairs = {each: gains(values, theirs) for each, values in ours.items()}
    return {
        "nulls": {each: percent(values.sum(0)).tolist() for each, values in theirs.items()},
        "network": {each: values.tolist() for each, values in pooled.items()},
        "gain": {each: (values - best).tolist() for each, values in pooled.items()},
        "paired": {
            each: {key: t_interval(values[:, at]) for at, key in enumerate(MEASURES)} for each, values in pairs.items()
        },
        "by_crust": {each: values.tolist() for each, values in pairs.items()},
    }


def main() -> None:
    """Measure, and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--crusts", nargs="+", default=list(CHANGES), metavar="KIND|PRIOR")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--flips", action="store_true", help="judge what `gravmap predict --flips` shows")
    parser.add_argument("--json", type=Path, help="also write all of it there")
    asked = parser.parse_args()
    began = time.process_time()
    network, spec = load_model(asked.model)
    judged = Judged(network, spec, read_calibration(asked.model), asked.flips)
    name, channels = FLIPPED if asked.flips else NETWORK, measured_names(spec.channels)
    kinds: dict[str, Any] = {}
    for kind in asked.crusts:
        kinds[kind] = score(judged, grounds_of(kind, range(asked.count), channels, spec.scales_deg))
        seconds = time.process_time() - began
        print(f"{kind}: {three(kinds[kind]['all']['gain'][name], '+')} over all cells; {seconds:.0f} s", flush=True)
    first = asked.crusts[0]
    told = kinds[first]
    for title, lines in (
        (f"{asked.count} crusts, {title_of(first)}: PA/MPA/FWIoU, percent", scores_table(told)),
        ("Paired over crusts, 95 % interval (Student's t)", paired_table(told, name)),
        (f"Where the prior is wrong ({name})", wrong_table(kinds, name)),
        ("Coverage (one view)", coverage_table(kinds)),
    ):
        print("\n".join(["", f"**{title}**", "", *lines]), flush=True)
    each = " ".join(f"{gain[0]:+.1f}" for gain in told["all"]["by_crust"][name])
    print(f"\nPA by crust over the best null model there: {each}.")
    if asked.flips:
        change = np.subtract(told["all"]["network"][FLIPPED], told["all"]["network"][NETWORK])
        print(f"`--flips` changes PA/MPA/FWIoU over all cells by {three(change, '+')}.")
    seconds = time.process_time() - began
    print(f"log loss {told['all']['nll']:.4f} (one view, calibrated); {seconds:.0f} s of one core.")
    if asked.json:
        weights = read_json(asked.model / "model.json", "gravmap train")["weights_sha256"]
        record = {"model": asked.model.name, "weights_sha256": weights, "seeds": list(range(asked.count))}
        write_json(asked.json, {**record, "judged": name, "crusts": kinds, "seconds_of_one_core": round(seconds)})


if __name__ == "__main__":
    main()
