"""The thickness of the cover, from a network whose thickness is a known function of gravity to every file of a map."""

import json
from html import unescape
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import xarray as xr

from gravmap.files import write_json
from gravmap.geology.labels import LabelFile
from gravmap.gravity import write_fields
from gravmap.learning.calibration.thickness import ThicknessInterval
from gravmap.mapping import Options, predict, verify
from gravmap.mapping.files.layer_file import quantise
from gravmap.mapping.layers import UNDER_COVER, UNMAPPED
from gravmap.mapping.page.facts import gather
from gravmap.mapping.page.maps import thickness_map
from gravmap.mapping.page.report import write_report
from gravmap.mapping.prediction import _warn_of_thick_cover
from gravmap.mapping.predictor import Predictor
from gravmap.mapping.record.raster_content import fraction_thicker
from gravmap.regions import Region
from toys.map import BOX, layers, same
from toys.outcrop import make_context_run, make_labels, make_thickness_run, planted_thickness_m

INTERVAL = ThicknessInterval(below=0.5, above=2.0)
LAT, LON = np.arange(42, 48 + 1e-9, 0.1), np.arange(79, 86 + 1e-9, 0.1)


def residual(lat, lon):
    """Grows to the east, where the thickness is nearly linear in it, so that interpolation changes little."""
    return np.broadcast_to(8 * (lon - 78)[None, :], (lat.size, lon.size)).astype(np.float32)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("thickness")
    grid = {"lat": LAT, "lon": LON}
    field = xr.DataArray(residual(LAT, LON), grid, ("lat", "lon"), attrs={"units": "mGal", "height_m": 0.0})
    recipe = {"quantity": "bouguer", "unit": "mGal", "heights_m": [10000.0], "spacing_deg": [0.1, 0.1]}
    attrs = {"gravmap_recipe": json.dumps(recipe), "gravmap_sources": "[]"}
    fields = xr.Dataset({"bouguer": field, "residual_10km": field}, attrs=attrs)
    write_fields(fields, root / "fields.nc")
    values = make_labels(root / "labels.tif")
    values[:, 70:76] = 255  # 82.5 to 82.8 E
    make_labels(root / "labels.tif", values=values)
    make_thickness_run(root / "planted", fields, INTERVAL)
    make_thickness_run(root / "uncalibrated", fields)
    make_context_run(root / "classes", fields)
    return root


def make(project, folder, *runs, region=BOX, **options):
    runs = [project / run for run in runs or ("planted",)]
    return predict(
        project / "fields.nc", runs, region, project / folder, labels_path=project / "labels.tif",
        options=Options(**{"device": "cpu", "scales_deg": (5.0,)} | options),
    )  # fmt: skip


def thickness(folder):
    with rasterio.open(folder / "cover_thickness.tif") as raster:
        return raster.read(masked=True)


def planted(lat, lon, interval=INTERVAL):
    median, low, high = planted_thickness_m(residual(lat, lon))
    return np.stack([median, median - interval.below * (median - low), median + interval.above * (high - median)])


@pytest.fixture(scope="module")
def mapped(project):
    """A whole map, with its report and record; its pictures, which take seconds, are tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gravmap.mapping.finish.draw_pictures", lambda *_, **__: None)
        return make(project, "map")


def test_the_raster_is_the_planted_function_under_cover_and_empty_elsewhere(mapped, project):
    found = thickness(mapped.folder)
    grid = mapped.plan.grid
    with LabelFile(project / "labels.tif") as labels:
        surface = labels.sample(grid.lat_deg, grid.lon_deg)
    assert {0, 255} < set(np.unique(surface))
    for band in found:
        assert (band.mask == (surface != 0)).all()
    expected = planted(grid.lat_deg, grid.lon_deg)
    assert np.abs(found - expected)[:, surface == 0].max() < 4  # metres: it is not quite linear between nodes
    with rasterio.open(mapped.folder / "cover_thickness.tif") as raster:
        assert raster.descriptions == ("median", "p10", "p90")
        assert (set(raster.units), set(raster.dtypes), raster.nodata) == ({"m"}, {"uint16"}, 65535)
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.tags(1)["STATISTICS_MAXIMUM"] == str(found[0].max())


def test_class_layers_are_those_of_a_network_without_it(project, rasters_this_time):
    """The planted network has class scores of zero, as an untrained one: neither map knows of the other's output."""
    make(project, "one", "uncalibrated", flips=True)
    make(project, "other", "classes", flips=True)
    assert same(layers(project / "one"), layers(project / "other"))
    assert not (project / "other" / "cover_thickness.tif").exists()


