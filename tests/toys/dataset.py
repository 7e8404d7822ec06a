"""The arrays of a small region whose class is the sign of a smooth field: learnable, and known everywhere."""

import numpy as np

WEST, SOUTH, SIZE = 80.0, 42.0, 4.0


def field_at(lat, lon):
    """Smooth, mGal, zero mean, wavelengths of one to three degrees."""
    x, y = (lon - WEST) * np.pi, (lat - SOUTH) * np.pi
    return 20 * (np.sin(0.9 * x + 0.4 * y + 0.3) + 0.7 * np.cos(0.7 * y - 1.3 * x) + 0.5 * np.sin(1.5 * y))


def make_arrays(seed=0, nodes_per_deg=10, cells_per_deg=20):
    ny = int(SIZE * nodes_per_deg) + 1
    lat, lon = np.linspace(SOUTH + SIZE, SOUTH, ny), np.linspace(WEST, WEST + SIZE, ny)
    fields = field_at(lat[:, None], lon[None, :]).astype(np.float32)[None]
    cells = int(SIZE * cells_per_deg)
    centres = (np.arange(cells) + 0.5) / cells_per_deg
    cell_lat, cell_lon = SOUTH + SIZE - centres, WEST + centres
    labels = np.where(field_at(cell_lat[:, None], cell_lon[None, :]) > 0, 1, 2).astype(np.uint8)
    rng = np.random.default_rng(seed)
    labels[rng.random(labels.shape) < 0.2] = 0
    role = np.zeros(labels.shape, np.uint8)
    block = cells_per_deg  # one degree
    role[block : 2 * block, block : 2 * block] = 1
    role[2 * block : 3 * block, 2 * block : 3 * block] = 2
    role[2 * block : 3 * block, : block // 4] = 3
    windows, scales = [], []
    for scale, stride in ((2.0, 1.0), (1.0, 1.0)):
        for south in np.arange(SOUTH, SOUTH + SIZE - scale + 1e-9, stride):
            for west in np.arange(WEST, WEST + SIZE - scale + 1e-9, stride):
                windows.append((west, south, west + scale, south + scale))
                scales.append(scale)
    classes = [
        {"index": 1, "name": "high", "colour": "#AA0000", "age": "Permian"},
        {"index": 2, "name": "low", "colour": "#0000AA", "age": "Triassic"},
    ]
    return {
        "fields": fields,
        "field_valid": np.ones(fields.shape[1:], bool),
        "field_nodes_wsen": np.array([WEST, SOUTH, WEST + SIZE, SOUTH + SIZE]),
        "labels": labels,
        "label_bounds_wsen": np.array([WEST, SOUTH, WEST + SIZE, SOUTH + SIZE]),
        "small": (rng.random(labels.shape) < 0.05).astype(np.uint8),
        "role": role,
        "windows": np.array(windows),
        "window_scale_deg": np.array(scales),
        "window_role": np.zeros(len(windows), np.uint8),
        "meta": {
            "channels": ["residual_10km"],
            "classes": classes,
            "tile_size_px": 64,
            "region_wsen": [WEST, SOUTH, WEST + SIZE, SOUTH + SIZE],
            "field_recipe": {"method": "regional"},
            "sources": [{"name": "toy", "sha256": "0" * 64}],
            "split": {"name": "blocks", "fold": 0},
            "legend_toml": "",
        },
    }
