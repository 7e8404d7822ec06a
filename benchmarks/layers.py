"""A magnetic layer on a simulated crust: a random forest on pixel values, as peers use it, beside gravmap.

    python benchmarks/layers.py [--seeds 5] [--steps 40] [--fold 0]

For every seed a crust is written and a magnetic field is computed from it: each class has a susceptibility (lognormal,
drawn per seed), magnetized from 3 to 18 km under the sensor, with 2 nT of noise. The stack is the same: residuals
of five heights, with and without the magnetic layer (`gravmap layer add`).

- peer: scikit-learn's RandomForestClassifier(100) on the values at each node, as UNCOVER-ML, the EIS toolkit and most
  studies use it, on the same training outcrop.
- forest: gravmap's null model "random forest, fields only" (statistics around each node).
- network: `gravmap train --init crusts-central-asia`, fine-tuned for `--steps` steps; the layer begins at zero.

Scores (PA / MPA / FWIoU in percent) at nodes of outcrop held out at random (30 %, the peers' habit; peer alone), of the
held-out blocks, and under cover, where only a simulation has the truth. Seconds of processor time and peak memory of a
process of its own. Needs scikit-learn: pip install ".[peers]".
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_bounds

from gravmap.lattice import COVER, KM_PER_DEGREE, TEST
from gravmap.learning.data.dataset import RegionDataset, known_labels, to_target
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.null_models import labelled_mask, null_maps
from gravmap.synthetic import make_crust, write_crust
from gravmap.tiling import load_arrays

HEIGHTS = ("5km", "10km", "20km", "40km", "80km")
GRAVITY = [f"residual_{height}" for height in HEIGHTS]
MAGNETIC = "magnetic"
MEASURES = ("pa", "mpa", "fwiou")
TOP_KM, BOTTOM_KM, NOISE_NT, FIELD_NT = 3.0, 18.0, 2.0, 55_000.0


def magnetic_nt(truth: NDArray[np.uint8], bounds_wsen: tuple[float, ...], seed: int) -> NDArray[np.float32]:
    """Anomaly, reduced to the pole, of a layer whose susceptibility follows the class of the bedrock, (ny, nx)."""
    rng = np.random.default_rng(seed)
    susceptibility = 10 ** rng.uniform(-3.5, -1.5, 256)
    west, south, east, north = bounds_wsen
    rows, columns = truth.shape
    km = KM_PER_DEGREE * np.array(
        [(north - south) / rows, (east - west) / columns * np.cos(np.radians((south + north) / 2))]
    )
    padded = np.pad(susceptibility[truth], 100, mode="reflect")
    ky = 2 * np.pi * np.fft.fftfreq(padded.shape[0], km[0])[:, None]
    kx = 2 * np.pi * np.fft.rfftfreq(padded.shape[1], km[1])[None, :]
    wavenumber = np.hypot(ky, kx)
    spectrum = np.fft.rfft2(padded) * (np.exp(-wavenumber * TOP_KM) - np.exp(-wavenumber * BOTTOM_KM))
    field = FIELD_NT / 2 * np.fft.irfft2(spectrum, padded.shape)[100:-100, 100:-100]
    return (field + rng.normal(0, NOISE_NT, truth.shape)).astype(np.float32)


def make_workspace(root: Path, seed: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A workspace with fields, layer and tile set; the true classes at the nodes, north-up."""
    crust = make_crust(seed, shape)
    files = write_crust(crust, root / "data" / "raw")
    truth = crust.truth[::-1].astype(np.uint8)
    path = root / "magnetic.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=shape[0], width=shape[1], dtype="float32", crs="EPSG:4326",
        transform=from_bounds(*crust.bounds_wsen, shape[1], shape[0]),
    ) as raster:  # fmt: skip
        raster.write(magnetic_nt(truth, crust.bounds_wsen, seed), 1)
    heights = [word for height in HEIGHTS for word in ("--height", height)]
    run(root, "residual", str(files["gravity"]), *heights)
    run(root, "rasterize", str(files["map"]), "--legend", "crust")
    run(root, "layer", "add", str(path), "--name", MAGNETIC, "--units", "nT")
    run(root, "tile", "--index-only")
    return truth


def run(root: Path, *words: str) -> tuple[float, float]:
    """Run a command of gravmap; its processor time in seconds and peak memory in MB."""
    process = subprocess.Popen(["gravmap", "-w", str(root), "-q", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"gravmap {' '.join(words)} ended with status {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def measured(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """Result of a function in a process of its own, its processor time in seconds and its peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, arguments))
    process.start()
    found: tuple[Any, float, float] = receiver.recv()
    process.join()
    return found


