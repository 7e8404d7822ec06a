"""A layer with missing values: its mask says where, and what is missing never looks like data."""

import dataclasses
import functools

import numpy as np
import pytest
import torch

from gravmap.errors import InputError, OptionError
from gravmap.lattice import mask_name
from gravmap.learning import RegionDataset, TrainConfig, load_model
from gravmap.learning import train as train_and_draw
from gravmap.learning.calibration.applicability import fit_area_of_applicability
from gravmap.learning.data.channel_kinds import FieldChannel, LayerChannel
from gravmap.learning.data.channels import InputChannels, fixed_std
from gravmap.learning.data.dataset import known_labels
from gravmap.learning.data.outcrop_context import with_context
from gravmap.learning.evaluation.attribution import integrated_gradients
from gravmap.learning.evaluation.importance import shift_input
from gravmap.learning.evaluation.null_models import null_maps
from gravmap.learning.sampling.augmentation import Augmentation, Crop
from gravmap.learning.sampling.sampler import Sampler
from gravmap.learning.training.warm_start import load_pretrained, load_weights
from gravmap.network.registry import build_from_dict
from toys.dataset import make_arrays

train = functools.partial(train_and_draw, pictures=False)

MEAN = 500.0
NAMES = ["residual_10km", "magnetic", mask_name("magnetic")]
SMALL = {"kind": "unet", "widths": [4, 8]}


def layered(filler=0.0, masked=True):
    """The toy's region with a layer of mean 500 that is missing in the east."""
    arrays = make_arrays()
    ny, nx = arrays["fields"].shape[1:]
    rng = np.random.default_rng(2)
    known = np.broadcast_to(np.arange(nx) < 30, (ny, nx))
    layer = MEAN + 40 * rng.normal(size=(ny, nx))
    fields = [arrays["fields"][0], np.where(known, layer, filler), known]
    arrays["fields"] = np.stack(fields[: 3 if masked else 2]).astype(np.float32)
    arrays["meta"] |= {
        "channels": NAMES[: 3 if masked else 2],
        "channel_units": ["mGal", "nT", "1"][: 3 if masked else 2],
        "field_recipe": {"method": "regional", "by_channel": {"magnetic": {"version": 1}}},
    }
    return RegionDataset.from_arrays(arrays)


@pytest.fixture
def area():
    return layered()


def test_a_layer_is_standardized_by_its_known_values_and_zero_where_it_is_missing(area):
    inputs = InputChannels.fit(area, ["residual_10km", "magnetic"])
    gravity, layer = inputs.channels
    assert isinstance(gravity, FieldChannel)
    assert layer == LayerChannel("magnetic", "nT", pytest.approx(40, rel=0.1), pytest.approx(MEAN, abs=5), True)
    assert (inputs.names, inputs.fields, inputs.width) == (["residual_10km", "magnetic"], tuple(NAMES), 3)
    assert inputs.measured == ("residual_10km", "magnetic")
    assert inputs.required == ("residual_10km",)
    assert InputChannels.from_list(inputs.to_list()) == inputs
    assert InputChannels.fit(area).names == ["residual_10km", "magnetic"]
    fields = torch.from_numpy(inputs.select(area))
    planes = inputs.prepare(fields, 0.1)
    assert planes[1][:, :30].mean().abs() < 0.1
    assert 0.8 < planes[1][:, :30].std() < 1.2
    assert torch.equal(planes[1][:, 30:], torch.zeros_like(planes[1][:, 30:]))
    assert torch.equal(planes[2], fields[2])
    assert torch.allclose(inputs.restore(planes), fields, atol=1e-3)
    # Between a node with data and one without, half of the deviation remains: nothing of the fill.
    halfway = inputs.prepare((fields[:, :, 29:30] + fields[:, :, 30:31]) / 2, 0.1)
    assert torch.allclose(halfway[1], planes[1][:, 29:30] / 2, atol=1e-5)


def test_colours_cannot_show_what_is_missing(area):
    with pytest.raises(InputError, match="no colour"):
        InputChannels.fit(area, ["rgb:magnetic"])
    with pytest.raises(OptionError, match="simulated crusts have gravity and outcrop alone"):
        fixed_std("magnetic")


def test_noise_and_offset_are_for_gravity_alone(area):
    """Also where the layer is in mGal: at missing nodes an offset would be a value."""
    meta = {**area.meta, "channel_units": ["mGal", "mGal", "1"]}
    area = dataclasses.replace(area, meta=meta)
    inputs = InputChannels.fit(area, ["residual_10km", "magnetic"])
    crop = Crop(44.1, 83.4, 0.5, noise=0.5, amplitude=1.1, offset_mgal=2.0)
    changed, _, _ = Sampler(area, inputs, 64, augmentation=Augmentation()).read(crop)
    plain, _, _ = Sampler(area, inputs, 64, augmentation=Augmentation()).read(Crop(44.1, 83.4, 0.5))
    assert not torch.allclose(changed[0], plain[0], atol=0.1)
    assert torch.equal(changed[1:], plain[1:])


def test_a_network_that_knows_no_mask_gets_the_mean_and_one_that_does_gets_ones(area):
    complete = layered(filler=MEAN, masked=False)
    unmasked = InputChannels.fit(complete, ["magnetic"])
    assert unmasked.width == 1
    assert unmasked.required == ("magnetic",)
    centre = unmasked.channels[0].centre
    assert np.all(unmasked.select(area)[0][:, 30:] == np.float32(centre))
    masked = InputChannels.fit(area, ["magnetic"])
    assert np.all(masked.select(complete)[1] == 1)


