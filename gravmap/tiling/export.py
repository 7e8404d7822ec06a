"""Export of a tile set for other programs: ArcGIS's "Classified Tiles", and folders that torchgeo reads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from gravmap.errors import InputError, OptionError
from gravmap.files import atomic_folder
from gravmap.lattice import COVER, UNUSABLE
from gravmap.outputs import check_outputs
from gravmap.progress import Progress, silent
from gravmap.tiling.training_arrays import TileIndex, read_index

LAYOUTS = ("esri", "torchgeo")


def export_tiles(
    folder: Path | str, target: Path | str, layout: str, *, overwrite: bool = False, progress: Progress = silent
) -> int:
    """Write a tile set in the layout of another program.

    ``esri`` is the layout of ArcGIS Pro's "Export Training Data For Deep Learning" with Classified Tiles, which
    ``arcgis.learn.prepare_data`` reads: ``images/``, ``labels/``, ``map.txt``, ``esri_model_definition.emd``,
    ``esri_accumulated_stats.json``. Its label 0 is "no data", so cover and unusable cells are both 0. ``torchgeo`` is
    one folder per scale with ``images/`` and ``masks/`` of the same file names, each for a ``RasterDataset``; labels
    stay as they are (0 cover, 255 unusable). Unchanged files are hard links where the file system has these, else
    copies.

    Parameters
    ----------
    folder : Path
        A complete tile set with tiles.
    target : Path
        The folder to write; it appears only when it is complete.
    layout : str
        ``esri`` or ``torchgeo``.
    overwrite : bool
        Replace an existing folder.
    progress : Progress
        Called after each tile.

    Returns
    -------
    int
        Number of pairs of image and label.

    Raises
    ------
    OptionError
        Unknown layout.
    InputError
        No tile set, an incomplete one, one without tiles, or `target` exists.

    Examples
    --------
    >>> from gravmap.tiling import export_tiles
    >>> export_tiles("data/tiles", "data/tiles_torchgeo", "torchgeo", overwrite=True)
    21
    """
    if layout not in LAYOUTS:
        raise OptionError(f"{layout!r} is not a layout of tiles.", f"Use {' or '.join(LAYOUTS)}.")
    folder, target = Path(folder), Path(target)
    check_outputs([], [folder], overwrite, folders=[target])
    index = read_index(folder)
    names = sorted(path.relative_to(folder).as_posix()[: -len("_field.tif")] for path in folder.glob("*/*_field.tif"))
    if not index["tiles"] or len(names) != index["windows"]:
        raise InputError(
            f"{folder} holds {len(names)} of {index['windows']} tiles.", "`gravmap tile --overwrite` makes them."
        )
    with atomic_folder(target) as temporary:
        write = _write_esri if layout == "esri" else _write_torchgeo
        write(folder, temporary, names, index, progress)
    return len(names)


def _write_torchgeo(folder: Path, target: Path, names: Sequence[str], index: TileIndex, progress: Progress) -> None:
    for done, name in enumerate(names, start=1):
        scale, _, place = name.partition("/")
        for kind, into in (("field", "images"), ("label", "masks")):
            (target / scale / into).mkdir(parents=True, exist_ok=True)
            _link(folder / f"{name}_{kind}.tif", target / scale / into / f"{place}.tif")
        progress(done, len(names), name)


def _write_esri(folder: Path, target: Path, names: Sequence[str], index: TileIndex, progress: Progress) -> None:
    classes = [entry for entry in index["classes"] if entry["index"] not in (COVER, UNUSABLE)]
    lookup = np.zeros(256, dtype=np.uint8)
    for entry in classes:
        lookup[entry["index"]] = entry["index"]
    for part in ("images", "labels"):
        (target / part).mkdir()
    band, pixels, images = _BandStats(), np.zeros(256, np.int64), np.zeros(256, np.int64)
    lines = []
    for done, name in enumerate(names, start=1):
        file = f"{name.replace('/', '_')}.tif"
        _link(folder / f"{name}_field.tif", target / "images" / file)
        with rasterio.open(folder / f"{name}_field.tif") as field:
            band.add(field.read(1))
        with rasterio.open(folder / f"{name}_label.tif") as label:
            values, profile, palette = lookup[label.read(1)], label.profile, label.colormap(1)
        with rasterio.open(target / "labels" / file, "w", **{**profile, "nodata": 0, "zlevel": 1}) as label:
            label.write_colormap(1, {**palette, COVER: (0, 0, 0, 0)})
            label.write(values, 1)
        counted = np.bincount(values.ravel(), minlength=256)
        pixels += counted
        images += counted > 0
        lines.append(f"images\\{file} labels\\{file}")
        progress(done, len(names), name)
    (target / "map.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    order = [entry["index"] for entry in classes]
    common = {
        "MetaDataMode": "Classified_Tiles",
        "NumBands": 1,
        "NumTiles": len(names),
        "TileSizeX": index["size_px"],
        "TileSizeY": index["size_px"],
    }
    accumulated = {
        **common,
        "NumClasses": len(classes),
        "BandStatsState": [band.state()],
        "ClassPixelStats": {
            "NumImagesTotal": len(names),
            "NumClasses": len(classes),
            "NumImagesPerClass": images[order].tolist(),
            "NumPixelsPerClass": pixels[order].tolist(),
        },
    }
    _write(target / "esri_accumulated_stats.json", accumulated)
    definition = {
        "ImageHeight": index["size_px"],
        "ImageWidth": index["size_px"],
        "MetaDataMode": "Classified_Tiles",
        "ImageSpaceUsed": "MAP_SPACE",
        "Classes": [
            {"Value": entry["index"], "Name": entry["name"], "Color": _rgb(entry["colour"])} for entry in classes
        ],
        "InputRastersProps": {"RasterCount": 1, "SensorName": "", "BandNames": [index["channel"]]},
        "AllTilesStats": [{"BandName": index["channel"], **band.summary()}],
    }
    _write(target / "esri_model_definition.emd", definition)


class _BandStats:
    """Number, extremes, mean and sum of squared deviations of all pixels, combined tile by tile (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        self.minimum, self.maximum = float("inf"), float("-inf")

    def add(self, values: NDArray[np.float32]) -> None:
        known = values[np.isfinite(values)].astype(np.float64)
        if not known.size:
            return
        mean, total = float(known.mean()), self.count + known.size
        apart = mean - self.mean
        self.squares += float(((known - mean) ** 2).sum()) + apart**2 * self.count * known.size / total
        self.mean += apart * known.size / total
        self.count = total
        self.minimum, self.maximum = min(self.minimum, float(known.min())), max(self.maximum, float(known.max()))

    def state(self) -> dict[str, float]:
        return {"Min": self.minimum, "Max": self.maximum, "M1": self.mean, "M2": self.squares, "Num": self.count}

    def summary(self) -> dict[str, float]:
        deviation = float(np.sqrt(self.squares / max(self.count, 1)))
        return {"Min": self.minimum, "Max": self.maximum, "Mean": self.mean, "StdDev": deviation}


def _rgb(colour: str) -> list[int]:
    return [int(colour[k : k + 2], 16) for k in (1, 3, 5)]


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    """A hard link where the file system has these, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
