import json

import geopandas
import numpy as np
import pytest
import rasterio
import xarray as xr
from click.testing import CliRunner
from shapely.geometry import LineString, box

from gravmap.download.sources import known_sources
from gravmap.geology import open_labels
from gravmap.mapping.record.data_sources import label_file_sources, with_terms
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
    assert "of the region is on a map" not in done.output
    small = call(tmp_path, bedrock(["C"]), "--legend", "geo3al", "--overwrite", *BOX)
    assert "Only 25 % of the region is on a map." in small.stderr
    call(tmp_path, bedrock(["C", "Cz", "D", "oth"]), "--legend", "geo3al", "--overwrite", *BOX)
    assert (tmp_path / "data" / "labels.legend.toml").exists()
    with rasterio.open(tmp_path / "data" / "labels.tif") as raster:
        assert raster.crs.to_epsg() == 4326


def test_results_as_json(bedrock, tmp_path):
    done = CliRunner().invoke(
        gravmap, ["-w", str(tmp_path), "rasterize", str(bedrock(["C", "Xx"])), "--legend", "geo3al", "--json", *BOX]
    )
    printed = json.loads(done.stdout)
    assert printed["class_km2"]["7"] == pytest.approx(17_400, rel=0.02)
    assert printed["unknown_codes"][0]["code"] == "Xx"
    assert printed["bounds_wsen"] == [80, 44, 84, 46]
    assert "Xx" in done.stderr


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_the_users_own_legend_is_never_replaced(bedrock, tmp_path, more):
    """`-o basin.tif` writes basin.legend.toml beside it, which is what the legend of basin.gpkg is called."""
    path, legend = bedrock(["C"], "basin.gpkg", "UNIT"), tmp_path / "basin.legend.toml"
    text = 'name = "mine"\nclasses = "bedrock10"\n[map]\nfield = "UNIT"\n[map.codes]\nC = 7\n# checked with the sheet\n'
    legend.write_text(text)
    done = call(tmp_path, path, "--legend", legend, "-o", tmp_path / "basin.tif", *BOX, *more)
    assert done.exit_code == 3
    assert f"{legend} is read by this command, and would be replaced" in done.output
    assert "-o" in done.output
    # Nor is one that another command is to read.
    done = call(tmp_path, bedrock(["C"]), "--legend", "geo3al", "-o", tmp_path / "basin.tif", *BOX)
    assert done.exit_code == 3
    assert f"{legend} exists already" in done.output
    assert legend.read_text() == text
    assert not (tmp_path / "basin.tif").exists()


def test_nothing_is_replaced_without_overwrite(bedrock, tmp_path):
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
    (source,) = label_file_sources(tmp_path / "data" / "labels.tif")
    assert with_terms(source)["known_as"] == "fsu_geol"


def test_the_cover_and_the_class_table_are_the_users_choice(bedrock, tmp_path):
    path, labels = bedrock(["C", "J", "Q", "P"]), tmp_path / "data" / "labels.tif"
    for more, table, values in [
        ([], "basement10", [7, 0, 0, 8]),
        (["--classes", "bedrock10"], "bedrock10", [7, 9, 0, 8]),
        (["--cover-younger-than", "Mesozoic"], "basement10", [7, 0, 0, 8]),
        (["--classes", "bedrock10", "--cover-younger-than", "251.9Ma"], "bedrock10-251.902Ma", [7, 0, 0, 8]),
        (["--cover-younger-than", "Permian"], "basement10-298.9Ma", [7, 0, 0, 0]),
        (["--legend", tmp_path / "kept.toml"], "basement10-298.9Ma", [7, 0, 0, 0]),
    ]:
        done = call(tmp_path, path, "--legend", "geo3al", *more, "--overwrite", *BOX)
        assert done.exit_code == 0, done.output
        assert f"Classes of {table}:" in done.output
        read = open_labels(labels)
        assert (read.legend.table, read.values[0, 5::10].tolist()) == (table, values)
        labels.with_name("labels.legend.toml").replace(tmp_path / "kept.toml")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--cover-younger-than", "251.9"], 2, "no unit"),
        (["--cover-younger-than", "Mesozic"], 2, "did you mean Mesozoic"),
        (["--cover-younger-than", "66Ma"], 3, "--classes bedrock10"),
        (["--cover-younger-than", "0Ma"], 3, "No cover is left"),
        (["--cover-younger-than", "4500Ma"], 3, "No bedrock is left"),
        (["--cover-younger-than", "298.9Ma", "--legend", "basement10", "--field", "GEN_GLG"], 3, "has no age for"),
        (["--classes", "bedrok10"], 3, "Did you mean bedrock10"),
    ],
)
def test_classes_that_cannot_be_are_refused(bedrock, tmp_path, words, status, message):
    done = call(tmp_path, bedrock(["C", "J"]), "--legend", "geo3al", *words, *BOX)
    assert done.exit_code == status, done.output
    assert message in done.output
    assert not (tmp_path / "data").exists()


