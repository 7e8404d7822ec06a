import json

import geopandas
import pytest
import rasterio
from click.testing import CliRunner
from shapely.geometry import LineString, box

from gravmap.geology import open_labels
from gravmap.gravity.sources import known_sources
from gravmap_cli import gravmap

BOX = ["--bbox", "80", "44", "84", "46", "--resolution", "6arcmin"]


def call(workspace, *words):
    return CliRunner().invoke(gravmap, ["-w", str(workspace), "rasterize", *map(str, words)])


@pytest.fixture
def bedrock(tmp_path):
    def write(codes, name="map.gpkg", field="GEN_GLG", crs="EPSG:4326", **more):
        shapes = [box(80 + k, 44, 81 + k, 46) for k in range(len(codes))]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        geopandas.GeoDataFrame({field: codes, "TYPE": [""] * len(codes), **more}, geometry=shapes, crs=crs).to_file(
            path
        )
        return path

    return write


def test_a_map_and_its_legend(bedrock, tmp_path):
    done = call(tmp_path, bedrock(["C", "Cz", "D", "oth"]), "--legend", "geo3al", *BOX)
    assert done.exit_code == 0, done.output
    assert "Carboniferous" in done.output
    labels = open_labels(tmp_path / "data" / "labels.tif")
    assert (labels.values[:, 5::10] == [7, 0, 6, 255]).all()
    assert (tmp_path / "data" / "labels.legend.toml").exists()
    with rasterio.open(tmp_path / "data" / "labels.tif") as raster:
        assert raster.crs.to_epsg() == 4326


def test_results_as_json(bedrock, tmp_path):
    done = CliRunner().invoke(
        gravmap, ["-w", str(tmp_path), "rasterize", str(bedrock(["C", "Xx"])), "--legend", "geo3al", "--json", *BOX]
    )
    said = json.loads(done.stdout)
    assert said["class_km2"]["7"] == pytest.approx(17_400, rel=0.02)
    assert said["unknown_codes"][0]["code"] == "Xx"
    assert said["bounds_wsen"] == [80, 44, 84, 46]
    assert "Xx" in done.stderr


def test_nothing_is_replaced_unasked(bedrock, tmp_path):
    path = bedrock(["C"])
    assert call(tmp_path, path, "--legend", "geo3al", *BOX).exit_code == 0
    again = call(tmp_path, path, "--legend", "geo3al", *BOX)
    assert again.exit_code == 3
    assert "--overwrite" in again.output
    assert call(tmp_path, path, "--legend", "geo3al", "--overwrite", *BOX).exit_code == 0


def test_a_dry_run_writes_nothing(bedrock, tmp_path):
    done = call(tmp_path, bedrock(["C"]), "--legend", "geo3al", "-n", *BOX)
    assert done.exit_code == 0
    assert "20 x 40 cells" in done.output
    assert not (tmp_path / "data").exists()


def test_the_region_is_that_of_the_fields_or_the_study_area(bedrock, tmp_path):
    path = bedrock(["C"])
    assert "liu2024" in call(tmp_path, path, "--legend", "geo3al", "-n").output
    named = call(tmp_path, path, "--legend", "geo3al", "-n", "--region", "junggar")
    assert "81E-92E 43N-48N: 1200 x 2640" in named.output


def test_several_maps_in_order(bedrock, tmp_path):
    first, second = bedrock(["C", "oth"], "a.gpkg"), bedrock(["D", "D", "D"], "b.gpkg")
    done = call(tmp_path, "--map", first, "geo3al", "--map", second, "geo3al", *BOX)
    assert done.exit_code == 0, done.output
    assert (open_labels(tmp_path / "data" / "labels.tif").values[:, 5::10] == [7, 6, 6, 255]).all()


def test_the_bare_command_takes_the_fetched_maps(bedrock, tmp_path):
    empty = call(tmp_path)
    assert empty.exit_code == 3
    assert "gravmap fetch" in empty.output
    for source in known_sources().values():
        if source.name == "fsu_geol":
            bedrock(["C", "oth"], "data/raw/fsu_geol.shp", "Glg", None)
            for file in source.files:
                assert (tmp_path / "data" / "raw" / file.name).exists()
    done = call(tmp_path, *BOX)
    assert done.exit_code == 0, done.output
    assert "reprojected from EPSG:4284" in done.output


def test_another_field(bedrock, tmp_path):
    path = bedrock(["C", "D"], AGE=["S", "P"])
    assert call(tmp_path, path, "--legend", "geo3al", "--field", "AGE", *BOX).exit_code == 0
    assert (open_labels(tmp_path / "data" / "labels.tif").values[:, 5:20:10] == [5, 8]).all()
    none = call(tmp_path, path, "--legend", "geo3al", "--field", "AGES", "--overwrite", *BOX)
    assert none.exit_code == 3
    assert "AGE, " in none.output or ", AGE" in none.output


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 3, "gravmap fetch"),
        (["none.gpkg"], 2, "--legend"),
        (["none.gpkg", "--legend", "geo3al"], 3, "none.gpkg"),
        (["--legend", "geo3al"], 2, "MAP"),
        (["x.gpkg", "--map", "y.gpkg", "geo3al"], 2, "not both"),
        (["{map}", "--legend", "geo4al"], 3, "geo3al"),
        (["{map}", "--legend", "geo3al", "--region", "jungar"], 2, "junggar"),
        (["{map}", "--legend", "geo3al", "--bbox", "84", "44", "80", "46"], 2, "west"),
        (["{map}", "--legend", "geo3al", "--resolution", "15"], 2, "no unit"),
        (["{map}", "--legend", "geo3al", "--resolution", "0deg"], 2, "resolution"),
        (["{map}", "--legend", "geo3al", "--bbox", "10", "44", "12", "46"], 3, "80E-82E"),
        (["{map}", "--legend", "fsu_geol"], 3, "GEN_GLG"),
        (["{strange}", "--legend", "geo3al"], 3, "Karbon"),
        (["{nocrs}", "--legend", "geo3al"], 3, ".prj"),
        (["{lines}", "--legend", "geo3al"], 3, "LineString"),
        (["{html}", "--legend", "geo3al"], 3, "GDAL"),
    ],
)
def test_bad_input_gets_its_status_and_a_plain_line(bedrock, tmp_path, words, status, message):
    lines = geopandas.GeoDataFrame(
        {"GEN_GLG": ["C"], "TYPE": [""]}, geometry=[LineString([(80, 44), (84, 46)])], crs="EPSG:4326"
    )
    lines.to_file(tmp_path / "lines.gpkg")
    (tmp_path / "page.gpkg").write_text("<!DOCTYPE html><title>403</title>")
    names = {
        "{map}": bedrock(["C", "D"]),
        "{strange}": bedrock(["Karbon"], "strange.gpkg"),
        "{nocrs}": bedrock(["C"], "nocrs.shp", crs=None),
        "{lines}": tmp_path / "lines.gpkg",
        "{html}": tmp_path / "page.gpkg",
    }
    options = BOX if words and not {"--bbox", "--region", "--resolution"} & set(words) else []
    done = call(tmp_path, *(names.get(word, word) for word in words), *options)
    assert done.exit_code == status, done.output
    assert message in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "data" / "labels.tif").exists()
