"""Integrated gradients: closed forms for simple networks, and completeness for any network."""

import numpy as np
import pytest
import torch

from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.evaluation.attribution import integrated_gradients
from gravmap.learning.evaluation.mosaic import covering_windows, predict_logits, window_nodes
from gravmap.learning.sampling.resampling import interpolate, interpolation_matrices
from gravmap.network import build
from toys.dataset import make_arrays

PX = 32


class Plane(torch.nn.Module):
    """Logits (a f, b f) of one field f."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, planes):
        return torch.cat([self.a * planes[:, :1], self.b * planes[:, :1]], dim=1)


class Curved(torch.nn.Module):
    """Logits f^2 + g and 0, of two fields: smooth, so a few points integrate it exactly."""

    def forward(self, planes):
        first, second = planes[:, :1], planes[:, 1:2]
        return torch.cat([first**2 + second, 0 * first], dim=1)


@pytest.fixture
def dataset():
    arrays = make_arrays()
    field = arrays["fields"][0]
    arrays["fields"] = np.stack([field, field[::-1] * 0.3 + 4]).astype(np.float32)
    arrays["meta"]["channels"] = ["residual_10km", "bouguer"]
    return RegionDataset.from_arrays(arrays)


def explained(
    dataset, network, names=("residual_10km",), rows=slice(12, 20), columns=slice(15, 28), scales=(2.0, 3.0), **more
):
    inputs = InputChannels.fit(dataset, list(names))
    lat, lon = dataset.node_lat[rows], dataset.node_lon[columns]
    box = (lon[0], lat[-1], lon[-1], lat[0])
    windows = {scale: covering_windows(box, scale, dataset.field_nodes_wsen) for scale in scales}
    fields = more.pop("fields", inputs.select(dataset))
    found = integrated_gradients(
        network, fields, dataset.field_nodes_wsen, windows, PX, lat, lon, inputs=inputs, **more
    )
    maps = [
        predict_logits(network, np.nan_to_num(fields), dataset.field_nodes_wsen, some, PX, lat, lon, inputs=inputs)
        for some in windows.values()
    ]
    return found, sum(maps) / len(maps), inputs


def test_linear_network_is_attributed_to_the_region_alone(dataset):
    found, mapped, inputs = explained(dataset, Plane(3.0, 1.0), target=0, steps=1)
    # (3 f - f) / 2 less the same of the mean: the logit over the mean of both logits.
    field, std = dataset.fields[0], inputs.spreads[0]
    level = field[found.rows, found.columns].mean()
    assert found.baseline["residual_10km"] == pytest.approx(level, abs=1e-4)
    inside = found.values[
        0, 12 - found.rows.start : 20 - found.rows.start, 15 - found.columns.start : 28 - found.columns.start
    ]
    expected = (field[12:20, 15:28] - level) / std / inside.size
    # Bilinear pixels smear a node onto its neighbours: the sum over the region is kept but at its rim.
    assert np.corrcoef(inside.ravel(), expected.ravel())[0, 1] > 0.95
    assert found.values.sum() == pytest.approx(found.logit - found.baseline_logit, abs=1e-5)
    outside = abs(found.values[0]).sum() - abs(inside).sum()
    assert outside < 0.3 * abs(inside).sum()
    assert found.logit == pytest.approx((mapped[0] - mapped.mean(0)).mean(), abs=1e-5)
    against, _, _ = explained(dataset, Plane(3.0, 1.0), target=1, steps=1)
    assert against.values == pytest.approx(-found.values, abs=1e-7)


def test_of_a_curved_network_the_sum_is_exact_and_fields_get_what_is_theirs(dataset):
    found, mapped, _ = explained(dataset, Curved(), ["residual_10km", "bouguer"], target=0, steps=4)
    assert found.logit == pytest.approx((mapped[0] - mapped.mean(0)).mean(), abs=1e-5)
    assert found.gap == pytest.approx(0, abs=1e-5)
    # The second field enters linearly: its part is half its own rise, whatever the first does.
    single, _, _ = explained(dataset, Plane(1.0, 0.0), ["bouguer"], target=0, steps=1)
    assert found.values[1] == pytest.approx(single.values[0], abs=1e-6)
    assert (found.values[0] != 0).any()


@pytest.mark.slow
def test_a_real_network_adds_up(dataset):
    torch.manual_seed(0)
    network = build("ggmnet-tiny", in_channels=1, classes=2).eval()
    found, mapped, _ = explained(dataset, network, scales=(2.0,), steps=24)
    assert found.target == np.bincount(mapped.argmax(0).ravel(), minlength=2).argmax()
    assert found.logit == pytest.approx((mapped[found.target] - mapped.mean(0)).mean(), abs=1e-5)
    assert abs(found.logit - found.baseline_logit) > 1e-3
    assert found.complete
    coarse, _, _ = explained(dataset, network, scales=(2.0,), steps=1)
    assert abs(found.gap) < abs(coarse.gap)


def test_unknown_nodes_and_constant_fields_have_no_attribution(dataset):
    fields = dataset.fields[:1].copy()
    fields[0, 14:17, 18:22] = np.nan
    found, _, _ = explained(dataset, Plane(3.0, 1.0), fields=fields, target=0, steps=1)
    hole = found.values[
        0, 14 - found.rows.start : 17 - found.rows.start, 18 - found.columns.start : 22 - found.columns.start
    ]
    assert (hole == 0).all()
    assert found.gap == pytest.approx(0, abs=1e-5)
    level, _, _ = explained(dataset, Curved(), ["residual_10km", "bouguer"], fields=np.full_like(dataset.fields, 7.5))
    assert (level.values == 0).all()


def test_the_matrices_are_the_interpolation(dataset):
    values = torch.from_numpy(dataset.fields)
    for window in ([80.3, 42.7, 82.3, 44.7], [79.0, 45.0, 81.0, 47.0]):  # inside; hanging over a corner
        rows, columns, place = window_nodes(np.array(window), dataset.field_nodes_wsen, *values.shape[1:])
        patch = values[:, rows, columns]
        down, right = interpolation_matrices(place, *patch.shape[1:], PX, patch.device)
        torch.testing.assert_close(down @ patch @ right.T, interpolate(patch, place, PX), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="crop has no"):
        interpolation_matrices(np.array([[1.0, 0.2, 3.0], [0.2, 1.0, 3.0]]), 8, 8, PX, patch.device)


def test_cells_that_are_not_counted_have_no_part_in_the_logit(dataset):
    west = np.zeros((8, 13), bool)
    west[:, :5] = True
    (whole, _), (one, _), (other, _) = (
        explained(dataset, Plane(1.0, -2.0), target=0, steps=1, counted=counted)[:2] for counted in (None, west, ~west)
    )
    assert one.logit != pytest.approx(other.logit)
    for name in ("logit", "baseline_logit", "values"):
        parts = (5 * getattr(one, name) + 8 * getattr(other, name)) / 13
        np.testing.assert_allclose(getattr(whole, name), parts, atol=1e-5)
