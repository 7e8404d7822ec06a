"""A workspace made from a crust, held against crusts of its own prior and of others."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import gravmap_cli
from gravmap.errors import InputError, OptionError
from gravmap.geology import load_legend
from gravmap.geology.labels import write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.gravity import open_fields, residual_fields, write_fields
from gravmap.plotting import GREEN
from gravmap.prior_check import prior_verdict, statistics
from gravmap.prior_check.check import run_verdict
from gravmap.prior_check.picture import draw_verdict
from gravmap.prior_check.verdict import INSIDE, OUTSIDE, compare_quantities, overall_state
from gravmap.regions import Region
from gravmap.synthetic import draw_crust, load_prior
from gravmap.synthetic.measured import Measuring
from gravmap.synthetic.prior import Draw

SHAPE = (96, 96)
COUNT = 16
STEP = round(1 / 30, 12)
PRIOR = load_prior()


def lay(folder, crust, heights=(10e3,), factor=1.0, classes=None):
    """The fields and labels that the commands would make of a crust."""
    grid = crust.around.copy(data=factor * crust.around.values)
    write_fields(residual_fields(grid, heights, Region(*crust.bounds_wsen)), folder / "data" / "fields.nc")
    legend = load_legend("crust")
    write_legend(legend, folder / "data" / "labels.legend.toml")
    write_index_raster(folder / "data" / "labels.tif", crust.surface[::-1], crust.bounds_wsen, legend, tags={})
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("crusts")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("workspace")
    (root / "data").mkdir()
    return lay(root, draw_crust(PRIOR, 500, SHAPE))


def judge(root, cache, prior=PRIOR, **options):
    data = root / "data"
    return prior_verdict(data / "fields.nc", data / "labels.tif", prior, count=COUNT, cache=cache, **options)


def test_a_crust_of_the_prior_is_inside(place, cache):
    found = judge(place, cache)
    assert found.state == INSIDE
    assert found.shape == SHAPE
    assert sum(found.leave_one_out.values()) == COUNT
    here = {each.quantity.key: each.middle for each in found.places}
    crust = draw_crust(PRIOR, 500, SHAPE)
    assert here["bouguer_std"] == pytest.approx(float(crust.gravity.std()), rel=1e-4)
    # Of area: cells are narrower in the north. The ellipsoid differs little from a sphere.
    weight = np.cos(np.radians(crust.gravity["lat"].values))
    by_area = 100 * np.average((crust.surface == 0).mean(axis=1), weights=weight)
    assert here["cover_share"] == pytest.approx(by_area, abs=1e-3)
    assert "slope_400_100" not in here  # 355 km do not hold it
    told = "\n".join(found.lines())
    assert told.startswith("Inside the prior central-asia")
    assert "gravmap residual --height 5km --height 10km" in told


def test_three_times_the_gravity_is_outside(tmp_path, cache):
    (tmp_path / "data").mkdir()
    found = judge(lay(tmp_path, draw_crust(PRIOR, 500, SHAPE), factor=3.0), cache)
    assert found.state == OUTSIDE
    off = {each.quantity.key for each in found.places if each.state == OUTSIDE}
    assert {"residual_10km_std", "bouguer_range"} <= off
    # The factor changes neither the slopes nor the map.
    assert not {key for key in off if key.startswith(("slope", "cover", "outcrop", "share", "diffusion"))}
    advice = " ".join(found.advice)
    assert "stronger anomalies" in advice
    assert "[class]" not in advice  # a geologist reads it
    assert "--init RUN`" in advice
    assert "--init mine`" in " ".join(replace(found, run="mine").advice)
    assert all(word in found.remedy for word in ("--prior wide", "[class] spread"))


@pytest.mark.slow
def test_lows_over_outcrop_are_found_where_crusts_have_them_over_cover(tmp_path):
    """Gravity with its sign turned has the same spreads, and says the opposite of what a network was taught."""
    (tmp_path / "data").mkdir()
    rootless = replace(PRIOR, draws=PRIOR.draws | {"moho.root_km": Draw("fixed", 0.0, 0.0, 0.0, 0.0)})
    found = judge(lay(tmp_path, draw_crust(rootless, 500, SHAPE), factor=-1.0), None, rootless)
    by_key = {each.quantity.key: each for each in found.places}
    turned = by_key["residual_10km_outcrop"]
    assert turned.middle < min(turned.crusts)
    assert turned.state != INSIDE
    assert by_key["residual_10km_std"].state == INSIDE
    assert found.state != INSIDE
    assert "root_km" in found.remedy


def test_the_crusts_are_kept(place, cache, monkeypatch):
    first = judge(place, cache)

    def never(*_, **__):
        raise AssertionError("a crust was made again")

    monkeypatch.setattr(statistics, "draw_crust", never)
    again = judge(place, cache)
    assert again.to_dict() == first.to_dict()
    with pytest.raises(AssertionError, match="made again"):
        judge(place, cache, load_prior("wide"))
    kept = sorted(cache.glob("*.json"))[0]
    whole = kept.read_text()
    kept.write_text(whole[:40])
    with pytest.raises(AssertionError, match="made again"):
        judge(place, cache)
    kept.write_text(whole)


@pytest.mark.slow
def test_crusts_are_measured_at_the_height_of_the_field(place, tmp_path, cache):
    """The same crust 10 km higher and on 6 arc-minutes: fainter, and inside all the same."""
    (tmp_path / "data").mkdir()
    crust = draw_crust(PRIOR, 500, SHAPE)
    raised = residual_fields(crust.around, [10e3])["regional_10km"].assign_attrs(height_m=10_000.0)
    thin = raised.isel(lat=slice(0, None, 3), lon=slice(0, None, 3))
    write_fields(residual_fields(thin, [10e3], Region(*crust.bounds_wsen)), tmp_path / "data" / "fields.nc")
    shutil.copy(place / "data" / "labels.tif", tmp_path / "data")
    shutil.copy(place / "data" / "labels.legend.toml", tmp_path / "data")
    ground, high = Measuring(0.0, (STEP, STEP), (10e3,)), Measuring(10e3, (0.1, 0.1), (10e3,))
    on_ground = statistics.simulated_statistics(PRIOR, range(COUNT), SHAPE, ground, cache=cache)
    for root, how in ((place, ground), (tmp_path, high)):
        found = judge(root, cache)
        assert found.state == INSIDE
        (same,) = statistics.simulated_statistics(PRIOR, [500], SHAPE, how)
        here = {each.quantity.key: each.middle for each in found.places}
        assert {"bouguer_std", "residual_10km_std", "residual_10km_robust", "diffusion_score"} <= here.keys()
        for key, value in here.items():
            # Boxes of 6 arc-minutes hang over a crust by part of a cell: a small class may lose some of its ground, the
            # means over outcrop and over cover are of other nodes, and the covers that hide outcrop from the diffusion
            # fall on other cells.
            coarse = key.startswith("share") or key.endswith("_outcrop")
            most = 5.0 if key == "diffusion_score" else 0.4 if coarse else 0.1
            assert value == pytest.approx(same[key], rel=0.04, abs=most), key
        # Against crusts on the ground the high one would have been refused.
        judged = compare_quantities([each.quantity for each in found.places], [same], on_ground)
        assert (overall_state(judged) == INSIDE) == (root == place)


@pytest.mark.slow
def test_coarse_field_at_ground_level_is_not_compared(place, tmp_path, cache):
    (tmp_path / "data").mkdir()
    crust = draw_crust(PRIOR, 500, SHAPE)
    thin = crust.around.isel(lat=slice(0, None, 6), lon=slice(0, None, 6))
    write_fields(residual_fields(thin, [10e3], Region(*crust.bounds_wsen)), tmp_path / "data" / "fields.nc")
    for name in ("labels.tif", "labels.legend.toml"):
        shutil.copy(place / "data" / name, tmp_path / "data")
    found = judge(tmp_path, cache)
    assert {each.quantity.group for each in found.places} == {"cover", "geology", "classes"}
    assert any("arc-minutes apart" in reason for reason in found.left_out)


def test_part_of_the_region(place, cache):
    bounds = draw_crust(PRIOR, 500, SHAPE).bounds_wsen
    west, south, _, _ = bounds
    found = judge(place, None, region=Region(west, south, west + 2.1, south + 2.1))
    assert all(60 <= side <= 64 for side in found.shape)
    with pytest.raises(InputError, match="smallest crust"):
        judge(place, cache, region=Region(west, south, west + 1.5, south + 2.5))


@pytest.mark.slow
def test_progress_reports_boxes_then_crusts(place, monkeypatch):
    monkeypatch.setattr(statistics, "MAX_SHAPE", (60, 60))  # 96 cells hold three of these, each half over the next
    told = []
    found = judge(place, None, progress=lambda done, total, note="": told.append((done, total, note)))
    assert len(found.boxes) == 9
    assert {total for _, total, _ in told} == {9 + COUNT}
    assert [(done, note) for done, _, note in told] == [
        *((number, f"part {number} of 9 of the region") for number in range(1, 10)),
        *((9 + made, "crusts of central-asia") for made in range(COUNT + 1)),
    ]


def test_what_is_missing_is_named(place, tmp_path, cache):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="gravmap rasterize"):
        judge(tmp_path, cache)
    shutil.copy(place / "data" / "labels.tif", tmp_path / "data")
    with pytest.raises(InputError, match="gravmap residual"):
        judge(tmp_path, cache)
    with pytest.raises(InputError, match=r"lacks residual_20km.*\n.*--height 10km --height 20km"):
        judge(place, cache, channels=["residual_10km", "residual_20km"])
    with pytest.raises(OptionError, match="too few"):
        prior_verdict(place / "data" / "fields.nc", place / "data" / "labels.tif", PRIOR, count=3)


def test_a_map_that_is_nowhere_known_leaves_the_gravity(place, tmp_path, cache):
    (tmp_path / "data").mkdir()
    shutil.copy(place / "data" / "fields.nc", tmp_path / "data")
    legend = load_legend("crust")
    write_legend(legend, tmp_path / "data" / "labels.legend.toml")
    bounds = draw_crust(PRIOR, 500, SHAPE).bounds_wsen
    write_index_raster(tmp_path / "data" / "labels.tif", np.full(SHAPE, 255, np.uint8), bounds, legend, tags={})
    found = judge(tmp_path, cache)
    assert {each.quantity.group for each in found.places} == {"gravity", "residuals", "spectrum"}
    fields = open_fields(tmp_path / "data" / "fields.nc")
    empty = fields.map(lambda each: xr.full_like(each, np.nan), keep_attrs=True).assign_attrs(fields.attrs)
    write_fields(empty, tmp_path / "data" / "fields.nc")
    with pytest.raises(InputError, match="No part of the region"):
        judge(tmp_path, cache)


def test_run_verdict_uses_the_recorded_prior(place, cache):
    data = place / "data"
    taught = {
        "on": "crusts",
        "prior": {"name": PRIOR.name, "sha256": PRIOR.sha256, "text": PRIOR.text},
        "channels": ["residual_10km", "outcrop_1"],
    }
    found = run_verdict(taught, data / "fields.nc", data / "labels.tif", count=COUNT, cache=cache)
    assert found.prior_sha256 == PRIOR.sha256
    (reason,) = found.left_out
    assert reason.startswith("slope 400-100 km: ")
    assert run_verdict({"on": "region"}, data / "fields.nc", data / "labels.tif") is None
    with pytest.raises(InputError, match="residual_40km"):
        run_verdict(taught | {"channels": ["residual_40km"]}, data / "fields.nc", data / "labels.tif")


def test_the_picture_shows_every_quantity(place, cache, tmp_path):
    from PIL import Image, ImageColor

    found = judge(place, cache)
    draw_verdict(found, tmp_path / "one.png", dpi=40)
    with Image.open(tmp_path / "one.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert ImageColor.getrgb(GREEN) in colours, "what lies among the crusts"
    assert list(tmp_path.iterdir()) == [tmp_path / "one.png"]


def test_the_command_prints_and_draws_the_verdict(place, cache):
    shutil.copytree(cache, place / "data" / "crusts")
    count = ("--count", str(COUNT))

    def call(*words):
        return CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(place), *words])

    done = call("prior-check", *count)
    assert done.exit_code == 0, done.output
    assert "Inside the prior central-asia" in done.output
    picture = place / "data" / "prior-central-asia.png"
    drawn = picture.read_bytes()
    assert call("prior-check", *count).exit_code == 3  # the picture exists
    read = call("prior-check", *count, "--overwrite", "--json")
    verdict = json.loads(read.stdout)
    assert verdict["state"] == INSIDE
    assert {"quantity", "here", "crusts", "percentile", "state"} <= verdict["quantities"][0].keys()
    assert call("prior-check", "--prior", "middle-earth").exit_code == 2

    # The command's name of earlier versions.
    old = call("doctor", "--prior", "central-asia", *count, "--overwrite", "--json")
    assert old.stdout == read.stdout
    assert picture.read_bytes() == drawn
    assert old.stderr.count("prior-check") == 1
    alone = call("doctor", "--count", "20")
    assert alone.exit_code == 2
    assert "gravmap prior-check" in alone.output
