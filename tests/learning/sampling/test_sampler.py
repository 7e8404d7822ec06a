import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from gravmap.errors import InputError
from gravmap.learning import RegionDataset
from gravmap.learning.data.channels import FieldChannel, InputChannels, robust_std
from gravmap.learning.data.dataset import IGNORE
from gravmap.learning.sampling.augmentation import PAPER, UNCHANGED, Augmentation, Crop
from gravmap.learning.sampling.sampler import Sampler


def plain(area, spread=1.0):
    return InputChannels(tuple(FieldChannel(name, "mGal", spread) for name in area.channels))


def make_sampler(area, **options):
    options.setdefault("augmentation", UNCHANGED)
    return Sampler(area, plain(area), 64, **options)


def pixel_places(crop, px):
    """Longitudes and latitudes (px, px) of a crop's pixel centres, worked out one at a time with a turned vector."""
    lon, lat = np.empty((px, px)), np.empty((px, px))
    squeeze = math.cos(math.radians(crop.lat))
    for row in range(px):
        for column in range(px):
            east = ((column + 0.5) / px * 2 - 1) * crop.half_deg * squeeze * crop.flip_x
            north = -((row + 0.5) / px * 2 - 1) * crop.half_deg * crop.flip_y
            turned = complex(east, north) * complex(math.cos(crop.angle_rad), math.sin(crop.angle_rad))
            lon[row, column], lat[row, column] = crop.lon + turned.real / squeeze, crop.lat + turned.imag
    return lon, lat


CROPS = [
    Crop(44.0, 82.0, 0.5),
    Crop(44.0, 82.0, 0.5, flip_x=-1),
    Crop(44.0, 82.0, 0.5, flip_y=-1),
    Crop(43.7, 82.3, 0.7, flip_x=-1, flip_y=1, angle_rad=0.6),
    Crop(44.3, 81.9, 0.4, flip_y=-1, angle_rad=2.5),
    Crop(44.0, 82.0, 0.5, angle_rad=math.pi / 2),
]


@pytest.mark.parametrize("crop", CROPS)
def test_labels_are_those_of_the_cell_to_the_cell(area, crop):
    area.role[:] = 0
    _, target, small = make_sampler(area).read(crop)
    lon, lat = pixel_places(crop, 32)
    for row in range(32):
        for column in range(32):
            # Cells of 0.05 degrees from 46 N 80 E.
            cell = (
                int(np.floor((46 - lat[row, column]) / 0.05 + 1e-6)),
                int(np.floor((lon[row, column] - 80) / 0.05 + 1e-6)),
            )
            label = area.labels[cell]
            assert target[row, column] == (label - 1 if label else IGNORE)
            assert small[row, column] == (area.small[cell] == 1 and label > 0)


@pytest.mark.parametrize("crop", CROPS)
def test_the_field_is_interpolated_between_its_nodes(area, crop):
    fields, _, _ = make_sampler(area).read(crop)
    lon, lat = pixel_places(crop, 32)
    interpolate = RegularGridInterpolator(
        (area.node_lat[::-1], area.node_lon), area.fields[0, ::-1].astype(np.float64), method="linear"
    )
    want = interpolate(np.stack([lat.ravel(), lon.ravel()], axis=1)).reshape(32, 32)
    np.testing.assert_allclose(fields[0].numpy(), want, atol=2e-4)


