import json

import geopandas
import pytest
from click.testing import CliRunner
from shapely.geometry import LineString, box

from gravmap.geology import load_legend, open_labels
from gravmap_cli import gravmap


@pytest.fixture
def units(tmp_path):
    def write(codes, name="map.gpkg", field="UNIT", crs="EPSG:4326", **more):
        shapes = [box(80 + k, 44, 81 + k, 46) for k in range(len(codes))]
        geopandas.GeoDataFrame({field: codes, **more}, geometry=shapes, crs=crs).to_file(tmp_path / name)
        return tmp_path / name

    return write


def call(workspace, *words):
    return CliRunner().invoke(gravmap, ["-w", str(workspace), "legend", *map(str, words)])


def test_from_a_map_to_a_legend_to_labels(units, tmp_path):
    """What a user with a map of their own does."""
    path = units(["D", "J2", "Late Permian", "???"])
    done = call(tmp_path, "draft", path, "--field", "UNIT")
    assert done.exit_code == 0, done.output
    assert "1 without a guess" in done.output
    legend = tmp_path / "map.legend.toml"
    legend.write_text(legend.read_text().replace('"???" = 255', '"???" = 0'))
    done = call(tmp_path, "check", path, "--legend", legend)
    assert done.exit_code == 0, done.output
    assert "0 Meso-Cenozoic cover" in done.output
    words = [
        "rasterize",
        str(path),
        "--legend",
        str(legend),
        "--bbox",
        "80",
        "44",
        "84",
        "46",
        "--resolution",
        "30arcmin",
    ]
    done = CliRunner().invoke(gravmap, ["-w", str(tmp_path), *words])
    assert done.exit_code == 0, done.output
    assert open_labels(tmp_path / "data" / "labels.tif").values[0, ::2].tolist() == [6, 0, 8, 0]


def test_a_map_of_ages_is_rasterized_as_it_is(units, tmp_path):
    path = units([419.2, 66.0], field="b_age", t_age=[358.9, 0.0])
    words = ["rasterize", str(path), "--legend", "ics", "--bbox", "80", "44", "82", "46", "--resolution", "1deg"]
    done = CliRunner().invoke(gravmap, ["-w", str(tmp_path), *words])
    assert done.exit_code == 0, done.output
    assert "2 polygons by b_age, t_age" in done.output
    dry = CliRunner().invoke(gravmap, ["-w", str(tmp_path), *words, "-n", "--overwrite"])
    assert "by the legend ics, field b_age, t_age\n" in dry.output
    assert open_labels(tmp_path / "data" / "labels.tif").values[0].tolist() == [6, 0]


def test_an_unknown_code_is_listed_and_gives_status_3(units, tmp_path):
    path = units(["D", "d", "Xx"], field="GEN_GLG", TYPE=[""] * 3)
    done = call(tmp_path, "check", path, "--legend", "geo3al")
    assert done.exit_code == 3
    assert "differs from D only in case" in done.output
    assert "2 codes" in done.output
    assert "Xx, d" in done.output
    assert "Classes that no polygon has: 0 Meso-Cenozoic cover" in done.output
    none = call(tmp_path, "check", path, "--legend", "fsu_geol", "--field", "TYPE")
    assert none.exit_code == 3
    assert "gravmap legend draft" in none.output


