"""The files of a map, opened by QGIS as a user would: styled, and in the legend's colours pixel by pixel."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import geopandas
import matplotlib.image
import numpy as np
import pytest
import rasterio
from rasterio.features import rasterize

from gravmap.mapping.files.qgis_project import write_qgis_project
from gravmap.mapping.layers import EVIDENCE_COLOURS, OUTCROP
from toys.explorable import make_explorable
from toys.layers import BANDS, LEGEND

SHAPE, ZOOM = (60, 90), 9
pytestmark = pytest.mark.qgis


def python_with_qgis():
    """The interpreter that has QGIS's bindings; not ours, which is most likely that of an environment."""
    for program in ("/usr/bin/python3", shutil.which("python3")):
        if program and Path(program).exists():
            clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
            clean |= {"QT_QPA_PLATFORM": "offscreen"}
            result = subprocess.run([program, "-c", "import qgis.core"], env=clean, capture_output=True, check=False)
            if result.returncode == 0:
                return program, clean
    return None


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    found = python_with_qgis()
    if found is None:
        pytest.skip("QGIS is not installed")
    program, environment = found
    folder, pictures = tmp_path_factory.mktemp("map"), tmp_path_factory.mktemp("pictures")
    make_explorable(folder, *SHAPE, bands=BANDS)
    write_qgis_project(folder, "A map")
    with sqlite3.connect(folder / "lithology.gpkg") as database:
        (pictures / "polygons.sld").write_text(database.execute("SELECT styleSLD FROM layer_styles").fetchone()[0])
    home = tmp_path_factory.mktemp("home")
    environment |= {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    script = Path(__file__).with_name("qgis_looks.py")
    words = [program, str(script), str(folder), str(pictures), *map(str, (ZOOM, *SHAPE))]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("SEEN ")]
    assert lines, done.stderr
    return folder, pictures, json.loads(lines[0].removeprefix("SEEN ")), done.stderr


def colours(path):
    """Red, green, blue in the middle of every cell."""
    image = np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(int)
    return image[ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM]


def in_colours(values, table):
    expected = np.full((*values.shape, 3), (1, 2, 3))  # the background
    for value, colour in table.items():
        expected[values == value] = tuple(bytes.fromhex(colour[1:]))
    return expected


BY_CLASS = {entry.index: entry.colour for entry in LEGEND.bedrock}


@pytest.mark.parametrize("name", ["lithology.tif", "evidence.tif"])
def test_classes_are_drawn_in_their_colours(looked, name):
    folder, pictures, seen, _ = looked
    assert seen[name]["kind"] == "paletted"
    table = EVIDENCE_COLOURS if name == "evidence.tif" else BY_CLASS
    with rasterio.open(folder / name) as raster:
        values = raster.read(1)
    assert (colours(pictures / f"{name}.png") == in_colours(values, table)).all()


@pytest.mark.parametrize("name", ["lithology.tif", "lithology.gpkg"])
def test_the_legend_has_names_in_order_and_no_others(looked, name):
    expected = [[entry.index, entry.name, entry.colour.upper()] for entry in LEGEND.bedrock]
    assert looked[2][name]["classes"] == expected


def test_polygons_open_styled(looked):
    folder, pictures, seen, complaints = looked
    assert seen["lithology.gpkg"]["valid"]
    assert seen["lithology.gpkg"]["kind"] == "categorizedSymbol"
    assert "GeoPackage" not in complaints  # an older GDAL reads the file's version
    polygons = geopandas.read_file(folder / "lithology.gpkg", layer="lithology")
    assert seen["lithology.gpkg"]["count"] == len(polygons)
    with rasterio.open(folder / "lithology.tif") as raster:
        pairs = zip(polygons.geometry, polygons["class"], strict=True)
        values = rasterize(pairs, out_shape=raster.shape, transform=raster.transform, fill=255)
    for name in ("lithology.gpkg", "polygons.sld"):
        assert (colours(pictures / f"{name}.png") == in_colours(values, BY_CLASS)).all()
    assert seen["polygons.sld"] == {"valid": True, "kind": "RuleRenderer", "message": ""}


@pytest.mark.parametrize(
    ("name", "first", "last"), [("probability", "#440154", "#fde725"), ("uncertainty", "#00224e", "#fee838")]
)
def test_measures_are_drawn_in_a_ramp_from_0_to_1(looked, name, first, last):
    """The ends of matplotlib's viridis and cividis."""
    folder, pictures, seen, _ = looked
    ramp = seen[f"{name}.tif"]["classes"]
    assert seen[f"{name}.tif"]["kind"] == "singlebandpseudocolor"
    assert (ramp[0][0], ramp[0][2]) == (0, first)
    assert (ramp[-1][0], ramp[-1][2]) == (1, last)
    with rasterio.open(folder / f"{name}.tif") as raster:
        band = int(re.search(r'band="(\d+)"', (folder / f"{name}.qml").read_text())[1])
        values = raster.read(band, masked=True) * raster.scales[0]
    drawn = colours(pictures / f"{name}.tif.png")
    assert (drawn[values.mask] == (1, 2, 3)).all()
    # Both ramps brighten from end to end: QGIS took the file's scale into account.
    light = (drawn @ [0.2126, 0.7152, 0.0722])[~values.mask]
    assert np.corrcoef(light, values.compressed())[0, 1] > 0.98
    assert light.max() > 150


def test_the_project_opens_with_every_layer(looked):
    project = looked[2]["map.qgz"]
    assert project["valid"]
    assert project["crs"] == "EPSG:4326"
    assert len(project["layers"]) == 10  # these bands have no probability of the class
    assert all(valid for _, valid, _ in project["layers"])
    visible = [name for name, _, shown in project["layers"] if shown]
    assert visible == ["Outlines of mapped outcrop", "Predicted (ruled)", "Bedrock", "Residual gravity 10 km (mGal)"]


def test_in_the_project_predicted_ground_is_ruled_and_mapped_ground_is_not(looked):
    folder, pictures, *_ = looked
    with rasterio.open(folder / "lithology.tif") as raster, rasterio.open(folder / "evidence.tif") as based_on:
        values, evidence = raster.read(1), based_on.read(1)
    drawn, plain = colours(pictures / "map.qgz.png"), in_colours(values, BY_CLASS)
    mapped, predicted = (evidence == OUTCROP), (evidence != OUTCROP) & (values != 255)
    assert (drawn[mapped] == plain[mapped]).all()  # in the middle of a cell there is no outline
    ruled = (drawn[predicted] > plain[predicted]).any(axis=-1)
    assert 0.1 < ruled.mean() < 0.6
    assert (drawn[predicted] >= plain[predicted]).all()  # lines are white
