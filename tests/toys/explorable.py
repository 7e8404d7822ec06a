"""A random map with every raster that a prediction writes, and its record, of any size and without a network."""

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from gravmap.files import sha256, write_json
from gravmap.mapping.layers import ENTROPY, NODATA, NULL_MODEL, OUTCROP, PROBABILITY, UNDER_COVER
from toys.layers import LEGEND, grid, random_map, write_map

FIELDS = ("residual_10km", "bouguer")
REGION = "upper <ili> & co"


def make_explorable(folder, rows=30, columns=45, *, step=1 / 30, region=REGION, **options):
    """Write the map; return its block. The last rows and columns are no data (toys.layers)."""
    rng = np.random.default_rng(1)
    whole = random_map(rows, columns, smooth=max(3, rows // 20))
    known = whole.lithology != NODATA
    residual, bouguer = (gaussian_filter(rng.normal(size=known.shape), 3) * scale for scale in (60, 600))
    covered = np.isin(whole.evidence, UNDER_COVER)
    median = np.where(covered, 1500 + 40 * residual, np.nan)
    assigned = np.where(known, whole.lithology, 1).astype(int)[None] - 1
    probability = np.where(known, np.take_along_axis(whole.probability, assigned, 0)[0], np.nan)
    whole = replace(
        whole,
        uncertainty=whole.uncertainty | {PROBABILITY.name: probability},
        cover_m=np.stack([median, median / 2, median * 2]).astype(np.float32),
        gravity_mgal=np.stack([residual, bouguer - 150]).astype(np.float32),
        outcrop_km=np.where(whole.evidence == OUTCROP, 0, 10 + residual).astype(np.float32),
        classes=whole.classes
        | {NULL_MODEL: np.where(known, np.roll(assigned[0], 5, axis=1) % 10 + 1, NODATA).astype(np.uint8)},
    )
    layers = {"bands": (ENTROPY, PROBABILITY), "thickness": True, "gravity": FIELDS, "outcrop": True}
    write_map(folder, [whole], grid(rows, columns, step=step), LEGEND, **layers | options)
    write_record(folder, region)
    return whole


def write_record(folder, region=REGION):
    """Write a record as far as pages read it."""
    classes = [{"index": e.index, "name": e.name, "colour": e.colour, "age": e.age} for e in LEGEND.bedrock]
    model = {"name": "run", "sha256": "12" * 32, "model": "toy", "inputs": [], "classes": classes}
    record = {
        "format": 1,
        "made_by": "gravmap 0.1.0",
        "created": "2026-11-23T01:00:00+00:00",
        "settings": {"region": region},
        "models": [model],
        "inputs": {},
        "sources": [],
        "summary": {},
        "outputs": {"lithology.tif": {"sha256": sha256(folder / "lithology.tif")}},
    }
    write_json(folder / "provenance.json", record)
