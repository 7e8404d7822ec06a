"""Time to simulate a crust and its residuals, alone and in parallel, and the variety of the crusts of a prior.

Run from the repository: python benchmarks/crust_pool.py [--prior wide] [--count 8] [--processes 1 2] [--shape 240 360]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from gravmap.synthetic import crust_pool, draw_crust, load_prior
from gravmap.synthetic.facts import crust_facts
from gravmap.synthetic.pool import crust_arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", default="central-asia")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shape", type=int, nargs=2, default=[240, 360])
    options = parser.parse_args()
    prior, shape = load_prior(options.prior), tuple(options.shape)
    crust_arrays(draw_crust(prior, 0, (16, 16)))  # so that imports and caches are not timed

    made, residuals, crusts = [], [], []
    for seed in range(options.count):
        start = time.process_time()
        crust = draw_crust(prior, seed, shape)
        drawn = time.process_time()
        crust_arrays(crust)
        made.append(drawn - start)
        residuals.append(time.process_time() - drawn)
        crusts.append(crust_facts(crust))
    print(f"{options.count} crusts of {shape[0]} x {shape[1]} cells, prior {prior.name}, processor seconds each:")
    print(f"  the crust {np.median(made):.2f}, residuals {np.median(residuals):.2f} (medians); slowest {max(made):.2f}")
    for processes in options.processes:
        with tempfile.TemporaryDirectory() as cache:
            start = time.perf_counter()
            crust_pool(prior, range(options.count), shape=shape, processes=processes, cache=Path(cache))
            took = time.perf_counter() - start
            start = time.perf_counter()
            crust_pool(prior, range(options.count), shape=shape, cache=Path(cache))
            again = time.perf_counter() - start
            size = np.mean([path.stat().st_size for path in Path(cache).iterdir()])
        rate = took / options.count
        print(f"  {processes} processes: {rate:.2f} s of wall time per crust; {size / 1e6:.1f} MB each in the cache,")
        print(f"    read from it in {1000 * again / options.count:.0f} ms each")
    print("minimum, median and maximum over these crusts:")
    for name in (
        "cover_percent",
        "cover_mean_km",
        "outcrop_distance_km",
        "bouguer_std_mgal",
        "bouguer_range_mgal",
        "residual_std_mgal",
    ):
        values = [getattr(facts, name) for facts in crusts]
        print(f"  {name:<22}{min(values):8.1f}{np.median(values):8.1f}{max(values):8.1f}")


if __name__ == "__main__":
    main()
