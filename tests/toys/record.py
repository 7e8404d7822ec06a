"""A workspace with a small map and every file of its record; no network predicts it."""

import json

import numpy as np
import torch

from gravmap.files import write_json
from gravmap.geology.labels import legend_path, write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.gravity import residual_fields, write_fields
from gravmap.mapping.layers import ENTROPY, MARGIN, SECOND, Block
from gravmap.mapping.map_grid import MapGrid
from gravmap.mapping.record.provenance import update_checksums, write_provenance
from gravmap.mapping.record.stac import write_item
from toys.layers import write_map
from toys.map import LEGEND, gravity, make_run

ROWS, COLS = 24, 30
COMMAND = "gravmap predict --region toy --near 25km"


def make_workspace(root, crs=None):
    """Write fields, labels, a run and a map, each where a workspace has it; return the map's folder."""
    sources = [{"path": "gravity.nc", "sha256": "0" * 64, "source": "", "citation": "", "licence": ""}]
    fields = residual_fields(gravity(), [10_000.0], sources=sources)
    write_fields(fields, root / "data" / "fields.nc")
    write_labels(root / "data" / "labels.tif")
    make_recorded_run(root / "runs" / "first", fields)
    return make_recorded_map(root, crs)


def write_labels(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 11, (60, 70)).astype(np.uint8)
    write_index_raster(path, values, (79, 42, 86, 48), LEGEND)
    write_legend(LEGEND, legend_path(path))


def make_recorded_run(folder, fields, seed=0):
    """A run of toys.map whose model.json has the keys that provenance copies, and scores.json."""
    scores = {"tune": {"pa": 0.5, "places": 10}, "test": {"pa": 0.4, "places": 12}}
    network = make_run(
        folder,
        fields,
        seed,
        "ggmnet-tiny",
        scores=scores,
        sources=[
            {"role": "fields", "path": "../fields.nc", "sha256": "1" * 64},
            {"role": "gravity", "path": "gravity.nc", "sha256": "0" * 64, "source": "", "citation": "", "licence": ""},
        ],
        area_sha256="a" * 64,
        versions={"gravmap": "0.1.0", "torch": str(torch.__version__)},
        recipe={"epochs": 3, "lr": 1e-3, "architecture": None},
    )
    write_json(folder / "scores.json", {**scores, "epochs": 3})
    return network


def make_recorded_map(root, crs=None, folder=None, layers=None):
    folder = folder or root / "maps" / "toy"
    sums = json.loads((root / "runs" / "first" / "model.json").read_text())["weights_sha256"]
    lat, lon = np.linspace(46, 44, ROWS), np.linspace(81, 83.9, COLS)
    grid = MapGrid(lat, lon, (2 / (ROWS - 1), 2.9 / (COLS - 1)), 1.0)
    bands, tags = (ENTROPY, MARGIN), {"GRAVMAP_MODEL_SHA256": sums}
    write_map(folder, [layers or block()], grid, LEGEND, bands=bands, tags=tags, crs=crs)
    (folder / "map.png").write_bytes(b"a picture")
    write_provenance(
        folder,
        command=COMMAND,
        settings={"region": "toy", "bounds_wsen": [81, 44, 83.9, 46], "near_km": 25, "crs": crs, "everywhere": False},
        fields=root / "data" / "fields.nc",
        runs=[root / "runs" / "first"],
        labels=root / "data" / "labels.tif",
        seconds=1.25,
    )
    write_item(folder)
    update_checksums(folder)
    return folder


def block():
    """A third is outcrop, the rest predicted, a corner has no data; classes in patches of some cells."""
    rng = np.random.default_rng(1)
    coarse = rng.random((10, ROWS // 4, COLS // 5)).astype(np.float32)
    probability = np.repeat(np.repeat(coarse / coarse.sum(axis=0), 4, axis=1), 5, axis=2)
    lithology = (probability.argmax(axis=0) + 1).astype(np.uint8)
    evidence = np.full((ROWS, COLS), 3, np.uint8)
    evidence[:, :10] = 2
    evidence[-6:] = 4
    evidence[:8] = 1
    lithology[:8] = np.repeat(rng.integers(1, 11, (2, 6)), 4, axis=0).repeat(5, axis=1)
    for layer in (lithology, evidence):
        layer[-4:, -4:] = 255
    probability[:, -4:, -4:] = np.nan
    ordered = np.sort(probability, axis=0)
    entropy = -(probability * np.log(probability)).sum(axis=0) / np.log(10)
    second = (np.argsort(np.nan_to_num(probability), axis=0)[-2] + 1).astype(np.uint8)
    second[-4:, -4:] = 255
    measures = {"entropy": entropy, "margin": ordered[-1] - ordered[-2]}
    return Block(0, 0, lithology, probability, measures, evidence, classes={SECOND: second})
