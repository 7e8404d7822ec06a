"""Synthetic cover masks have the shapes of the map's own cover; the labels they hide are targets, not context."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gravmap.errors import InputError
from gravmap.lattice import TEST, TRAIN, TUNE
from gravmap.learning import RegionDataset
from gravmap.learning.data.cover_masks import LEAST_HIDDEN, MOST_HIDDEN, draw_cover_mask, mask_dataset, shifted_cover
from gravmap.learning.data.dataset import IGNORE, known_labels
from gravmap.learning.data.outcrop_context import with_context
from gravmap.learning.sampling.crop_source import training_targets
from toys.dataset import make_arrays


def basins(cells_per_deg=40, share=0.4):
    """The toy area with cover in patches instead of single cells; label cells four times as fine as nodes."""
    arrays = make_arrays(cells_per_deg=cells_per_deg)
    shape = arrays["labels"].shape
    depth = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=shape), cells_per_deg / 6)
    labels = np.where(arrays["labels"] == 0, 1, arrays["labels"])
    arrays["labels"] = np.where(depth > np.quantile(depth, 1 - share), 0, labels).astype(np.uint8)
    return RegionDataset.from_arrays(arrays)


@pytest.fixture(scope="module")
def area():
    return basins()


def test_a_shifted_cover_continues_as_its_mirror_image():
    cover = np.array([[1, 0, 0], [1, 1, 0]], bool)
    assert (shifted_cover(cover, (0, 0)) == cover).all()
    assert (shifted_cover(cover, (2, 0)) == cover[::-1]).all()
    assert (shifted_cover(cover, (0, 3)) == cover[:, ::-1]).all()
    assert (shifted_cover(cover, (2, 3)) == cover[::-1, ::-1]).all()
    assert (shifted_cover(cover, (4, 6)) == cover).all()
    # numpy's symmetric padding is the same plane.
    plane = np.pad(cover, ((0, 2), (0, 3)), mode="symmetric")
    assert (shifted_cover(cover, (1, 2)) == plane[1:3, 2:5]).all()


def test_masks_have_the_shapes_of_the_cover_and_hide_a_fraction_within_the_limits(area):
    outcrop = (area.labels > 0) & (area.role == TRAIN)
    masks = [draw_cover_mask(area, 0, number) for number in range(8)]
    for mask in masks:
        assert LEAST_HIDDEN <= (mask & outcrop).sum() / outcrop.sum() <= MOST_HIDDEN
        # Its rim is as long as cover's own: the same basins, not rectangles or speckle.
        assert rim(mask) == pytest.approx(rim(area.labels == 0), rel=0.35)
    assert len({mask.tobytes() for mask in masks}) == 8
    assert (draw_cover_mask(area, 0, 3) == masks[3]).all()
    assert (draw_cover_mask(area, 1, 3) != masks[3]).any()


def rim(mask):
    """Sides between a cell inside and one outside, per cell inside."""
    return ((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()) / mask.sum()


@pytest.mark.parametrize("targets", ["hidden", "all"])
def test_no_label_under_a_mask_comes_into_the_context(area, targets):
    """Every label in the mask changed: same bits of all fields. One patch outside changed: other bits."""
    for number in range(3):
        mask = draw_cover_mask(area, 0, number)
        masked = mask_dataset(area, mask, targets)
        hidden = mask & (area.labels > 0)
        assert hidden.any()
        lied = np.where(hidden, 3 - area.labels, area.labels).astype(np.uint8)
        assert mask_dataset(replace(area, labels=lied), mask, targets).fields.tobytes() == masked.fields.tobytes()
        shown = ~mask & (area.labels > 0) & (area.role == TRAIN)
        lied = np.where(shown, 3 - area.labels, area.labels).astype(np.uint8)
        assert mask_dataset(replace(area, labels=lied), mask, targets).fields.tobytes() != masked.fields.tobytes()
        # Without the mask the same labels are in it.
        lied = np.where(hidden, 3 - area.labels, area.labels).astype(np.uint8)
        two = replace(area, labels=lied)
        whole = [with_context(each, known_labels(each)).fields.tobytes() for each in (area, two)]
        assert whole[0] != whole[1]


def test_a_cell_finer_than_the_nodes_hides_the_node_that_reads_it(area):
    """Cells are a quarter of a node's spacing: a mask of one cell, the one a node lies in, takes that node out."""
    known = known_labels(area)
    row, column = next(zip(*np.nonzero(known[5:10, 5:10]), strict=True))
    row, column = row + 5, column + 5
    there = area.label_rows(area.node_lat)[row], area.label_columns(area.node_lon)[column]
    mask = np.zeros(area.labels.shape, bool)
    mask[there] = True
    visible = mask_dataset(area, mask).fields[-1]
    assert visible[row, column] == 0
    assert visible.sum() == (known > 0).sum() - 1
    beside = np.roll(mask, 1, axis=1)
    assert mask_dataset(area, beside).fields[-1].sum() == (known > 0).sum()


def test_targets_are_the_hidden_labels_and_no_held_out_ones(area):
    mask = draw_cover_mask(area, 0, 0)
    hidden, everything = (training_targets(mask_dataset(area, mask, kind))[1:-1, 1:-1] for kind in ("hidden", "all"))
    targets = (area.labels > 0) & (area.role == TRAIN)
    assert ((hidden != IGNORE) == (targets & mask)).all()
    assert ((everything != IGNORE) == targets).all()
    assert (hidden[targets & mask] == area.labels[targets & mask] - 1).all()
    assert not np.isin(area.role, (TUNE, TEST))[hidden != IGNORE].any()
    # A mask changes no role of held-out cells: they are scored as before.
    assert np.isin(mask_dataset(area, mask).role, (TUNE, TEST)).sum() == np.isin(area.role, (TUNE, TEST)).sum()


def test_gravity_is_the_same_under_every_mask(area):
    one, two = (mask_dataset(area, draw_cover_mask(area, 0, number)) for number in (0, 1))
    assert (one.fields[0] == two.fields[0]).all()
    assert (one.fields[1:] != two.fields[1:]).any()


def test_maps_without_a_valid_mask_are_refused():
    area = basins()
    bare = replace(area, labels=np.zeros_like(area.labels))
    with pytest.raises(InputError, match="no training outcrop"):
        draw_cover_mask(bare, 0, 0)
    full = replace(area, labels=np.maximum(area.labels, 1).astype(np.uint8))
    with pytest.raises(InputError, match="no cover"):
        draw_cover_mask(full, 0, 0)
    one = replace(area, labels=np.minimum(area.labels, 1).astype(np.uint8))
    with pytest.raises(InputError, match="two classes"):
        draw_cover_mask(one, 0, 0)
    speck = full.labels.copy()
    speck[0, 0] = 0
    with pytest.raises(InputError, match="nearly none or nearly all"):
        draw_cover_mask(replace(area, labels=speck), 0, 0)
