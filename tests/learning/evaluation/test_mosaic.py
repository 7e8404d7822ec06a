import numpy as np
import pytest
import torch
from torch import nn

from gravmap.errors import DeviceError
from gravmap.learning.data.channels import FieldChannel, InputChannels
from gravmap.learning.evaluation.mosaic import covering_windows, predict_logits
from gravmap.network.deform import DeformConv3x3


def over(spread):
    return InputChannels((FieldChannel("residual_10km", "mGal", spread),))


NODES = (80.0, 42.0, 84.0, 46.0)


class Identity(nn.Module):
    def forward(self, x):
        return x


class Constant(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 3, *x.shape[2:]), 1.0) * torch.tensor([1.0, -2.0, 0.5])[:, None, None]


class WindowNumber(nn.Module):
    """The mean of its tile everywhere: every window says something else, so seams would show."""

    def forward(self, x):
        return x.mean((2, 3), keepdim=True).expand_as(x)


def axes(step, west=80.0, south=42.0, east=84.0, north=46.0):
    return np.arange(north, south - 1e-9, -step), np.arange(west, east + 1e-9, step)


def linear(lat, lon):
    return (3 * (lat[:, None] - 44) - 2 * (lon[None, :] - 82) + 5).astype(np.float32)


def field(function, n=41):
    lat, lon = np.linspace(46, 42, n), np.linspace(80, 84, n)
    return function(lat, lon)[None]


def predict(network, fields, windows, lat, lon, px=64, batch_size=1):
    return predict_logits(network, fields, NODES, windows, px, lat, lon, inputs=over(2.0), batch_size=batch_size)


@pytest.mark.parametrize("px", [16, 64, 150])
@pytest.mark.parametrize("step", [0.02, 0.1, 0.25])
def test_identity_gives_back_a_slope_exactly_up_to_half_a_pixel_from_the_rim(px, step):
    # Finer and coarser than the output grid; input is in units of the scale.
    lat, lon = axes(step)
    windows = covering_windows(NODES, 2.0, NODES)
    out = predict(Identity(), field(linear), windows, lat, lon, px)[0]
    want = linear(lat, lon) / 2
    rim = 2.0 / px
    inside = np.ix_(
        (lat <= 46 - rim / 2 + 1e-9) & (lat >= 42 + rim / 2 - 1e-9),
        (lon >= 80 + rim / 2 - 1e-9) & (lon <= 84 - rim / 2 + 1e-9),
    )
    # Windows end inside, too; there only the Hann floor is left of a pixel clamped at a window's rim.
    np.testing.assert_allclose(out[inside], want[inside], atol=3e-4)
    np.testing.assert_allclose(out, want, atol=5 * rim / 4 + 1e-4)


def test_identity_puts_a_value_at_its_own_degree():
    def bump(lat, lon):
        return np.exp(-(((lat[:, None] - 44.6) ** 2) + (lon[None, :] - 81.3) ** 2) / 0.08).astype(np.float32)

    lat, lon = axes(0.05)
    out = predict(Identity(), field(bump), covering_windows(NODES, 2.0, NODES), lat, lon, px=200)[0]
    row, column = np.unravel_index(out.argmax(), out.shape)
    assert lat[row] == pytest.approx(44.6)
    assert lon[column] == pytest.approx(81.3)


def test_fine_pixels_are_averaged_over_an_output_cell():
    # Noise from west to east; a node gets the mean over its cell, as a quadrature of 4000 points gives it.
    pattern = np.random.default_rng(0).normal(size=512)

    class Pattern(nn.Module):
        def forward(self, x):
            return torch.tensor(pattern, dtype=torch.float32).expand_as(x).clone()

    lat, lon = axes(0.25)
    out = predict(Pattern(), field(linear), np.array([[80.0, 42.0, 84.0, 46.0]]), lat, lon, px=512)[0]
    centres = 80 + (np.arange(512) + 0.5) * 4 / 512
    points = (np.arange(4000) + 0.5) / 4000 - 0.5
    want = [np.interp(node + 0.25 * points, centres, pattern).mean() for node in lon[1:-1]]
    np.testing.assert_allclose(out[8, 1:-1], want, atol=1e-4)
    # Without the mean a node would see the two pixels beside it alone.
    assert np.std(np.interp(lon[1:-1], centres, pattern)) > 2 * np.std(want)


@pytest.mark.parametrize("scale", [1.0, 1.5, 4.0])
def test_a_constant_stays_constant_everywhere(scale):
    lat, lon = axes(0.1)
    out = predict(Constant(), field(linear), covering_windows(NODES, scale, NODES), lat, lon, px=32)
    assert out.shape == (3, 41, 41)
    np.testing.assert_allclose(out, np.broadcast_to(np.array([1, -2, 0.5])[:, None, None], out.shape), rtol=1e-5)