def test_another_field(bedrock, tmp_path):
    path = bedrock(["C", "D"], AGE=["S", "P"])
    assert call(tmp_path, path, "--legend", "geo3al", "--field", "AGE", *BOX).exit_code == 0
    assert (open_labels(tmp_path / "data" / "labels.tif").values[:, 5:20:10] == [5, 8]).all()
    none = call(tmp_path, path, "--legend", "geo3al", "--field", "AGES", "--overwrite", *BOX)
    assert none.exit_code == 3
    assert "AGE, " in none.output or ", AGE" in none.output


def test_areas_mapped_twice_and_the_reasons_for_255_are_reported(bedrock, tmp_path):
    path = bedrock(["C", "oth", "Zz"])
    frame = geopandas.read_file(path)
    frame.loc[len(frame)] = {"GEN_GLG": "D", "TYPE": "", "geometry": box(80.5, 44, 81, 46)}
    frame.to_file(path)
    other = bedrock(["S"], "other.gpkg")
    words = ["--map", path, "geo3al", "--map", other, "geo3al", *BOX]
    done = call(tmp_path, *words)
    assert done.exit_code == 0, done.output
    for line in ("mapped twice with different classes; the later polygon in the file wins", "the earlier map",
                 "outside every polygon", "gap codes", "unknown codes"):  # fmt: skip
        assert line in done.output
    printed = json.loads(call(tmp_path, *words, "--overwrite", "--json", "-q").stdout)
    assert printed["maps"][0]["disputed_km2"] == pytest.approx(8700, rel=0.02)
    assert printed["disputed_between_maps_km2"] == pytest.approx(17_400, rel=0.02)
    assert sum(printed["unusable_km2"].values()) == pytest.approx(printed["class_km2"]["255"])
    assert sum(printed["class_km2"].values()) == pytest.approx(printed["region_km2"])
    assert printed["unusable_km2"]["gap_codes"] == pytest.approx(printed["unusable_km2"]["unknown_codes"])


@pytest.fixture
def faulted(tmp_path):
    """A workspace with fields of 80-84 E, 44-46 N, and a map of one fault."""
    lat, lon = np.arange(44, 46.01, 0.25), np.arange(79.5, 84.01, 0.25)
    grid = xr.DataArray(np.add.outer(lat, lon), coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), name="bouguer")
    grid.assign_attrs(units="mGal").to_netcdf(tmp_path / "grid.nc")
    words = ["-w", str(tmp_path), "residual", str(tmp_path / "grid.nc"), "--height", "10km"]
    done = CliRunner().invoke(gravmap, words)
    assert done.exit_code == 0, done.output
    line = geopandas.GeoDataFrame({"n": [1]}, geometry=[LineString([(80, 44), (84, 46)])], crs="EPSG:4326")
    line.to_file(tmp_path / "faults.gpkg")
    return tmp_path, words


def test_faults_alone_become_a_channel_and_make_no_labels(faulted):
    folder, residual = faulted
    done = call(folder, "--faults", folder / "faults.gpkg", "--fault-cap", "50km")
    assert done.exit_code == 0, done.output
    assert "1 line within 50 km" in done.output
    assert not (folder / "data" / "labels.tif").exists()
    with xr.open_dataset(folder / "data" / "fields.nc") as fields:
        assert float(fields["fault_distance"].sel(lat=45, lon=82)) < 0.1
        assert float(fields["fault_distance"].max()) == 50
    assert call(folder, "--faults", folder / "faults.gpkg").exit_code == 3
    again = call(folder, "--faults", folder / "faults.gpkg", "--overwrite", "--json")
    assert json.loads(again.stdout)["faults"]["cap_km"] == 100
    assert "deprecated: use `gravmap layer add --distance`" in again.output
    # New fields on the same nodes keep the channel.
    renewed = CliRunner().invoke(gravmap, [*residual, "--overwrite"])
    assert renewed.exit_code == 0
    assert "fault_distance kept" in renewed.output


