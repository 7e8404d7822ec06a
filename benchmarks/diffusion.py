"""Label diffusion: gravmap compared with scipy's direct solver and with pyamg class by class.

450 x 900 nodes of 2 arc-minutes (3.7 x 2.5 km), ten classes in patches of some 60 km; half of the nodes, or a tenth of
them, are outcrop, in ranges and basins of some 300 km. One thread.

- gravmap: `class_probabilities`, from the labels to the probabilities: assembly, hierarchy, all classes at once.
- scipy: the same equations, assembled by gravmap, by `scipy.sparse.linalg.factorized` (SuperLU), then class by class.
- pyamg: the same by `ruge_stuben_solver(...).solve(accel="cg")`, class by class, to the same residual.

They run in turn; the best of three is reported, in CPU seconds, which other load on the machine affects little. Memory
is the peak of a separate process (Linux).

    OMP_NUM_THREADS=1 python benchmarks/diffusion.py [--rows 450 --columns 900]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyamg
from scipy import ndimage
from scipy.sparse.linalg import factorized

from gravmap.learning.data import label_diffusion as diffusion
from gravmap.learning.data.label_diffusion import class_probabilities

SPACING_YX_KM, CLASSES, TURNS = (3.7, 2.5), 10, 3
WAYS = ("gravmap", "scipy", "pyamg")


def make_outcrop(rows: int, columns: int, fraction: float) -> np.ndarray:
    """Classes 1..10 on outcrop, 0 under cover."""
    rng = np.random.default_rng(0)
    depth = ndimage.gaussian_filter(rng.normal(size=(rows, columns)), 40)
    level = ndimage.gaussian_filter(rng.normal(size=(rows, columns)), 20)
    kinds = np.digitize(level, np.quantile(level, np.linspace(0, 1, CLASSES + 1)[1:-1])) + 1
    return np.where(depth > np.quantile(depth, 1 - fraction), kinds, 0).astype(np.uint8)


def diffuse(way: str, known: np.ndarray) -> np.ndarray:
    """Probabilities (K, rows, columns)."""
    if way == "gravmap":
        return class_probabilities(known, SPACING_YX_KM, CLASSES)
    laplacian, flat = diffusion._laplacian(known.shape, SPACING_YX_KM, None), known.ravel()
    seed, from_free = flat > 0, laplacian[flat == 0]
    matrix, coupling = from_free[:, ~seed], from_free[:, seed]
    sources = [-(coupling @ (flat[seed] == index).astype(float)) for index in range(1, CLASSES + 1)]
    if way == "scipy":
        solve = factorized(matrix.tocsc())
        probabilities = [solve(source) for source in sources]
    else:
        levels = pyamg.ruge_stuben_solver(matrix.tocsr())
        probabilities = [levels.solve(source, tol=diffusion.TOLERANCE, accel="cg", maxiter=200) for source in sources]
    found = np.zeros((CLASSES, flat.size), np.float32)
    found[flat[seed].astype(int) - 1, np.flatnonzero(seed)] = 1
    found[:, ~seed] = probabilities
    return found.reshape(CLASSES, *known.shape)


def peak_mb(way: str, rows: int, columns: int, fraction: float) -> float:
    """Peak memory of a process that runs this solver only."""
    words = ["--only", way, "--rows", str(rows), "--columns", str(columns), "--fraction", str(fraction)]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=450)
    parser.add_argument("--columns", type=int, default=900)
    parser.add_argument("--only", choices=["nothing", *WAYS], help=argparse.SUPPRESS)
    parser.add_argument("--fraction", type=float, default=0.5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        known = make_outcrop(options.rows, options.columns, options.fraction)
        if options.only != "nothing":
            diffuse(options.only, known)
        # Not getrusage, whose peak includes the parent process.
        peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        print(int(peak[1]) / 1024)
        return
    print(f"{options.rows} x {options.columns} nodes, {CLASSES} classes; CPU seconds, MB beyond the labels")
    for fraction in (0.5, 0.1):
        known = make_outcrop(options.rows, options.columns, fraction)
        best, found = dict.fromkeys(WAYS, np.inf), {}
        for _ in range(TURNS):
            for way in WAYS:
                start = time.process_time()
                found[way] = diffuse(way, known)
                best[way] = min(best[way], time.process_time() - start)
        alone = peak_mb("nothing", options.rows, options.columns, fraction)
        for way in WAYS:
            apart = np.abs(found[way] - found["scipy"]).max()
            memory = peak_mb(way, options.rows, options.columns, fraction) - alone
            print(f"outcrop {fraction:4.0%}  {way:8} {best[way]:6.2f} s  {memory:6.0f} MB  max diff. {apart:.1e}")


if __name__ == "__main__":
    main()
