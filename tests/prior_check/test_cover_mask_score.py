"""Score of label diffusion under synthetic cover masks."""

import numpy as np
import pytest

from gravmap.prior_check.quantities import cover_mask_score

SPACING = (3.7, 2.5)


def patches(shape=(96, 120)):
    """Cover in blobs over a third of the map."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.sin(y / 7) * np.sin(x / 9) > 0.25


def test_broad_belts_score_high_and_random_classes_do_not():
    cover = patches()
    belts = np.where(np.arange(120) < 60, 1, 2)[None, :] * np.ones((96, 1), int)
    coin = np.random.default_rng(0).integers(1, 3, (96, 120))
    text = cover_mask_score(np.where(cover, 0, belts).astype(np.uint8), SPACING, 2)
    guessed = cover_mask_score(np.where(cover, 0, coin).astype(np.uint8), SPACING, 2)
    assert text > 95
    assert guessed == pytest.approx(50, abs=5)


def test_unusable_cells_are_ignored():
    cover = patches()
    belts = np.where(np.arange(120) < 60, 1, 2)[None, :] * np.ones((96, 1), int)
    labels = np.where(cover, 0, belts).astype(np.uint8)
    labels[:, 20:40] = 255
    assert cover_mask_score(labels, SPACING, 2) > 95


@pytest.mark.parametrize("labels", [np.ones((40, 40)), np.zeros((40, 40)), np.tile([0, 1], (40, 20))])
def test_no_score_without_cover_outcrop_or_a_second_class(labels):
    assert cover_mask_score(labels.astype(np.uint8), SPACING, 2) is None
