"""A network trained on crusts beside null models, under the cover of unseen crusts, also where its prior is wrong.

    python benchmarks/under_cover.py gravmap/models/crusts-central-asia --flips [--json FILE]
    python benchmarks/under_cover.py runs/crusts --crusts default central-asia wide --count 8

Hidden cells are scored, on crusts of the seeds from 0 on, which no training uses. `--crusts` names kinds of
wrong_crusts.py, or priors; by default all kinds. The first is reported in full, the others in a line each.

- Null models: nearest outcrop, label diffusion, and label diffusion with the probability of each class divided by the
  square root of its frequency in the outcrop. The gain, in brackets, is on the best of them, for each measure.
- "network" is the map of `gravmap predict` under cover; with `--flips` also that of `predict --flips` (test-time
  augmentation: logits averaged over four flips), which is then used in all that follows.
- Tables of scores pool the confusion matrices of all crusts. The paired table scores each crust and gives the mean of
  the differences to the best null model of that crust, with the 95 % interval of Student's t over crusts.
- Coverage: how often sets of classes with 80 % of the calibrated probability contain the true one.
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
    LIKELIEST,
    NETWORK,
    SHIFTED_INPUT,
    coverage_table,
    format_measures,
    paired_table,
    scores_table,
    wrong_table,
)
from over_crusts import MEASURES, best_of, by_crust, gains, percent, t_interval
from torch import Tensor, nn
from wrong_crusts import CHANGES, crust_of, title_of

from gravmap.files import write_json
from gravmap.lattice import TEST
from gravmap.learning.calibration.by_distance import DistanceTemperature
from gravmap.learning.calibration.reliability import log_softmax, reliability_measures
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
from gravmap.records import read_record
from gravmap.synthetic.pool import crust_arrays

SQRT_DIFFUSION = "label diffusion / sqrt frequency"


class Flips(nn.Module):
    """Mean logits of a network over four flips, as in `gravmap predict --flips`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, H, W) of (B, C, H, W)."""
        images = [self.network(x.flip(axes)).flip(axes) for axes in ((), (-1,), (-2,), (-2, -1))]
        return torch.stack(images).mean(0)


@dataclass(frozen=True)
class EvaluatedNetwork:
    """A network and the settings of its predictions."""

    network: nn.Module
    spec: Any
    calibration: Calibration | None
    flips: bool

    @property
    def scales(self) -> list[float]:
        """Window sizes of a map."""
        return default_scales(self.spec.scales_deg, "cpu")

    def predict(self, splits: DatasetSplits, flips: bool) -> HeldOutPredictions:
        """Predictions at hidden cells."""
        network = Flips(self.network) if flips else self.network
        settings: dict[str, Any] = {"inputs": self.spec.input, "tile_size_px": self.spec.tile_size_px}
        return predict_held_out(network, splits, self.scales, **settings)

    def calibrated(self, held_out: HeldOutPredictions, distance_km: np.ndarray) -> np.ndarray:
        """Logits divided by temperatures, which may depend on the distance to outcrop; (n, K)."""
        logits = held_out.mean_logits(self.scales, TEST)
        if self.calibration is None:
            return logits
        divisor = self.calibration.divisor(self.scales)
        if isinstance(divisor, DistanceTemperature):
            return logits / divisor.at(distance_km).astype(np.float32)[:, None]
        return logits / np.float32(divisor)

    def classes(self, calibrated: np.ndarray) -> np.ndarray:
        """Classes 0..K-1 that its maps show."""
        offsets = None if self.calibration is None else self.calibration.offsets
        return (calibrated + np.array(offsets or 0, np.float32)).argmax(1)


def diffusion_by_sqrt_frequency(dataset: Any) -> np.ndarray:
    """Label diffusion divided by the square root of the class frequencies in the outcrop; 0..K-1 at each node."""
    *probabilities, _, known = context_names(len(dataset.classes))
    first = dataset.channels.index(probabilities[0])
    logs = dataset.fields[first : first + len(probabilities)]
    mapped = dataset.fields[dataset.channels.index(known)] > 0
    frequency = np.bincount(logs.argmax(0)[mapped], minlength=len(probabilities)) + 1.0
    return (logs - 0.5 * np.log(frequency / frequency.sum())[:, None, None]).argmax(0)


def crusts_of(kind: str, seeds: range, channels: list[str], scales_deg: list[float]) -> DatasetSplits:
    """Crusts of a kind, as test data."""
    crusts = (crust_arrays(crust_of(kind, seed), channels) for seed in seeds)
    datasets = tuple(crust_dataset(arrays, TEST, scales_deg) for arrays in crusts)
    return DatasetSplits(datasets, (), datasets, record={"on": CRUSTS})


def score(evaluated: EvaluatedNetwork, splits: DatasetSplits) -> dict[str, Any]:
    """Results for a kind of crusts, for each stratum; JSON-able."""
    plain = evaluated.predict(splits, flips=False)
    strata_of_nodes = held_out_strata(splits, plain)
    distance = strata_of_nodes["distance"][0]
    calibrated = evaluated.calibrated(plain, distance)
    maps, final = {NETWORK: evaluated.classes(calibrated)}, calibrated
    if evaluated.flips:
        final = evaluated.calibrated(evaluated.predict(splits, flips=True), distance)
        maps[FLIPPED] = evaluated.classes(final)
    maps[LIKELIEST] = final.argmax(1)
    shifted = evaluated.predict(with_other_gravity(splits, TEST), flips=evaluated.flips)
    maps[SHIFTED_INPUT] = evaluated.classes(evaluated.calibrated(shifted, distance))
    nulls, log_probability = nulls_of(splits, plain.place), log_softmax(calibrated)
    strata = {name: np.ones(len(distance), bool) for name in EVERYWHERE}
    for what, (values, strata_by_name) in strata_of_nodes.items():
        strata |= {
            ("cover " if what == "cover" else "") + name: in_stratum(values, each)
            for name, each in strata_by_name.items()
        }
    found = {}
    for name, chosen in strata.items():
        if chosen.any():
            truth, crust = plain.target[chosen], plain.place[chosen, 0]
            ours, theirs = (
                {
                    each: by_crust(truth, values[chosen], crust, len(splits.test), len(splits.classes))
                    for each, values in predictions.items()
                }
                for predictions in (maps, nulls)
            )
            calibration = reliability_measures(log_probability[chosen], truth)
            found[name] = {
                "cells": int(chosen.sum()),
                **compare(ours, theirs),
                **{key: calibration[key] for key in ("coverage", "set_size", "ece", "nll")},
            }
    return found


def nulls_of(splits: DatasetSplits, place: np.ndarray) -> dict[str, np.ndarray]:
    """Classes of the null models at the scored nodes."""
    found: dict[str, np.ndarray] = {}
    for number, dataset in enumerate(splits.test):
        rows = place[:, 0] == number
        for name, values in {**null_predictions(dataset), SQRT_DIFFUSION: diffusion_by_sqrt_frequency(dataset)}.items():
            found.setdefault(name.replace("_", " "), np.zeros(len(place), np.int64))[rows] = values.ravel()[
                place[rows, 1]
            ]
    return found


def compare(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Scores of the network's maps and of the null models, pooled and paired, from confusion matrices of each crust."""
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
    """Run the benchmark and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--crusts", nargs="+", default=list(CHANGES), metavar="KIND|PRIOR")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--flips", action="store_true", help="evaluate maps of `gravmap predict --flips`")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    options = parser.parse_args()
    started = time.process_time()
    network, spec = load_model(options.model)
    evaluated = EvaluatedNetwork(network, spec, read_calibration(options.model), options.flips)
    name, channels = FLIPPED if options.flips else NETWORK, measured_names(spec.channels)
    kinds: dict[str, Any] = {}
    for kind in options.crusts:
        kinds[kind] = score(evaluated, crusts_of(kind, range(options.count), channels, spec.scales_deg))
        seconds = time.process_time() - started
        print(
            f"{kind}: {format_measures(kinds[kind]['all']['gain'][name], '+')} over all cells; {seconds:.0f} s",
            flush=True,
        )
    first = options.crusts[0]
    found = kinds[first]
    for title, lines in (
        (f"{options.count} crusts, {title_of(first)}: PA/MPA/FWIoU, percent", scores_table(found)),
        ("Paired over crusts, 95 % interval (Student's t)", paired_table(found, name)),
        (f"Where the prior is wrong ({name})", wrong_table(kinds, name)),
        ("Coverage (one view)", coverage_table(kinds)),
    ):
        print("\n".join(["", f"**{title}**", "", *lines]), flush=True)
    each = " ".join(f"{gain[0]:+.1f}" for gain in found["all"]["by_crust"][name])
    print(f"\nPA by crust over the best null model there: {each}.")
    if options.flips:
        change = np.subtract(found["all"]["network"][FLIPPED], found["all"]["network"][NETWORK])
        print(f"`--flips` changes PA/MPA/FWIoU over all cells by {format_measures(change, '+')}.")
    seconds = time.process_time() - started
    print(f"log loss {found['all']['nll']:.4f} (one view, calibrated); {seconds:.0f} s of one core.")
    if options.json:
        weights = read_record(options.model / "model.json", dict[str, Any], "gravmap train")["weights_sha256"]
        record = {"model": options.model.name, "weights_sha256": weights, "seeds": list(range(options.count))}
        write_json(options.json, {**record, "judged": name, "crusts": kinds, "seconds_of_one_core": round(seconds)})


if __name__ == "__main__":
    main()
