"""Statistics of simulated crusts, to compare with real regions; scores of null models on them; time to simulate one.

Run from the repository: python benchmarks/crust.py [--seeds 0 1 2 3] [--shape 240 360] [--sub 2]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.ndimage import distance_transform_edt, label

from gravmap.gravity.continuation import upward_continue
from gravmap.synthetic import make_crust
from gravmap.synthetic.crust import Crust
from gravmap.synthetic.statistics import BANDS_KM, power_slope

RIM_CELLS = 15  # cells along the sides, where the residual has edge effects


def cell_km(crust: Crust) -> tuple[float, float]:
    lat, lon = crust.gravity.lat.values, crust.gravity.lon.values
    per_degree = np.pi / 180 * 6371.0
    return per_degree * (lat[1] - lat[0]), per_degree * (lon[1] - lon[0]) * np.cos(np.radians(lat.mean()))


def residual(crust: Crust, part: np.ndarray | None = None) -> np.ndarray:
    grid = crust.gravity if part is None else crust.gravity.copy(data=part)
    return (grid - upward_continue(grid, 10_000.0)).values[RIM_CELLS:-RIM_CELLS, RIM_CELLS:-RIM_CELLS]


def diameters(crust: Crust) -> list[float]:
    """Area-weighted median diameter (km) of the 8-connected bodies of each class."""
    cell_area_km2 = float(np.prod(cell_km(crust)))
    medians = []
    for index in range(1, 11):
        bodies, count = label(crust.truth == index, structure=np.ones((3, 3)))
        if not count:
            medians.append(np.nan)
            continue
        sizes = np.sort(np.bincount(bodies.ravel())[1:] * cell_area_km2)
        middle = sizes[np.searchsorted(np.cumsum(sizes), sizes.sum() / 2)]
        medians.append(2 * np.sqrt(middle / np.pi))
    return medians


def nearest_outcrop(crust: Crust) -> tuple[np.ndarray, np.ndarray]:
    """Class of, and distance (km) to, the nearest mapped bedrock."""
    distance, (row, column) = distance_transform_edt(crust.surface == 0, sampling=cell_km(crust), return_indices=True)
    return crust.surface[row, column], distance


def scores(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float, float]:
    """PA, MPA over the classes present, FWIoU; percent."""
    confusion = np.zeros((11, 11))
    np.add.at(confusion, (truth, predicted), 1)
    correct, rows, columns = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    present = rows > 0
    iou = correct[present] / (rows + columns - correct)[present]
    weight = rows[present] / rows.sum()
    return (
        100 * correct.sum() / rows.sum(),
        100 * (correct / np.maximum(rows, 1))[present].mean(),
        100 * (iou * weight).sum(),
    )


def three(values: tuple[float, float, float]) -> str:
    return " / ".join(f"{value:4.1f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--shape", type=int, nargs=2, default=[240, 360])
    parser.add_argument("--sub", type=int, default=2)
    options = parser.parse_args()
    make_crust(0, (8, 8), sub=1)  # so that imports and caches are not timed
    hidden_truth, hidden_nearest, hidden_majority, hidden_distance, hidden_cover = [], [], [], [], []
    for seed in options.seeds:
        start = time.perf_counter()
        crust = make_crust(seed, tuple(options.shape), sub=options.sub, components=True)
        seconds = time.perf_counter() - start
        assert crust.components is not None
        parts = {name: residual(crust, part).std() for name, part in crust.components.items()}
        field = crust.gravity.values
        covered = crust.surface == 0
        nearest, distance = nearest_outcrop(crust)
        majority = np.bincount(crust.surface[~covered], minlength=11).argmax()
        depth = crust.cover_thickness_m[covered]
        percentages = 100 * np.bincount(crust.truth.ravel(), minlength=11)[1:] / crust.truth.size
        print(f"seed {seed}: simulated in {seconds:.2f} s")
        print(
            f"  Bouguer std {field.std():.1f}, range {np.ptp(field):.0f} mGal;"
            f" residual 10 km std {residual(crust).std():.2f}"
        )
        print("  std of the residual by component:", ", ".join(f"{name} {value:.2f}" for name, value in parts.items()))
        print(
            "  std of the field by component:",
            ", ".join(f"{name} {part.std():.1f}" for name, part in crust.components.items()),
        )
        print(
            "  slope 400-100, 100-40, 40-20 km:",
            ", ".join(
                "-" if slope is None else f"{slope:.1f}"
                for slope in (power_slope(field, cell_km(crust), *band) for band in BANDS_KM)
            ),
        )
        print(
            f"  cover {100 * covered.mean():.1f} %, mean {depth.mean():.0f} m,"
            f" over 2 km {100 * (depth > 2000).mean():.0f} %"
        )
        print(
            "  distance to outcrop 25/50/75/90 %, km:",
            np.percentile(distance[covered], [25, 50, 75, 90]).round().astype(int),
        )
        print("  percent of the bedrock by class:", percentages.round(1))
        print("  body diameter, km:", np.round(diameters(crust)).tolist())
        print("  nearest outcrop under cover:", three(scores(crust.truth[covered], nearest[covered])))
        hidden_truth.append(crust.truth[covered])
        hidden_nearest.append(nearest[covered])
        hidden_majority.append(np.full(covered.sum(), majority))
        hidden_distance.append(distance[covered])
        hidden_cover.append(depth)
    truth, far, deep = (np.concatenate(part) for part in (hidden_truth, hidden_distance, hidden_cover))
    strata = {
        "all": far >= 0,
        "< 10 km": far < 10,
        "10-30 km": (far >= 10) & (far < 30),
        "> 30 km": far >= 30,
        "cover > 2 km": deep > 2000,
    }
    print("pooled, PA / MPA / FWIoU under cover, %:")
    for name, class_maps in (("majority", hidden_majority), ("nearest outcrop", hidden_nearest)):
        predicted = np.concatenate(class_maps)
        line = "; ".join(
            f"{stratum} {three(scores(truth[part], predicted[part]))}" for stratum, part in strata.items() if part.any()
        )
        print(f"  {name}: {line}")


if __name__ == "__main__":
    main()
