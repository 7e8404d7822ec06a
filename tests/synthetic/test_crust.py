"""Simulated crusts: given parameters, consistency of geology and gravity, and statistics of real regions."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, label

from gravmap.errors import OptionError
from gravmap.gravity.continuation import upward_continue
from gravmap.synthetic import crust as crust_module
from gravmap.synthetic import load_prior, make_crust
from gravmap.synthetic.stack import LAYER_DEPTHS_KM, UNITS, moho_layers

USUAL = load_prior().typical()


def like_usual(**changes):
    return replace(USUAL, **changes)


@pytest.fixture(scope="module")
def small():
    return make_crust(7, (96, 96), sub=1, components=True)


@pytest.fixture(scope="module")
def several():
    return [make_crust(seed, (160, 240), sub=1, components=True) for seed in range(4)]


def percentages(crust):
    return 100 * np.bincount(crust.truth.ravel(), minlength=11)[1:] / crust.truth.size


def test_class_percentages_are_those_of_the_setting(several):
    for crust in several:
        assert percentages(crust) == pytest.approx(USUAL.shares_percent, abs=0.3)
    own = (2, 10, 10, 10, 10, 10, 10, 8, 10, 20)
    assert percentages(make_crust(1, (96, 96), sub=1, setting=like_usual(shares_percent=own))) == pytest.approx(
        own, abs=0.6
    )


def test_a_class_of_zero_percent_is_absent():
    none = (0, 20, 0, 20, 20, 20, 20, 0, 0, 0)
    assert set(np.unique(make_crust(1, (48, 64), sub=1, setting=like_usual(shares_percent=none)).truth)) == {
        2,
        4,
        5,
        6,
        7,
    }


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.48, 0.9, 1.0])
def test_covered_fraction_is_that_of_the_setting(fraction):
    crust = make_crust(2, (64, 80), sub=1, setting=like_usual(cover_share=fraction))
    assert (crust.surface == 0).mean() == pytest.approx(fraction, abs=1e-3)


def test_surface_is_the_truth_where_cover_is_thin_and_cover_elsewhere(small):
    thin = small.cover_thickness_m < 50 - 1e-3
    np.testing.assert_array_equal(small.surface[thin], small.truth[thin])
    assert (small.surface[~thin] == 0).all()
    assert 0.2 < thin.mean() < 0.8
    feather = thin & (small.cover_thickness_m > 0)
    assert feather.any()  # a thin skin that the map does not show
    assert small.truth.min() >= 1
    assert small.truth.max() <= 10
    assert small.truth.dtype == small.surface.dtype == np.uint8
    assert 6000 < small.cover_thickness_m.max() <= 8000


def test_the_stack_adds_up_and_its_top_rock_is_the_truth(small):
    thickness = small.stack.thickness_km
    assert (thickness >= 0).all()
    np.testing.assert_allclose(thickness.sum(axis=0), 20.0, rtol=1e-6)
    np.testing.assert_allclose(1000 * thickness[:2].sum(axis=0), small.cover_thickness_m, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(1000 * small.stack.cover_km, small.cover_thickness_m)
    kind = dict(zip(UNITS, thickness, strict=True))
    top = np.where(kind["pluton"] > 0, small.stack.pluton_class, 0)
    top = np.where(kind["Permian"] > 0, 8, top)
    np.testing.assert_array_equal(small.truth[top > 0], top[top > 0])
    assert set(np.unique(small.truth[top == 0])) <= set(range(1, 8))
    assert kind["Permian"].max() <= 2.4 + 1e-6
    # Belt units reach below the deepest basins.
    assert kind["belt"].min() >= 2 - 1e-5


def test_the_cover_has_two_layers(several):
    """Half of it is Cenozoic; the Mesozoic crops out over some 8 % of the cover, as around the Junggar Basin."""
    covered = [crust.surface == 0 for crust in several]
    cenozoic, mesozoic = (
        np.concatenate([crust.stack.thickness_km[unit][where] for crust, where in zip(several, covered, strict=True)])
        for unit in (0, 1)
    )
    assert cenozoic.sum() / (cenozoic + mesozoic).sum() == pytest.approx(USUAL.cenozoic_share, abs=0.12)
    assert 0.02 < (cenozoic == 0).mean() < 0.15
    assert 0.02 < (mesozoic < 1e-5).mean() < 0.15


def test_basic_bodies_are_small_dense_and_near_faults():
    share = (1, 9, 6, 6, 4, 19, 25, 5, 10, 15)
    crust = make_crust(4, (160, 240), sub=1, setting=like_usual(shares_percent=share))
    basic, acid = crust.truth == 9, crust.truth == 10
    edges = np.diff(crust.belt, axis=0, prepend=crust.belt[:1]) != 0
    edges |= np.diff(crust.belt, axis=1, prepend=crust.belt[:, :1]) != 0
    distance = distance_transform_edt(~edges, sampling=(3.7, 2.6))
    assert np.median(distance[basic]) < 0.5 * np.median(distance[acid])
    largest = [np.bincount(label(where)[0].ravel())[1:].max() for where in (basic, acid)]
    assert largest[0] < 0.5 * largest[1]
    density = crust.stack.density_at(float(crust.stack.cover_km.max()) + 3.7)
    assert crust.stack.contrast[3][basic].mean() > 100 > crust.stack.contrast[3][acid].mean()
    assert np.isfinite(density).all()


def test_layers_hold_the_mean_density_of_the_columns(small):
    columns = (slice(5, 90, 17), slice(3, 93, 11))
    stack = small.stack.cut(columns)
    parts = {}
    for cover in (True, False):
        for layer in stack.layers(cover=cover):
            key = layer.top_m, layer.bottom_m
            parts[key] = parts.get(key, 0) + layer.contrast
    for top, bottom in pairwise(LAYER_DEPTHS_KM):
        depths = top + (bottom - top) * (np.arange(400) + 0.5) / 400
        mean = np.mean([stack.density_at(depth) for depth in depths], axis=0) - stack.reference
        np.testing.assert_allclose(parts[1000 * top, 1000 * bottom], mean, atol=2.0)


def test_cover_compacts_with_depth(small):
    """Both layers, each by its own law; at one depth the Mesozoic is the denser."""
    rocks, base = USUAL.rocks, small.stack.base_km
    at = {depth: small.stack.density_at(depth) for depth in (0.0, 1.0, 2.0)}
    for deep, scale, deficit, upper in (
        (base[0] > 2, rocks.cenozoic_scale_km, rocks.cenozoic_deficit, 0.0),
        ((base[0] < 1) & (base[1] > 2), rocks.mesozoic_scale_km, rocks.mesozoic_deficit, 1.0),
    ):
        light, dense = (rocks.reference - at[depth][deep] for depth in (upper, 2.0))
        np.testing.assert_allclose(dense / light, np.exp(-(2.0 - upper) / scale), rtol=1e-4)
        assert light.mean() * np.exp(upper / scale) == pytest.approx(deficit, abs=0.25 * deficit)
    both = (base[0] > 2) & (base[1] > base[0])
    younger, older = (small.stack.contrast[unit] * np.exp(-2.0 / scale) for unit, scale in
                      enumerate(small.stack.cover_scales_km))  # fmt: skip
    assert (older[both] > younger[both]).all()


def test_densities_have_the_means_and_spreads_of_the_table(several):
    rocks = USUAL.rocks
    found = {index: [] for index in range(1, 11)}
    for crust in several:
        # Right below the cover; a hair deeper than its base.
        unit = np.array([(crust.stack.base_km <= crust.stack.cover_km + 1e-4).sum(axis=0)])
        density = rocks.reference + np.take_along_axis(crust.stack.contrast, np.minimum(unit, 5), axis=0)[0]
        for index in range(1, 11):
            found[index].append(density[crust.truth == index])
    for index in range(1, 11):
        values = np.concatenate(found[index])
        # Lenses lift the oceanic classes; a class has some ten bodies per crust.
        lift = 0.065 * rocks.lens_excess if 3 <= index <= 7 else 0.0
        assert values.mean() == pytest.approx(
            rocks.mean[index - 1] + lift, abs=max(0.7 * rocks.spread[index - 1], 12)
        ), index
        spread = np.hypot(rocks.spread[index - 1], 0.27 * rocks.lens_excess if 3 <= index <= 7 else 0)
        assert 0.5 * spread < values.std() < 1.5 * spread, index


def test_components_add_up_to_the_field(small):
    total = sum(part.astype(np.float64) for part in small.components.values())
    np.testing.assert_allclose(total, small.gravity.values, atol=1e-4)
    assert make_crust(7, (16, 16), sub=1).components is None


def test_gravity_depends_on_the_geology(small):
    """Thick cover, granite and a deep Moho are each missing mass."""

    def correlation(a, b):
        return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]

    assert correlation(small.components["cover"], small.cover_thickness_m) < -0.8
    assert correlation(small.components["moho"], small.moho_depth_m) < -0.8
    granite = make_crust(
        11, (96, 96), sub=1, setting=like_usual(shares_percent=(1, 8, 5, 6, 4, 17, 23, 0, 0, 36)), components=True
    )
    pluton = granite.stack.thickness_km[3]
    # By itself a granite lies in rock that varies as much as granite differs: short waves tell it better.
    field = granite.gravity.copy(data=granite.components["bedrock"])
    assert correlation((field - upward_continue(field, 10e3)).values, pluton) < -0.2


def test_noise_has_the_amplitude_of_the_setting():
    crust = make_crust(3, (120, 160), sub=1, setting=like_usual(noise_mgal=4.0), components=True)
    assert crust.components["noise"].std() == pytest.approx(4.0, rel=0.15)


def test_same_seed_same_bits_and_other_seed_other_crust():
    one, two, other = (make_crust(seed, (40, 56)) for seed in (5, 5, 6))
    assert one.gravity.values.tobytes() == two.gravity.values.tobytes()
    assert one.truth.tobytes() == two.truth.tobytes()
    assert one.cover_thickness_m.tobytes() == two.cover_thickness_m.tobytes()
    assert one.stack.contrast.tobytes() == two.stack.contrast.tobytes()
    assert (one.truth != other.truth).mean() > 0.3
    assert one.parameters == two.parameters


def test_one_parameter_changes_one_thing():
    usual = make_crust(5, (48, 64), sub=1, components=True)
    louder = make_crust(5, (48, 64), sub=1, components=True, setting=like_usual(noise_mgal=3.0))
    np.testing.assert_array_equal(usual.truth, louder.truth)
    np.testing.assert_allclose(2 * usual.components["noise"], louder.components["noise"], rtol=1e-5)
    np.testing.assert_array_equal(usual.components["bedrock"], louder.components["bedrock"])
    covered = make_crust(5, (48, 64), sub=1, setting=like_usual(cover_share=0.8))
    np.testing.assert_array_equal(usual.truth, covered.truth)


def test_cover_can_be_independent_of_uplift():
    """Without correlation to the uplift the cover is elsewhere."""
    tied, loose = (make_crust(2, (96, 128), sub=1, setting=like_usual(cover_on_uplift=tie)) for tie in (1.0, 0.0))
    np.testing.assert_array_equal(tied.truth, loose.truth)
    for crust in (tied, loose):
        assert (crust.surface == 0).mean() == pytest.approx(USUAL.cover_share, abs=1e-3)
    together = ((tied.surface == 0) & (loose.surface == 0)).mean()
    assert together == pytest.approx(USUAL.cover_share**2, abs=0.12)


def test_the_collar_is_the_same_field_farther_out():
    """Without noise the field of the region does not change, and the collar continues it; components add up to it."""
    quiet = like_usual(noise_mgal=0.0)
    plain = make_crust(6, (40, 56), sub=2, setting=quiet)
    wide = make_crust(6, (40, 56), sub=2, setting=quiet, collar=30, components=True)
    assert plain.around is None
    assert wide.around.shape == (100, 116)
    np.testing.assert_array_equal(plain.gravity.values, wide.gravity.values)
    np.testing.assert_array_equal(wide.around.values[30:-30, 30:-30], wide.gravity.values)
    np.testing.assert_allclose(wide.around.lat[30:-30], plain.gravity.lat, rtol=1e-12)
    np.testing.assert_allclose(wide.around.lon[30:-30], plain.gravity.lon, rtol=1e-12)
    np.testing.assert_allclose(sum(wide.components.values()), wide.gravity.values, atol=1e-4)
    # No step at the region's sides: the change across them is as any other there.
    steps = np.abs(np.diff(wide.around.values, axis=0)).mean(axis=1)
    assert steps[29] < 2 * np.median(steps[20:40])


def test_no_part_of_a_root_is_lost():
    """Mass per area of the layers is the contrast times the departure from the mean, from 24 km down to 85."""
    moho_km = np.linspace(24, 85, 62)[None, :]
    for mean_km in (36.0, 45.0, 60.0):
        layers = list(moho_layers(moho_km, mean_km, 380.0))
        mass = sum((layer.bottom_m - layer.top_m) * layer.contrast for layer in layers)
        np.testing.assert_allclose(mass, 380.0 * 1000 * (mean_km - moho_km), atol=1e-6)


def test_a_deeper_moho_is_smoother():
    """Attraction dies as exp(-k z): the same relief lower down is a weaker and smoother field."""
    options = {"shape": (120, 160), "sub": 1, "components": True}
    fields = [
        make_crust(1, setting=like_usual(moho_depth_km=depth), **options).components["moho"] for depth in (40.0, 60.0)
    ]
    spread = [field.std() for field in fields]
    slope = [np.hypot(*np.gradient(field)).std() for field in fields]
    assert 0.6 < spread[1] / spread[0] < 0.97
    assert slope[1] / slope[0] < spread[1] / spread[0]


def test_low_pass_takes_short_waves_only():
    options = {"shape": (96, 128), "sub": 1}
    rough, smooth = (
        make_crust(4, setting=like_usual(noise_mgal=0.0, low_pass_km=0.0), **options),
        make_crust(4, setting=like_usual(noise_mgal=0.0, low_pass_km=55.0), **options),
    )
    change = rough.gravity.values - smooth.gravity.values
    assert change.std() > 1
    assert np.abs(change.mean()) < 0.2 * change.std()
    assert rough.gravity.values.std() == pytest.approx(smooth.gravity.values.std(), rel=0.05)


def test_finer_building_changes_the_field_little():
    coarse, fine = (
        make_crust(8, (64, 80), sub=sub, setting=like_usual(noise_mgal=0.0), components=True) for sub in (1, 2)
    )
    # The same fields are sampled more finely; the geology stays what it was but for its finest grain, and for the
    # intrusives once the share is filled by another body.
    assert (coarse.stack.belt_class == fine.stack.belt_class).mean() > 0.85
    assert (coarse.truth == fine.truth).mean() > 0.6
    difference = coarse.components["moho"] - fine.components["moho"]
    assert difference.std() < 0.05 * coarse.components["moho"].std()


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 3), {}),
        ((7, 5), {"sub": 3}),
        ((41, 97), {"sub": 1, "spacing_deg": 1 / 60}),
        ((30, 30), {"south_west": (-70.0, -35.0)}),
    ],
)
def test_any_size_and_place(shape, options):
    crust = make_crust(1, shape, components=True, **options)
    assert crust.gravity.shape == crust.truth.shape == crust.surface.shape == crust.cover_thickness_m.shape == shape
    assert crust.stack.base_km.shape == (6, *shape)
    assert np.isfinite(crust.gravity.values).all()
    assert all(part.shape == shape for part in crust.components.values())


def test_grid_is_canonical():
    crust = make_crust(0, (30, 45), (82.0, 43.0), sub=1)
    grid = crust.gravity
    assert grid.dims == ("lat", "lon")
    assert grid.dtype == np.float32
    np.testing.assert_allclose(grid.lat, 43 + (np.arange(30) + 0.5) / 30, rtol=1e-13)
    np.testing.assert_allclose(grid.lon, 82 + (np.arange(45) + 0.5) / 30, rtol=1e-13)
    assert grid.attrs["units"] == "mGal"
    assert grid.attrs["height_m"] == 0
    assert grid.rio.crs.to_epsg() == 4326
    assert crust.bounds_wsen == pytest.approx((82, 43, 83.5, 44))


def test_both_ways_of_computing_gravity_agree(monkeypatch):
    options = {"shape": (60, 72), "spacing_deg": 1 / 15, "sub": 1, "margin": 20, "components": True}
    plane = make_crust(9, **options)
    monkeypatch.setattr(crust_module, "TALLEST_PLANE_DEG", 0.0)
    sphere = make_crust(9, **options)
    assert (plane.parameters["operator"], sphere.parameters["operator"]) == ("plane", "latitude-variable")
    np.testing.assert_array_equal(plane.truth, sphere.truth)
    for name, part in plane.components.items():
        difference = sphere.components[name] - part
        assert (difference - difference.mean()).std() < 0.04 * part.std() + 0.02, name
        assert abs(difference.mean()) < 0.1 * part.std() + 0.05, name


def test_a_tall_region_takes_the_latitude_variable_operator():
    crust = make_crust(2, (45, 30), (70.0, 40.0), 1 / 3, sub=1, margin=6)
    assert crust.parameters["operator"] == "latitude-variable"
    assert np.isfinite(crust.gravity.values).all()
    assert 10 < crust.gravity.values.std() < 90


def test_statistics_are_like_those_of_real_regions(several):
    """The ranges of crust.md section 4, a little wider: four smaller crusts stand for all."""
    spread = [crust.gravity.values.std() for crust in several]
    assert 28 < np.mean(spread) < 55
    residuals = [
        (crust.gravity - upward_continue(crust.gravity, 10e3)).values[15:-15, 15:-15].std() for crust in several
    ]
    assert 5.5 < np.mean(residuals) < 8.0
    cover = np.concatenate([crust.cover_thickness_m[crust.surface == 0] for crust in several])
    assert 1500 < cover.mean() < 2400
    assert 0.2 < (cover > 2000).mean() < 0.4


def test_nearest_outcrop_scores_as_on_real_data(several):
    """39 PA / 36 MPA / 24 FWIoU on the prototype, 41 / 30 / 26 on held-out blocks of a real map."""
    right, far = [], []
    for crust in several:
        hidden = crust.surface == 0
        distance, (row, column) = distance_transform_edt(hidden, sampling=(3.7, 2.6), return_indices=True)
        right.append((crust.surface[row, column] == crust.truth)[hidden])
        far.append(distance[hidden])
    right, far = np.concatenate(right), np.concatenate(far)
    assert 0.30 < right.mean() < 0.50
    assert right[far < 10].mean() > 2 * right[far > 30].mean()
    assert 12 < np.median(far) < 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "negative"),
        ({"shape": (1, 30)}, "too small"),
        ({"spacing_deg": 0.0}, "spacing_deg is 0"),
        ({"sub": 0}, "sub is 0"),
        ({"margin": 0}, "margin is 0"),
        ({"collar": 40}, "collar"),
        ({"setting": like_usual(cover_share=1.2)}, "cover_share"),
        ({"setting": like_usual(shares_percent=(10.0,) * 9)}, "shares_percent"),
        ({"setting": like_usual(belt_width_km=-5.0)}, "belt_width_km"),
        ({"south_west": (82.0, 76.0), "shape": (60, 60)}, "span latitudes"),
    ],
)
def test_invalid_settings_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        make_crust(**options)