def _send(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    start = time.process_time()
    result = function(*arguments)
    sender.send((result, time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def arrays_of(root: Path, channels: list[str], fold: int) -> RegionDataset:
    return RegionDataset.from_arrays(load_arrays(root / "data" / "tiles", channels=channels, fold=fold))


def peer(root: Path, channels: list[str], fold: int, at_random: bool) -> NDArray[np.uint8]:
    """Classes of a random forest on the values at each node; 255 at the outcrop that it was trained on at random."""
    from sklearn.ensemble import RandomForestClassifier

    dataset = arrays_of(root, channels, fold)
    known = known_labels(dataset)
    if at_random:
        labels, _ = dataset.node_truth()
        kept = np.random.default_rng(0).random(labels.shape) < 0.7
        known = np.where((labels > COVER) & (labels < 255) & kept, labels, 0).astype(np.uint8)
    table = dataset.filled_fields().reshape(len(channels), -1).T
    model = RandomForestClassifier(100, random_state=0)
    model.fit(table[known.ravel() > 0], known.ravel()[known.ravel() > 0])
    classes = model.predict(table).reshape(known.shape).astype(np.uint8)
    return np.where(known > 0, np.uint8(255), classes) if at_random else classes


def forest(root: Path, channels: list[str], fold: int) -> NDArray[np.uint8]:
    """Classes of gravmap's random forest."""
    return null_maps(arrays_of(root, channels, fold), which=["gravity_forest"])["gravity_forest"]


def network_map(root: Path, name: str) -> NDArray[np.uint8]:
    """Classes of a run at the nodes of its dataset."""
    from gravmap.learning.evaluation.node_predictor import load_node_predictor
    from gravmap.mapping.scoring.finished_run import dataset_of_run

    folder = root / "runs" / name
    dataset = dataset_of_run(json.loads((folder / "model.json").read_text()), root / "data" / "tiles")
    return load_node_predictor(folder).predict(dataset, np.ones(dataset.field_valid.shape, bool))


def score(
    truth: NDArray[np.uint8], classes: NDArray[np.uint8], mask: NDArray[np.bool_], names: list[str]
) -> list[float]:
    """PA, MPA and FWIoU at some nodes, percent."""
    found = scores(confusion(to_target(truth[mask]), to_target(classes[mask]), len(names)), names)
    return [100 * float(found[measure]) for measure in MEASURES]


def one_crust(root: Path, seed: int, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Scores by method, with and without the layer."""
    truth = make_workspace(root, seed, tuple(options.shape))
    dataset = arrays_of(root, GRAVITY, options.fold)
    names = [str(entry["name"]) for entry in dataset.classes]
    labels, _ = dataset.node_truth()
    held_out, covered = labelled_mask(dataset, TEST), labels == COVER
    rows: dict[str, dict[str, Any]] = {}
    for what, channels in (("gravity", GRAVITY), ("with the layer", [*GRAVITY, MAGNETIC])):
        classes, seconds, mb = measured(peer, root, channels, options.fold, True)
        other = (classes != 255) & (labels > COVER) & (labels < 255)
        random_split = score(truth, classes, other, names)
        classes, seconds, mb = measured(peer, root, channels, options.fold, False)
        found = {"peer": (classes, seconds, mb)}
        found["forest"] = measured(forest, root, channels, options.fold)
        if options.steps:
            name = what.replace(" ", "-")
            seconds, mb = run(
                root, "train", "--gpus", "0", "--init", "crusts-central-asia", "--input", ",".join(channels), "--fold",
                str(options.fold), "--epochs", "1", "--steps-per-epoch", str(options.steps), "--name", name,
            )  # fmt: skip
            classes, more, _ = measured(network_map, root, name)
            found["network"] = (classes, seconds + more, mb)
        for method, (classes, seconds, mb) in found.items():
            rows[f"{method}, {what}"] = {
                "random": random_split if method == "peer" else None,
                "blocks": score(truth, classes, held_out, names),
                "cover": score(truth, classes, covered, names),
                "seconds": seconds,
                "mb": mb,
            }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5])
    parser.add_argument("--shape", type=int, nargs=2, default=[240, 360])
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--steps", type=int, default=40, help="of the network; 0: without it")
    options = parser.parse_args()
    found = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            found.append(one_crust(Path(folder), seed, options))
    print(f"Mean over {len(found)} crust(s), seeds {options.seeds}; PA / MPA / FWIoU in percent")
    print(f"{'':<26}{'random pixels':>22}{'held-out blocks':>22}{'under cover':>22}{'CPU s':>8}{'MB':>7}")
    for name in found[0]:
        rows = [each[name] for each in found]
        cells = []
        for place in ("random", "blocks", "cover"):
            values = [row[place] for row in rows]
            mean = None if values[0] is None else np.mean(values, axis=0)
            cells.append("-" if mean is None else " / ".join(f"{value:.1f}" for value in mean))
        costs = [np.mean([row[key] for row in rows]) for key in ("seconds", "mb")]
        print(f"{name:<26}" + "".join(f"{cell:>22}" for cell in cells) + f"{costs[0]:>8.0f}{costs[1]:>7.0f}")


if __name__ == "__main__":
    main()
