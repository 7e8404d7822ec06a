import numpy as np

from gravmap.tiling.label_statistics import count_classes


def test_counts_are_those_of_counting():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 3, 10, 255], size=(50, 80)).astype(np.uint8)
    west, south = rng.uniform(79, 87, 40), rng.uniform(42, 47, 40)
    boxes = np.column_stack([west, south, west + rng.uniform(0.1, 4, 40), south + rng.uniform(0.1, 4, 40)])
    lat, lon = 48 - 0.05 - 0.1 * np.arange(50), 80 + 0.05 + 0.1 * np.arange(80)
    counts = count_classes(labels, (80, 43, 88, 48), boxes)
    for box, found in zip(boxes, counts, strict=True):
        inside = labels[np.ix_((lat > box[1]) & (lat < box[3]), (lon > box[0]) & (lon < box[2]))]
        assert (np.bincount(inside.ravel(), minlength=256) == found).all()


def test_windows_side_by_side_count_every_cell_once():
    labels = np.random.default_rng(0).integers(0, 11, (60, 60)).astype(np.uint8)
    boxes = np.array([(x, y, x + 1, y + 1) for x in range(3) for y in range(3)], dtype=float)
    assert count_classes(labels, (0, 0, 3, 3), boxes).sum() == labels.size
