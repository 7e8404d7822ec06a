"""From fields to the network's input: the same for a training crop and for a predicted window."""

import colorsys
import functools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from gravmap.errors import InputError, OptionError
from gravmap.learning import RegionDataset, TrainConfig, load_model
from gravmap.learning import train as train_and_draw
from gravmap.learning.data.channels import InputChannels, RainbowChannel, expand, fields_read
from gravmap.learning.evaluation.mosaic import predict_logits
from gravmap.learning.sampling.augmentation import UNCHANGED, Crop
from gravmap.learning.sampling.sampler import Sampler

train = functools.partial(train_and_draw, pictures=False)  # drawing takes longer than a few steps

NAMES = ["residual_10km", "vertical_derivative", "fault_distance"]
UNITS = ["mGal", "mGal/km", "km"]


@pytest.fixture
def rich(arrays):
    """An area with a field in mGal, a derivative and a distance, all smooth, none alike."""
    ny, nx = arrays["fields"].shape[1:]
    y, x = np.mgrid[:ny, :nx] / 10
    arrays["fields"] = np.stack([arrays["fields"][0], 2 * np.sin(x + y), 40 + 30 * np.cos(y - 0.5 * x)]).astype(
        np.float32
    )
    arrays["meta"] |= {"channels": NAMES, "channel_units": UNITS}
    return RegionDataset.from_arrays(arrays)


class Keep(nn.Module):
    """Remembers what it was given."""

    def forward(self, x):
        self.seen = x
        return x


@pytest.mark.parametrize(
    "names",
    [
        ["rgb:residual_10km"],
        ["residual_10km", "vertical_derivative", "scale"],
        ["scale", "fault_distance", "rgb:residual_10km"],
    ],
)
def test_a_crop_and_a_predicted_window_give_the_network_the_same(rich, names):
    inputs = InputChannels.fit(rich, names)
    # A crop of one degree and 32 pixels, and the middle one of the crops in which a window about it passes.
    cut, _, _ = Sampler(rich, inputs, 64, augmentation=UNCHANGED).read(Crop(44.1, 82.3, 0.5))
    window, network = np.array([[81.3, 43.1, 83.3, 45.1]]), Keep()
    lat, lon = rich.node_lat, rich.node_lon
    predict_logits(network, inputs.select(rich), rich.field_nodes_wsen, window, 64, lat, lon, inputs=inputs)
    assert cut.shape == (inputs.width, 32, 32)
    torch.testing.assert_close(network.seen[4], cut, rtol=0, atol=3e-5)
    if "scale" in names:
        plane = names.index("scale")
        assert cut[plane].unique().tolist() == pytest.approx([math.log10(1 / 32)])


def test_the_scale_channel_is_the_size_of_a_pixel(rich):
    inputs = InputChannels.fit(rich, ["residual_10km", "scale"])
    sampler = Sampler(rich, inputs, 64, augmentation=UNCHANGED)
    small, large = (sampler.read(Crop(44, 82, half))[0][1, 0, 0] for half in (0.25, 1.0))
    assert (large - small).item() == pytest.approx(math.log10(4))


def test_the_rainbow_is_hue_from_300_to_0_between_its_limits():
    inputs = InputChannels((RainbowChannel("residual_10km", "mGal", 5.0, low=-20.0, high=30.0),))
    values = torch.linspace(-20, 30, 101)
    planes = inputs.prepare(values.view(1, 1, 101), 0.1)
    for value, colour in zip(values.tolist(), planes[:, 0].T.tolist(), strict=True):
        hue = (1 - (value + 20) / 50) * 300 / 360
        assert colour == pytest.approx([2 * part - 1 for part in colorsys.hsv_to_rgb(hue, 1, 1)], abs=1e-5)
    beyond = inputs.prepare(torch.tensor([[[-99.0, 99.0]]]), 0.1)[:, 0].T.tolist()
    assert beyond == [[1, -1, 1], [1, -1, -1]]  # magenta and red


def test_the_rainbows_limits_are_robust_and_fixed(rich):
    rich.fields[0, 0, 0] = 1e6
    channel = InputChannels.fit(rich, ["rgb:residual_10km"]).channels[0]
    low, high = np.percentile(rich.fields[0], (1, 99))
    assert (channel.low, channel.high) == (pytest.approx(low), pytest.approx(high))
    assert channel.high < 100


