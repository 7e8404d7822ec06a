"""Whether the rasters of a map agree with each other, with their tables, and with the record."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioIOError

from gravmap.mapping.layers import CLASS_LAYERS, NODATA, OUTCROP, THICKNESS_BANDS, UNDER_COVER, UNMAPPED
from gravmap.mapping.record.finding import AS_RECORDED, DISAGREES, Finding
from gravmap.mapping.record.provenance import THICKNESS
from gravmap.mapping.record.raster_content import blocks, count_values, measure_thickness, read_attribute_table

RASTERS = (
    *("lithology.tif", "probability.tif", "uncertainty.tif", "evidence.tif"),
    *(f"{name}.tif" for name in CLASS_LAYERS),
    *(THICKNESS, "gravity.tif", "outcrop_distance.tif"),
)

# Areas are sums of many small numbers, written in decimal: so far apart they may be.
AREA_TOLERANCE = 1e-4


def agreement(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    """Compare the rasters of a map, their attribute tables and polygons with each other and with the record.

    Parameters
    ----------
    folder : Path
        Of the map.
    record : mapping
        Its ``provenance.json``.

    Yields
    ------
    Finding
        ``as recorded`` or ``disagrees``; a raster that is not there is passed over.
    """
    paths = {name: folder / name for name in RASTERS if (folder / name).is_file()}
    unreadable = {name: why for name, path in paths.items() if (why := _unreadable(path))}
    for name, why in unreadable.items():
        yield Finding(name, DISAGREES, f"is not a readable raster: {why}")
    paths = {name: path for name, path in paths.items() if name not in unreadable}
    if "lithology.tif" not in paths:
        return
    yield _finding("one grid", _grids(paths))
    classes = {int(entry["index"]) for model in record["models"] for entry in model["classes"]}
    counted = {name: count_values(paths[name]) for name in ("lithology.tif", "evidence.tif") if name in paths}
    yield _finding("classes of the legend", _unknown_values(counted["lithology.tif"], classes))
    for name, found in counted.items():
        recorded = {
            int(row["value"]): (int(row["cells"]), float(row["km2"]))
            for row in record["summary"].get(name.removesuffix(".tif"), [])
        }
        yield _finding(f"cells and areas of {name}", _sums(found, recorded, "the record"))
        table = {value: (row.cells, row.km2) for value, row in read_attribute_table(paths[name]).items()}
        if table:
            yield _finding(f"attribute table of {name}", _sums(found, table, "the table"))
    yield _finding("the network named in the rasters", _tags(paths, record))
    if {"probability.tif", "evidence.tif"} <= paths.keys():
        yield _finding(
            "class, probability and evidence of every cell",
            _cells(paths, record.get("settings", {}).get("class_offsets")),
        )
        if record.get("unmapped"):  # earlier maps have none
            yield _finding("unmapped ground", _unmapped(paths, record["unmapped"], counted["evidence.tif"]))
    if {THICKNESS, "evidence.tif"} <= paths.keys():
        yield _finding("thickness of the cover of every cell", _thickness(paths, record))
    if (folder / "lithology.gpkg").is_file():
        area = sum(km2 for value, (_, km2) in counted["lithology.tif"].items() if value != NODATA)
        yield _finding("area of the polygons", _polygons(folder / "lithology.gpkg", area))


def _finding(what: str, detail: str) -> Finding:
    return Finding(what, DISAGREES if detail else AS_RECORDED, detail)


def _unreadable(path: Path) -> str:
    try:
        with rasterio.open(path) as raster:
            for window in blocks(raster.height, raster.width):
                raster.read(window=window)
    except RasterioIOError as error:
        return str(error).splitlines()[0]
    return ""


def _grids(paths: Mapping[str, Path]) -> str:
    """Shape, coordinate system and place of every raster are those of the lithology."""
    differences = []
    with rasterio.open(paths["lithology.tif"]) as first:
        for name, path in paths.items():
            with rasterio.open(path) as other:
                if other.shape != first.shape:
                    differences.append(
                        f"{name} has {other.width} x {other.height} cells, not {first.width} x {first.height}"
                    )
                elif other.crs != first.crs:
                    differences.append(f"{name} is in {other.crs}, not in {first.crs}")
                elif not other.transform.almost_equals(first.transform, 1e-9 * max(1.0, abs(first.transform.c))):
                    differences.append(f"{name} lies elsewhere than lithology.tif")
    return "; ".join(differences)


def _unknown_values(found: Mapping[int, Any], classes: set[int]) -> str:
    unknown = sorted(set(found) - classes - {NODATA})
    return f"lithology.tif holds the values {unknown}, which no class of the network has" if unknown else ""


def _sums(found: Mapping[int, tuple[int, float]], other: Mapping[int, tuple[int, float]], whose: str) -> str:
    """Cells and km² in a raster beside those of another count; nodata is left out."""
    differences = []
    for value in sorted({*found, *other} - {NODATA}):
        cells, km2 = found.get(value, (0, 0.0))
        expected, area = other.get(value, (0, 0.0))
        if cells != expected:
            differences.append(f"value {value}: {cells:,} cells, {expected:,} in {whose}")
        elif not math.isclose(km2, area, rel_tol=AREA_TOLERANCE, abs_tol=1e-3):
            differences.append(f"value {value}: {km2:,.1f} km2, {area:,.1f} in {whose}")
    return "; ".join(differences)


def _tags(paths: Mapping[str, Path], record: Mapping[str, Any]) -> str:
    """Every raster names the weights that the record names."""
    wanted = {str(model["sha256"]) for model in record["models"]}
    differences = []
    for name, path in paths.items():
        with rasterio.open(path) as raster:
            named = raster.tags().get("GRAVMAP_MODEL_SHA256", "")
        if named and not set(named.replace(",", " ").split()) <= wanted:
            differences.append(f"{name} names {named[:12]}..., the record {', '.join(sum_[:12] for sum_ in wanted)}...")
    return "; ".join(differences)


def _cells(paths: Mapping[str, Path], offsets: Sequence[float] | None) -> str:
    """Where the network names the class, it is one of the likeliest; no data is no data in both.

    Unmapped ground is evidence without a class. With offsets, added to the logs of the chances, the class is one of
    those that are largest then.
    """
    wrong = blind = 0
    factors = 1.0 if offsets is None else np.exp(np.asarray(offsets, np.float64))[:, None, None]
    with (
        rasterio.open(paths["lithology.tif"]) as lithology,
        rasterio.open(paths["probability.tif"]) as probability,
        rasterio.open(paths["evidence.tif"]) as evidence,
    ):
        if not lithology.shape == probability.shape == evidence.shape:
            return "the rasters have different sizes"
        for window in blocks(lithology.height, lithology.width):
            classes, rests_on = lithology.read(1, window=window), evidence.read(1, window=window)
            blind += int((((classes == NODATA) != (rests_on == NODATA)) & (rests_on != UNMAPPED)).sum())
            shares = probability.read(window=window)
            named = (classes != NODATA) & (rests_on != NODATA) & (classes >= 1) & (classes <= len(shares))
            named &= (shares[0] != NODATA) & (rests_on != OUTCROP)
            # Stored in steps of half a percent: the likeliest class may share its step with another, and a factor
            # widens the step.
            least, most = (np.maximum(shares + half, 0) * factors for half in _HALF_STEPS[offsets is not None])
            chosen = np.take_along_axis(most, np.where(named, classes - 1, 0)[None].astype(np.intp), axis=0)[0]
            wrong += int((named & (chosen < least.max(axis=0))).sum())
    differences = [f"{blind:,} cells have a class and no evidence, or the other way round"] if blind else []
    if wrong:
        differences.append(f"in {wrong:,} cells predicted, the class is not the likeliest one")
    return "; ".join(differences)


def _unmapped(paths: Mapping[str, Path], recorded: Mapping[str, Any], evidence: Mapping[int, tuple[int, float]]) -> str:
    """The recorded fraction is that of the evidence; ground that was not filled is blank in every raster."""
    km2 = {value: area for value, (_, area) in evidence.items() if value != NODATA}
    fraction = km2.get(UNMAPPED, 0.0) / (sum(km2.values()) or 1.0)
    if not math.isclose(fraction, float(recorded["fraction"]), abs_tol=AREA_TOLERANCE):
        return (
            f"{100 * fraction:.2f} % of the evidence is unmapped, {100 * float(recorded['fraction']):.2f} in the record"
        )
    if recorded["predicted"] or UNMAPPED not in km2:
        return ""
    filled = []
    with rasterio.open(paths["evidence.tif"]) as rests_on:
        for name in ("lithology.tif", "probability.tif", "uncertainty.tif"):  # thickness has a finding of its own
            if name not in paths:
                continue
            with rasterio.open(paths[name]) as raster:
                if raster.shape == rests_on.shape and any(
                    ((rests_on.read(1, window=window) == UNMAPPED) & (raster.read(window=window) != NODATA)).any()
                    for window in blocks(raster.height, raster.width)
                ):
                    filled.append(name)
    return f"{', '.join(filled)} have values on unmapped ground, which the record calls blank" if filled else ""


def _thickness(paths: Mapping[str, Path], record: Mapping[str, Any]) -> str:
    """The median lies between p10 and p90, all three where ground is under cover, and their means are those recorded.

    On a map that shows the prediction on outcrop too, outcrop cannot be told from cover: there it may be no data.
    """
    everywhere = bool(record.get("settings", {}).get("everywhere"))
    wrong = partial = misplaced = 0
    with rasterio.open(paths[THICKNESS]) as thickness, rasterio.open(paths["evidence.tif"]) as evidence:
        if thickness.shape != evidence.shape:
            return "the rasters have different sizes"
        if thickness.descriptions != tuple(THICKNESS_BANDS):
            return f"its bands are {', '.join(map(str, thickness.descriptions))}, not {', '.join(THICKNESS_BANDS)}"
        for window in blocks(thickness.height, thickness.width):
            values, rests_on = thickness.read(window=window), evidence.read(1, window=window)
            known = values != thickness.nodata
            median, low, high = values
            partial += int((known.any(axis=0) != known.all(axis=0)).sum())
            wrong += int((known.all(axis=0) & ((median < low) | (median > high))).sum())
            covered = np.isin(rests_on, UNDER_COVER)
            misplaced += int((known[0] & ~covered if everywhere else known[0] != covered).sum())
    differences = [
        f"in {count:,} cells {what}"
        for count, what in (
            (wrong, "the median is not between p10 and p90"),
            (partial, "only some of the bands have a value"),
            (misplaced, "there is a thickness without cover, or none under cover"),
        )
        if count
    ]
    recorded = record.get("cover_thickness")
    found = measure_thickness(paths[THICKNESS])
    if recorded is None:
        differences.append("the record knows no thickness")
    elif found["cells"] != recorded["cells"]:
        differences.append(f"{found['cells']:,} cells have one, {recorded['cells']:,} in the record")
    else:
        differences += [
            f"the mean of {name} is {mean:.6g} m, {recorded['mean_m'].get(name)} in the record"
            for name, mean in found["mean_m"].items()
            if mean is not None and not math.isclose(mean, recorded["mean_m"].get(name) or -1, rel_tol=AREA_TOLERANCE)
        ]
    return "; ".join(differences)


_HALF_STEPS = {False: (0.0, 0.0), True: (-0.501, 0.501)}
"""What a stored chance may lie below or above its step, by whether there are offsets."""


def _polygons(path: Path, area_km2: float) -> str:
    # Opened by itself and as a file that nobody writes to: SQLite would put a journal beside it otherwise.
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            (found,) = connection.execute("SELECT sum(area_km2) FROM lithology").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        return f"lithology.gpkg cannot be read: {error}"
    if not math.isclose(found or 0.0, area_km2, rel_tol=AREA_TOLERANCE):
        return f"{found or 0.0:,.0f} km2, lithology.tif holds {area_km2:,.0f}"
    return ""
