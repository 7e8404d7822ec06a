"""How much ground each class covers, by what it rests on: counted cell by cell from a map's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from gravmap.mapping.files.projection import cell_areas_km2
from gravmap.mapping.layers import NODATA

_STRIP_ROWS = 512


@dataclass(frozen=True)
class Ground:
    """Square kilometres on the WGS 84 ellipsoid.

    Attributes
    ----------
    km2 : (256, 256) float64
        By class index and evidence value; where the map has no evidence, all stands in column 255.
    has_evidence : bool
        Whether the second axis says anything.
    """

    km2: NDArray[np.float64]
    has_evidence: bool

    def of_class(self, index: int, *evidence: int) -> float:
        """Area of a class, in all or on ground of the given evidence."""
        row = self.km2[index]
        return float(row[list(evidence)].sum() if evidence else row.sum())

    def of_evidence(self, *evidence: int) -> float:
        """Area of all classes on ground of the given evidence; without a value, of all classes."""
        classes = self.km2[:NODATA]
        return float(classes[:, list(evidence)].sum() if evidence else classes.sum())


def measure_ground(folder: Path) -> Ground:
    """Measure a map folder's ``lithology.tif`` against its ``evidence.tif``, a strip of rows at a time.

    Parameters
    ----------
    folder : Path
        The finished map; its evidence lies on the same cells, or is missing.
    """
    evidence_path = folder / "evidence.tif"
    km2 = np.zeros(256 * 256)
    with rasterio.open(folder / "lithology.tif") as classes:
        evidence = rasterio.open(evidence_path) if evidence_path.exists() else None
        try:
            for row in range(0, classes.height, _STRIP_ROWS):
                window = Window(0, row, classes.width, min(_STRIP_ROWS, classes.height - row))
                values = classes.read(1, window=window).astype(np.int64)
                rests_on = NODATA if evidence is None else evidence.read(1, window=window).astype(np.int64)
                area = np.broadcast_to(cell_areas_km2(classes.crs, classes.transform, window), values.shape)
                km2 += np.bincount((values * 256 + rests_on).ravel(), weights=area.ravel(), minlength=km2.size)
        finally:
            if evidence is not None:
                evidence.close()
    return Ground(km2.reshape(256, 256), evidence is not None)
