"""The report says what the files say, no more, and stands alone."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import rasterio

from gravmap.errors import InputError
from gravmap.gravity import residual_fields, write_fields
from gravmap.learning.data.dataset import RegionDataset
from gravmap.mapping.page import facts as report_facts
from gravmap.mapping.page.words import about, area, bare_area, degrees, percent, region_title
from toy_area import make_arrays
from toy_map import gravity
from toy_map_folder import CALIBRATION, NAMES, make_map, make_run, page_of


def plain(words):
    return words.replace("\u202f", " ").replace("\u2060", "")


class Page(HTMLParser):
    """Text, and whether every element is closed by its own end tag."""

    VOID = ("meta", "br", "img", "link", "hr", "image", "rect", "circle", "path")

    def __init__(self, html):
        super().__init__()
        self.html, self.open, self.words, self.faults, self.attributes = html, [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *each) for each in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, *each) for each in attributes]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, self.getpos()))

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", plain(" ".join(self.words)))


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    return make_map(tmp_path_factory.mktemp("maps") / "turpan-hami")


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "runs" / "first", calibration=CALIBRATION)


def test_the_page_stands_alone_and_is_well_formed(mapped, run):
    page = Page(page_of(mapped, run))
    assert not page.faults
    assert not page.open
    assert not [each for each in page.attributes if each[0] in ("script", "link", "iframe")]
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset") and tag != "a":
            assert value.startswith("data:image/png;base64,"), (tag, value[:60])
    style = page.html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    described = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert len(described) == 4
    assert all(len(words) > 30 for words in described)
    assert page.text.count("Turpan-Hami") >= 2


def test_figures_are_those_of_the_files(mapped, run):
    page = Page(page_of(mapped, run))
    with rasterio.open(mapped / "lithology.tif") as raster:
        assert raster.shape == (40, 60)
    listed = table_row(page, "Devonian")
    sidecar = (mapped / "lithology.tif.aux.xml").read_text()
    row = re.search(r"<F>6</F><F>\d+</F><F>Devonian</F>(?:<F>\d+</F>){3}<F>([\d.]+)</F>", sidecar)
    assert listed[1] == bare_area(float(row[1])), "the raster's own attribute table"
    assert "419.2–358.9 Ma" in page.text
    assert "80–86° E, 44–48° N" in page.text
    for name in NAMES:
        assert (f">{name}<small" in page.html or f">{name}</span>" in page.html) == (name in ("Devonian", "Mesozoic"))
    for words in (
        "gravmap predict --region turpan-hami",
        "A. Surveyor (1999)",
        "Terms: ask first",
        "no redistribution, derived products included",
        "cd" * 32,
        "numpy 2.4",
        "not the paper's WGM2012",
        "2 times finer",
        "15′",
        "10 km above the ellipsoid",
    ):
        assert words in page.text, words


def test_what_it_rests_on_is_told_in_square_kilometres(mapped, run):
    page = Page(page_of(mapped, run))
    shares = [float(share) for share in re.findall(r"flex:([\d.]+);background", page.html)]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    # Equal rows of cells, but for the missing corner and the convergence of meridians: a quarter is outcrop.
    assert shares[0] == pytest.approx(0.25, abs=0.02)


def test_reliability_before_and_after(mapped, run):
    page = Page(page_of(mapped, run))
    assert "23.4 % before, 4.1 % after" in page.html.replace("\u202f", " ")
    assert "321 places, all in held-out test blocks" in page.text
    assert "5deg 1.70" in page.text
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', page.html)
    assert len(circles) == 4, "empty bins are left out"
    radii = [float(radius) - 3 for _, _, radius in circles[:2]]
    assert (radii[0] / radii[1]) ** 2 == pytest.approx(3, rel=0.05), "areas are shares"
    assert float(circles[0][1]) == pytest.approx(400 * 0.8)


def test_a_calibration_of_other_weights_is_not_shown(mapped, tmp_path):
    stale = make_run(tmp_path / "stale", calibration=CALIBRATION | {"model_sha256": "99" * 32})
    page = Page(page_of(mapped, stale))
    assert "stale: no calibration was measured" in page.text
    assert "23.4" not in page.text


@pytest.mark.parametrize(
    ("right", "null_pa", "null_fwiou", "said"),
    [
        (0.5, 0.4, 0.2, "Better than every null model"),
        (0.2, 0.4, 0.3, "No better than the null models"),
        (0.5, 0.4, 0.9, "in one measure and not in another"),
    ],
)
def test_the_verdict_follows_the_scores(mapped, tmp_path, monkeypatch, right, null_pa, null_fwiou, said):
    matrix = np.zeros((10, 10), int)
    matrix[5, 5], matrix[5, 6] = round(1000 * right), 1000 - round(1000 * right)
    run = make_run(tmp_path / "first", matrix)
    nulls = {"nearest outcrop, no gravity": {"pa": null_pa, "mpa": 0.1, "miou": 0.1, "fwiou": null_fwiou}}
    monkeypatch.setattr(report_facts, "_nulls", lambda run, tiles: (nulls, ""))
    page = Page(page_of(mapped, run))
    assert said in page.text
    assert f"named {100 * right:.0f} % of the bedrock right" in page.text
    assert f"nearest outcrop, which needs no network, {100 * null_pa:.0f} %" in page.text


def test_null_models_are_scored_on_the_runs_own_ground(mapped, tmp_path, monkeypatch):
    own = RegionDataset.from_arrays(make_arrays())
    asked = []

    def arrays(tiles, **options):
        asked.append(options)
        return make_arrays()

    monkeypatch.setattr("gravmap.mapping.scoring.finished_run.load_arrays", arrays)
    run = make_run(tmp_path / "mine", classes=own.classes, area_sha256=own.fingerprint())
    page = Page(page_of(mapped, run, tiles=tmp_path))
    assert asked == [{"channels": ["residual_10km"], "split": "blocks", "fold": 1}]
    assert table_row(page, "label diffusion, no gravity")
    elsewhere = replace(own, labels=own.labels[::-1].copy()).fingerprint()
    other = make_run(tmp_path / "other", classes=own.classes, area_sha256=elsewhere)
    page = Page(page_of(mapped, other, tiles=tmp_path))
    assert "not the one the network was trained on" in page.text
    assert "label diffusion" not in page.text


def test_a_random_split_is_called_memory_and_never_the_verdict(mapped, tmp_path):
    random = make_run(tmp_path / "liu", split={"name": "random", "kind": "random", "leak": 0.999})
    alone = Page(page_of(mapped, random))
    assert "measures memory of the place" in alone.text
    assert "Training saw the labels of 99.9 % of it" in alone.text
    assert "not scored on held-out blocks of ground: nothing is known" in alone.text
    assert "No network of this report was scored on held-out blocks: not trained." in alone.text
    both = Page(page_of(mapped, make_run(tmp_path / "mine"), compared=[random]))
    assert both.text.index("Held-out blocks of 2.5°") < both.text.index("Random windows, as in Liu")
    assert "not trained" not in both.text
    ours = re.findall(r'<tr class="?ours"?><th scope="row">([^<]*)', both.html)
    assert ours == ["network mine"]


def test_missing_pieces_are_said_in_one_line_each(tmp_path, run):
    bare = make_map(tmp_path / "bare", record=False)
    for name in ("evidence.tif", "uncertainty.tif"):
        (bare / name).unlink()
    page = Page(page_of(bare, fields=tmp_path / "none.nc"))
    assert not page.faults
    for words in (
        "no uncertainty.tif",
        "no evidence.tif",
        "no provenance.json",
        "No source is on record",
        "The gravity fields are not at hand",
        "was not scored on held-out blocks of ground",
    ):
        assert words in page.text, words
    assert "under cover, predicted" not in page.text
    assert "Null models were not scored" not in page.text
    with_run = Page(page_of(bare, run))
    assert "The tile set is not at hand, so null models were not scored" in with_run.text
    assert "What a guess without a network scores there is not known." in with_run.text


def test_prediction_everywhere_is_not_called_mapped(tmp_path, run):
    page = Page(page_of(make_map(tmp_path / "all", content="bedrock class predicted everywhere"), run))
    assert "on outcrop and under cover alike" in page.text
    assert "as geologists mapped it" not in page.text
    assert "Every class here is a prediction" in page.text


def test_names_from_files_stay_letters(tmp_path):
    evil = "<script>alert(1)</script>"
    folder = make_map(tmp_path / "map")
    sidecar = folder / "lithology.tif.aux.xml"
    text = sidecar.read_text().replace("Devonian", "&lt;script&gt;alert(1)&lt;/script&gt;")
    sidecar.write_text(text)
    page = Page(page_of(folder, make_run(tmp_path / "a&b<i>"), title=evil))
    assert not page.faults
    assert "<script>" not in page.html
    assert unescape(page.html).count(evil) >= 2


def test_the_residual_of_the_region_is_drawn(mapped, tmp_path, run):
    fields = residual_fields(gravity(), [10_000.0])
    write_fields(fields, tmp_path / "fields.nc")
    page = Page(page_of(mapped, run, fields=tmp_path / "fields.nc"))
    part = fields["residual_10km"].sel(lat=slice(44 - 1e-6, 48 + 1e-6), lon=slice(80 - 1e-6, 86 + 1e-6)).values
    rms = float(np.sqrt((part.astype(float) ** 2).mean()))
    assert f"rms {rms:.3g} mGal over this map" in page.text
    assert "upward continuation by 10 km" in page.text
    far = residual_fields(gravity(43.5), [10_000.0])
    write_fields(far, tmp_path / "far.nc")
    page = Page(page_of(mapped, run, fields=tmp_path / "far.nc"))
    assert "do not cover this map" in page.text


def test_the_same_map_gives_the_same_page_and_a_broken_run_is_told(mapped, run, tmp_path):
    assert page_of(mapped, run) == page_of(mapped, run)
    with pytest.raises(InputError, match=r"model\.json is missing"):
        page_of(mapped, tmp_path / "nothing")


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ((81, 43, 92, 48), "81–92° E, 43–48° N"),
        ((-10.5, -5, 3, 5), "10.5° W to 3° E, 5° S to 5° N"),
        ((-70, -30, -60, -20), "60–70° W, 20–30° S"),
    ],
)
def test_boxes_in_words(bounds, words):
    assert plain(degrees(bounds)) == words


def test_numbers_and_names_in_words():
    assert about(477_608).replace("\u202f", " ") == "478 000 km²"
    assert area(1_234_567.8).replace("\u202f", " ") == "1 234 568 km²"
    assert percent(0.0004).replace("\u202f", " ") == "under 1 %"
    assert percent(None) == "–"
    assert region_title("issyk-kul") == "Issyk-Kul"
    assert plain(region_title("bbox_81_43_92_48")) == "81–92° E, 43–48° N"


def table_row(page, name):
    """Cells of the row that a class or predictor heads."""
    for row in re.findall(r"<tr[^>]*>(.*?)</tr>", page.html, re.DOTALL):
        cells = re.split(r"</t[hd]>", row)
        if name in cells[0]:
            return [re.sub(r"<[^>]*>", "", cell) for cell in cells]
    return []
