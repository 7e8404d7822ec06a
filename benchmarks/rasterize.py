"""Rasterizing a map: gravmap beside gdal_rasterize, in one run.

The map is made here: ten thousand ragged polygons over 65-95 E, 40-55 N, burned at 15 arc-seconds (3600 x 7200).
gdal_rasterize is given the class index as a field, so that both read the same file and burn the same numbers, and
their rasters are compared cell for cell. Imports are not counted. Needs GDAL's command-line tools (gdal-bin).

    python benchmarks/rasterize.py [--polygons 10000]
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely

import gravmap.geology.vector  # noqa: F401  (loaded beforehand: imports are not counted)
from gravmap.geology import load_legend, rasterize
from gravmap.regions import find_region

LEGEND = load_legend("geo3al")


def make_map(path: Path, count: int) -> None:
    """Voronoi cells of random points, their outlines ragged; codes drawn from the legend."""
    rng = np.random.default_rng(20261122)
    points = rng.uniform((64, 39), (96, 56), (count, 2))
    cells = np.asarray(shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(points))))
    cells = shapely.intersection(cells, shapely.box(64, 39, 96, 56))

    def ragged(xy):
        wave = 0.004 * np.sin(90 * xy[:, ::-1]) + 0.0006 * np.sin(400 * xy[:, ::-1])
        return xy + wave  # of place alone, so neighbours keep their outline; too gentle to fold it

    cells = shapely.transform(shapely.segmentize(cells, 0.01), ragged)
    codes = [code for code in LEGEND.codes if code not in LEGEND.gaps]
    drawn = rng.choice(codes, len(cells))
    table = {"GEN_GLG": drawn, "TYPE": [""] * len(cells), "V": [LEGEND.codes[code] for code in drawn]}
    frame = geopandas.GeoDataFrame(table, geometry=cells, crs="EPSG:4326")
    frame.to_file(path)
    vertices = int(shapely.get_num_coordinates(cells).sum())
    print(f"map: {len(cells)} polygons, {vertices} vertices, {path.stat().st_size / 1e6:.0f} MB")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--polygons", type=int, default=10_000)
    count = parser.parse_args().polygons
    tool = shutil.which("gdal_rasterize")
    with tempfile.TemporaryDirectory() as folder:
        path, peer = Path(folder, "map.gpkg"), Path(folder, "gdal.tif")
        # In a process of its own, so that making the map does not count as memory of reading it.
        maker = f"import sys; sys.argv=['x']; exec(open({str(Path(__file__))!r}).read().split('def peak_mb')[0]); "
        subprocess.run(["python", "-c", f"{maker}make_map(Path({str(path)!r}), {count})"], check=True)
        rows = []
        for turn in range(3):
            before = peak_mb()
            start = time.perf_counter()
            made = rasterize([(path, LEGEND)], find_region("liu2024"))
            ours = time.perf_counter() - start
            theirs = float("nan")
            if tool:
                place = ["-te", "65", "40", "95", "55", "-ts", "7200", "3600"]
                words = ["-q", "-a", "V", "-init", "255", "-ot", "Byte", *place, "-co", "COMPRESS=DEFLATE"]
                start = time.perf_counter()
                subprocess.run([tool, *words, str(path), str(peer)], check=True, stderr=subprocess.DEVNULL)
                theirs = time.perf_counter() - start
            rows.append((ours, theirs))
            if turn == 0:
                print(f"peak memory: {peak_mb():.0f} MB, of which {before:.0f} MB before reading")
        if tool:
            with rasterio.open(peer) as raster:
                print(f"cells that differ from gdal_rasterize: {np.count_nonzero(raster.read(1) != made.values)}")
            peer.unlink()
        print(f"polygons mended: {made.maps[0].mended}")
        best = np.min(rows, axis=0)
        print(f"gravmap: {best[0]:.2f} s, gdal_rasterize: {best[1]:.2f} s, ratio {best[0] / best[1]:.2f} (best of 3)")


if __name__ == "__main__":
    main()