def test_field_and_labels_land_on_the_same_degree(arrays):
    # The field is its own longitude (then latitude); labels count whole cells of one degree.
    lat, lon = np.linspace(46, 42, 41), np.linspace(80, 84, 41)
    arrays["fields"] = np.stack([np.broadcast_to(lon, (41, 41)), np.broadcast_to(lat[:, None], (41, 41))]).astype(
        np.float32
    )
    arrays["meta"]["channels"] = ["lon", "lat"]
    arrays["meta"]["classes"] = [{"index": i + 1, "name": str(i), "colour": "#000000", "age": ""} for i in range(16)]
    column, row = np.meshgrid(np.arange(80) // 20, np.arange(80) // 20)
    arrays["labels"] = (1 + 4 * row + column).astype(np.uint8)
    arrays["role"][:] = 0
    sampler = make_sampler(RegionDataset.from_arrays(arrays))
    for crop in (Crop(44.03, 82.02, 0.97, angle_rad=0.4), Crop(44.5, 81.5, 0.5, flip_x=-1)):
        fields, target, _ = sampler.read(crop)
        want = 4 * torch.floor(46 - fields[1].double()) + torch.floor(fields[0].double() - 80)
        # float32 degrees are good to 1e-5; leave out pixels closer than that to a side.
        clear = ((fields - fields.round()).abs() > 1e-4).all(0)
        assert torch.equal(target[clear], want[clear].long())
        assert clear.float().mean() > 0.9


def test_rotation_keeps_angles_in_kilometres():
    crop = Crop(60.0, 82.0, 0.5, angle_rad=math.radians(30))
    matrix = crop.to_degrees()
    metric = np.diag([math.cos(math.radians(60)), 1.0]) @ matrix  # in degrees of arc on the ground
    # East and south of the crop stay at right angles on the ground, though not in degrees.
    assert abs(metric[:, 0] @ metric[:, 1]) < 1e-12
    assert abs(matrix[:, 0] @ matrix[:, 1]) > 0.01
    assert math.degrees(math.atan2(metric[1, 0], metric[0, 0])) == pytest.approx(30)
    # A turn of nothing is a plain box in degrees.
    np.testing.assert_allclose(Crop(60.0, 82.0, 0.5).to_degrees(), [[0.5, 0], [0, -0.5]], atol=1e-15)


def test_held_out_cells_and_the_outside_are_ignored(area):
    held = make_sampler(area).read(Crop(44.5, 81.5, 0.45))[1]  # in the tuning block
    assert (held == IGNORE).all()
    target = make_sampler(area).read(Crop(46.0, 80.0, 0.5))[1]  # a corner: three quarters outside
    assert (target[:16] == IGNORE).all()
    assert (target[:, :16] == IGNORE).all()
    assert (target[16:, 16:] != IGNORE).any()


@pytest.mark.parametrize("corner", [(46.0, 80.0), (42.0, 84.0)])
def test_a_rotated_crop_over_a_corner_has_no_target_outside(area, corner):
    area.role[:] = 0
    crop = Crop(*corner, 0.5, angle_rad=0.7)
    target = make_sampler(area).read(crop)[1]
    lon, lat = pixel_places(crop, 32)
    outside = (lon < 80) | (lon > 84) | (lat < 42) | (lat > 46)
    assert 0.6 < outside.mean() < 0.8
    assert (target.numpy()[outside] == IGNORE).all()
    rows, columns = (np.floor(each[~outside] / 0.05 + 1e-6).astype(int) for each in (46 - lat, lon - 80))
    label = area.labels[rows, columns].astype(int)
    np.testing.assert_array_equal(target.numpy()[~outside], np.where(label > 0, label - 1, IGNORE))


def test_cells_without_a_measured_field_are_ignored(area):
    area.field_valid[:, 20:] = False  # from 82 E; the nearest node is not measured from 81.95 E
    target = make_sampler(area).read(Crop(43.5, 82.0, 0.5))[1]
    lon, _ = pixel_places(Crop(43.5, 82.0, 0.5), 32)
    assert (target[lon > 81.95] == IGNORE).all()
    assert (target[lon < 81.95] != IGNORE).any()


def test_a_sample_depends_on_seed_epoch_and_number_alone(area):
    def drawn(seed, epoch, numbers):
        return make_sampler(area, augmentation=Augmentation(), seed=seed).batch(epoch, numbers)

    whole = drawn(3, 2, [0, 1, 2, 3])
    parts = drawn(3, 2, [2, 3]), drawn(3, 2, [0, 1])
    for together, second, first in zip(whole, *parts, strict=True):
        assert torch.equal(together, torch.cat([first, second]))
    for other in (drawn(4, 2, [0, 1, 2, 3]), drawn(3, 1, [0, 1, 2, 3])):
        assert not torch.equal(whole[0], other[0])


def test_crops_lie_in_their_window_and_hold_training_labels(area):
    sampler = make_sampler(area, augmentation=Augmentation(rotate_share=0.0))
    for number in range(60):
        crop = sampler.draw(0, number)
        box = crop.lon - crop.half_deg, crop.lat - crop.half_deg, crop.lon + crop.half_deg, crop.lat + crop.half_deg
        inside = (np.array(box[:2]) >= area.windows[:, :2] - 1e-9) & (np.array(box[2:]) <= area.windows[:, 2:] + 1e-9)
        assert inside.all(1).any()
        assert (sampler.read(crop)[1] != IGNORE).float().mean() > 0.03


def test_a_crop_with_few_training_labels_is_drawn_again(area):
    # Labels are left in a strip of 0.3 degrees only: most places in a window miss it.
    area.labels[:, 6:] = 0
    sampler = make_sampler(area, augmentation=Augmentation(rotate_share=0.0))
    shares = [float((sampler.read(sampler.draw(0, number))[1] != IGNORE).float().mean()) for number in range(40)]
    assert np.mean(np.array(shares) > 0.04) > 0.9


def test_window_sizes_are_drawn_evenly_by_default(area):
    def share_of_large(**options):
        sampler = make_sampler(area, **options)
        return np.mean([sampler.draw(0, number).half_deg == 0.5 for number in range(400)])

    assert share_of_large() == pytest.approx(0.5, abs=0.08)
    # 9 windows of two degrees, 14 of one: two of the 16 lie in held-out blocks.
    assert share_of_large(even_scales=False) == pytest.approx(9 / 23, abs=0.08)
    assert share_of_large(scales_deg=[2.0]) == 1.0


def test_noise_is_made_at_native_nodes(area):
    area.fields[:] = 0
    sampler = Sampler(area, plain(area, 5.0), 640, augmentation=UNCHANGED)  # 32 pixels from node to node
    noisy = sampler.read(Crop(44.0, 82.0, 0.5, noise=0.1, noise_seed=1))[0][0]
    assert noisy.std() == pytest.approx(
        0.1 * 2 / 3, abs=0.03
    )  # bilinear between white nodes keeps (2/3)^2 of the variance
    # Between nodes it is a straight line: second differences vanish at all but one in 32 pixels.
    bends = noisy.diff(n=2, dim=1).abs() > 1e-4
    assert bends.float().mean() < 0.08


def test_amplitude_and_offset(area):
    sampler = Sampler(area, plain(area, 4.0), 64, augmentation=UNCHANGED)
    unchanged = sampler.read(Crop(44.0, 82.0, 0.5))[0]
    changed = sampler.read(Crop(44.0, 82.0, 0.5, amplitude=1.1, offset_mgal=2.0))[0]
    torch.testing.assert_close(changed, unchanged * 1.1 + 0.5)


def test_the_spread_is_robust(area):
    rng = np.random.default_rng(0)
    values = rng.normal(-200, 12, 2000).astype(np.float32)
    assert robust_std(values) == pytest.approx(12, rel=0.08)
    values[:100] = 9000
    assert robust_std(values) == pytest.approx(12, rel=0.15)
    area.fields[0] = rng.normal(-200, 12, area.fields[0].shape)
    area.fields[0, :2] = 9000
    area.field_valid[:2] = False
    assert InputChannels.fit(area).spreads[0] == pytest.approx(12, rel=0.08)
    assert robust_std(np.full(9, 7, np.float32)) == 1.0


def test_nothing_to_learn_from_is_an_input_error(area):
    area.role[:] = 2
    with pytest.raises(InputError, match="No training window"):
        make_sampler(area)
    area.role[:] = 0
    with pytest.raises(InputError, match="of 5 degrees"):
        make_sampler(area, scales_deg=[5.0])


def test_crops_of_a_fine_global_raster_are_exact_where_float32_is_not(arrays):
    # 15" cells over 60 degrees, alternating labels: one wrong cell is one wrong class.
    columns = 14400
    labels = np.broadcast_to((np.arange(columns) % 2 + 1).astype(np.uint8), (240, columns)).copy()
    zeros = np.zeros(labels.shape, np.uint8)
    arrays |= {
        "labels": labels,
        "small": zeros,
        "role": zeros,
        "label_bounds_wsen": np.array([40.0, 44.0, 100.0, 45.0]),
        "field_nodes_wsen": np.array([40.0, 44.0, 100.0, 45.0]),
        "windows": np.array([[98.0, 44.0, 99.0, 45.0]]),
        "window_scale_deg": np.array([1.0]),
        "window_role": np.zeros(1, np.uint8),
    }
    area = RegionDataset.from_arrays(arrays)
    sampler = Sampler(area, plain(area), 960, augmentation=UNCHANGED)  # four pixels per cell
    # Pixels fall a ten-thousandth of a cell before every quarter; at column 14000 float32 counts in thousandths.
    target = sampler.read(Crop(44.5, 98.5 - (0.125 + 1e-4) / 240, 0.25))[1]
    want = np.floor((98.25 - 40) * 240 + np.arange(480) / 4 - 1e-4).astype(int) % 2
    assert np.array_equal(target[0].numpy(), want)


def test_the_papers_augmentation_is_drawn_from_its_ranges(area):
    crops = [make_sampler(area, augmentation=PAPER, seed=3).draw(0, number) for number in range(300)]
    for name, low, high, nothing in (
        ("contrast", 0.5, 1.5, 1.0), ("brightness", 0.8, 1.2, 1.0), ("picture_noise", 0.01, 0.1, 0.0),
    ):  # fmt: skip
        drawn = np.array([getattr(crop, name) for crop in crops])
        changed = drawn[drawn != nothing]
        assert 110 < len(changed) < 190  # half of them
        assert low <= changed.min() < low + 0.05 * (high - low) + 1e-9
        assert high - 0.05 * (high - low) < changed.max() <= high
    assert all((crop.noise, crop.amplitude, crop.offset_mgal, crop.metric) == (0, 1, 0, False) for crop in crops)
    # Half are shifted, by up to a tenth of their side; some of them beyond the windows, which end with the area.
    beyond = [max(abs(crop.lon - 82), abs(crop.lat - 44)) + crop.half_deg - 2 for crop in crops]
    assert 0.01 < max(beyond) <= 0.2 * 0.5


def test_a_picture_is_rotated_in_degrees():
    turned = Crop(60.0, 82.0, 0.5, angle_rad=math.pi / 2, metric=False).to_degrees()
    np.testing.assert_allclose(turned, [[0, 0.5], [0.5, 0]], atol=1e-12)
    assert Crop(60.0, 82.0, 0.5, angle_rad=math.pi / 2).to_degrees()[0, 1] == pytest.approx(1.0)


def test_contrast_and_brightness_act_on_the_range_of_the_dataset(area):
    sampler = make_sampler(area)
    low, high = area.fields.min(), area.fields.max()
    plain = sampler.read(Crop(44.0, 82.0, 0.5))[0].numpy()
    share = (plain - low) / (high - low)
    for contrast, brightness in ((1.5, 1.0), (1.0, 1.2), (0.6, 0.9)):
        changed = sampler.read(Crop(44.0, 82.0, 0.5, contrast=contrast, brightness=brightness))[0].numpy()
        wanted = np.clip(brightness * (share.mean() + contrast * (share - share.mean())), 0, 1)
        np.testing.assert_allclose((changed - low) / (high - low), wanted, atol=1e-5)
        assert changed.max() <= high + 1e-3


def test_noise_on_pixels_is_white(area):
    sampler = make_sampler(area)
    crop = Crop(44.0, 82.0, 0.5, noise_seed=5)
    noisy = Crop(44.0, 82.0, 0.5, noise_seed=5, picture_noise=0.05)
    noise = (sampler.read(noisy)[0] - sampler.read(crop)[0]).numpy()[0] / (area.fields.max() - area.fields.min())
    assert noise.std() == pytest.approx(0.05, rel=0.1)
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("augmentation", [Augmentation(rotate_share=1.0), dataclasses.replace(PAPER, shift=0.4)])
def test_under_a_strict_split_no_corner_of_a_crop_lies_outside_its_window(arrays, augmentation):
    def worst(name):
        split = {"name": name, "fold": 0}
        strict = RegionDataset.from_arrays(arrays | {"meta": arrays["meta"] | {"split": split}})
        sampler = make_sampler(strict, augmentation=augmentation)
        crops = [sampler.draw(0, number) for number in range(200)]
        assert sum(crop.angle_rad != 0 for crop in crops) > 50  # the turns are not simply gone
        reach = []
        for crop in crops:
            squeeze = math.cos(math.radians(crop.lat)) if crop.metric else 1.0
            west, south, east, north = crop.window_wsen
            for u, v in [(1, 1), (1, -1), (-1, 1), (-1, -1)]:
                corner = (
                    crop.half_deg
                    * complex(u * squeeze, v)
                    * complex(math.cos(crop.angle_rad), math.sin(crop.angle_rad))
                )
                lon, lat = crop.lon + corner.real / squeeze, crop.lat + corner.imag
                reach.append(max(west - lon, lon - east, south - lat, lat - north))
        return max(reach)

    assert worst("blocks") > 0.05
    assert worst("strict") < 1e-9
