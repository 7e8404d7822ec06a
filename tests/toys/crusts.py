"""The arrays of small crusts whose class under cover follows from gravity: three classes, cells around the nodes."""

import numpy as np

from toys.dataset import field_at

PER_DEG, ROWS, COLUMNS, K = 15, 32, 48, 3


def make_crust_arrays(seed=0):
    """As `gravmap.synthetic.crust_arrays` returns them; each seed shows another part of one endless field."""
    west, south = 70.0 + 7 * seed, 40.0
    lon = west + (np.arange(COLUMNS) + 0.5) / PER_DEG
    lat = south + (ROWS - np.arange(ROWS) - 0.5) / PER_DEG
    field = field_at(lat[:, None] + 3 * seed, lon[None, :])
    truth = (1 + (field > -8).astype(int) + (field > 8)).astype(np.uint8)
    covered = field_at(lat[:, None] - 11 * seed, 2 * lon[None, :] + 5) > 0
    return {
        "fields": field.astype(np.float32)[None],
        "field_valid": np.ones((ROWS, COLUMNS), bool),
        "field_nodes_wsen": np.array([lon[0], lat[-1], lon[-1], lat[0]]),
        "labels": np.where(covered, 0, truth).astype(np.uint8),
        "label_bounds_wsen": np.array([west, south, west + COLUMNS / PER_DEG, south + ROWS / PER_DEG]),
        "small": np.zeros((ROWS, COLUMNS), np.uint8),
        "role": np.zeros((ROWS, COLUMNS), np.uint8),
        "windows": np.zeros((0, 4)),
        "window_scale_deg": np.zeros(0),
        "window_role": np.zeros(0, np.uint8),
        "truth": truth,
        "cover_m": np.where(covered, 500, 0).astype(np.float32),
        "meta": {
            "channels": ["residual_10km"],
            "channel_units": ["mGal"],
            "classes": [
                {"index": index, "name": name, "colour": "#777777", "age": ""}
                for index, name in enumerate(("light", "medium", "dense"), 1)
            ],
            "region_wsen": [west, south, west + COLUMNS / PER_DEG, south + ROWS / PER_DEG],
            "field_recipe": {"method": "regional"},
            "sources": [],
            "legend_toml": "",
        },
    }
