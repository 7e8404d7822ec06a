"""Outcrop as fields: what they hold, and that nothing treats them as gravity."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gravmap.errors import InputError, OptionError
from gravmap.lattice import TRAIN
from gravmap.learning import RegionDataset
from gravmap.learning.calibration.applicability import fit_area_of_applicability
from gravmap.learning.data.channels import InputChannels, fixed_std
from gravmap.learning.data.dataset import known_labels
from gravmap.learning.data.outcrop_context import (
    context_names,
    in_short,
    outcrop_context,
    with_context,
    without_context,
)
from gravmap.learning.evaluation.importance import OUTCROP, permutation_importance, shift_input
from gravmap.learning.evaluation.node_predictor import NodePredictor
from gravmap.learning.evaluation.null_models import null_maps
from gravmap.learning.sampling.augmentation import Augmentation
from gravmap.learning.sampling.sampler import Sampler
from toys.dataset import make_arrays

LAT, LON = np.linspace(47, 45, 21), np.linspace(82, 85, 31)


@pytest.fixture
def area():
    return RegionDataset.from_arrays(make_arrays())


@pytest.fixture
def dataset(area):
    return with_context(area, known_labels(area))


def spots(*placed):
    known = np.zeros((LAT.size, LON.size), np.uint8)
    for row, column, index in placed:
        known[row, column] = index
    return known


def test_context_holds_log_probabilities_distance_and_a_mask():
    known = spots((0, 0, 1), (20, 30, 3), (5, 5, 1))
    *logs, distance, mask = outcrop_context(known, LAT, LON, 4)
    chances = np.exp(logs)
    np.testing.assert_allclose(chances.sum(axis=0), 1, atol=1e-5)
    # A class that is nowhere mapped has a chance of a thousandth, before all are brought to a sum of one.
    assert chances[1].max() <= 1e-3
    assert chances[1].min() > 0.99e-3
    assert chances[0, 0, 0] == pytest.approx(1 / 1.003, abs=1e-6)
    assert (mask == (known > 0)).all()
    # Ten nodes of 0.1 degree south of (5, 5) along a meridian, on a sphere of 6371 km.
    assert distance[0, 0] == 0
    assert np.expm1(distance[15, 5]) * 10 == pytest.approx(6371 * np.radians(1.0), rel=1e-5)


def test_context_of_one_class_or_none_is_refused():
    with pytest.raises(InputError, match="No outcrop is known"):
        outcrop_context(spots(), LAT, LON, 3)
    with pytest.raises(InputError, match="of one class"):
        outcrop_context(spots((1, 1, 2), (9, 9, 2)), LAT, LON, 3)


def test_context_fields_have_no_unit_and_can_be_removed(area, dataset):
    assert dataset.channels == ["residual_10km", "outcrop_1", "outcrop_2", "outcrop_distance", "outcrop_known"]
    assert dataset.channel_units == ["mGal", "1", "1", "1", "1"]
    assert in_short(dataset.channels) == ["residual_10km", "outcrop"]
    assert without_context(dataset).fingerprint() == area.fingerprint()
    assert without_context(area) is area
    with pytest.raises(InputError, match="already"):
        with_context(dataset, known_labels(area))


def test_the_context_of_training_holds_no_held_out_label(area):
    mixed = area.labels.copy()
    held = (area.role != TRAIN) & (mixed > 0)
    mixed[held] = 3 - mixed[held]
    other = replace(area, labels=mixed)
    one, two = (with_context(each, known_labels(each)) for each in (area, other))
    assert held.any()
    assert one.fields.tobytes() == two.fields.tobytes()


def test_context_is_not_scaled_by_its_values(dataset):
    inputs = InputChannels.fit(dataset)
    assert inputs.spreads[1:] == (1.0,) * 4
    assert inputs.spreads[0] > 5
    assert inputs.measured == ("residual_10km",)
    assert inputs.outcrop_planes == (1, 3)
    assert InputChannels.from_list(inputs.to_list()) == inputs
    plain = InputChannels.fit(without_context(dataset))
    assert not plain.reads_outcrop
    assert plain.outcrop_planes is None
    rainbow = InputChannels.fit(dataset, ["rgb:residual_10km", "scale", *context_names(2)])
    assert rainbow.outcrop_planes == (4, 6)


def test_tabulated_standard_deviations_are_the_same_everywhere(dataset):
    louder = replace(dataset, fields=dataset.fields * np.float32(3))
    one, two = (InputChannels.fit(each, fixed=True) for each in (dataset, louder))
    assert one == two
    assert one.spreads == (7.0, 1.0, 1.0, 1.0, 1.0)
    assert fixed_std("residual_5km") < fixed_std("residual_7km") < fixed_std("residual_10km")
    for unknown in ("bouguer", "rgb:residual_5km", "residual_0km"):
        with pytest.raises(OptionError, match=f"{unknown} has no"):
            fixed_std(unknown)


def test_augmentation_of_gravity_leaves_the_outcrop(dataset):
    """Same crops with and without changes of values: planes of outcrop are the same, those of gravity are not."""
    inputs = InputChannels.fit(dataset)
    still = {"noise": (0, 0), "amplitude": (1, 1), "offset_mgal": 0.0}
    loud = {"noise": (0.2, 0.3), "amplitude": (0.5, 0.6), "offset_mgal": 20.0}
    crops = [
        Sampler(dataset, inputs, 64, augmentation=Augmentation(**values)).batch(0, list(range(6)))[0]
        for values in (still, loud)
    ]
    assert torch.equal(crops[0][:, 1:], crops[1][:, 1:])
    assert (crops[0][:, 0] - crops[1][:, 0]).abs().mean() > 0.1


def test_outcrop_rotates_with_the_crop(dataset):
    """On outcrop the likeliest class of a crop is its target, whichever way both are turned; upside down it is not."""
    inputs = InputChannels.fit(dataset)
    sampler = Sampler(dataset, inputs, 64, augmentation=Augmentation(rotate_share=1.0, metric=False))
    agree, upside_down = [], []
    for number in range(10):
        fields, target, _ = sampler.read(sampler.draw(0, number))
        likely = fields[1:3].argmax(dim=0)
        near = (fields[4] > 0.9) & (target >= 0)
        agree.append((likely == target)[near].float().mean())
        upside_down.append((likely.flip(0) == target)[near].float().mean())
    assert min(agree) > 0.9
    assert np.mean(upside_down) < 0.75


def test_null_models_and_the_area_of_applicability_use_gravity_alone(area, dataset):
    for key in ("label_diffusion_gravity", "nearest_in_gravity"):
        assert (null_maps(area, which=[key])[key] == null_maps(dataset, which=[key])[key]).all()
    plain = fit_area_of_applicability(area, InputChannels.fit(area))
    reach = fit_area_of_applicability(dataset, InputChannels.fit(dataset))
    assert reach.fields == ("residual_10km",)
    assert (reach.training_features == plain.training_features).all()


class Listener(torch.nn.Module):
    """Says the class of the outcrop around, or where gravity is high, class 1."""

    def forward(self, x):
        return x[:, 1:3]


def test_gravity_of_another_region_comes_with_the_outcrop_of_this_one(dataset):
    moved = shift_input(dataset, (20, 20))
    assert (moved.fields[1:] == dataset.fields[1:]).all()
    assert (moved.fields[0] != dataset.fields[0]).mean() > 0.9
    reading = NodePredictor(Listener(), InputChannels.fit(dataset), 64, 2.0)
    rows = {row.field: row for row in permutation_importance(reading, dataset, draws=2)}
    assert set(rows) == {"residual_10km", OUTCROP}
    assert rows["residual_10km"].loss["pa"] == 0
    assert rows[OUTCROP].loss["pa"] > 0.1