def test_flips_window_sizes_and_blocks_are_blended_as_logits_are(project, mapped, rasters_this_time):
    made = make(project, "flipped", flips=True, scales_deg=(2.5, 5.0))
    found, expected = thickness(made.folder), planted(made.plan.grid.lat_deg, made.plan.grid.lon_deg)
    assert np.abs(found - expected).max() < 4
    assert (found.mask == thickness(mapped.folder).mask).all()


def test_of_an_ensemble_the_quantiles_are_the_mean_over_those_that_have_them(project, rasters_this_time):
    made = make(project, "both", "planted", "classes", "uncalibrated")
    assert made.plan.thickness_runs == (0, 2)
    lat, lon = made.plan.grid.lat_deg, made.plan.grid.lon_deg
    expected = (planted(lat, lon) + planted(lat, lon, ThicknessInterval())) / 2
    assert np.abs(thickness(made.folder) - expected).max() < 4


@pytest.mark.parametrize("options", [{"everywhere": True}, {"fill_unmapped": True}])
def test_outcrop_and_unmapped_ground_stay_empty(project, mapped, rasters_this_time, options):
    name = next(iter(options))
    made = make(project, name, **options)
    assert (thickness(made.folder).mask == thickness(mapped.folder).mask).all()


def test_in_another_projection_it_is_no_data_where_the_evidence_says_so(project, rasters_this_time):
    make(project, "utm", crs="EPSG:32645")
    evidence = layers(project / "utm")["evidence"][0]
    found = thickness(project / "utm")
    assert (found.mask[0] == ~np.isin(evidence, UNDER_COVER)).all()
    assert (evidence == UNMAPPED).any()
    assert (found[1] <= found[0]).all()
    assert (found[0] <= found[2]).all()


def test_the_plan_counts_its_cells(project):
    with (
        Predictor(project / "fields.nc", project / "planted", "cpu") as with_it,
        Predictor(project / "fields.nc", project / "classes", "cpu") as without,
    ):
        plans = [each.plan(Region(81, 44, 82, 45), [5.0]) for each in (with_it, without)]
    assert plans[0].window_bytes(5.0) / plans[1].window_bytes(5.0) == pytest.approx(13 / 10)
    assert plans[0].disk_bytes > plans[1].disk_bytes


def test_stored_metres():
    assert quantise(np.array([0.4, 812.6, 1e6, np.nan]), 1.0, "uint16").tolist() == [0, 813, 65534, 65535]


