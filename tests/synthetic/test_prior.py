"""Priors: complete, sourced, drawn as they say, and refused when they make no sense."""

import json
import re
import tomllib
from importlib import resources

import numpy as np
import pytest
from scipy import stats

from gravmap.errors import InputError, OptionError
from gravmap.synthetic import load_prior
from gravmap.synthetic.prior import PRIORS, read_draw, read_prior

OWN = {
    name: resources.files("gravmap.synthetic").joinpath("priors", f"{name}.toml").read_text(encoding="utf-8")
    for name in PRIORS
}
CHANCES = np.linspace(0.01, 0.99, 25)


def test_the_middle_of_central_asia_is_within_published_bounds():
    rocks = load_prior().typical().rocks
    # Smithson 1971: means of metamorphic terrains lie between 2700 and 2860.
    assert 2700 <= rocks.mean[1] <= rocks.mean[0] <= 2860
    # Granite is lighter than what it intrudes; gabbro and serpentine are denser, together less than gabbro alone.
    assert rocks.mean[9] < min(rocks.mean[:7])
    assert max(rocks.mean[:7]) < rocks.mean[8] < 3030
    # Sandstone and shale, 2350 and 2400: the Mesozoic at the surface; the Cenozoic is lighter.
    assert 2350 <= rocks.reference - rocks.mesozoic_deficit <= 2400
    assert rocks.cenozoic_deficit > rocks.mesozoic_deficit
    assert load_prior().names[:2] == ("Archean", "Proterozoic")


@pytest.mark.parametrize("name", PRIORS)
def test_every_table_names_its_source_and_every_source_is_listed(name):
    table = tomllib.loads(OWN[name])
    table.pop("prior")
    listed = set(re.findall(r"^#   (\w+\d{4}) ", OWN[name], flags=re.MULTILINE))
    for part in (*table.pop("class"), *table.values()):
        assert part["source"], part
        named = set(re.findall(r"[A-Z]\w*\d{4}", part["source"])) - {"EGM2008", "WGM2012"}
        assert named <= listed, named
        assert named or "own" in part["source"] or "study area" in part["source"], part


@pytest.mark.parametrize("name", PRIORS)
def test_two_hundred_draws_stay_in_their_ranges_and_fill_them(name):
    prior = load_prior(name)
    drawn = [prior.draw(seed) for seed in range(200)]
    for key, field in (
        ("belts.width_km", "belt_width_km"),
        ("cover.share", "cover_share"),
        ("field.low_pass_km", "low_pass_km"),
        ("field.noise_mgal", "noise_mgal"),
        ("place.latitude_deg", "latitude_deg"),
    ):
        values = np.array([getattr(setting, field) for setting in drawn])
        draw = prior.draws[key]
        assert (values >= draw.low).all()
        assert (values <= draw.high).all()
        # The fraction of draws below a quantile is that quantile.
        for chance in (0.1, 0.5, 0.9):
            assert (values < draw.at(chance)).mean() == pytest.approx(chance, abs=0.1), key
    means = np.array([setting.rocks.mean for setting in drawn])
    assert (means.std(axis=0) > (20 if name == "wide" else 8)).all()
    assert np.abs(np.corrcoef(means.T) - np.eye(10)).max() < 0.3  # a class tells nothing of another
    for setting in drawn:
        assert sum(setting.shares_percent) == pytest.approx(100)
        assert setting.rocks.lens_smallest <= setting.rocks.lens_largest
        assert "NaN" not in json.dumps(setting.to_dict())


def test_wide_reaches_beyond_central_asia_on_both_sides():
    near, wide = load_prior("central-asia"), load_prior("wide")
    for key in ("belts.width_km", "cover.share", "field.low_pass_km", "field.noise_mgal", "place.latitude_deg"):
        for chance, beyond in ((0.02, np.less), (0.98, np.greater)):
            assert beyond(wide.draws[key].at(chance), near.draws[key].at(chance)), key
    for key, draw in wide.draws.items():
        assert draw.low <= near.draws[key].middle <= draw.high, key


@pytest.mark.parametrize(
    ("written", "peer"),
    [
        ([3.0, 8.0], stats.uniform(3, 5)),
        ({"log": [2.0, 50.0]}, stats.loguniform(2, 50)),
        ({"normal": [10.0, 2.0], "low": 7.0, "high": 15.0}, stats.truncnorm(-1.5, 2.5, 10, 2)),
    ],
)
def test_draws_are_those_of_scipy(written, peer):
    draw = read_draw(written, 0, 100)
    np.testing.assert_allclose([draw.at(chance) for chance in CHANCES], peer.ppf(CHANCES), rtol=1e-9)


def test_a_lognormal_is_a_normal_of_the_logarithm():
    draw = read_draw({"lognormal": [20.0, 0.4], "low": 12.0, "high": 60.0}, 0, 100)
    ends = np.log(np.array([12.0, 60.0]) / 20) / 0.4
    peer = stats.truncnorm(*ends, np.log(20), 0.4)
    np.testing.assert_allclose(np.log([draw.at(chance) for chance in CHANCES]), peer.ppf(CHANCES), rtol=1e-9)
    # Without bounds of its own it is cut where sense ends.
    assert read_draw({"lognormal": [20.0, 0.4]}, 0, 25).at(1.0) == 25
    assert read_draw({"lognormal": [20.0, 0.4]}, 0, 1e9).at(0.5) == pytest.approx(20)