def test_a_field_of_rock_types_is_found_and_what_is_left_to_set_is_reported(units, tmp_path):
    path = units(["D", "D", "C", "???"], TYPE=["i", "", "granite", ""], NOTE=["same"] * 4, LONG=list("abcd"))
    assert call(tmp_path, "draft", path, "--field", "UNIT").exit_code == 0
    legend = tmp_path / "map.legend.toml"
    text = legend.read_text()
    assert "lava" not in text
    assert "[map.override.NOTE]" not in text, "the same in every polygon"
    checked = call(tmp_path, "check", path, "--legend", legend)
    assert checked.exit_code == 0
    assert f'Still "set me" in {legend}, hence not usable, 25.0 % of the area: ???' in checked.stderr
    assert "does TYPE (granite, i) say" in " ".join(checked.stderr.split()).replace("(i, granite)", "(granite, i)")
    start = text.index("# [map.override.TYPE]")
    lines = text[start:].split("# If the field")[0].replace("# [", "[").replace("# i", "i").replace("# gr", "gr")
    legend.write_text(text[:start] + lines.replace("SET ME", "basic intrusive"))
    checked = call(tmp_path, "check", path, "--legend", legend, "--json")
    classes = {
        entry["code"] + entry["others"].get("TYPE", ""): entry["class"] for entry in json.loads(checked.stdout)["codes"]
    }
    assert classes == {"Di": 9, "D": 6, "Cgranite": 10, "???": 255}
    assert "say what the rock is" not in checked.stderr


def test_a_check_as_json(units, tmp_path):
    path = units(["CP", "Pg"], field="GLG", TYPE=["i", "i"])
    done = call(tmp_path, "check", path, "--legend", "geo3al", "--field", "GLG", "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert [(entry["code"], entry["others"], entry["class"]) for entry in printed["codes"]] == [
        ("CP", {"TYPE": "i"}, 10),
        ("Pg", {"TYPE": "i"}, 0),
    ]
    assert printed["class_km2"]["10"] == pytest.approx(17_400, rel=0.02)
    assert printed["unused_classes"] == list(range(1, 10))
    unknown = call(tmp_path, "check", path, "--legend", "geo3al", "--field", "TYPE", "--json")
    assert unknown.exit_code == 3
    assert json.loads(unknown.stdout)["codes"][0]["class"] is None


def test_a_draft_is_replaced_only_with_overwrite_and_a_dry_run_writes_none(units, tmp_path):
    path, out = units(["D"]), tmp_path / "own" / "mine.toml"
    dry = call(tmp_path, "draft", path, "--field", "UNIT", "-o", out, "-n")
    assert dry.exit_code == 0
    assert "D = { age_ma = [419.2, 358.9] }" in dry.output
    assert not out.exists()
    assert call(tmp_path, "draft", path, "--field", "UNIT", "-o", out).exit_code == 0
    out.write_text(out.read_text().replace("{ age_ma = [419.2, 358.9] }", "5"))
    again = call(tmp_path, "draft", path, "--field", "UNIT", "-o", out)
    assert again.exit_code == 3
    assert "--overwrite" in again.output
    assert load_legend(out).codes == {"D": 5}
    done = call(tmp_path, "draft", path, "--field", "UNIT", "-o", out, "--overwrite", "--json")
    assert json.loads(done.stdout)["codes"][0]["why"].startswith("read as Devonian")
    assert load_legend(out).codes == {"D": 6}


def test_a_legend_and_its_class_table_are_shown(units, tmp_path):
    done = call(tmp_path, "show", "geo3al")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert "Class table basement10:" in lines
    cover, carboniferous = (next(k for k, line in enumerate(lines) if name in line) for name in ("Meso-C", "Carbonif"))
    assert lines[cover].index("251.902-0") == lines[carboniferous].index("358.9-298.9")  # in columns
    found = [line.split() for line in lines if line.startswith("  C ")]
    assert found == [["C", "358.9-298.9", "sedimentary", "7", "Carboniferous"]] * 2  # GEN_GLG and GLG
    printed = json.loads(call(tmp_path, "show", "geo3al", "--classes", "bedrock10", "--json").stdout)
    assert printed["class_table"] == "bedrock10"
    assert printed["maps"][0]["codes"]["J"] == {"means": {"age_ma": [201.4, 145]}, "class": 9}
    assert printed["maps"][0]["override"]["TYPE"]["w"]["rock"] == "ultrabasic"
    words = [
        "rasterize",
        str(units(["C"], field="GEN_GLG", TYPE=[""])),
        "--legend",
        "geo3al",
        "--resolution",
        "30arcmin",
    ]
    words += ["--bbox", "80", "44", "81", "45"]
    assert CliRunner().invoke(gravmap, ["-w", str(tmp_path), *words]).exit_code == 0
    shown = call(tmp_path, "show", tmp_path / "data" / "labels.legend.toml").output
    assert "Legend geo3al, field GEN_GLG of map.gpkg:" in shown
    checked = call(tmp_path, "check", tmp_path / "map.gpkg", "--legend", "geo3al", "--classes", "bedrock10")
    assert "9 Mesozoic" in checked.output


