"""A network taught on crusts beside null models, under the cover of crusts it never saw.

    python benchmarks/under_cover.py gravmap/models/crusts-central-asia [--crusts default|central-asia|wide] [--count 8]

Scored are hidden cells; the confusion matrices of all crusts are added up. Windows are seen in four mirror images. The
gain is on the best null model, measure by measure: nearest outcrop, label diffusion, and label diffusion with each
class's chance divided by the square root of its share of the outcrop. `default` are the crusts of `gravmap demo`
(`make_crust` as it stands), the others drawn from a prior; seeds from 0 on, which no training uses.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gravmap.learning.area import TEST
from gravmap.learning.calibration import read_calibration
from gravmap.learning.checkpoint import load_model
from gravmap.learning.crust_grounds import crust_ground
from gravmap.learning.grounds import CRUSTS, Grounds
from gravmap.learning.held_out import ask_held_out
from gravmap.learning.hidden_scores import STRATA, distance_km, null_classes, with_foreign_gravity
from gravmap.learning.metrics import confusion, scores
from gravmap.learning.outcrop import context_names, measured_names
from gravmap.synthetic import draw_crust, load_prior, make_crust
from gravmap.synthetic.pool import crust_arrays


class Flips(nn.Module):
    """A network's mean over four mirror images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Score (B, C, H, W) as (B, K, H, W)."""
        images = [self.network(x.flip(axes)).flip(axes) for axes in ((), (-1,), (-2,), (-2, -1))]
        return torch.stack(images).mean(0)


def spared(area: Any) -> np.ndarray:
    """Label diffusion over the square root of each class's share of the outcrop, 0..K-1 at each node."""
    *chances, _, known = context_names(len(area.classes))
    first = area.channels.index(chances[0])
    logs = area.fields[first : first + len(chances)]
    mapped = area.fields[area.channels.index(known)] > 0
    share = np.bincount(logs.argmax(0)[mapped], minlength=len(chances)) + 1.0
    return (logs - 0.5 * np.log(share / share.sum())[:, None, None]).argmax(0)


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--crusts", default="default")
    parser.add_argument("--count", type=int, default=8)
    asked = parser.parse_args()
    began = time.process_time()
    network, spec = load_model(asked.model)
    calibration = read_calibration(asked.model)
    scale = max(spec.scales_deg)
    channels = measured_names(spec.channels)
    if asked.crusts == "default":
        crusts = (make_crust(seed, (240, 360), sub=1) for seed in range(asked.count))
    else:
        prior = load_prior(asked.crusts)
        crusts = (draw_crust(prior, seed) for seed in range(asked.count))
    areas = tuple(crust_ground(crust_arrays(crust, channels), TEST, spec.scales_deg) for crust in crusts)
    grounds = Grounds(areas, areas, areas, record={"on": CRUSTS})
    how: dict[str, Any] = {"inputs": spec.input, "tile_size_px": spec.tile_size_px}
    held = ask_held_out(Flips(network), grounds, [scale], **how)
    foreign = ask_held_out(Flips(network), with_foreign_gravity(grounds, TEST), [scale], **how)
    truth, place = held.target, held.place
    added = np.float32(0.0)
    if calibration is not None and calibration.offsets is not None:
        added = np.float32(calibration.temperature([scale])) * np.array(calibration.offsets, np.float32)
    logits = held.logits[scale]
    said = {
        "network": (logits + added).argmax(1),
        "network, likeliest class": logits.argmax(1),
        "network, another crust's gravity": (foreign.logits[scale] + added).argmax(1),
    }
    nulls: dict[str, np.ndarray] = {}
    distance = np.zeros(len(truth))
    for number, area in enumerate(areas):
        here, nodes = place[:, 0] == number, place[place[:, 0] == number, 1]
        distance[here] = distance_km(area).ravel()[nodes]
        for name, values in {**null_classes(area), "label_diffusion / sqrt share": spared(area)}.items():
            nulls.setdefault(name, np.zeros(len(truth), np.int64))[here] = values.ravel()[nodes]
    names = [str(each["name"]) for each in areas[0].classes]

    def measured(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
        found = scores(confusion(truth[inside], values[inside], len(names)), names)
        return 100 * np.array([found["pa"], found["mpa"], found["fwiou"]])

    strata = {name: (distance <= most) & ((distance > above) | (above == 0)) for name, (above, most) in STRATA.items()}
    best = {
        name: np.max([measured(values, inside) for values in nulls.values()], axis=0) for name, inside in strata.items()
    }
    print("| " + " | ".join(["predictor", *strata]) + " |\n|" + "---|" * (len(strata) + 1))
    for name, values in (nulls | said).items():
        row = []
        for stratum, inside in strata.items():
            found = measured(values, inside)
            gain = found - best[stratum]
            told = "/".join(f"{each:.1f}" for each in found)
            row.append(told + (f" ({'/'.join(f'{each:+.1f}' for each in gain)})" if name in said else ""))
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)
    each_crust = [
        measured(said["network"], place[:, 0] == number) - measured(nulls["label_diffusion"], place[:, 0] == number)
        for number in range(len(areas))
    ]
    print("PA by crust, network less label diffusion:", " ".join(f"{gain[0]:+.1f}" for gain in each_crust))
    print(
        f"log loss {-np.log(chance_of_truth(logits, truth)).mean():.4f}; "
        f"{time.process_time() - began:.0f} s of one core"
    )


def chance_of_truth(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """What the network gives the true class, before calibration."""
    exponent = np.exp(logits - logits.max(1, keepdims=True))
    return exponent[np.arange(len(truth)), truth] / exponent.sum(1)


if __name__ == "__main__":
    main()
