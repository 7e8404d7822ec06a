"""The page of a reproduction: HTML and Markdown have the same tables, with the numbers of the runs and of the paper."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import geopandas
import pytest
from shapely.geometry import box

from gravmap.geology import load_legend
from gravmap.mapping.page.facts import Protocol
from gravmap.regions import Region
from gravmap.reproduce.dataset import excluded_windows
from gravmap.reproduce.outcome import Outcome, Trained
from gravmap.reproduce.page import Bullets, Document, Heading, Section, Table, Text, to_html, to_markdown
from gravmap.reproduce.plan import load_plan
from gravmap.reproduce.protocols import protocol_parts, verdict


class Cells(HTMLParser):
    """Rows of every table of a page."""

    def __init__(self):
        super().__init__()
        self.tables, self.open, self.scripts = [], False, 0

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data):
        if self.open:
            self.tables[-1][-1][-1] += data


def markdown_tables(text):
    tables, row_before = [], False
    for line in text.splitlines():
        is_row = line.startswith("|")
        if is_row and not row_before:
            tables.append([])
        if is_row and not line.startswith("|---"):
            cells = line[2:-2].replace("\\|", "\0").split(" | ")
            tables[-1].append([cell.replace("\0", "|") for cell in cells])
        row_before = is_row
    return tables


def test_both_files_hold_the_same_tables_whatever_stands_in_them(tmp_path):
    first = Table("One", ("Network", "MPA"), (("a | b", "63.10 %"), ("<script>alert(1)</script>", "–")))
    second = Table("Two", ("Class", "Nodes", "IoU"), (("Archean", "94", "0.0 %"),))
    parts = (Text("Words & more", "strong"), first, Heading("Part"), Bullets(("x < y",)), second)
    document = Document("over", "Title", "Lead", "Warning", (Section("Section", parts),))
    read = Cells()
    read.feed(to_html(document))
    assert read.scripts == 0
    assert read.tables == markdown_tables(to_markdown(document, tmp_path))
    assert read.tables[0] == [["Network", "MPA"], ["a | b", "63.10 %"], ["<script>alert(1)</script>", "–"]]
    for written in (to_html(document), to_markdown(document, tmp_path)):
        for words in ("Title", "Lead", "Warning", "Section", "Words", "Part", "One", "Two"):
            assert words in written, words
    assert "Words &amp; more" in to_html(document)
    assert "x &lt; y" in to_html(document)


def scored(mpa, fwiou):
    each = {"recall": mpa, "precision": None, "iou": fwiou, "places": 7}
    row = {"mpa": mpa, "fwiou": fwiou, "pa": 0.25, "miou": 0.1, "mpa_all_classes": mpa / 2}
    return {**row, "places": 1234, "per_class": {"Archean": each}}


def outcome(tmp_path, network, nearest, split="blocks"):
    """GGMNet alone trained, under one split."""
    plan = load_plan("laptop")
    trained = []
    for run in plan.runs:
        folder = tmp_path / run.name
        mine = run.name == f"{split}-ggmnet-22"
        if mine:
            folder.mkdir(exist_ok=True)
            (folder / "scores.json").write_text("{}")
        trained.append(Trained(run, folder, 1_500_000, scored(*network) if mine else {}, [], 1.0))
    nulls = {"nearest outcrop, no gravity": scored(*nearest), "label diffusion, no gravity": scored(0.2, 0.19)}
    return Outcome(plan, trained, {split: Protocol({"leak_of_fold": [0.0, 0.5], "fold": 1}, [], nulls)})


@pytest.mark.parametrize(
    ("network", "points"),
    [
        ((0.31, 0.21), ["+10.0", "+1.0"]),
        ((0.11, 0.19), ["-10.0", "-1.0"]),
        ((0.31, 0.19), ["+10.0", "-1.0"]),
        ((0.21, 0.20), ["+0.0", "+0.0"]),
    ],
)
def test_the_verdict_has_the_gain_over_nearest_outcrop(tmp_path, network, points):
    words = verdict(outcome(tmp_path, network, (0.21, 0.20)))
    assert re.findall(r"[+-]\d+\.\d", words) == points
    assert f"{100 * network[0]:.1f} / {100 * network[1]:.1f}" in words
    assert words.count("21.0 / 20.0") == 2 + (network == (0.21, 0.20))  # nearest outcrop, and as the best by FWIoU
    assert "1\u202f234 nodes" in words


def test_a_gain_a_loss_and_a_mixed_result_have_their_own_words(tmp_path):
    scores = ((0.31, 0.21), (0.11, 0.19), (0.31, 0.19))
    words = {re.sub(r"[\d.+-]", "", verdict(outcome(tmp_path, each, (0.21, 0.20)))) for each in scores}
    assert len(words) == 3


def test_without_a_run_on_blocks_there_is_no_verdict(tmp_path):
    assert not re.search(r"\d", verdict(outcome(tmp_path, (0.9, 0.9), (1.0, 1.0), split="random")))


def tables_of(parts):
    return [part for part in parts if isinstance(part, Table)]


def test_the_paper_s_numbers_stand_beside_its_own_split_alone(tmp_path):
    found = outcome(tmp_path, (0.31, 0.21), (0.21, 0.20))
    blocks, random = (tables_of(protocol_parts(found, name, {})) for name in ("blocks", "random"))
    assert not any("Paper" in cell for table in blocks[:3] for cell in table.head)
    ablation = next(table for table in random if table.caption.startswith("Table 5"))
    assert [row[-2:] for row in ablation.rows] == [
        ("48.38\u202f%", "32.31\u202f%"),
        ("52.50\u202f%", "36.50\u202f%"),
        ("56.62\u202f% (sum)", "38.10\u202f% (sum)"),
        ("60.82\u202f% (sum)", "40.30\u202f% (sum)"),
        ("63.10\u202f%", "42.88\u202f%"),
    ]
    assert "only the differences" in ablation.caption
    depth = next(table for table in random if table.caption.startswith("Table 4"))
    assert [row[-2:] == ("–", "–") for row in depth.rows] == [True, True, True, False, True]


def test_networks_that_were_not_trained_have_no_number(tmp_path):
    found = outcome(tmp_path, (0.31, 0.21), (0.21, 0.20))
    for table in tables_of(protocol_parts(found, "random", {}))[:3]:
        for row in table.rows:
            assert row[2] == "not trained"
            assert not any("%" in cell for cell in row[2:-2])
    comparison = tables_of(protocol_parts(found, "blocks", {}))[2]
    assert [row[2] == "not trained" for row in comparison.rows] == [False] + 5 * [True]
    assert comparison.rows[0][1:5] == ("1.50 M", "31.0\u202f%", "15.5\u202f%", "21.0\u202f%")


def test_seeds_are_averaged_and_windows_stand_beside_nodes(tmp_path):
    found = outcome(tmp_path, (0.31, 0.21), (0.21, 0.20), split="random")
    trained = []
    for each in found.trained:
        if each.run.name == "random-ggmnet-22-seed1":
            each.folder.mkdir()
            (each.folder / "scores.json").write_text("{}")
            each = dataclasses.replace(each, test=scored(0.35, 0.21))
        windows = {"by_window": {"windows": 9, "mpa": 0.5, "fwiou": 0.4}} if each.test else {}
        trained.append(dataclasses.replace(each, test={**each.test, **windows}))
    parts = protocol_parts(dataclasses.replace(found, trained=trained), "random", {})
    (row,) = [row for row in tables_of(parts)[0].rows if "22 cells" in row[0]]
    assert row[2] == "33.0 ± 2.8"  # mean and standard deviation of 31 and 35
    assert row[-4:-2] == ("50.0 ± 0.0", "40.0 ± 0.0")


def test_a_profile_of_one_network_has_no_table_that_compares_nothing(tmp_path):
    plan = load_plan("quick")
    trained = [Trained(run, tmp_path / run.name, None, {}, [], 0.0) for run in plan.runs]
    parts = protocol_parts(Outcome(plan, trained, {}), "random", {})
    assert [table.caption[:7] for table in tables_of(parts)] == ["GGMNet."]
    assert any("--profile laptop" in part.words for part in parts if isinstance(part, Text))


def test_the_leak_is_that_of_the_fold(tmp_path):
    found = outcome(tmp_path, (0.31, 0.21), (0.21, 0.20))
    words = " ".join(part.words for part in protocol_parts(found, "blocks", {}) if isinstance(part, Text))
    assert "50.0\u202f%" in words
    assert found.protocols["blocks"].leak == 0.5


def test_windows_with_little_bedrock_are_counted_under_both_readings(tmp_path):
    rows = [(80, "J"), (81, "D"), (82, "Q"), (83, "oth")]  # a degree each
    shapes = [box(west, 44, west + 1, 45) for west, _ in rows] + [box(84, 44, 84.5, 45), box(81, 44.05, 82, 45)]
    codes = [code for _, code in rows] + ["Q", "K"]
    path = tmp_path / "map.gpkg"
    frame = geopandas.GeoDataFrame({"GEN_GLG": codes, "TYPE": [""] * 6}, geometry=shapes, crs="EPSG:4326")
    frame.to_file(path)
    maps = [(path, load_legend("geo3al"))]
    # Ground not shown and a window mapped by half do not count; of 81 E a twentieth is Devonian, the rest Cretaceous.
    assert excluded_windows(maps, Region(80, 44, 85, 45)) == (3, {"basement10": 3, "bedrock10": 1})