def test_what_was_prepared_comes_back(rich):
    inputs = InputChannels.fit(rich, ["scale", "vertical_derivative", "rgb:residual_10km"])
    fields = torch.from_numpy(inputs.select(rich).copy())[None]
    back = inputs.restore(inputs.prepare(fields, torch.tensor([0.1])))
    channel = inputs.channels[2]
    expected = torch.stack((fields[:, 0], fields[:, 1].clamp(channel.low, channel.high)), 1)
    torch.testing.assert_close(back, expected, rtol=1e-4, atol=1e-3)


def test_gravity_is_changed_as_gravity_and_distances_are_left(rich):
    inputs = InputChannels.fit(rich)
    sampler = Sampler(rich, inputs, 64, augmentation=UNCHANGED)
    plain, changed = (
        inputs.restore(sampler.read(Crop(44, 82, 0.5, **how))[0])
        for how in ({}, {"amplitude": 1.2, "offset_mgal": 3.0})
    )
    torch.testing.assert_close(changed[0], 1.2 * plain[0] + 3, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(changed[1], 1.2 * plain[1], rtol=1e-4, atol=1e-3)  # a derivative has no offset
    assert torch.equal(changed[2], plain[2])
    noisy = inputs.restore(sampler.read(Crop(44, 82, 0.5, noise=0.5, noise_seed=1))[0])
    assert (noisy[0] - plain[0]).std() > 1
    assert torch.equal(noisy[1:], plain[1:])


def test_colours_are_given_after_gravity_is_changed(rich):
    inputs = InputChannels.fit(rich, ["rgb:residual_10km"])
    changed = Sampler(rich, inputs, 64, augmentation=UNCHANGED).read(Crop(44, 82, 0.5, amplitude=1.1, offset_mgal=2.0))[
        0
    ]
    rich.fields[0] = 1.1 * rich.fields[0] + 2
    by_hand = Sampler(rich, inputs, 64, augmentation=UNCHANGED).read(Crop(44, 82, 0.5))[0]
    torch.testing.assert_close(changed, by_hand, rtol=0, atol=1e-4)
    assert changed.abs().max() <= 1 + 1e-6


def test_json_gives_the_same_channels_back(rich):
    inputs = InputChannels.fit(rich, ["fault_distance", "scale", "rgb:residual_10km"])
    again = InputChannels.from_list(json.loads(json.dumps(inputs.to_list())))
    assert again == inputs
    assert (again.fields, again.units, again.width) == (("fault_distance", "residual_10km"), ("km", "mGal"), 5)


def test_a_run_keeps_its_channels(rich, tmp_path):
    config = TrainConfig(
        model="ggmnet-tiny", epochs=1, steps=1, batch_size=2, inputs=["rgb:residual_10km", "fault_distance", "scale"]
    )
    train(rich, tmp_path, config)
    network, spec = load_model(tmp_path)
    assert spec.channels == config.inputs
    assert spec.input == InputChannels.fit(rich, config.inputs)
    assert network.in_channels == 5


def test_units_are_mgal_by_default(arrays):
    assert InputChannels.fit(RegionDataset.from_arrays(arrays)).units == ("mGal",)
    arrays["meta"]["channel_units"] = ["mGal", "km"]
    with pytest.raises(InputError, match="2 units"):
        RegionDataset.from_arrays(arrays)


@pytest.mark.parametrize(
    ("text", "names", "fields"),
    [
        ("residual", ["residual_10km"], ["residual_10km"]),
        ("multi", ["residual_10km", "bouguer", "scale"], ["residual_10km", "bouguer"]),
        ("rgb", ["rgb:residual_10km"], ["residual_10km"]),
        ("rgb, residual ,scale", ["rgb:residual_10km", "residual_10km", "scale"], ["residual_10km"]),
        ("residual_20km,tilt", ["residual_20km", "tilt"], ["residual_20km", "tilt"]),
    ],
)
def test_short_names_are_written_out(text, names, fields):
    assert expand(text, "residual_10km") == names
    assert fields_read(names) == fields


@pytest.mark.parametrize(
    ("text", "message"), [("scale", "no field"), ("residual,,tilt", "empty"), ("tilt,tilt", "twice"), ("rgb:", "empty")]
)
def test_invalid_inputs_are_refused(text, message):
    with pytest.raises(OptionError, match=message):
        expand(text, "residual_10km")


def test_a_field_the_tile_set_lacks_is_named(rich):
    with pytest.raises(InputError, match="no field 'tilt'"):
        InputChannels.fit(rich, ["tilt"])
