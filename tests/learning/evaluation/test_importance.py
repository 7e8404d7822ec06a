"""Importance of fields: synthetic data in which one field determines the class and another is noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gravmap.errors import InputError
from gravmap.lattice import TEST
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.evaluation.importance import (
    ALL,
    NodePredictor,
    draw_offsets,
    importance_table,
    permutation_importance,
    shift_input,
)
from toys.dataset import make_arrays


class Sign(torch.nn.Module):
    """High ground is class 1, low ground class 2, by a weighted sum of the planes."""

    def __init__(self, *weights):
        super().__init__()
        self.weights = torch.tensor(weights)

    def forward(self, planes):
        seen = (planes * self.weights[:, None, None]).sum(1)
        return torch.stack([seen, -seen], dim=1)


def two_fields():
    arrays = make_arrays()
    field = arrays["fields"][0]
    other = np.random.default_rng(1).normal(0, 10, field.shape).astype(np.float32)
    arrays["fields"] = np.stack([other, field])
    arrays["meta"]["channels"] = ["noise", "residual_10km"]
    return RegionDataset.from_arrays(arrays)


def predictor(dataset, *weights):
    return NodePredictor(Sign(*weights), InputChannels.fit(dataset), tile_size_px=64, scale_deg=2.0)


def test_the_field_that_decides_is_all_and_the_ignored_one_nothing():
    dataset = two_fields()
    rows = permutation_importance(predictor(dataset, 0.0, 1.0), dataset, draws=6)
    assert [row.field for row in rows] == ["residual_10km", "noise", ALL]
    decisive, ignored, everything = rows
    assert decisive.loss["pa"] > 0.3
    assert ignored.loss == pytest.approx({"pa": 0, "mpa": 0, "fwiou": 0}, abs=1e-12)
    assert everything.scores == decisive.scores
    lines = importance_table(rows)
    assert len(lines) == 4
    assert f"{100 * decisive.loss['pa']:+.1f}" in lines[1]


def test_where_gravity_is_noise_nothing_is_lost():
    dataset = two_fields()
    rows = permutation_importance(predictor(dataset, 1.0, 0.0), dataset, draws=6)
    for row in rows:
        # A guess stays a guess, whichever noise it is made from.
        assert abs(row.loss["pa"]) < 4 * max(row.std["pa"], 0.02), row.field


def test_elsewhere_is_a_field_without_seams_and_labels_stay():
    dataset = two_fields()
    for offset in draw_offsets(dataset, 5, seed=3):
        moved = shift_input(dataset, offset, ["residual_10km"])
        field, shifted_field = dataset.fields[1], moved.fields[1]
        assert (moved.fields[0] == dataset.fields[0]).all()
        assert (moved.labels == dataset.labels).all()
        assert set(shifted_field.ravel()) <= set(field.ravel())
        for axis in (0, 1):
            assert abs(np.diff(shifted_field, axis=axis)).max() <= abs(np.diff(field, axis=axis)).max()
    ny, nx = field.shape
    whole = shift_input(dataset, (ny - 1, nx - 1)).fields
    assert (whole == dataset.fields[:, ::-1, ::-1]).all()
    assert (shift_input(dataset, (0, 0)).fields == dataset.fields).all()
    by_three = shift_input(dataset, (3, 0)).fields
    assert (by_three[:, :-3] == dataset.fields[:, 3:]).all()
    assert (by_three[:, -3:] == dataset.fields[:, -4:-1][:, ::-1]).all()


def test_shifted_fields_are_uncorrelated():
    """Correlation of a rough field with itself elsewhere: near none."""
    dataset = two_fields()
    noise = dataset.fields[0].ravel()
    for offset in draw_offsets(dataset, 20, seed=0):
        shifted_field = shift_input(dataset, offset).fields[0].ravel()
        assert abs(np.corrcoef(noise, shifted_field)[0, 1]) < 0.15


def test_a_network_on_shifted_gravity_is_no_better_than_the_majority():
    dataset = two_fields()
    labels, roles = dataset.node_truth()
    held_out = (roles == TEST) & (labels > 0) & (labels != 255)
    network = predictor(dataset, 0.0, 1.0)
    shifted = [network.predict(shift_input(dataset, offset), held_out) for offset in draw_offsets(dataset, 8, seed=1)]
    right = [(each[held_out] == labels[held_out]).mean() for each in shifted]
    own_map = network.predict(dataset, held_out)
    assert (own_map[held_out] == labels[held_out]).mean() > 0.9
    assert (own_map[~held_out] == 0).all()
    assert abs(np.mean(right) - 0.5) < 0.25
    with pytest.raises(InputError, match="No bedrock is mapped in the test blocks"):
        permutation_importance(network, replace(dataset, role=np.zeros_like(dataset.role)))