def test_changing_one_distribution_does_not_change_other_draws():
    other = read_prior(OWN["central-asia"].replace("normal = [2635.0, 12.0]", "normal = [2635.0, 60.0]"), "other")
    one, two = load_prior().draw(5), other.draw(5)
    assert one.rocks.mean[9] != two.rocks.mean[9]
    assert one.rocks.mean[:9] == two.rocks.mean[:9]
    assert one.to_dict() | {"rocks": 0} == two.to_dict() | {"rocks": 0}


def test_the_hash_is_that_of_the_numbers():
    usual = load_prior()
    assert read_prior(OWN["central-asia"] + "\n# a remark\n", "x").sha256 == usual.sha256
    assert read_prior(OWN["central-asia"].replace('"slate, greywacke"', '"slate"'), "x").sha256 == usual.sha256
    assert read_prior(OWN["central-asia"].replace("2635.0", "2635.5"), "x").sha256 != usual.sha256
    assert load_prior("wide").sha256 != usual.sha256
    json.dumps(usual.to_dict())


def test_a_prior_file_can_be_given(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(OWN["central-asia"].replace("mean = { normal = [2635.0, 12.0] }", "mean = 2600"), encoding="utf-8")
    prior = load_prior(path)
    assert {prior.draw(seed).rocks.mean[9] for seed in range(5)} == {2600}
    assert prior.text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("index = 10", "index = 11"), "class 11"),
        (("index = 10", "index = 9"), "class 9 twice"),
        (("[[class]]\nindex = 1\n", "[[class]]\nindex = true\n"), "a class True"),
        (("mean = { normal = [2635.0, 12.0] }", "mean = 2.635"), r"mean of class 10 is 2.635, outside .* in kg/m3"),
        (("mean = { normal = [2635.0, 12.0] }", "mean = [2600, 9000]"), "outside"),
        (("mean = { normal = [2635.0, 12.0] }", "mean = [2700, 2600]"), "2700 to 2600"),
        (("mean = { normal = [2635.0, 12.0] }", "mean = { normal = [2635.0, -12.0] }"), "above 0"),
        (
            ("mean = { normal = [2635.0, 12.0] }", "mean = { normal = [2635.0, 12.0], low = 2700 }"),
            "outside its bounds",
        ),
        (("mean = { normal = [2635.0, 12.0] }", 'mean = "heavy"'), "expected a number"),
        (("mean = { normal = [2635.0, 12.0] }", "mean = { gamma = [1, 2] }"), "expected a number"),
        (("mean = { normal = [2635.0, 12.0] }", "mean = [2600, nan]"), "two numbers"),
        (("mean = { normal = [2635.0, 12.0] }", "mean = true"), "expected a number"),
        (("spread = 25.0", "spread = -25.0"), "outside 0"),
        (("spread = 25.0", "sprad = 25.0"), "unknown key 'sprad'"),
        (("[moho]", "[mohorovicic]"), "unknown key 'mohorovicic'"),
        (("relief_km = ", "relif_km = "), "unknown key 'relif_km'"),
        (("sigma = 0.5", ""), "lacks sigma"),
        (("share = { normal = [0.54, 0.08], low = 0.3, high = 0.78 }", "share = 48"), "outside 0 to 1"),
        (("deficit = { normal = [520.0, 50.0], low = 400.0, high = 640.0 }", "deficit = [900, 1000]\n#"), None),
        (("deficit = { normal = [290.0, 40.0], low = 190.0, high = 390.0 }", "deficit = [900, 1000]\n#"), None),
        (("[belts]", "[ophiolite]\nexcess = 130.0\n\n[belts]"), "unknown key 'ophiolite'"),
        (("density = 2670.0", "density = 2400.0"), None),
        (("[prior]", "[preface]"), r"no table \[prior\]"),
        (("mean = { normal = [2635.0, 12.0] }", "mean = "), "TOML"),
    ],
)
def test_an_invalid_prior_is_refused(tmp_path, change, expected):
    text = OWN["central-asia"].replace(*change, 1)
    assert text != OWN["central-asia"]
    if change[0] == "density = 2670.0":  # the cover is too light relative to such a reference
        text = text.replace("low = 400.0, high = 640.0", "low = 400.0, high = 1000.0").replace(
            "spread = 0.12", "spread = 0.5"
        )
        expected = "density of the cover"
    elif expected is None:
        text = text.replace("spread = 0.12", "spread = 0.5").replace("density = 2670.0", "density = 2450.0")
        expected = "density of the cover"
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=expected):
        load_prior(path)


def test_a_missing_class_is_named(tmp_path):
    path = tmp_path / "wrong.toml"
    start = OWN["wide"].index("[[class]]\nindex = 5")
    path.write_text(OWN["wide"][:start] + OWN["wide"][OWN["wide"].index("[[class]]\nindex = 6") :], encoding="utf-8")
    with pytest.raises(InputError, match="no class 5"):
        load_prior(path)


def test_a_missing_prior_is_refused(tmp_path):
    with pytest.raises(InputError, match="missing"):
        load_prior(tmp_path / "none.toml")
    with pytest.raises(OptionError, match="Did you mean 'wide'"):
        load_prior("wid")


def test_the_name_of_a_prior_is_that_of_a_folder():
    text = OWN["central-asia"].replace('name = "central-asia"', 'name = "../../x"')
    with pytest.raises(InputError, match=r"mine: '\.\./\.\./x' is not a valid name of a prior"):
        read_prior(text, "mine")
