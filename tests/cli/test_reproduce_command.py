"""`gravmap reproduce`: the whole page from raw files on a crust small enough for a test, stopped and resumed.

The tests that train are slow; those of tests/reproduce/ make the page from given numbers.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

import gravmap.reproduce.plan
import gravmap_cli
from gravmap.errors import InputError
from gravmap.network.registry import describe
from gravmap.reproduce.plan import load_plan
from gravmap_cli.session import Session

LEFT_OUT = ("random-ggmnet-16", "random-ggmnet-a", "random-unet-resnet34")
SMALL = ("random-ggmnet-22", "random-ggmnet-22-seed1", "blocks-ggmnet-22", "random-bisenet-resnet18")


@pytest.fixture(scope="module")
def plan():
    """Four runs of the profile laptop, on a crust of 3.7 x 3.7 degrees."""
    laptop = load_plan("laptop")
    runs = []
    for run in laptop.runs:
        if run.name in SMALL:
            small = "unet" if "bisenet" in run.name else "ggmnet-tiny"
            runs.append(dataclasses.replace(run, model=small, architecture=describe(small)))
        elif run.name in LEFT_OUT:
            runs.append(dataclasses.replace(run, architecture={}, missing="It is not installed here."))
    train = ["--input", "rgb", "--epochs", "2", "--steps-per-epoch", "1", "--batch-size", "2"]
    settings = {
        "crust": [112, 112],
        "size_px": 32,
        "windows": {"crust": ["1.5deg"], "other": ["1.5deg"]},
        "train": train,
    }
    return dataclasses.replace(laptop, runs=runs, settings={**laptop.settings, **settings})


@pytest.fixture(scope="module")
def call(plan):
    def run(*words):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(gravmap.reproduce.plan, "load_plan", lambda profile: plan)
            return CliRunner().invoke(gravmap_cli.gravmap, ["reproduce", "liu2024", *map(str, words)])

    return run


@pytest.fixture(scope="module")
def commands(plan):
    """Run `gravmap reproduce` with all commands noted instead of run, the first `rasterize` failing."""

    def run(*words):
        called = []

        def note(session, root, words):
            called.append(words)
            if words[0] == "rasterize":
                raise InputError("Stopped here.")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Session, "run", note)
            patched.setattr(gravmap.reproduce.plan, "load_plan", lambda profile: plan)
            result = CliRunner().invoke(gravmap_cli.gravmap, ["reproduce", "liu2024", *map(str, words)])
        return result, called

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


@pytest.mark.slow
def test_the_page_stands_alone_and_names_its_data(made):
    root, _ = made
    page = Page()
    page.feed((root / "liu2024.html").read_text(encoding="utf-8"))
    assert page.links == []
    # Two of the data; curves, held-out windows, test windows and the comparison for each split; the map.
    kinds = ("figure_4", "figure_5", "test_windows", "comparison")
    names = [f"{name}_{split}" for split in ("random", "blocks") for name in kinds]
    figures = [root / "figures" / f"{name}.png" for name in ("figure_1", "figure_2", *names)]
    figures.append(root / "maps" / "crust" / "map.png")
    encoded = [base64.b64encode(path.read_bytes()).decode() for path in figures]
    assert [picture.removeprefix("data:image/png;base64,") for picture in page.pictures] == encoded
    apart = json.loads((root / "data" / "tiles" / "index.json").read_text())["windows_set_apart"]
    assert apart > 0
    assert page.words.count(f"The paper's test windows: the {apart} of all sizes") == 2
    assert all(len(picture) > 10_000 for picture in page.pictures)
    assert "Profile laptop, data: a synthetic crust, seed 0" in page.words
    assert "NOT the paper's" in page.words
    text = (root / "liu2024.md").read_text(encoding="utf-8")
    assert text.startswith("Profile laptop, data: a synthetic crust")
    for table in ("Table 1.", "Table 2.", "Table 4.", "Table 5.", "Table 6.", "Table 7.", "Under the cover"):
        assert table in text, table
        assert table in page.words, table
    assert "It is not installed here." in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (root / line.rsplit("(", 1)[1].removesuffix(")")).exists(), line


@pytest.mark.slow
def test_its_numbers_are_those_of_the_runs(made):
    root, _ = made
    protocols = json.loads((root / "liu2024.json").read_text())["protocols"]
    for name in SMALL:
        split, network = name.split("-", 1)
        scores = json.loads((root / "runs" / name / "scores.json").read_text())
        assert protocols[split]["networks"][network]["scores"]["fwiou"] == scores["test"]["fwiou"]
        assert scores["split"]["name"] == split
    assert protocols["random"]["networks"]["unet-resnet34"] is None
    assert protocols["blocks"]["leak"] == 0
    assert protocols["random"]["leak"] > 0.5
    # On overlapping windows the nearest outcrop is the place itself; on blocks it is not.
    nearest = [protocols[split]["null_models"]["nearest outcrop, no gravity"]["pa"] for split in ("random", "blocks")]
    assert nearest[0] > 0.9 > nearest[1]


@pytest.mark.slow
def test_class_percentages_are_those_of_the_map(made):
    import geopandas

    root, _ = made
    polygons = geopandas.read_file(root / "data" / "raw" / "map.gpkg").to_crs("ESRI:54034")  # equal areas
    km2 = dict(zip(polygons["NAME"], polygons.area / 1e6, strict=True))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (root / "liu2024.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    bedrock = sum(area for name, area in km2.items() if name != "Meso-Cenozoic cover")
    percent = {row[0]: row[2] for row in rows if row[0] in km2 and len(row) == 4 and row[2] != "–"}
    assert len(percent) >= 6
    for name, value in percent.items():
        assert float(value.replace("\u202f%", "")) == pytest.approx(100 * km2[name] / bedrock, abs=0.3), name


@pytest.mark.slow
def test_a_killed_run_is_resumed_and_finished_runs_are_kept(made, call, tmp_path):
    root = tmp_path / "paper"
    shutil.copytree(made[0], root)
    # As after a kill: one run with its last checkpoint alone, one with nothing to resume from, and no page.
    stopped, lost, kept = (root / "runs" / name for name in SMALL[:3])
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
    assert f"train --name {SMALL[1]} --model" in done.output
    assert f"train --name {SMALL[2]}" not in done.output
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert not (lost / "half.txt").exists()
    # On a CPU one seed gives one network: the page is the one of the unbroken run.
    numbers = [json.loads((folder / "liu2024.json").read_text()) for folder in (made[0], root)]
    for record in numbers:
        for split in record["protocols"].values():
            for network in split["networks"].values():
                network and network.pop("seconds")
    assert numbers[0] == numbers[1]


@pytest.mark.slow
def test_a_dry_run_reports_finished_runs(made, call):
    states = json.loads(call("-o", made[0], "-n", "--json").stdout)["runs"]
    done = [run["name"] for run in states if run["state"] == "done"]
    # One run of every network, the ablation first; then the second seed.
    assert done == ["random-ggmnet-22", "blocks-ggmnet-22", "random-bisenet-resnet18", "random-ggmnet-22-seed1"]
    assert [run["state"] for run in states if run["name"] not in done] == ["left out"] * 3


def test_a_dry_run_writes_nothing(call, tmp_path):
    dry = call("-o", tmp_path / "new", "-n")
    assert dry.exit_code == 0
    assert "train 7 networks" in dry.output
    assert list(tmp_path.iterdir()) == []


def test_other_options_in_a_started_folder_are_refused(commands, tmp_path):
    root = tmp_path / "paper"
    assert "Stopped here." in commands("-o", root)[0].output
    other, called = commands("-o", root, "--seed", "1")
    assert other.exit_code == 3
    assert "seed 0" in other.output
    assert "--overwrite" in other.output
    assert called == []


def test_options_and_folders_that_do_not_fit_are_refused(call, tmp_path):
    (tmp_path / "mine.txt").write_text("")
    strange = call("-o", tmp_path)
    assert strange.exit_code == 3
    assert "holds other files" in strange.output
    assert (tmp_path / "mine.txt").exists()
    alone = call("--gravity", tmp_path / "mine.txt")
    assert alone.exit_code == 2
    assert "--map FILE LEGEND" in alone.output
    crust = call("--map", tmp_path / "mine.txt", "ics", "--data", "crust")
    assert crust.exit_code == 2
    assert "--data wgm2012" in crust.output
    both = call("--gravity", tmp_path / "mine.txt", "--map", tmp_path / "mine.txt", "ics", "--data", "crust")
    assert both.exit_code == 2
    assert CliRunner().invoke(gravmap_cli.gravmap, ["reproduce", "liu2023"]).exit_code == 2


def test_a_map_without_gravity_is_used_with_wgm2012(commands, tmp_path):
    (tmp_path / "mine.gpkg").touch()
    done, called = commands("--map", tmp_path / "mine.gpkg", "ics", "-o", tmp_path / "paper")
    assert "Stopped here." in done.output
    assert "WGM2012 and mine.gpkg" in done.output
    assert called[0] == ["fetch", "wgm2012"]
    assert called[1][:2] == ["residual", "--height"]  # of what was fetched
    assert called[2] == ["rasterize", "--map", str(tmp_path / "mine.gpkg"), "ics"]


@pytest.mark.slow
def test_own_files_give_the_same_numbers(made, call, tmp_path):
    raw = made[0] / "data" / "raw"
    root = tmp_path / "mine"
    words = ("--gravity", raw / "gravity.nc", "--map", raw / "map.gpkg", "crust", "-o", root)
    done = call(*words)
    assert done.exit_code == 0, done.output
    page = (root / "liu2024.md").read_text(encoding="utf-8")
    assert "data: gravity.nc and map.gpkg" in page
    assert "Under the cover" not in page  # the truth is not known here
    numbers = [json.loads((folder / "liu2024.json").read_text())["protocols"] for folder in (made[0], root)]
    assert numbers[0]["blocks"]["null_models"] == numbers[1]["blocks"]["null_models"]
