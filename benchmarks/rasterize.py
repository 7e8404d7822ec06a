"""Time to rasterize a vector map: gravmap compared with gdal_rasterize.

The maps are synthetic: ten thousand irregular polygons over 65-95 E, 40-55 N, burned at 15 arc-seconds (3600 x 7200).
In the invalid one every outline crosses itself in three places, as in digitising errors. gdal_rasterize reads the class
index from a field, so that both read the same file and burn the same values, and the rasters are compared cell by cell.
gdal_rasterize writes its raster, so gravmap is timed without and with writing. Imports are not timed; each map is
measured in a separate process. Needs GDAL's command-line tools (gdal-bin).

    python benchmarks/rasterize.py [--polygons 10000] [--map valid|invalid|both] [--repeats 3]
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely

import gravmap.geology.geological_map  # noqa: F401  (so that its import is not timed)
from gravmap.geology import load_legend, rasterize, write_labels
from gravmap.regions import find_region

LEGEND = load_legend("geo3al")


def make_map(path: Path, count: int, invalid: bool = False) -> None:
    """Write Voronoi cells of random points with irregular outlines and random codes of the legend."""
    rng = np.random.default_rng(20261122)
    points = rng.uniform((64, 39), (96, 56), (count, 2))
    cells = np.asarray(shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(points))))
    cells = shapely.intersection(cells, shapely.box(64, 39, 96, 56))

    def ragged(xy):
        wave = 0.004 * np.sin(90 * xy[:, ::-1]) + 0.0006 * np.sin(400 * xy[:, ::-1])
        return xy + wave  # a function of position, so that neighbours share outlines; too small to fold them

    cells = shapely.transform(shapely.segmentize(cells, 0.01), ragged)
    if invalid:
        cells = np.array([_swap_vertices(cell, rng) for cell in cells])
    codes = [code for code in LEGEND.codes if code not in LEGEND.gaps]
    drawn = rng.choice(codes, len(cells))
    table = {"GEN_GLG": drawn, "TYPE": [""] * len(cells), "V": [LEGEND.codes[code] for code in drawn]}
    frame = geopandas.GeoDataFrame(table, geometry=cells, crs="EPSG:4326")
    frame.to_file(path)
    vertices = int(shapely.get_num_coordinates(cells).sum())
    bad = int(np.count_nonzero(~shapely.is_valid(cells)))
    print(f"{path.stem}: {len(cells)} polygons, {bad} invalid, {vertices} vertices, {path.stat().st_size / 1e6:.0f} MB")


def _swap_vertices(cell, rng):
    """The polygon with three pairs of vertices in the wrong order."""
    xy = shapely.get_coordinates(cell)
    for at in rng.integers(2, len(xy) - 4, 3):
        xy[[at, at + 2]] = xy[[at + 2, at]]
    return shapely.Polygon(xy)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(path: Path, folder: Path, repeats: int) -> None:
    """Time both on one map, compare their rasters, and print the results."""
    tool = shutil.which("gdal_rasterize")
    peer = folder / "gdal.tif"
    rows = []
    before = peak_mb()
    for _ in range(repeats):
        start = time.perf_counter()
        made = rasterize([(path, LEGEND)], find_region("liu2024"))
        burned = time.perf_counter() - start
        write_labels(folder / "labels.tif", made)
        written = time.perf_counter() - start
        theirs = float("nan")
        if tool:
            peer.unlink(missing_ok=True)
            place = ["-te", "65", "40", "95", "55", "-ts", "7200", "3600"]
            words = ["-q", "-a", "V", "-init", "255", "-ot", "Byte", *place, "-co", "COMPRESS=DEFLATE"]
            start = time.perf_counter()
            subprocess.run([tool, *words, str(path), str(peer)], check=True, stderr=subprocess.DEVNULL)
            theirs = time.perf_counter() - start
        rows.append((burned, written, theirs))
    print(f"  peak memory: {peak_mb():.0f} MB, of which {before:.0f} MB before reading")
    if tool:
        with rasterio.open(peer) as raster:
            print(f"  cells that differ from gdal_rasterize: {np.count_nonzero(raster.read(1) != made.values)}")
    twice = made.maps[0].disputed_km2
    print(f"  polygons mended: {made.maps[0].mended}; mapped twice with different classes: {twice:,.0f} km²")
    burned, written, theirs = np.min(rows, axis=0)
    print(f"  gravmap {burned:.2f} s, with writing {written:.2f} s; gdal_rasterize {theirs:.2f} s (best of {repeats})")
    print(f"  ratio {burned / theirs:.2f}, with writing {written / theirs:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--polygons", type=int, default=10_000)
    parser.add_argument("--map", choices=("valid", "invalid", "both"), default="both")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--step", choices=("make", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        path = given.folder / f"{given.map}.gpkg"
        if given.step == "make":
            make_map(path, given.polygons, given.map == "invalid")
        else:
            measure(path, given.folder, given.repeats)
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("valid", "invalid") if given.map == "both" else (given.map,):
            for step in ("make", "measure"):  # separate processes: memory for making a map is not counted
                words = ["--folder", folder, "--map", kind, "--step", step, "--polygons", str(given.polygons)]
                again = [sys.executable, __file__, *words, "--repeats", str(given.repeats)]
                subprocess.run(again, check=True)


if __name__ == "__main__":
    main()
