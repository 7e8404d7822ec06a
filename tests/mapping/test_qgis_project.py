"""map.qgz: a QGIS project of the files beside it, written without QGIS."""

import re
import xml.etree.ElementTree as ElementTree
import zipfile

import pytest
import rasterio

from gravmap.mapping.files.qgis_project import write_qgis_project
from toys.explorable import make_explorable

TITLE = 'Upper <ili> & "co"'


def project_of(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["map.qgs"]
        return ElementTree.fromstring(archive.read("map.qgs"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project") / "map"
    make_explorable(folder)
    write_qgis_project(folder, TITLE)
    return folder


@pytest.fixture
def project(folder):
    return project_of(folder / "map.qgz")


def test_every_layer_is_a_file_beside_the_project(folder, project):
    layers = project.findall("projectlayers/maplayer")
    sources = [layer.findtext("datasource") for layer in layers]
    assert len(sources) == 11
    for source in sources:
        assert source.startswith("./")
        assert (folder / source.split("|")[0]).is_file()
    assert project.findtext("properties/Paths/Absolute") == "false"
    assert project.findtext("title") == TITLE
    assert project.findtext("projectCrs/spatialrefsys/authid") == "EPSG:4326"


def test_outlines_and_ruling_lie_over_the_classes_and_gravity_below(project):
    tree = project.findall("layer-tree-group/layer-tree-layer")
    assert [each.get("name") for each in tree] == [
        "Outlines of mapped outcrop",
        "Predicted (ruled)",
        "Bedrock",
        "Null model: label diffusion, without gravity",
        "Probability of the class",
        "Uncertainty (entropy)",
        "Evidence",
        "Thickness of the cover, median (m)",
        "Residual gravity 10 km (mGal)",
        "Bouguer gravity (mGal)",
        "Distance to mapped outcrop (km)",
    ]
    checked = [each.get("name") for each in tree if each.get("checked") == "Qt::Checked"]
    assert checked == ["Outlines of mapped outcrop", "Predicted (ruled)", "Bedrock", "Residual gravity 10 km (mGal)"]
    # The tree refers to the layers by identities that QGIS keeps: of more than ten characters.
    identities = [layer.findtext("id") for layer in project.findall("projectlayers/maplayer")]
    assert [each.get("id") for each in tree] == identities
    assert len(set(identities)) == len(identities)
    assert all(len(each) > 10 for each in identities)


def test_ruling_is_on_predicted_ground_alone(project):
    outlines, ruled = project.findall("projectlayers/maplayer")[:2]
    assert outlines.findtext("datasource").endswith('|layername=lithology|subset="mapped" = 1')
    assert ruled.findtext("datasource").endswith('|layername=lithology|subset="mapped" = 0')
    assert [each.get("class") for each in ruled.iter("layer")] == ["LinePatternFill", "SimpleLine"]
    assert [each.get("class") for each in outlines.iter("layer")] == ["SimpleLine"]


def test_the_bands_are_those_that_the_names_say(folder, project):
    def band(name):
        layer = next(each for each in project.iter("maplayer") if each.findtext("layername") == name)
        renderer = layer.find("pipe/rasterrenderer")
        with rasterio.open(folder / layer.findtext("datasource")) as raster:
            return raster.descriptions[int(renderer.get("band")) - 1], renderer

    assert band("Probability of the class")[0] == "probability"
    assert band("Uncertainty (entropy)")[0] == "entropy"
    assert band("Bouguer gravity (mGal)")[0] == "bouguer"
    name, renderer = band("Residual gravity 10 km (mGal)")
    low, high = float(renderer.get("classificationMin")), float(renderer.get("classificationMax"))
    assert name == "residual_10km"
    assert low == -high < 0  # zero is in the middle of the colours


def test_the_same_map_gives_the_same_file(folder):
    before = (folder / "map.qgz").read_bytes()
    write_qgis_project(folder, TITLE)
    assert (folder / "map.qgz").read_bytes() == before


def test_layers_without_a_file_are_left_out(tmp_path):
    make_explorable(tmp_path)
    for name in ("gravity", "null_model", "outcrop_distance", "cover_thickness"):
        (tmp_path / f"{name}.tif").unlink()
    project = project_of(write_qgis_project(tmp_path, TITLE))
    sources = {layer.findtext("datasource").split("|")[0] for layer in project.iter("maplayer")}
    assert sources == {"./lithology.gpkg", "./lithology.tif", "./uncertainty.tif", "./evidence.tif"}


def test_probability_alone_opens_on_a_class_that_there_is(folder):
    band = int(re.search(r'band="(\d+)"', (folder / "probability.qml").read_text())[1])
    with rasterio.open(folder / "probability.tif") as raster:
        means = [raster.read(number, masked=True).mean() for number in raster.indexes]
    assert band > 1  # or the test would not see the difference
    assert means[band - 1] == max(means)
