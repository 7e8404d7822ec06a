"""A finished map with every layer, known cell by cell, and the files of a run that describe a network."""

import numpy as np

from gravmap.files import write_json
from gravmap.learning.evaluation.metrics import scores
from gravmap.mapping.layers import (
    COVERED,
    DISSIMILARITY,
    ENTROPY,
    EXTRAPOLATED,
    NEAR,
    NODATA,
    OUTCROP,
    UNMAPPED,
    UNMAPPED_TAG,
    Block,
)
from gravmap.mapping.map_grid import MapGrid
from toys.layers import write_map
from toys.map import LEGEND

ROWS, COLUMNS, STEP = 40, 60, 0.1
NORTH, WEST = 48.0, 80.0
BOUNDS = (WEST, NORTH - ROWS * STEP, WEST + COLUMNS * STEP, NORTH)
NAMES = [entry.name for entry in LEGEND.bedrock]


def make_layers():
    """Class 6 in the west, 9 in the east; the north is outcrop, the south cover; a corner is no data."""
    lithology = np.full((ROWS, COLUMNS), 9, np.uint8)
    lithology[:, :20] = 6
    evidence = np.full((ROWS, COLUMNS), COVERED, np.uint8)
    evidence[:10] = OUTCROP
    evidence[10:14] = NEAR
    evidence[30:] = EXTRAPOLATED
    lithology[35:, 50:] = NODATA
    evidence[35:, 50:] = NODATA
    entropy = np.broadcast_to(np.linspace(0, 1, COLUMNS, dtype=np.float32), lithology.shape).copy()
    entropy[lithology == NODATA] = np.nan
    return lithology, evidence, entropy


CONTENT = "outcrop as mapped, bedrock class predicted under cover"


def make_map(folder, crs=None, content=CONTENT, record=True, unmapped=""):
    """With `unmapped`, ``blank`` or ``predicted``, the western ten columns are on no geological map."""
    lithology, evidence, entropy = make_layers()
    if unmapped:
        evidence[:, :10] = UNMAPPED
    if unmapped == "blank":
        lithology[:, :10], entropy[:, :10] = NODATA, np.nan
    lat = NORTH - (np.arange(ROWS) + 0.5) * STEP
    lon = WEST + (np.arange(COLUMNS) + 0.5) * STEP
    grid = MapGrid(lat, lon, (STEP, STEP), 1.0)
    probability = np.full((len(NAMES), ROWS, COLUMNS), 1 / len(NAMES), np.float32)
    probability[:, lithology == NODATA] = np.nan
    measures = {ENTROPY.name: entropy, DISSIMILARITY.name: entropy}
    tags = {"GRAVMAP_CONTENT": content, "GRAVMAP_UPSAMPLING": "2", **({UNMAPPED_TAG: unmapped} if unmapped else {})}
    bands = (ENTROPY, DISSIMILARITY)
    block = Block(0, 0, lithology, probability, measures, evidence)
    write_map(folder, [block], grid, LEGEND, bands=bands, tags=tags, crs=crs)
    if record:
        write_json(folder / "provenance.json", RECORD)
    return folder


RECORD = {
    "made_by": "gravmap 0.1.0",
    "command": "gravmap predict --region turpan-hami",
    "created": "2026-11-23T01:00:00+00:00",
    "settings": {"region": "turpan-hami"},
    "inputs": {"fields": {"path": "data/fields.nc", "sha256": "ab" * 32}},
    "outputs": {"lithology.tif": {"sha256": "cd" * 32, "bytes": 12}},
    "sources": [
        {
            "role": "gravity",
            "path": "grid.nc",
            "citation": "A. Surveyor (1999)",
            "licence": "ask first",
            "sha256": "ef" * 32,
        },
        {"role": "map", "file": "geo3al.zip", "legend": "geo3al", "known_as": "geo3al"},
        {"role": "fields", "path": "../fields.nc", "sha256": "ab" * 32},
    ],
    "deviations": ["The gravity is grid.nc, not the paper's WGM2012."],
    "versions": {"python": "3.11", "numpy": "2.4"},
}


def write_run_files(folder, matrix=None, split=None, calibration=None, **changes):
    """Write model.json, scores.json and, where given, calibration.json: a run without its weights."""
    counts = np.diag(np.arange(len(NAMES)) * 10) if matrix is None else np.asarray(matrix)
    split = {"name": "blocks", "kind": "blocks", "fold": 1, "folds": 5, "block_deg": [2.5, 2.5], "leak": 0.0} | (
        split or {}
    )
    model = {
        "model": "ggmnet-small",
        "inputs": [{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 5.0}],
        "classes": [
            {"index": entry.index, "name": entry.name, "colour": entry.colour, "age": entry.age}
            for entry in LEGEND.bedrock
        ],
        "field_recipe": {"spacing_deg": [0.25, 0.25], "input_height_m": 10_000.0},
        "split": split,
        "weights_sha256": "12" * 32,
    }
    write_json(folder / "model.json", model | changes)
    write_json(folder / "scores.json", {"test": scores(counts, NAMES), "split": split})
    if calibration:
        belongs = {"format": 1, "model_sha256": "12" * 32, "scales": [5.0], "temperatures": {"5deg": 1.7}}
        write_json(folder / "calibration.json", belongs | calibration)
    return folder


def reliability(ece, accuracy):
    bins = [
        {"low": low, "high": low + 0.25, "share": share, "confidence": low + 0.125, "accuracy": accuracy}
        for low, share in ((0.25, 0.75), (0.5, 0.25))
    ]
    empty = {"low": 0.0, "high": 0.25, "share": 0.0, "confidence": None, "accuracy": None}
    return {"ece": ece, "classwise_ece": ece / 3, "nll": 2.0, "brier": 0.8, "bins": [empty, *bins]}


CALIBRATION = {"test": {"nodes": 321, "before": reliability(0.234, 0.2), "after": reliability(0.041, 0.5)}, "notes": []}


def page_of(folder, *runs, **options):
    from gravmap.mapping.page.facts import gather
    from gravmap.mapping.page.report import write_report

    fields = options.pop("fields", None)
    facts = gather(folder, runs=list(runs), tiles=options.pop("tiles", None), **options)
    return write_report(folder, facts, fields).read_text(encoding="utf-8")
