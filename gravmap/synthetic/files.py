"""A crust as files: gravity grid, geological map, bedrock below the cover, and parameters.

``gravity.nc`` and ``map.gpkg`` stand for a user's real data; ``truth.tif`` and ``crust.json`` are the reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.transform import from_bounds
from shapely.geometry import MultiPolygon, shape

from gravmap import __version__
from gravmap.errors import InputError
from gravmap.files import atomic_path, write_json
from gravmap.geology import load_legend
from gravmap.geology.labels import write_index_raster
from gravmap.geology.legend import Legend
from gravmap.synthetic.crust import LEGEND, Crust

FILES = {"gravity": "gravity.nc", "map": "map.gpkg", "truth": "truth.tif", "parameters": "crust.json"}
"""Names of the files by content."""


def write_crust(crust: Crust, folder: Path | str) -> dict[str, Path]:
    """Write the files of a crust into a folder; each is written atomically, and replaces an existing one.

    Parameters
    ----------
    crust : Crust
        See `make_crust`.
    folder : Path or str
        Created if missing.

    Returns
    -------
    dict of str to Path
        ``gravity`` (gravity.nc: CF netCDF, mGal at cell centres), ``map`` (map.gpkg: one multipolygon per class with
        the codes of the shipped legend ``crust``), ``truth`` (truth.tif: index raster of the bedrock below the cover)
        and ``parameters`` (crust.json).

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from gravmap.synthetic import make_crust
    >>> from gravmap.synthetic.files import write_crust
    >>> with TemporaryDirectory() as folder:
    ...     paths = write_crust(make_crust(seed=1, shape=(8, 12), sub=1, margin=4), folder)
    ...     {name: path.name for name, path in paths.items() if path.exists()}
    {'gravity': 'gravity.nc', 'map': 'map.gpkg', 'truth': 'truth.tif', 'parameters': 'crust.json'}
    """
    legend = load_legend(LEGEND)
    folder = Path(folder)
    paths = {name: folder / file for name, file in FILES.items()}
    made_from: dict[str, Any] = {"seed": crust.seed, **crust.parameters}
    with atomic_path(paths["gravity"]) as temporary:
        dataset = crust.gravity.to_dataset(name="bouguer")
        dataset.attrs = {
            "Conventions": "CF-1.8",
            "title": f"Bouguer anomaly of the synthetic crust with seed {crust.seed}",
            "source": f"simulated by gravmap {__version__}: no place on Earth",
        }
        # Extended, not replaced: the variable's encoding names its coordinate system.
        dataset["bouguer"].encoding |= {"zlib": True, "complevel": 4}
        dataset.to_netcdf(temporary, engine="netcdf4")
    with atomic_path(paths["map"]) as temporary:
        polygons = map_polygons(crust.surface, crust.bounds_wsen, legend)
        polygons.to_file(temporary, layer="geology", driver="GPKG", engine="pyogrio")
    write_index_raster(paths["truth"], crust.truth[::-1], crust.bounds_wsen, legend, tags={"GRAVMAP_CRUST": made_from})
    write_json(paths["parameters"], {"gravmap": __version__, **made_from, "bounds_wsen": list(crust.bounds_wsen)})
    return paths


def map_polygons(
    surface: NDArray[np.uint8], bounds_wsen: tuple[float, float, float, float], legend: Legend
) -> gpd.GeoDataFrame:
    """Convert a raster of classes to polygons, one multipolygon per class.

    Parameters
    ----------
    surface : ndarray, shape (ny, nx), uint8
        Classes, rows ASCENDING in latitude.
    bounds_wsen : tuple of float
        Outer edges of the cells, degrees.
    legend : Legend
        Names of the code field and codes of the classes.

    Returns
    -------
    geopandas.GeoDataFrame
        In EPSG:4326, with the code field of the legend and ``NAME``.

    Raises
    ------
    InputError
        The legend has no code for a class of the raster.
    """
    code_of: dict[int, str] = {}
    for code, index in legend.codes.items():
        code_of.setdefault(index, code)
    name_of = {entry.index: entry.name for entry in legend.classes}
    north_up = np.ascontiguousarray(surface[::-1])
    transform = from_bounds(*bounds_wsen, surface.shape[1], surface.shape[0])
    parts: dict[int, list[Any]] = {}
    for outline, value in shapes(north_up, connectivity=4, transform=transform):
        parts.setdefault(int(value), []).append(shape(outline))
    rows = []
    for index in sorted(parts):
        if index not in code_of:
            raise InputError(f"The legend {legend.name} has no code for class {index}.", "Add one under [map.codes].")
        # Polygons of one class touch at corners only, so they form a valid multipolygon without a union.
        geometry = MultiPolygon(parts[index])
        rows.append({legend.field: code_of[index], "NAME": name_of.get(index, ""), "geometry": geometry})
    return gpd.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")