def test_seams_vanish():
    # Each window's value differs from its neighbour's by 2 to 3; blended, neighbours on a fine grid differ little.
    lat, lon = axes(0.02)
    out = predict(WindowNumber(), field(linear), covering_windows(NODES, 1.0, NODES), lat, lon, px=32)[0]
    steps = np.abs(np.diff(out, axis=0)).max(), np.abs(np.diff(out, axis=1)).max()
    assert max(steps) < 0.12  # a hard seam would be 1; the steepest blend is pi/2 * 0.75 * 0.04 = 0.047 per step
    assert np.ptp(out) > 5


def test_the_result_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))
    lat, lon = axes(0.1)
    windows = covering_windows(NODES, 1.0, NODES)
    one = predict(network, field(linear), windows, lat, lon, 32, batch_size=1)
    many = predict(network, field(linear), windows, lat, lon, 32, batch_size=7)
    np.testing.assert_allclose(one, many, atol=1e-5)


class Memory(nn.Module):
    """Runs out of memory with more than so many windows; `deformable` stands for torchvision's convolution."""

    def __init__(self, windows, error, deformable=False):
        super().__init__()
        self.windows, self.error, self.sizes = windows, error, []
        self.layer = DeformConv3x3(1, 1)
        self.layer.torchvision_on_cuda = deformable

    def forward(self, x):
        self.sizes.append(len(x) // 9)  # crops to a window of 64 pixels
        if self.sizes[-1] > self.windows or (self.layer.torchvision_on_cuda and not self.layer.saves_memory):
            raise self.error
        return x


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.90 GiB."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_windows_per_pass_are_halved_when_memory_runs_out(error, caplog):
    lat, lon = axes(0.1)
    windows = covering_windows(NODES, 2.0, NODES)
    expected = predict(Identity(), field(linear), windows, lat, lon)
    network = Memory(2, error)
    found = predict(network, field(linear), windows, lat, lon, batch_size=5)
    assert np.array_equal(found, expected)
    assert network.sizes == [5, 2, 2, 2, 2, 1]
    assert "Out of memory with 5 windows at a time; continuing with 2." in caplog.text


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_one_window_is_tried_without_torchvision(error, caplog):
    lat, lon = axes(0.1)
    windows = covering_windows(NODES, 2.0, NODES)
    network = Memory(1, error, deformable=True)
    found = predict(network, field(linear), windows, lat, lon, batch_size=2)
    assert np.array_equal(found, predict(Identity(), field(linear), windows, lat, lon))
    assert network.sizes == [2, 1, *[1] * len(windows)]
    # Another dataset, or the next epoch: at once.
    network.sizes.clear()
    predict(network, field(linear), windows, lat, lon)
    assert network.sizes == [1] * len(windows)
    assert caplog.text.count("without torchvision") == 1
    assert "continuing without torchvision" in caplog.text
    with pytest.raises(DeviceError, match="one window of 64 x 64 pixels") as caught:
        predict(Memory(0, error, deformable=True), field(linear), windows, lat, lon)
    assert "--device cpu" in caught.value.hint


def test_other_errors_are_raised_as_they_are():
    lat, lon = axes(0.1)
    windows = covering_windows(NODES, 2.0, NODES)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        predict(Memory(0, RuntimeError("shapes do not match")), field(linear), windows, lat, lon)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_network_alone_computes_in_its_scoring_precision(precision):
    lat, lon = axes(0.1)
    windows = covering_windows(NODES, 2.0, NODES)
    network = nn.Conv2d(1, 1, 1, bias=False)
    network.weight.data.fill_(1.0)
    network.scoring_precision = precision
    seen = []
    network.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
    found = predict(network, field(linear), windows, lat, lon)
    assert set(seen) == {(torch.float32, getattr(torch, precision))}
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, predict(Identity(), field(linear), windows, lat, lon), atol=0.03)


def test_nan_where_no_window_reaches():
    lat, lon = axes(0.5)
    out = predict(Constant(), field(linear), np.array([[80.0, 42.0, 82.0, 44.0]]), lat, lon, px=16)[0]
    assert np.isfinite(out[lat <= 44][:, lon <= 82]).all()
    assert np.isnan(out[lat > 44]).all()
    assert np.isnan(out[:, lon > 82]).all()


