"""A random map, cell by cell: smooth patches of classes with outcrop, cover, and cells outside the training data."""

import numpy as np
from scipy.ndimage import gaussian_filter

from gravmap.geology import load_legend
from gravmap.geology.legend import Legend
from gravmap.mapping.files.writer import MapWriter
from gravmap.mapping.layers import AGREEMENT, COVERED, ENTROPY, EXTRAPOLATED, MARGIN, NEAR, OUTCROP, SECOND, Block
from gravmap.mapping.map_grid import MapGrid

LEGEND = Legend("model", load_legend("bedrock10").bedrock)
BANDS = (ENTROPY, MARGIN, AGREEMENT)
NO_DATA = np.s_[-4:, -7:]  # a corner


def grid(rows, cols, west=81.0, north=48.0, step=1 / 30):
    lat, lon = north - (np.arange(rows) + 0.5) * step, west + (np.arange(cols) + 0.5) * step
    return MapGrid(lat, lon, (step, step), 1.0)


def random_map(rows, cols, seed=0, smooth=6):
    """One block of all cells."""
    rng = np.random.default_rng(seed)
    logits = [gaussian_filter(rng.normal(size=(rows, cols)), smooth) * smooth * 8 for _ in LEGEND.bedrock]
    odds = np.exp(np.array(logits))
    probability = (odds / odds.sum(axis=0)).astype(np.float32)
    place = gaussian_filter(rng.normal(size=(rows, cols)), 2 * smooth)
    place /= place.std()
    evidence = np.full((rows, cols), COVERED, dtype=np.uint8)
    evidence[place > 0.2] = NEAR
    evidence[place > 0.5] = OUTCROP
    evidence[place < -1] = EXTRAPOLATED
    likeliest = probability.argmax(axis=0) + 1
    # What is mapped differs from what is predicted.
    lithology = np.where(evidence == OUTCROP, np.roll(likeliest, 9, axis=0), likeliest).astype(np.uint8)
    probability[:, *NO_DATA] = np.nan
    lithology[NO_DATA] = evidence[NO_DATA] = 255
    by_size = np.sort(probability, axis=0)
    second = np.where(np.isnan(probability[0]), 255, np.argsort(probability, axis=0)[-2] + 1).astype(np.uint8)
    entropy = -(probability * np.log(probability)).sum(axis=0) / np.log(len(LEGEND.bedrock))
    uncertainty = {
        "entropy": entropy,
        "margin": by_size[-1] - by_size[-2],
        "agreement": by_size[-1],
    }
    return Block(0, 0, lithology, probability, uncertainty, evidence, classes={SECOND: second})


def cut(whole, size):
    """The map in blocks of `size` cells."""
    rows, cols = whole.lithology.shape
    for row in range(0, rows, size):
        for col in range(0, cols, size):
            part = np.s_[row : row + size, col : col + size]
            yield Block(
                row,
                col,
                whole.lithology[part],
                whole.probability[:, *part],
                {name: values[part] for name, values in whole.uncertainty.items()},
                whole.evidence[part],
                classes={name: values[part] for name, values in whole.classes.items()},
            )


def write_map(folder, blocks, cells, legend=LEGEND, **options):
    """Write the rasters of a map; their summary."""
    settings = {"bands": BANDS, "tags": {"GRAVMAP_CONTENT": "made up"}, "near_km": 25.0} | options
    blocks = list(blocks)
    settings.setdefault("class_layers", list(blocks[0].classes) if blocks else [])
    with MapWriter(folder, cells, legend, **settings) as writer:
        for block in blocks:
            writer.write(block)
        return writer.finish()
