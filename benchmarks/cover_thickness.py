"""Thickness of the cover of unseen crusts: a network trained on crusts beside simple methods (thickness_methods.py).

    python benchmarks/cover_thickness.py [runs/crusts] [--crusts central-asia default cover] [--count 8] [--json FILE]
    python benchmarks/cover_thickness.py --map cover_thickness.tif --nodes sediments.csv --workspace DIR
    python benchmarks/cover_thickness.py --step-cost

The first form scores all covered cells of test crusts, seeds from 0 on: by default those of the prior central-asia, and
all kinds of wrong_crusts.py. Simple methods are fitted on other crusts of that prior, never on those of a wrong kind;
only the inversion is given the best contrast of each crust. Without a run they are scored alone. The first kind is
reported in full, the others in a line each. The network is scored by its median, and by its calibrated 80 % interval;
the simple methods by their mean, which has the least rmse.

The second form compares a map of `gravmap predict` with thicknesses known at points of real ground (columns lon, lat
and sediment_m), at the covered and mapped cells of the workspace's labels.tif. It is skipped where a file is absent.

The third form measures what the second output costs: processor time of training steps with and without it, in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cover_tables import interval, thickness_kinds_table, thickness_strata_table, thickness_table
from over_crusts import t_interval
from thickness_methods import CHANNELS, BoostedTrees, Monotone, ParkerOldenburg, Slab, View, rmse
from wrong_crusts import CHANGES, SHAPE, crust_of, title_of

from gravmap.files import write_json
from gravmap.lattice import TEST, TRAIN
from gravmap.learning import TrainConfig, make_config
from gravmap.learning.calibration.temperature import Calibration, read_calibration
from gravmap.learning.calibration.thickness import ThicknessInterval, thickness_scores
from gravmap.learning.data.crust_data import FIRST_SEED, crust_dataset
from gravmap.learning.data.outcrop_context import measured_names
from gravmap.learning.data.splits import CRUSTS, DatasetSplits
from gravmap.learning.evaluation.held_out import default_scales, predict_held_out
from gravmap.learning.evaluation.under_cover import BY_COVER, BY_DISTANCE
from gravmap.learning.training.checkpoint import load_model
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.trainer import Trainer
from gravmap.network.outcrop_start import has_thickness
from gravmap.records import read_record
from gravmap.synthetic import draw_crust, load_prior
from gravmap.synthetic.pool import crust_arrays

DISTANCE, SLAB, INVERSION = "distance to outcrop", "Bouguer slab", "Parker and Oldenburg, given the contrast"
TREES, NETWORK = "boosted trees", "network"
SIMPLE = (DISTANCE, SLAB, INVERSION)
PRIOR = "central-asia"

STRATA = {"distance": BY_DISTANCE, "cover": {**BY_COVER, "over 5 km": (5.0, np.inf)}}


@dataclass(frozen=True)
class SimpleMethods:
    """The fitted methods."""

    distance: Monotone
    slab: Slab
    inversion: ParkerOldenburg
    trees: BoostedTrees | None

    @classmethod
    def fit(cls, count: int, few: int) -> SimpleMethods:
        """Fit on `count` training crusts of the prior; the choices of the inversion on the first `few` of them."""
        prior = load_prior(PRIOR)
        seeds = range(FIRST_SEED, FIRST_SEED + count)
        views = [View.of(crust_arrays(draw_crust(prior, seed, SHAPE), CHANNELS)) for seed in seeds]
        distance, truth = (
            np.concatenate(each)
            for each in ([view.distance_km[view.covered] for view in views], [view.truth for view in views])
        )
        return cls(
            Monotone.fit(distance, truth), Slab.fit(views), ParkerOldenburg.fit(views[:few]), BoostedTrees.fit(views)
        )

    def predict(self, view: View) -> tuple[dict[str, np.ndarray], float]:
        """Thickness of the covered cells by each method, (n,) or (n, 3), km; the contrast given to the inversion."""
        inverted, contrast = self.inversion.predict(view)
        found = {
            DISTANCE: self.distance.predict(view.distance_km[view.covered]),
            SLAB: self.slab.predict(view),
            INVERSION: inverted,
        }
        return found | ({TREES: self.trees.predict(view)} if self.trees else {}), contrast

    def describe(self) -> str:
        """The choices made on training crusts."""
        slab, inversion = self.slab, self.inversion
        return (
            f"slab: {slab.field}, level {slab.level}, {slab.contrast:.0f} kg/m3; inversion: {inversion.field}, level "
            f"{inversion.level}, low pass {inversion.cutoff_km:g} km"
        )


@dataclass(frozen=True)
class ThicknessNetwork:
    """A network with a thickness, and the calibration of its interval."""

    network: Any
    spec: Any
    interval: ThicknessInterval

    @classmethod
    def load(cls, folder: Path) -> ThicknessNetwork:
        """Of a finished run."""
        network, spec = load_model(folder)
        if not has_thickness(network):
            raise SystemExit(f"The network of {folder} has no thickness of the cover.")
        return cls(network, spec, (read_calibration(folder) or Calibration({}, (), {})).thickness)

    def predict(self, arrays: Sequence[dict[str, Any]]) -> list[np.ndarray]:
        """Calibrated quantiles of the covered cells of each crust, (n, 3), km, as in a map of `gravmap predict`."""
        scales = default_scales(self.spec.scales_deg, "cpu")
        datasets = tuple(crust_dataset(each, TEST, self.spec.scales_deg) for each in arrays)
        splits = DatasetSplits(datasets, (), datasets, record={"on": CRUSTS})
        settings: dict[str, Any] = {"inputs": self.spec.input, "tile_size_px": self.spec.tile_size_px}
        held = predict_held_out(self.network, splits, scales, **settings)
        quantiles = self.interval.apply(held.mean_cover_km(scales, TEST))
        found = []
        for number, each in enumerate(arrays):
            rows = held.place[:, 0] == number
            assert np.array_equal(held.place[rows, 1], np.flatnonzero(each["labels"] == 0)), (
                "cells without a prediction"
            )
            found.append(quantiles[rows])
        return found


def score(methods: SimpleMethods, network: ThicknessNetwork | None, kind: str, seeds: range) -> dict[str, Any]:
    """Scores of every method on a kind of crusts; JSON-able."""
    channels = list(dict.fromkeys([*CHANNELS, *(measured_names(network.spec.channels) if network else [])]))
    arrays = [crust_arrays(crust_of(kind, seed), channels) for seed in seeds]
    views = [View.of(each) for each in arrays]
    by_crust, contrasts = zip(*(methods.predict(view) for view in views), strict=True)
    if network:
        by_crust = tuple(each | {NETWORK: own} for each, own in zip(by_crust, network.predict(arrays), strict=True))
    truth = np.concatenate([view.truth for view in views])
    values = {"distance": np.concatenate([view.distance_km[view.covered] for view in views]), "cover": truth}
    strata = {name: (values[name], table) for name, table in STRATA.items()}
    return {
        "methods": {
            name: thickness_scores(np.concatenate([each[name] for each in by_crust]), truth, strata)
            for name in by_crust[0]
        },
        "reduction_percent": {
            name: t_interval(np.array(reductions(name, by_crust, views))) for name in by_crust[0] if name not in SIMPLE
        },
        "given_contrasts": [round(each) for each in contrasts],
    }


def reductions(name: str, by_crust: Sequence[dict[str, np.ndarray]], views: Sequence[View]) -> list[float]:
    """By how many percent the rmse of a method is under that of the best simple method of each crust."""
    found = []
    for predictions, view in zip(by_crust, views, strict=True):
        errors = {each: rmse(middle(values), view.truth) for each, values in predictions.items()}
        found.append(100 * (1 - errors[name] / min(errors[each] for each in SIMPLE)))
    return found


def middle(predicted: np.ndarray) -> np.ndarray:
    """The estimate itself, of quantiles or of an estimate alone."""
    return predicted if predicted.ndim == 1 else predicted[:, 1]


def on_ground(thickness_map: Path, nodes: Path, workspace: Path) -> dict[str, Any]:
    """Compare a map with thicknesses known at points, where the geological map shows cover.

    Beside them the distance to mapped outcrop, also as thickness by its monotone function on crusts, and the field.
    """
    import pandas as pd
    import rasterio
    import rasterio.warp
    import xarray as xr

    from gravmap.learning.data.outcrop_context import distance_to_outcrop_km

    table = pd.read_csv(nodes)
    points = table[["lon", "lat"]].to_numpy()

    with rasterio.open(thickness_map) as raster:
        places = zip(*rasterio.warp.transform("EPSG:4326", raster.crs, *points.T), strict=True)
        samples = [each[0] for each in raster.sample(places, indexes=1, masked=True)]
    mapped = np.array([np.nan if each is np.ma.masked else float(each) for each in samples])

    with rasterio.open(workspace / "data" / "labels.tif") as raster:
        labels, box = raster.read(1), raster.bounds
    ny, nx = labels.shape
    known = np.where(labels == 255, 0, labels).astype(np.uint8)
    lat = box.top - (np.arange(ny) + 0.5) * (box.top - box.bottom) / ny
    lon = box.left + (np.arange(nx) + 0.5) * (box.right - box.left) / nx
    row = np.floor((box.top - points[:, 1]) / (box.top - box.bottom) * ny).astype(int)
    column = np.floor((points[:, 0] - box.left) / (box.right - box.left) * nx).astype(int)
    inside = (row >= 0) & (row < ny) & (column >= 0) & (column < nx)
    covered = inside.copy()
    covered[inside] = labels[row[inside], column[inside]] == 0
    used = covered & np.isfinite(mapped)
    truth = table["sediment_m"].to_numpy(float)[used] / 1000
    step = max(1, min(ny, nx) // 500)  # a few km are enough for the distance
    coarse = distance_to_outcrop_km(known[::step, ::step], lat[::step], lon[::step])
    distance = coarse[row[used] // step, column[used] // step]
    with xr.open_dataset(workspace / "data" / "fields.nc") as fields:
        where = {"lon": xr.DataArray(points[used, 0]), "lat": xr.DataArray(points[used, 1])}
        bouguer = fields["bouguer"].sel(where, method="nearest").values.astype(float)
    views = SimpleMethods.fit(8, 2).distance.predict(distance)
    estimates = {"the map": mapped[used] / 1000, f"{DISTANCE}, as on crusts": views[:, 1]}
    found: dict[str, Any] = {
        "nodes": int(used.sum()),
        "covered_nodes_without_thickness": int((covered & ~used).sum()),
        **{name: thickness_scores(values, truth)["all"] for name, values in estimates.items()},
    }
    for name, values in ((DISTANCE, distance), ("Bouguer field", bouguer)):
        found[name] = {"rank_correlation": thickness_scores(values, truth)["all"]["rank_correlation"]}
    return found


def print_ground(found: dict[str, Any]) -> None:
    """A table in Markdown."""
    print(f"{found['nodes']} covered nodes\n\n| | rank correlation | rmse, m | bias, m |\n|---|---|---|---|")
    for name, row in found.items():
        if isinstance(row, dict):
            cells = [row.get(key) for key in ("rank_correlation", "rmse_m", "bias_m")]
            texts = [
                "-" if each is None else f"{each:.{digits}f}" for each, digits in zip(cells, (2, 0, 0), strict=True)
            ]
            print("| " + " | ".join([name, *texts]) + " |")


def print_tables(kinds: dict[str, Any], count: int) -> None:
    """Tables in Markdown."""
    first = next(iter(kinds))
    found = kinds[first]
    tables = [(f"{count} crusts, {title_of(first)}: all covered cells", thickness_table(found["methods"]))]
    for measure, title in (
        ("rmse_m", "Rmse, m"),
        ("bias_m", "Bias, m"),
        ("rank_correlation", "Rank correlation"),
        ("coverage", "Percent of the cells inside the 80 % interval"),
    ):
        tables += [(title, thickness_strata_table(found["methods"], kind, measure)) for kind in STRATA]
    if len(kinds) > 1:
        tables.append(("Other crusts than the methods were fitted on", thickness_kinds_table(kinds, SIMPLE)))
    for title, lines in tables:
        print("\n".join(["", f"**{title}**", "", *lines]))
    for name, reduction in found["reduction_percent"].items():
        print(f"\n{name}: rmse under the best simple method of each crust by {interval(reduction)} %, mean of crusts.")
    print(f"Contrasts given to the inversion, kg/m3: {found['given_contrasts']}.")


def step_cost(steps: int = 24) -> dict[str, float]:
    """Median processor seconds of a training step (recipe crusts, six crusts) without and with the thickness output."""
    prior = load_prior(PRIOR)
    datasets = [crust_dataset(crust_arrays(draw_crust(prior, FIRST_SEED + seed, SHAPE)), TRAIN) for seed in range(6)]
    splits = DatasetSplits(tuple(datasets), (), (), record={"on": CRUSTS})
    trainers = {}
    for weight in (0.0, TrainConfig.thickness_weight):
        config = make_config("crusts", context="outcrop", device="cpu", thickness_weight=weight)
        trainers[weight] = Trainer(splits, Path(), config, Group(device=torch.device("cpu")))
        trainers[weight].start_epoch()
    spent: dict[float, list[float]] = {weight: [] for weight in trainers}
    for number in range(steps + 1):
        for weight, trainer in trainers.items():
            start = time.process_time()
            trainer.train_step(number)
            spent[weight].append(time.process_time() - start)
    without, with_it = (float(np.median(seconds[1:])) for seconds in spent.values())  # the first one warms up
    return {"without_s": without, "with_s": with_it, "ratio": with_it / without}


def main() -> None:
    """Run the benchmark and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="a finished run on crusts; without it simple methods only")
    parser.add_argument("--crusts", nargs="+", default=[PRIOR, *CHANGES], metavar="KIND|PRIOR")
    parser.add_argument("--count", type=int, default=8, help="test crusts of each kind")
    parser.add_argument("--fit", type=int, default=32, help="training crusts that simple methods are fitted on")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    parser.add_argument("--map", type=Path, help="cover_thickness.tif of real ground")
    parser.add_argument("--nodes", type=Path, help="CSV file of real ground: lon, lat, sediment_m")
    parser.add_argument("--workspace", type=Path, default=Path(), help="with data/labels.tif and data/fields.nc")
    parser.add_argument("--step-cost", action="store_true", help="measure the training steps alone")
    options = parser.parse_args()
    if options.step_cost:
        print("{without_s:.3f} s without, {with_s:.3f} s with the thickness: {ratio:.3f}".format(**step_cost()))
        return
    started = time.process_time()
    if options.map or options.nodes:
        needed = [
            options.map,
            options.nodes,
            *(options.workspace / "data" / each for each in ("labels.tif", "fields.nc")),
        ]
        absent = [str(path) for path in needed if path is None or not path.exists()]
        if absent:
            print(f"Skipped: {', '.join(absent)} not there.")
            return
        found = on_ground(options.map, options.nodes, options.workspace)
        print_ground(found)
        if options.json:
            write_json(options.json, found)
        return
    network = ThicknessNetwork.load(options.model) if options.model else None
    methods = SimpleMethods.fit(options.fit, max(1, options.fit // 4))
    print(f"{methods.describe()}; {time.process_time() - started:.0f} s", flush=True)
    kinds: dict[str, Any] = {}
    for kind in options.crusts:
        kinds[kind] = score(methods, network, kind, range(options.count))
        errors = {name: row["all"]["rmse_m"] for name, row in kinds[kind]["methods"].items()}
        print(f"{kind}: rmse, m: {errors}; {time.process_time() - started:.0f} s", flush=True)
    print_tables(kinds, options.count)
    seconds = round(time.process_time() - started)
    print(f"{seconds} s of one core.")
    if options.json:
        record: dict[str, Any] = {"methods": methods.describe(), "seeds": list(range(options.count)), "crusts": kinds}
        if options.model:
            weights = read_record(options.model / "model.json", dict[str, Any], "gravmap train")["weights_sha256"]
            record |= {"model": options.model.name, "weights_sha256": weights}
        write_json(options.json, {**record, "seconds_of_one_core": seconds})


if __name__ == "__main__":
    main()