def test_record_item_and_style_know_it(mapped):
    folder = mapped.folder
    record = json.loads((folder / "provenance.json").read_text())
    found = thickness(folder)
    assert record["cover_thickness"]["cells"] == found[0].count()
    assert record["settings"]["thickness_intervals"] == [INTERVAL.to_dict()]
    for band, mean in zip(found, record["cover_thickness"]["mean_m"].values(), strict=True):
        assert mean == pytest.approx(band.mean(), rel=0.01)  # there weighted by area
    item = json.loads((folder / "item.json").read_text())
    bands = item["assets"]["cover_thickness"]["bands"]
    assert [(band["name"], band["unit"], band["nodata"]) for band in bands] == [
        (name, "m", 65535) for name in ("median", "p10", "p90")
    ]
    assert "regression" in item["properties"]["mlm:tasks"]
    style = (folder / "cover_thickness.qml").read_text()
    top = 500 * -(-int(found[0].max()) // 500)
    assert f'classificationMax="{top}"' in style


def contradictions(folder):
    (checked,) = verify(folder)
    return {finding.what: finding.detail for finding in checked.findings if finding.state == "disagrees"}


def test_verify_finds_a_thickness_that_contradicts_itself_the_evidence_or_the_record(mapped):
    folder = mapped.folder
    assert contradictions(folder) == {}
    what = "thickness of the cover of every cell"
    path = folder / "cover_thickness.tif"
    whole = path.read_bytes()
    rows, columns = np.nonzero(~thickness(folder)[0].mask)
    outcrop = tuple(each[0] for each in np.nonzero(thickness(folder)[0].mask))
    covered = int(rows[0]), int(columns[0])

    def edited(change):
        with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
            values = raster.read()
            change(values)
            raster.write(values)
        try:
            return contradictions(folder)[what]
        finally:
            path.write_bytes(whole)

    def put(at, value, bands=slice(None)):
        def change(values):
            values[(bands, *at)] = value

        return change

    assert "not between p10 and p90" in edited(put(covered, 60000, 0))
    assert "only some of the bands" in edited(put(covered, 65535, 2))
    assert "without cover, or none under cover" in edited(put(outcrop, 500))
    assert "without cover, or none under cover" in edited(put(covered, 65535))

    def thinner(values):
        values[values != 65535] //= 2

    assert "the mean of median is" in edited(thinner)


def section(html):
    return unescape(html.split('<section id="thickness">')[1].split("</section>")[0]).replace("\u202f", " ")


def test_the_page_shows_the_median_its_interval_and_the_score_on_crusts(mapped, project):
    scores = {"nodes": 9, "rmse_m": 612.3, "bias_m": 1.0, "rank_correlation": 0.9, "coverage": 0.812}
    write_json(project / "planted" / "scores.json", {"test": {"pa": 0.5, "places": 9, "thickness": {"all": scores}}})
    try:
        facts = gather(mapped.folder, runs=[project / "planted"], tiles=None)
    finally:
        (project / "planted" / "scores.json").unlink()
    found = thickness_map(facts)
    assert [each["title"] for each in found["maps"]] == ["Median", "Width of the 80 % interval"]
    raster = thickness(mapped.folder)
    assert found["maps"][0]["median"] == pytest.approx(np.ma.median(raster[0]))
    assert found["thickest"]["median"] == raster[0].max()
    assert (found["scores"][0]["rmse_m"], found["scores"][0]["coverage"]) == (612.3, 0.812)
    text = section((mapped.folder / "report.html").read_text())
    assert text.count("<svg") == 2
    assert "was not scored on simulated crusts" in text  # the run of this map has no scores
    assert " m or more" in text


def test_without_this_output_the_page_says_why(project, rasters_this_time):
    made = make(project, "plain", "classes")
    text = section(write_report(made.folder, gather(made.folder, runs=[project / "classes"], tiles=None)).read_text())
    assert "was not trained with the thickness of the cover" in text
    assert "<svg" not in text


def test_thickness_beyond_that_of_the_training_crusts_is_reported(mapped, caplog):
    path = mapped.folder / "cover_thickness.tif"
    with rasterio.open(path) as raster:
        median = raster.read(1)
        known = median[median != raster.nodata]
    limit = float(np.percentile(known, 75))
    assert fraction_thicker(path, limit) == pytest.approx((known > limit).mean())
    assert fraction_thicker(path, float(known.max())) == 0
    for thickest_km, warned in ((limit / 1000, True), (99.0, False), (None, False)):
        caplog.clear()
        members = [SimpleNamespace(thickness_interval=ThicknessInterval(thickest_km=thickest_km))]
        _warn_of_thick_cover(path, SimpleNamespace(members=[*members, SimpleNamespace(thickness_interval=None)]))
        assert ("thicker than on any simulated crust" in caplog.text) is warned
