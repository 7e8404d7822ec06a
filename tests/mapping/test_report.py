"""The report holds the numbers of the files, stands alone, and shows names from files as text."""

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import jinja2
import numpy as np
import pytest
import rasterio

from gravmap.download.sources import known_sources
from gravmap.errors import InputError
from gravmap.files import write_json
from gravmap.gravity import residual_fields, write_fields
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.evaluation.null_models import NULL_MODELS, null_scores
from gravmap.mapping.page.facts import Protocol, gather, measure_areas
from gravmap.mapping.page.maps import gravity_map
from gravmap.mapping.page.report import page as html_of
from gravmap.mapping.page.scores import compare_with_baselines, reliability_section, scores_section, verdict
from gravmap.mapping.page.words import about, area, bare_area, degrees, percent, region_title, render, significant
from gravmap.records import read_model
from gravmap.tiling import load_arrays
from toys.map import gravity
from toys.map_folder import CALIBRATION, NAMES, RECORD, make_map, page_of, write_run_files
from toys.workspace import make_tiled

EVIL = "<script>alert(1)</script>"


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

    def section(self, name):
        """Text of a section, and of "missing" lines in it."""
        part = Page(self.html.split(f'<section id="{name}">')[1].split("</section>")[0])
        return part, re.findall(r'<p class="missing">(.*?)</p>', part.html, re.DOTALL)

    def row(self, name):
        """Cells of the row that a class or predictor heads."""
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", self.html, re.DOTALL):
            cells = [plain(re.sub(r"<[^>]*>", "", cell)).strip() for cell in re.split(r"</t[hd]>", row)]
            if cells[0].startswith(name):
                return cells[:-1]
        return []


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    return make_map(tmp_path_factory.mktemp("maps") / "turpan-hami")


@pytest.fixture
def run(tmp_path):
    return write_run_files(tmp_path / "runs" / "first", calibration=CALIBRATION)


def test_the_page_stands_alone_and_is_well_formed(mapped, run):
    page = Page(page_of(mapped, run))
    assert page.html.startswith("<!DOCTYPE html>\n")
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
    sidecar = (mapped / "lithology.tif.aux.xml").read_text()
    row = re.search(r"<F>6</F><F>\d+</F><F>Devonian</F>(?:<F>\d+</F>){3}<F>([\d.]+)</F>", sidecar)
    assert page.row("Devonian")[1] == plain(bare_area(float(row[1]))), "the raster's own attribute table"
    assert "80–86° E, 44–48° N" in page.text
    legend, _ = page.section("map")
    assert "419.2–358.9 Ma" in legend.text
    for name in NAMES:
        assert (name in legend.text) == (name in ("Devonian", "Mesozoic"))
    limits, _ = page.section("limits")
    for number in ("2 times", "15′", "28 km", "10 km"):
        assert number in limits.text, number
    sources, _ = page.section("sources")
    for words in ("A. Surveyor (1999)", "ask first", "ef" * 32, known_sources()["geo3al"].terms):
        assert plain(words) in sources.text, words
    assert "../fields.nc" not in sources.text, "gravmap's own files are no source"
    made, _ = page.section("made")
    for words in (RECORD["command"], RECORD["deviations"][0], "ab" * 32, "cd" * 32, "numpy 2.4", "2026-11-23 01:00"):
        assert words in made.text, words


def test_a_grid_is_named_and_described_by_its_own_attributes(tmp_path, run):
    folder = make_map(tmp_path / "map", record=False)
    says = {"title": "Levelled survey", "comment": "Already at 10 km height", "source": "Field work"}
    own = {"role": "map", "file": "mine.gpkg", "legend": "geo3al"}
    sources = [{"role": "gravity", "path": "grid.nc", "attributes": says}, own]
    (folder / "provenance.json").write_text(json.dumps(RECORD | {"sources": sources}))
    text = Page(page_of(folder, run)).section("sources")[0].text
    for words in (*says.values(), "grid.nc", "mine.gpkg", "Read with the legend geo3al, which describes"):
        assert words in text, words
    assert known_sources()["geo3al"].terms not in text