def test_options_of_gravmap_toml_that_are_for_a_map_do_not_stand_in_the_way(faulted):
    folder, _ = faulted
    (folder / "gravmap.toml").write_text('[rasterize]\nlegend = "crust"\noutput = "own.tif"\n')
    assert call(folder, "--faults", folder / "faults.gpkg", "-n").exit_code == 0
    typed = call(folder, "--faults", folder / "faults.gpkg", "-n", "--legend", "crust")
    assert typed.exit_code == 2


def test_labels_and_faults_in_one_go_and_dry(faulted, bedrock):
    folder, _ = faulted
    words = [bedrock(["C", "D"]), "--legend", "geo3al", "--faults", folder / "faults.gpkg", *BOX]
    dry = call(folder, *words, "-n", "--json")
    assert json.loads(dry.stdout)["faults"]["would_add"] == "fault_distance"
    assert not (folder / "data" / "labels.tif").exists()
    done = call(folder, *words, "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["faults"]["lines"] == [1]
    assert printed["class_km2"]["7"] > 0


def test_faults_that_cannot_serve_stop_before_any_label_is_made(faulted, bedrock):
    folder, _ = faulted
    words = [bedrock(["C", "D"]), "--legend", "geo3al", *BOX, "--faults"]
    missing = call(folder, *words, folder / "none.gpkg")
    assert missing.exit_code == 3
    assert "none.gpkg" in missing.output
    (folder / "data" / "fields.nc").unlink()
    homeless = call(folder, *words, folder / "faults.gpkg")
    assert homeless.exit_code == 3
    assert "gravmap residual" in homeless.output
    assert call(folder, "--faults", folder / "faults.gpkg", "--fault-cap", "0km").exit_code == 2
    assert call(folder, "--faults", folder / "faults.gpkg", "--legend", "geo3al").exit_code == 2
    assert not (folder / "data" / "labels.tif").exists()


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
        (["{map}", "--legend", "geo3al", "--bbox", "80", "44", "80", "46"], 2, "west"),
        (["{map}", "--legend", "geo3al", "--bbox", "80", "46", "84", "46"], 2, "latitudes"),
        (["{map}", "--legend", "geo3al", "--resolution", "15"], 2, "no unit"),
        (["{map}", "--legend", "geo3al", "--resolution", "0deg"], 2, "resolution"),
        (["{map}", "--legend", "geo3al", "--bbox", "10", "44", "12", "46"], 3, "80E-82E"),
        (["{map}", "--legend", "fsu_geol"], 3, "GEN_GLG"),
        (["{strange}", "--legend", "geo3al"], 3, "Karbon"),
        (["{nocrs}", "--legend", "geo3al"], 3, ".prj"),
        (["{lines}", "--legend", "geo3al"], 3, "LineString"),
        (["{empty}", "--legend", "geo3al"], 3, "empty.gpkg"),
        (["{html}", "--legend", "geo3al"], 3, "GDAL"),
    ],
)
def test_bad_input_gets_its_status_and_a_plain_line(bedrock, tmp_path, words, status, message):
    lines = geopandas.GeoDataFrame(
        {"GEN_GLG": ["C"], "TYPE": [""]}, geometry=[LineString([(80, 44), (84, 46)])], crs="EPSG:4326"
    )
    lines.to_file(tmp_path / "lines.gpkg")
    lines.iloc[:0].to_file(tmp_path / "empty.gpkg", geometry_type="Polygon")
    (tmp_path / "page.gpkg").write_text("<!DOCTYPE html><title>403</title>")
    names = {
        "{map}": bedrock(["C", "D"]),
        "{strange}": bedrock(["Karbon"], "strange.gpkg"),
        "{nocrs}": bedrock(["C"], "nocrs.shp", crs=None),
        "{lines}": tmp_path / "lines.gpkg",
        "{empty}": tmp_path / "empty.gpkg",
        "{html}": tmp_path / "page.gpkg",
    }
    options = BOX if words and not {"--bbox", "--region", "--resolution"} & set(words) else []
    for dry in ([], ["-n"]):
        done = call(tmp_path, *(names.get(word, word) for word in words), *options, *dry)
        assert done.exit_code == status, done.output
        assert message in done.output
        assert "Traceback" not in done.output
        assert not (tmp_path / "data" / "labels.tif").exists()