def test_a_shifted_layer_takes_its_mask_along(area):
    shifted = shift_input(area, (11, 17), ["magnetic"])
    assert np.array_equal(shifted.fields[0], area.fields[0])
    known = shifted.fields[2] > 0
    assert not np.array_equal(known, area.fields[2] > 0)
    assert shifted.fields[1][known].min() > 300
    assert np.all(shifted.fields[1][~known] == 0)


@pytest.mark.parametrize("which", ["label_diffusion_gravity", "nearest_in_gravity", "gravity_forest"])
def test_what_fills_missing_values_does_not_change_a_null_model(which):
    if which == "gravity_forest":
        pytest.importorskip("sklearn")
    one, other = (null_maps(layered(filler), which=[which])[which] for filler in (0.0, -1e4))
    assert np.array_equal(one, other)


def test_the_area_of_applicability_reaches_where_a_masked_layer_is_missing(area):
    inputs = InputChannels.fit(area, ["residual_10km", "magnetic"])
    found = fit_area_of_applicability(area, inputs)
    assert found.fields == tuple(NAMES)
    assert found.field_means[1] == pytest.approx(MEAN, abs=5)
    fields = area.fields.copy()
    fields[1][fields[2] == 0] = np.nan  # as read from a file
    index = found.relative_dissimilarity_index(fields, area.node_lat, area.node_lon)
    assert np.isfinite(index).all()
    assert (index < 1).mean() > 0.9
    strange = fields.copy()
    strange[1] += 1e4
    assert (found.relative_dissimilarity_index(strange, area.node_lat, area.node_lon)[:, :25] > 1).all()
    filled = fit_area_of_applicability(layered(-1e4), inputs)
    assert np.array_equal(filled.training_features, found.training_features)


def test_a_missing_layer_has_no_part_in_an_attribution(area):
    torch.manual_seed(0)
    inputs = InputChannels.fit(area, ["residual_10km", "magnetic"])
    network = build_from_dict(SMALL, in_channels=3, classes=2).eval()
    fields = area.fields.copy()
    fields[1][fields[2] == 0] = np.nan
    windows = {2.0: np.array([[81.5, 43.0, 83.5, 45.0]])}
    found = integrated_gradients(
        network, fields, area.field_nodes_wsen, windows, 32, area.node_lat[12:28], area.node_lon[17:33],
        inputs=inputs, target=0, steps=16,
    )  # fmt: skip
    assert list(found.baseline) == ["residual_10km", "magnetic"]
    assert found.complete
    known = np.isfinite(fields[1][found.rows, found.columns])
    assert np.all(found.values[1][~known] == 0)
    assert np.abs(found.values[1][known]).max() > 0


def fine_tuned(folder, **changes):
    start = load_pretrained(folder)
    config = TrainConfig(
        model=start.model, architecture=start.architecture, context=start.context, cuts=2, init=start.init, epochs=1,
        steps=1, batch_size=4, seed=1,
    )  # fmt: skip
    return dataclasses.replace(config, **changes)


def test_added_layers_begin_with_weights_of_zero(tmp_path, area):
    plain = RegionDataset.from_arrays(make_arrays())
    short = TrainConfig(model="small", architecture=SMALL, context="outcrop", cuts=2, epochs=1, steps=2, batch_size=4)
    train(plain, tmp_path / "first", short)
    frozen = {"lr": 1e-30, "freeze_statistics": True}
    train(area, tmp_path / "next", fine_tuned(tmp_path / "first", inputs=["residual_10km", "magnetic"], **frozen))
    (before, old), (after, new) = (load_model(tmp_path / name) for name in ("first", "next"))
    assert new.channels == ["residual_10km", "magnetic", *old.channels[1:]]
    assert new.inputs[0] == old.inputs[0]
    assert new.input.width == old.input.width + 2
    # The logits are those of the first network, whatever the layer.
    network = build_from_dict(after.architecture.to_dict(), in_channels=new.input.width, classes=2).eval()
    load_weights(network, load_pretrained(tmp_path / "first").init, new.input)
    dataset = with_context(area, known_labels(area))
    planes = new.input.prepare(torch.from_numpy(new.input.select(dataset)), 0.1)[None, :, :32, :32]
    without = torch.cat([planes[:, :1], planes[:, 3:]], dim=1)
    planes[:, 1:3] = torch.randn(1, 2, 32, 32)
    assert torch.allclose(network(planes), before.eval()(without), atol=1e-6)
    # They are learned from there on.
    train(area, tmp_path / "learned", fine_tuned(tmp_path / "first", inputs=["residual_10km", "magnetic"], lr=1e-2))
    first = next(value for name, value in load_model(tmp_path / "learned")[0].state_dict().items() if value.dim() == 4)
    assert first[:, 1:3].abs().max() > 1e-5


def test_other_channels_than_layers_cannot_be_added(tmp_path, area):
    train(
        area,
        tmp_path / "first",
        TrainConfig(model="small", architecture=SMALL, inputs=["residual_10km"], epochs=1, steps=1),
    )
    for wrong in (["residual_10km", "scale"], ["magnetic"]):
        with pytest.raises(OptionError, match="and layers"):
            train(area, tmp_path / "next", fine_tuned(tmp_path / "first", inputs=wrong))