def test_links_are_those_of_the_record_and_nothing_else(mapped, tmp_path, run):
    folder = make_map(tmp_path / "map", record=False)
    address = "https://example.org/grid?a=1&b=<2>"
    source = {"role": "gravity", "file": "grid.nc", "url": address}
    (folder / "provenance.json").write_text(json.dumps(RECORD | {"sources": [source]}))
    page = Page(page_of(folder, run))
    assert [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")] == [address]
    assert not [each for each in Page(page_of(mapped, run)).attributes if each[0] == "a"]


def test_evidence_is_in_percent_and_square_kilometres(mapped, run):
    page = Page(page_of(mapped, run))
    fractions = [float(value) for value in re.findall(r"flex:([\d.]+);background", page.html)]
    assert len(fractions) == 4
    assert sum(fractions) == pytest.approx(1, abs=1e-4)
    # Equal rows of cells, but for the missing corner and the convergence of meridians: a quarter is outcrop.
    assert fractions[0] == pytest.approx(0.25, abs=0.02)
    facts = gather(mapped, runs=[run], tiles=None)
    doubt, _ = page.section("doubt")
    for value, fraction in zip((1, 2, 3, 4), fractions, strict=True):
        assert plain(f"{area(facts.areas.of_evidence(value))}, {percent(fraction)}") in doubt.text


def test_reliability_before_and_after(mapped, run):
    page = Page(page_of(mapped, run))
    assert page.row("Expected calibration error")[1:] == ["23.4 %", "4.1 %"]
    assert page.row("Brier score")[1:] == ["0.800", "0.800"]
    section, missing = page.section("reliability")
    assert "321 places" in section.text
    assert "5deg 1.70" in section.text
    assert not missing
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', page.html)
    assert len(circles) == 4, "empty bins are left out"
    radii = [float(radius) - 3 for _, _, radius in circles[:2]]
    assert (radii[0] / radii[1]) ** 2 == pytest.approx(3, rel=0.05), "areas follow the fraction of nodes"
    assert float(circles[0][1]) == pytest.approx(400 * 0.8)


def test_a_calibration_of_other_weights_is_not_shown(mapped, tmp_path):
    stale = write_run_files(tmp_path / "stale", calibration=CALIBRATION | {"model_sha256": "99" * 32})
    assert reliability_section(gather(mapped, runs=[stale], tiles=None)) == {"runs": [], "unmeasured": ["stale"]}
    section, missing = Page(page_of(mapped, stale)).section("reliability")
    assert "stale" in missing[0]
    assert "23.4" not in section.text


def test_notes_on_windows_of_one_wording_stand_together(mapped, tmp_path):
    notes = {"notes": ["5deg: few nodes", "10deg+5deg: few nodes", "plain"]}
    run = write_run_files(tmp_path / "run", calibration=CALIBRATION | notes)
    _, missing = Page(page_of(mapped, run)).section("reliability")
    assert missing == ["5deg; 10deg and 5deg: few nodes", "plain"]


@pytest.mark.parametrize(
    ("right", "null_pa", "null_fwiou", "outcome"),
    [(0.5, 0.4, 0.2, "better"), (0.2, 0.4, 0.3, "no better"), (0.5, 0.4, 0.9, "mixed"), (0.2, 0.4, 0.01, "mixed")],
)
def test_the_verdict_follows_the_scores(mapped, tmp_path, right, null_pa, null_fwiou, outcome):
    matrix = np.zeros((10, 10), int)
    matrix[5, 5], matrix[5, 6] = round(1000 * right), 1000 - round(1000 * right)
    facts = gather(mapped, runs=[write_run_files(tmp_path / "first", matrix)], tiles=None)
    title = NULL_MODELS["nearest_outcrop"].title
    rows = {title: {"pa": null_pa, "mpa": 0.1, "miou": 0.1, "fwiou": null_fwiou}, "other": {"pa": 0, "fwiou": 0}}
    protocol = replace(facts.protocols[0], baselines=rows)
    found = compare_with_baselines(protocol)
    assert found == {
        "places": 1000,
        "networks": 1,
        "accuracy": right,
        "baseline": {"name": NULL_MODELS["nearest_outcrop"].phrase, "accuracy": null_pa},
        "outcome": outcome,
        "no_better_than": [],
        "ahead_in_overlap": NULL_MODELS["nearest_outcrop"].phrase if null_fwiou == 0.9 else "",
    }
    page = Page(html_of(replace(facts, protocols=[protocol]), None))
    said = plain(re.search(r'<div class="say">(.*?)</div>', page.html, re.DOTALL)[1])
    for number in ("1 000", f"{100 * right:.0f} %", f"{100 * null_pa:.0f} %", found["baseline"]["name"]):
        assert number in said


def test_no_better_than_one_class_everywhere_or_without_gravity_is_said(mapped, tmp_path):
    """With the baselines of `gravmap evaluate`, a forest among them, though the network is ahead in accuracy."""
    run = write_run_files(tmp_path / "first", np.diag([418, *[0] * 9]) + np.eye(10, k=1, dtype=int) * 64)
    ours = gather(mapped, runs=[run], tiles=None).held_out.runs[0].test
    constant = {key: ours[key] - 0.004 for key in ("pa", "mpa", "miou", "fwiou")}
    baselines = {
        "majority": constant,
        "location_forest": constant | {"fwiou": ours["fwiou"] + 0.03},
        "foreign_gravity": dict(constant),
    }
    sums = read_model(run)["weights_sha256"]
    evaluation = {"model_sha256": sums, "counted_by": "places", "baselines": baselines}
    write_json(run / "evaluation.json", evaluation)
    said = verdict(gather(mapped, runs=[run], tiles=None))
    assert said["level"] == "no better"
    assert "no better than predicting the most frequent class everywhere" in said["reason"]
    assert "no better than the same network with shifted gravity" in said["reason"]
    assert "behind a random forest on position alone" in said["reason"]
    assert "no better than predicting the most frequent class" in plain(page_of(mapped, run))
    clear = {key: value - 0.1 for key, value in constant.items()}
    write_json(run / "evaluation.json", evaluation | {"baselines": {**baselines, "majority": clear}})
    assert verdict(gather(mapped, runs=[run], tiles=None))["level"] == "no better"
    write_json(run / "evaluation.json", evaluation | {"baselines": {"majority": clear, "foreign_gravity": clear}})
    assert verdict(gather(mapped, runs=[run], tiles=None))["level"] == "better"
    write_json(run / "evaluation.json", evaluation | {"model_sha256": "9" * 64})
    said = verdict(gather(mapped, runs=[run], tiles=None))
    assert said["level"] == "not tested"
    assert "evaluation.json of first was made with other weights" in said["reason"]
    assert "tile set was not found" in said["reason"]


def test_every_outcome_has_its_own_words(mapped, tmp_path):
    facts = gather(mapped, runs=[write_run_files(tmp_path / "first")], tiles=None)
    (protocol,), said = facts.protocols, set()
    for pa, fwiou in ((0.9, 0.9), (1.0, 1.0), (1.0, 0.9)):
        each = replace(protocol, baselines={"x": {"pa": pa, "mpa": pa, "miou": pa, "fwiou": fwiou}})
        html = html_of(replace(facts, protocols=[each]), None)
        said.add(re.sub(r"\d+", "", re.search(r'<div class="say">(.*?)</div>', html, re.DOTALL)[1]))
    assert len(said) == 3


def test_of_several_runs_the_mean_is_compared(mapped, tmp_path):
    first, second = np.zeros((10, 10), int), np.zeros((10, 10), int)
    first[5, 5], second[5, 6] = 10, 10
    two = [write_run_files(tmp_path / "a", first), write_run_files(tmp_path / "b", second)]
    held = verdict(gather(mapped, runs=two, tiles=None))["held_out"]
    assert (held["networks"], held["accuracy"], held["outcome"]) == (2, 0.5, None)


def test_baselines_are_scored_on_the_runs_own_tile_set(tmp_path):
    make_tiled(tmp_path)
    tiles = tmp_path / "data" / "tiles"
    own = RegionDataset.from_arrays(load_arrays(tiles, channels=["residual_10km"], split="blocks", fold=1))
    run = write_run_files(tmp_path / "mine", classes=own.classes, area_sha256=own.fingerprint())
    mapped = make_map(tmp_path / "map")
    (protocol,) = gather(mapped, runs=[run], tiles=tiles).protocols
    assert protocol.baselines == {NULL_MODELS[key].title: row for key, row in null_scores(own).items()}
    assert protocol.no_baselines == ""
    page = Page(page_of(mapped, run, tiles=tiles))
    for name, row in protocol.baselines.items():
        assert page.row(name)[1:] == [plain(percent(row[key], 1)) for key in ("pa", "mpa", "miou", "fwiou")]
    elsewhere = replace(own, labels=own.labels[::-1].copy()).fingerprint()
    other = write_run_files(tmp_path / "other", classes=own.classes, area_sha256=elsewhere)
    (protocol,) = gather(mapped, runs=[other], tiles=tiles).protocols
    assert not protocol.baselines
    _, missing = Page(page_of(mapped, other, tiles=tiles)).section("scores")
    assert protocol.no_baselines in [unescape(each) for each in missing]


def test_a_random_split_is_never_the_verdict_and_stands_below_held_out_blocks(mapped, tmp_path):
    random = write_run_files(tmp_path / "liu", split={"name": "random", "kind": "random", "leak": 0.999})
    facts = gather(mapped, runs=[random], tiles=None)
    assert facts.held_out is None
    said = verdict(facts)
    assert (said["level"], said["held_out"], said["simulated"]) == ("not tested", None, "")
    alone, missing = Page(page_of(mapped, random)).section("scores")
    assert "99.9 %" in alone.text
    assert len(missing) == 2  # nothing held out, no baselines
    mine = write_run_files(tmp_path / "mine")
    both = Page(page_of(mapped, mine, compared=[random]))
    scored, missing = both.section("scores")
    assert scored.html.index("network mine") < scored.html.index("network liu")
    assert len(missing) == 2  # no baselines, twice
    assert re.findall(r'<tr class="ours"><th scope="row">([^<]*)', both.html) == ["network mine"]
    found = scores_section(gather(mapped, runs=[mine], compared=[random], tiles=None))
    assert [each["leaks"] for key in ("held_out", "random") for each in found[key]] == [False, True]


@pytest.mark.parametrize(
    ("split", "leak"),
    [({"leak": None}, None), ({"leak": 0.25}, 0.25), ({"leak_of_fold": [0.0, 0.5], "leak": 0.1, "fold": 1}, 0.5)],
)
def test_the_leak_is_that_of_the_runs_fold(split, leak):
    assert Protocol(split, []).leak == leak


def test_missing_pieces_have_one_line_each(tmp_path, run):
    bare = make_map(tmp_path / "bare", record=False)
    for name in ("evidence.tif", "uncertainty.tif"):
        (bare / name).unlink()
    page = Page(page_of(bare, fields=tmp_path / "none.nc"))
    assert not page.faults
    for section, files in {
        "doubt": ["uncertainty.tif", "evidence.tif"],
        "sources": ["source"],
        "made": ["provenance.json"],
        "gravity": ["gravity fields"],
        "scores": ["held-out blocks", "not trained"],
    }.items():
        missing = page.section(section)[1]
        assert len(missing) == len(files), section
        assert all(name in line for name, line in zip(files, missing, strict=True)), section
    assert 'class="swatch ruled"' not in page.html
    with_run = Page(page_of(bare, run))
    assert any("tile set" in line for line in with_run.section("scores")[1])


def test_prediction_everywhere_is_not_called_mapped(mapped, tmp_path, run):
    everywhere = Page(page_of(make_map(tmp_path / "all", content="bedrock class predicted everywhere"), run))
    usual = Page(page_of(mapped, run))
    for page, mentions in ((everywhere, False), (usual, True)):
        assert ("as geologists mapped it" in page.text) == mentions
        assert ('class="swatch ruled"' in page.html) == mentions


def test_unmapped_ground_is_named_and_counts_in_no_other_percentage(mapped, tmp_path, run):
    usual = Page(page_of(mapped, run))
    assert "unmapped" not in usual.text
    facts, pages = {}, {}
    for kind in ("blank", "predicted"):
        folder = make_map(tmp_path / kind, unmapped=kind)
        facts[kind], pages[kind] = gather(folder, runs=[run], tiles=None).areas, Page(page_of(folder, run))
        assert not pages[kind].faults
    blank, filled = facts["blank"], facts["predicted"]
    assert blank.unmapped_km2 == pytest.approx(filled.unmapped_km2)
    assert blank.covered == pytest.approx(filled.covered)
    assert blank.nodata_km2 == pytest.approx(measure_areas(mapped).nodata_km2)
    whole = blank.mapped_km2 + blank.unmapped_km2
    assert whole + blank.nodata_km2 == pytest.approx(blank.km2.sum())
    fraction = plain(percent(blank.unmapped_km2 / whole, 1))
    for kind, page in pages.items():
        top = page.text.split("The map")[0]
        assert f"{fraction} of the region is unmapped" in top
        assert ("left blank" in top) == (kind == "blank")
        assert ("--fill-unmapped" in top) == (kind == "predicted")
        assert re.search(rf"of the mapped area under cover[^%]*?{plain(percent(blank.covered))}", top)
        # The table and the evidence add up to the same cover.
        row = [float(cell.replace(" ", "")) for cell in page.row("All")[1:6] if cell and "%" not in cell]
        assert row[2] / (row[1] + row[2]) == pytest.approx(blank.covered, abs=1e-4)
        assert sum(map(float, re.findall(r"flex:([\d.]+);background", page.html))) == pytest.approx(1, abs=1e-4)
        assert page.html.count("swatch dotted filled" if kind == "predicted" else 'swatch dotted"') == 2
        assert f"{fraction} of the region" in page.section("map")[0].text
    assert "Unmapped, km²" in pages["predicted"].text
    assert "Unmapped, km²" not in pages["blank"].text


def test_without_a_geological_map_no_share_of_cover_is_told(tmp_path, run):
    page = Page(page_of(make_map(tmp_path / "map", content="bedrock class predicted everywhere"), run))
    assert "No geological map was given" in page.text
    assert "under cover, where the class is predicted" not in page.text


def test_names_from_files_stay_text(tmp_path):
    folder = make_map(tmp_path / "map")
    sidecar = folder / "lithology.tif.aux.xml"
    planted = sidecar.read_text().replace("Devonian", "&lt;script&gt;alert(1)&lt;/script&gt;")
    assert "alert(1)" in planted
    sidecar.write_text(planted)
    source = {"role": EVIL, "file": EVIL, "url": "http" + EVIL}
    record = RECORD | {"command": EVIL, "deviations": [EVIL], "sources": [source]}
    (folder / "provenance.json").write_text(json.dumps(record))
    page = Page(page_of(folder, write_run_files(tmp_path / 'a&b<i>"'), title=EVIL))
    assert not page.faults
    assert "<script" not in page.html
    assert "<i>&" not in page.html
    legend, _ = page.section("map")
    assert EVIL in legend.text
    for section in ("sources", "made", "areas"):
        assert EVIL in page.section(section)[0].text, section
    assert 'a&b<i>"' in page.text


def test_a_template_that_uses_what_is_not_given_fails():
    with pytest.raises(jinja2.UndefinedError):
        render("report.html.j2", title="x")


def test_the_residual_of_the_region_is_drawn(mapped, tmp_path, run):
    fields = residual_fields(gravity(), [10_000.0])
    write_fields(fields, tmp_path / "fields.nc")
    part = fields["residual_10km"].sel(lat=slice(44 - 1e-6, 48 + 1e-6), lon=slice(80 - 1e-6, 86 + 1e-6)).values
    rms = float(np.sqrt((part.astype(float) ** 2).mean()))
    facts = gather(mapped, runs=[run], tiles=None)
    found = gravity_map(facts, tmp_path / "fields.nc")
    assert found["rms"] == pytest.approx(rms)
    assert found["high"] == -found["low"] == pytest.approx(np.abs(np.percentile(part, (1, 99))).max())
    section, _ = Page(page_of(mapped, run, fields=tmp_path / "fields.nc")).section("gravity")
    assert f"rms {rms:.3g} mGal" in section.text
    assert f"{significant(found['high'], 3, '+')} mGal" in section.text
    assert "10 km" in section.text
    write_fields(residual_fields(gravity(43.5), [10_000.0]), tmp_path / "far.nc")
    assert gravity_map(facts, tmp_path / "far.nc") == {"missing": "outside"}
    assert len(Page(page_of(mapped, run, fields=tmp_path / "far.nc")).section("gravity")[1]) == 1


def test_the_same_map_gives_the_same_page_and_a_broken_run_is_refused(mapped, run, tmp_path):
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
def test_boxes_are_formatted(bounds, words):
    assert plain(degrees(bounds)) == words


def test_numbers_and_names_are_formatted():
    assert plain(about(477_608)) == "478 000 km²"
    assert plain(area(1_234_567.8)) == "1 234 568 km²"
    assert plain(percent(0.0004)) == "under 1 %"
    assert plain(percent(0.0004, 2)) == "0.04 %"
    assert percent(None) == percent(float("nan")) == "–"
    assert (significant(-0.12345), significant(2.5, 2, "+")) == ("−0.123", "+2.5")
    assert region_title("issyk-kul") == "Issyk-Kul"
    assert plain(region_title("bbox_81_43_92_48")) == "81–92° E, 43–48° N"
