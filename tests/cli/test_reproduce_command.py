"""`gravmap reproduce`: the whole page from raw files on a crust small enough for a test, stopped and resumed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

import gravmap.reproduce
import gravmap_cli
from gravmap.errors import InputError
from gravmap.network.presets import tiny
from gravmap.reproduce import load_plan
from gravmap_cli.session import Session

SMALL = ("random-ggmnet-22", "blocks-ggmnet-22", "blocks-bisenet-resnet18")


@pytest.fixture(scope="module")
def plan():
    """Three of the fifteen runs, on a crust of 3.7 x 3.7 degrees."""
    quick = load_plan("quick")
    runs = []
    for run in quick.runs:
        if run.name in SMALL:
            small = {"kind": "bisenet", "width": 4} if "bisenet" in run.name else tiny().to_dict()
            runs.append(dataclasses.replace(run, architecture=small))
        elif run.network == "unet-resnet34":
            runs.append(dataclasses.replace(run, architecture={}, missing="It is not installed here."))
    train = ["--input", "rgb", "--epochs", "2", "--steps-per-epoch", "1", "--batch-size", "2"]
    settings = {
        "crust": [112, 112],
        "size_px": 32,
        "windows": {"crust": ["1.5deg"], "other": ["1.5deg"]},
        "train": train,
    }
    return dataclasses.replace(quick, runs=runs, settings={**quick.settings, **settings})


@pytest.fixture(scope="module")
def call(plan):
    def run(*words):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(gravmap.reproduce, "load_plan", lambda profile: plan)
            return CliRunner().invoke(gravmap_cli.gravmap, ["reproduce", "liu2024", *map(str, words)])

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory, call):
    root = tmp_path_factory.mktemp("whole") / "paper"
    done = call("-o", root)
    assert done.exit_code == 0, done.output
    return root, done


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.pictures, self.links, self.words = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.pictures += [dict(attrs)["src"]] if tag == "img" else []
        self.links += [value for name, value in attrs if name in ("href", "src") and not value.startswith("data:")]

    def handle_data(self, data):
        self.words += data


def test_the_page_stands_alone_and_says_what_it_is_of(made):
    root, _ = made
    page = Page()
    page.feed((root / "liu2024.html").read_text(encoding="utf-8"))
    assert page.links == []
    assert len(page.pictures) == 7  # two of the data, curves and held-out outcrop for each split, the map
    assert all(len(picture) > 10_000 for picture in page.pictures)
    assert "Profile quick, data: a synthetic crust, seed 0" in page.words
    assert "NOT the paper's" in page.words
    text = (root / "liu2024.md").read_text(encoding="utf-8")
    assert text.startswith("Profile quick, data: a synthetic crust")
    for table in ("Table 1.", "Table 2.", "Table 4.", "Table 5.", "Table 6.", "Table 7.", "Under the cover"):
        assert table in text, table
        assert table in page.words, table
    assert "It is not installed here." in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (root / line.rsplit("(", 1)[1].removesuffix(")")).exists(), line


def test_its_numbers_are_those_of_the_runs(made):
    root, _ = made
    numbers = json.loads((root / "liu2024.json").read_text())["protocols"]
    for name in SMALL:
        split, network = name.split("-", 1)
        scores = json.loads((root / "runs" / name / "scores.json").read_text())
        assert numbers[split]["networks"][network]["scores"]["fwiou"] == scores["test"]["fwiou"]
        assert scores["split"]["name"] == split
    assert numbers["blocks"]["networks"]["unet-resnet34"] is None
    assert numbers["blocks"]["leak"] == 0
    assert numbers["random"]["leak"] > 0.5
    # On overlapping windows the nearest outcrop is the place itself; on blocks it is not.
    nearest = [numbers[split]["null_models"]["nearest outcrop, no gravity"]["pa"] for split in ("random", "blocks")]
    assert nearest[0] > 0.9 > nearest[1]


def test_percentages_of_the_classes_are_those_of_the_map(made):
    import geopandas

    root, _ = made
    polygons = geopandas.read_file(root / "data" / "raw" / "map.gpkg").to_crs("ESRI:54034")  # equal areas
    km2 = dict(zip(polygons["NAME"], polygons.area / 1e6, strict=True))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (root / "liu2024.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    bedrock = sum(area for name, area in km2.items() if name != "Cenozoic cover")
    percentages = {row[0]: row[2] for row in rows if row[0] in km2 and len(row) == 4 and row[2] != "–"}
    assert len(percentages) >= 6
    for name, percentage in percentages.items():
        assert float(percentage.replace("\u202f%", "")) == pytest.approx(100 * km2[name] / bedrock, abs=0.3), name


def test_what_a_kill_left_is_gone_on_with_and_the_rest_is_kept(made, call, tmp_path):
    root = tmp_path / "paper"
    shutil.copytree(made[0], root)
    # As after a kill: one run with its last epoch alone, one with nothing that can be gone on with, and no page.
    stopped, lost, kept = (root / "runs" / name for name in SMALL)
    (stopped / "scores.json").unlink()
    for path in lost.iterdir():
        path.unlink()
    (lost / "half.txt").write_text("")
    (root / "liu2024.html").unlink()
    there = [*kept.iterdir(), root / "data" / "fields.nc", root / "maps" / "crust" / "lithology.tif"]
    before = {path: path.stat().st_mtime_ns for path in there}
    done = call("-o", root)
    assert done.exit_code == 0, done.output
    assert f"train --name {SMALL[0]} --resume" in done.output
    assert f"train --name {SMALL[1]} --architecture" in done.output
    assert f"train --name {SMALL[2]}" not in done.output
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert not (lost / "half.txt").exists()
    # On a CPU one seed gives one network: the page is the one of the unbroken run.
    numbers = [json.loads((folder / "liu2024.json").read_text()) for folder in (made[0], root)]
    for page in numbers:
        for split in page["protocols"].values():
            for network in split["networks"].values():
                network and network.pop("seconds")
    assert numbers[0] == numbers[1]


def test_a_dry_run_writes_nothing_and_lists_existing_runs(made, call, tmp_path):
    result = call("-o", tmp_path / "new", "-n")
    assert result.exit_code == 0
    assert "train 4 networks" in result.output
    assert list(tmp_path.iterdir()) == []
    root, _ = made
    states = json.loads(call("-o", root, "-n", "--json").stdout)["runs"]
    assert [run["state"] for run in states] == ["done", "done", "done", "left out"]


def test_what_does_not_fit_is_refused_in_plain_words(made, call, tmp_path):
    root, _ = made
    other = call("-o", root, "--seed", "1")
    assert other.exit_code == 3
    assert "seed 0" in other.output
    (tmp_path / "mine.txt").write_text("")
    strange = call("-o", tmp_path)
    assert strange.exit_code == 3
    assert "holds other files" in strange.output
    assert (tmp_path / "mine.txt").exists()
    alone = call("--gravity", tmp_path / "mine.txt")
    assert alone.exit_code == 2
    assert "needs --map FILE LEGEND" in alone.output
    crust = call("--map", tmp_path / "mine.txt", "ics", "--data", "crust")
    assert crust.exit_code == 2
    assert "a map of its own" in crust.output
    both = call("--gravity", tmp_path / "mine.txt", "--map", tmp_path / "mine.txt", "ics", "--data", "crust")
    assert both.exit_code == 2
    assert CliRunner().invoke(gravmap_cli.gravmap, ["reproduce", "liu2023"]).exit_code == 2


def test_a_map_of_yours_alone_goes_with_wgm2012(call, monkeypatch, tmp_path):
    (tmp_path / "mine.gpkg").touch()
    called = []

    def record(session, root, words):
        called.append(words)
        if words[0] == "rasterize":
            raise InputError("That is enough.")

    monkeypatch.setattr(Session, "run", record)
    done = call("--map", tmp_path / "mine.gpkg", "ics", "-o", tmp_path / "paper")
    assert "That is enough." in done.output
    assert "WGM2012 and mine.gpkg" in done.output
    assert called[0] == ["fetch", "wgm2012"]
    assert called[1][:2] == ["residual", "--height"]  # of what was fetched
    assert called[2] == ["rasterize", "--map", str(tmp_path / "mine.gpkg"), "ics"]


@pytest.mark.slow
def test_files_of_yours_go_the_same_way(made, call, tmp_path):
    raw = made[0] / "data" / "raw"
    root = tmp_path / "mine"
    words = ("--gravity", raw / "gravity.nc", "--map", raw / "map.gpkg", "crust", "-o", root)
    done = call(*words)
    assert done.exit_code == 0, done.output
    page = (root / "liu2024.md").read_text(encoding="utf-8")
    assert "data: gravity.nc and map.gpkg" in page
    assert "Under the cover" not in page  # the truth is nobody's to know here
    numbers = [json.loads((folder / "liu2024.json").read_text())["protocols"] for folder in (made[0], root)]
    assert numbers[0]["blocks"]["null_models"] == numbers[1]["blocks"]["null_models"]