def test_options_may_stand_in_the_workspaces_file(units, tmp_path):
    path = units(["D", "J"])
    (tmp_path / "gravmap.toml").write_text(
        '[legend.draft]\nfield = "UNIT"\n[legend.check]\nlegend = "ics"\nfield = "UNIT"\n'
    )
    assert call(tmp_path, "draft", path).exit_code == 0
    assert "legend ics" in call(tmp_path, "check", path).output
    (tmp_path / "gravmap.toml").write_text('[legend.chek]\nlegend = "ics"\n')
    wrong = call(tmp_path, "check", path)
    assert wrong.exit_code == 2
    assert "Did you mean 'check'" in wrong.output


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["check", "{map}"], 2, "--legend"),
        (["draft", "{map}"], 2, "map.gpkg are UNIT"),
        (["chek", "{map}"], 2, "chek"),
        (["check", "none.gpkg", "--legend", "ics"], 3, "none.gpkg"),
        (["check", "{map}", "--legend", "icz"], 3, "Did you mean ics"),
        (["check", "{map}", "--legend", "ics"], 3, "b_age,t_age or"),
        (["check", "{map}", "--legend", "ics", "--field", "a,b,c"], 2, "3 fields"),
        (["check", "{map}", "--legend", "ics", "--field", "UNIT", "--bbox", "0", "0", "1", "1"], 3, "no polygon"),
        (["check", "{lines}", "--legend", "ics", "--field", "UNIT"], 3, "LineString"),
        (["check", "{html}", "--legend", "ics"], 3, "GDAL"),
        (["check", "{nocrs}", "--legend", "ics", "--field", "UNIT"], 3, ".prj"),
        (["show", "bedrok10"], 3, "Did you mean bedrock10"),
        (["show", "bedrock10", "--classes", "basement10"], 3, "no age for 11 codes"),
        (["check", "{map}", "--legend", "ics", "--field", "UNIT", "--classes", "none.toml"], 3, "none.toml"),
        (["draft", "{map}", "--field", "AGE"], 3, "UNIT"),
        (["draft", "{map}", "--field", "UNIT", "--classes", "bedrok10"], 3, "Did you mean bedrock10"),
        (["draft", "{lines}", "--field", "UNIT"], 3, "LineString"),
        (["draft", "{blank}", "--field", "UNIT"], 3, "blank in all 1"),
        (["draft", "{nocrs}", "--field", "UNIT", "--crs", "EPSG:0"], 3, "PROJ"),
    ],
)
def test_bad_input_gets_its_status_and_a_plain_line(units, tmp_path, words, status, message):
    lines = geopandas.GeoDataFrame({"UNIT": ["D"]}, geometry=[LineString([(80, 44), (84, 46)])], crs="EPSG:4326")
    lines.to_file(tmp_path / "lines.gpkg")
    (tmp_path / "page.gpkg").write_text("<!DOCTYPE html><title>403</title>")
    names = {
        "{map}": units(["D", "J"]),
        "{blank}": units([" "], "blank.gpkg"),
        "{nocrs}": units(["D"], "nocrs.shp", crs=None),
        "{lines}": tmp_path / "lines.gpkg",
        "{html}": tmp_path / "page.gpkg",
    }
    done = call(tmp_path, *(names.get(word, word) for word in words))
    assert done.exit_code == status, done.output
    assert message in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.glob("*.legend.toml"))
