"""The page to explore a map: every value of the files, nothing from outside, and never larger than its bound."""

import base64
import json
import re
import sys

import numpy as np
import pytest
import rasterio

from gravmap.errors import GravmapError, InputError
from gravmap.mapping.page import explore
from gravmap.mapping.page.explore import MOST_BYTES, check_map, is_current, write_explore_page
from toys.explorable import FIELDS, REGION, make_explorable

pytest.importorskip("bokeh")

RULED = '"name":"ruled"'


def data_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def values_of(data, key):
    """A layer as the page's script reads it; NaN for no data."""
    layer = next(each for each in data["layers"] if each["key"] == key)
    stored = np.frombuffer(base64.b64decode(layer["data"]), layer["type"]).reshape(data["rows"], data["columns"])
    if layer["kind"] == "classes":
        return stored
    return np.where(stored == np.iinfo(stored.dtype).max, np.nan, stored * layer["step"] + layer["least"])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore") / "map"
    whole = make_explorable(folder)
    return whole, write_explore_page(folder)


def test_every_layer_has_the_values_of_the_map(page):
    whole, written = page
    data = data_of(written.path)
    assert written.cells == (30, 45)
    assert (written.reduced, written.missing) == (1.0, [])
    assert (values_of(data, "lithology") == whole.lithology).all()
    assert (values_of(data, "null_model") == whole.classes["null_model"]).all()
    assert (values_of(data, "evidence") == whole.evidence).all()
    for number, name in enumerate(FIELDS):
        np.testing.assert_allclose(values_of(data, name), whole.gravity_mgal[number], atol=0.0101)
    np.testing.assert_allclose(values_of(data, "thickness_p90"), whole.cover_m[2], atol=0.51)
    np.testing.assert_allclose(values_of(data, "outcrop_distance"), np.maximum(whole.outcrop_km, 0), atol=0.026)
    np.testing.assert_allclose(values_of(data, "entropy"), whole.uncertainty["entropy"], atol=0.0026)
    for index, plane in enumerate(whole.probability, start=1):
        np.testing.assert_allclose(values_of(data, f"probability_{index}"), plane, atol=0.0026)


def test_classes_have_the_colours_and_ages_of_the_legend(page):
    classes = data_of(page[1].path)["layers"][0]["classes"]
    archean = classes[0]
    assert (archean["name"], archean["colour"]) == ("Archean", "#F0047F")
    assert archean["age"].endswith("Ma")
    present = {each["index"] for each in classes if each["present"]}
    assert present == set(np.unique(page[0].lithology).tolist()) - {255}


def test_the_page_fetches_nothing_and_shows_names_as_text(page):
    text = page[1].path.read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    assert not re.search(r"<(script|link|img)[^>]* (src|href)=", text)
    assert REGION not in text
    assert "Upper &lt;ili&gt; &amp; co" in text


def test_twelve_by_eight_degrees_stay_under_15_mb(tmp_path):
    make_explorable(tmp_path / "map", 240, 360)
    written = write_explore_page(tmp_path / "map")
    assert (written.cells, written.reduced) == ((240, 360), 1.0)
    assert written.path.stat().st_size < MOST_BYTES


def test_a_larger_map_is_reduced_to_the_bound(tmp_path, monkeypatch):
    make_explorable(tmp_path / "map", 60, 90)
    whole = write_explore_page(tmp_path / "map").path.stat().st_size
    monkeypatch.setattr(explore, "MOST_BYTES", whole - 60_000)
    monkeypatch.setattr(explore, "_DATA_BYTES", 150_000)
    written = write_explore_page(tmp_path / "map")
    assert written.path.stat().st_size <= whole - 60_000
    assert written.reduced > 1.2
    assert written.cells[1] == int(90 / written.reduced)
    assert "Shown with one cell for" in written.path.read_text(encoding="utf-8")


def test_a_map_of_an_earlier_version_is_shown_without_what_it_lacks(tmp_path):
    make_explorable(tmp_path / "map")
    for name in ("gravity", "outcrop_distance", "null_model", "cover_thickness"):
        (tmp_path / "map" / f"{name}.tif").unlink()
    written = write_explore_page(tmp_path / "map")
    assert written.missing == ["gravity.tif"]  # the others are not in every map
    keys = {layer["key"] for layer in data_of(written.path)["layers"]}
    assert "lithology" in keys
    assert not keys & {"null_model", "residual_10km", "outcrop_distance", "thickness_median"}


def test_a_map_predicted_everywhere_has_no_ruling(page, tmp_path):
    assert RULED in page[1].path.read_text(encoding="utf-8")
    tags = {"GRAVMAP_CONTENT": "bedrock class predicted everywhere"}
    make_explorable(tmp_path / "map", tags=tags)
    text = write_explore_page(tmp_path / "map").path.read_text(encoding="utf-8")
    assert "Predicted everywhere." in text
    assert data_of(tmp_path / "map" / "explore.html")["everywhere"] is True
    assert RULED not in text


def test_a_projected_map_is_shown_in_degrees(tmp_path):
    make_explorable(tmp_path / "map", crs="EPSG:32645")
    with rasterio.open(tmp_path / "map" / "lithology.tif") as raster:
        assert raster.crs.is_projected
    west, south, east, north = data_of(write_explore_page(tmp_path / "map").path)["bounds"]
    assert (west, north) == (pytest.approx(81.0, abs=0.1), pytest.approx(48.0, abs=0.1))
    assert (east, south) == (pytest.approx(82.5, abs=0.1), pytest.approx(47.0, abs=0.1))


def test_a_page_is_current_until_the_map_is_made_anew(page, tmp_path):
    written = page[1]
    record = check_map(written.path.parent)
    assert is_current(written.path, record)
    assert not is_current(written.path, record | {"created": "2026-11-24T01:00:00+00:00"})
    assert not is_current(tmp_path / "none.html", record)


def test_no_map_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"there is no lithology\.tif"):
        write_explore_page(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        write_explore_page(tmp_path / "none")
    make_explorable(tmp_path / "map")
    record = json.loads((tmp_path / "map" / "provenance.json").read_text())
    (tmp_path / "map" / "provenance.json").write_text(json.dumps(record | {"format": 2}))
    with pytest.raises(InputError, match="of format 2"):
        write_explore_page(tmp_path / "map")
    assert not list(tmp_path.rglob("*.html"))


def test_without_bokeh_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    make_explorable(tmp_path / "map")
    monkeypatch.setitem(sys.modules, "bokeh", None)
    with pytest.raises(GravmapError, match=r"gravmap\[explore\]"):
        write_explore_page(tmp_path / "map")
    assert not (tmp_path / "map" / "explore.html").exists()