def test_mixed_sizes_of_windows():
    lat, lon = axes(0.1)
    windows = np.concatenate([covering_windows(NODES, scale, NODES) for scale in (1.0, 2.0)])
    out = predict(Identity(), field(linear), windows, lat, lon, px=64)[0]
    np.testing.assert_allclose(out[2:-2, 2:-2], linear(lat, lon)[2:-2, 2:-2] / 2, atol=1e-3)


def test_progress_is_reported():
    text = []
    lat, lon = axes(0.5)
    windows = covering_windows(NODES, 2.0, NODES)
    predict_logits(
        Identity(), field(linear), NODES, windows, 8, lat, lon, inputs=over(1.0), batch_size=4,
        progress=lambda done, total, note="": text.append((done, total)),
    )  # fmt: skip
    assert text == [(4, 9), (8, 9), (9, 9)]


def test_windows_overlap_by_half_and_stay_inside():
    windows = covering_windows((80, 42, 84, 46), 2.0, (80, 42, 84, 46))
    assert sorted(set(windows[:, 0])) == [80.0, 81.0, 82.0]
    assert windows[0].tolist() == [80.0, 44.0, 82.0, 46.0]  # north-west first
    assert len(windows) == 9


def test_windows_extend_beyond_the_region_if_the_field_does():
    windows = covering_windows((81, 43, 92, 48), 5.0, (65, 40, 95, 55))
    assert windows[:, 0].min() == 77.5
    assert windows[:, 2].max() == 95
    assert np.allclose(np.diff(np.unique(windows[:, 0])), 2.5)
    # Every point of the region lies in four windows, two each way: none is at the end of what is known.
    assert np.unique(windows[:, 1]).tolist() == [40, 42.5, 45, 47.5]


@pytest.mark.parametrize("limit", [(65, 40, 95, 55), (65.0167, 40.0167, 94.9833, 54.9833), (64.3, 41.2, 99.9, 60.7)])
@pytest.mark.parametrize("scale", [1.0, 2.5, 5.0])
def test_adjacent_regions_have_the_same_windows(scale, limit):
    def over(windows, west, east):
        return {tuple(window) for window in windows if window[0] < east and window[2] > west}

    west_half, east_half = (81.2, 43.0, 86.31, 48.4), (86.31, 43.0, 92.1, 48.4)
    whole = covering_windows((81.2, 43.0, 92.1, 48.4), scale, limit)
    assert over(covering_windows(west_half, scale, limit), 81.2, 86.31) == over(whole, 81.2, 86.31)
    assert over(covering_windows(east_half, scale, limit), 86.31, 92.1) == over(whole, 86.31, 92.1)
    # Also where the fields themselves end elsewhere, away from their ends.
    wider = covering_windows((81.2, 43.0, 92.1, 48.4), scale, (limit[0] - 7.7, 30.3, limit[2] + 3.1, 62.2))
    far = [w for w in whole if w[0] > limit[0] + scale and w[2] < limit[2] - scale and w[1] > limit[1] + scale]
    assert {tuple(window) for window in far} <= {tuple(window) for window in wider}


@pytest.mark.parametrize("limit", [(65.0167, 40.0167, 94.9833, 54.9833), (0.3, 0.01, 11.26, 7.49), (0, 0, 2.6, 2.51)])
def test_the_outermost_windows_end_at_the_limit_and_half_overlap(limit):
    windows = covering_windows(limit, 2.5, limit)
    for axis in (0, 1):
        starts = np.unique(windows[:, axis])
        assert starts[0] == pytest.approx(limit[axis])
        assert starts[-1] + 2.5 == pytest.approx(limit[axis + 2])
        assert np.diff(starts).max() <= 2.5 * (1 / 2 + 1 / 8) + 1e-9


@pytest.mark.parametrize("scale", [1.0, 3.7, 5.0])
def test_every_point_of_the_region_is_covered(scale):
    region, limit = (81.0, 43.0, 92.0, 48.0), (80.0, 40.0, 92.5, 48.0)
    windows = covering_windows(region, scale, limit)
    lon, lat = np.meshgrid(np.linspace(81, 92, 60), np.linspace(43, 48, 40))
    inside = [(lon >= w - 1e-9) & (lon <= e + 1e-9) & (lat >= s - 1e-9) & (lat <= n + 1e-9) for w, s, e, n in windows]
    assert np.any(inside, axis=0).all()
    assert (windows[:, :2] >= np.array(limit[:2]) - 1e-9).all()
    assert (windows[:, 2:] <= np.array(limit[2:]) + 1e-9).all()


def test_a_window_larger_than_the_limit_is_centred_on_it():
    windows = covering_windows((80, 42, 84, 46), 5.0, (80, 42, 84, 46))
    assert windows.tolist() == [[79.5, 41.5, 84.5, 46.5]]
