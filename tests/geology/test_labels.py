from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_bounds
from shapely import box

from gravmap.errors import InputError
from gravmap.geology import load_legend, open_labels, rasterize, write_labels
from gravmap.geology.labels import LabelFile, legend_path, write_index_raster
from gravmap.geology.legend import Legend
from gravmap.geology.legend_file import read_legend
from gravmap.geology.rasterize_report import RasterizedMap
from gravmap.geology.reclassify import with_classes
from gravmap.regions import Region


@pytest.fixture
def labels(patchwork, tmp_path):
    path = tmp_path / "data" / "labels.tif"
    write_labels(path, rasterize([(patchwork, load_legend("geo3al"))], Region(80, 44, 85, 46), 0.1))
    return path


def untie(path):
    """Write the raster as an earlier version of gravmap did, without the checksum of its legend."""
    read = open_labels(path)
    write_index_raster(path, read.values, read.bounds_wsen, read.legend)


def test_labels_come_back(labels):
    read = open_labels(labels)
    assert (read.values[:, 5::10] == [7, 0, 0, 10, 255]).all()
    assert read.bounds_wsen == pytest.approx((80, 44, 85, 46))
    assert read.resolution_deg == pytest.approx(0.1)
    assert (read.legend.classes, read.legend.table) == (load_legend("basement10").classes, "basement10")
    assert legend_path(labels).name == "labels.legend.toml"
    # The crosswalk and the map's hash travel with the raster.
    (source,) = read.legend.sources
    assert source["codes"]["C"] == {"age_ma": [358.9, 298.9]}
    assert len(source["sha256"]) == 64
    with rasterio.open(labels) as raster:
        tags = raster.tags()
    assert "map.gpkg" in tags["GRAVMAP_SOURCES"]
    assert (tags["GRAVMAP_CLASSES"], tags["GRAVMAP_COVER_YOUNGER_THAN"]) == ("basement10", "251.902 Ma")


def test_without_its_legend_the_default_is_used_and_reported(labels, caplog):
    legend_path(labels).unlink()
    assert open_labels(labels).legend.name == "basement10"
    assert "basement10" in caplog.text


def test_without_its_legend_the_shipped_table_that_the_raster_names_is_used(patchwork, tmp_path):
    path, table = tmp_path / "labels.tif", load_legend("bedrock10")
    write_labels(
        path, rasterize([(patchwork, with_classes(load_legend("geo3al"), table))], Region(80, 44, 85, 46), 0.1)
    )
    legend_path(path).unlink()
    assert open_labels(path).legend.table == "bedrock10"


def test_values_without_a_class_are_refused(labels):
    small = 'name="x"\n[[class]]\nindex=1\nname="a"\ncolour="#000000"\n'
    untie(labels)
    legend_path(labels).write_text(small)
    with pytest.raises(InputError, match=r"\[0, 7, 10\]"):
        open_labels(labels)


def test_a_legend_of_another_raster_is_refused_with_the_command_that_makes_both(labels):
    beside = legend_path(labels)
    beside.write_text(beside.read_text().replace('"Archean"', '"A"').replace('"Permian"', '"Archean"'))
    with pytest.raises(InputError, match=r"labels\.legend\.toml is not the legend[\s\S]*gravmap rasterize MAP"):
        open_labels(labels)


def test_a_lost_legend_with_other_classes_than_the_default_is_no_default(tmp_path):
    path, (cover, old, young, *_) = tmp_path / "labels.tif", load_legend("bedrock10").classes
    own = Legend("own", (cover, replace(old, colour="#123456"), young))
    write_labels(path, RasterizedMap(np.array([[0, 1]], np.uint8), (80, 44, 82, 45), 1.0, own, (), ()))
    assert open_labels(path).legend.classes == own.classes
    legend_path(path).unlink()
    with pytest.raises(InputError, match="not those of basement10"):
        open_labels(path)


def write(path, values, **changes):
    profile = {
        "driver": "GTiff", "height": values.shape[-2], "width": values.shape[-1], "count": 1, "dtype": values.dtype,
        "crs": "EPSG:4326", "transform": from_bounds(80, 44, 85, 46, values.shape[-1], values.shape[-2]),
    } | changes  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(values, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crs": None}, "no coordinate reference system"),
        ({"crs": "EPSG:32645"}, "EPSG:32645"),
        ({"dtype": "int16"}, "int16"),
        ({"nodata": 0}, "nodata 0"),
        ({"transform": rasterio.Affine(0.1, 0, 80, 0, 0.1, 44)}, "north-up"),
    ],
)
def test_other_rasters_are_refused(tmp_path, changes, message):
    path = tmp_path / "labels.tif"
    write(path, np.ones((20, 50), dtype=changes.get("dtype", "uint8")), **changes)
    with pytest.raises(InputError, match=message):
        open_labels(path)


def test_missing_and_broken_labels(tmp_path):
    with pytest.raises(InputError, match="gravmap rasterize"):
        open_labels(tmp_path / "labels.tif")
    (tmp_path / "labels.tif").write_text("<html>")
    with pytest.raises(InputError, match="not a valid raster"):
        open_labels(tmp_path / "labels.tif")


def test_nodes_may_be_counted_in_another_turn(write_map, tmp_path):
    """A raster from 0 to 360 degrees under nodes from -180 to 180."""
    path = write_map([(box(178, 44, 180, 46), {"GEN_GLG": "C"}), (box(-180, 44, -178, 46), {"GEN_GLG": "Cz"})])
    legend = read_legend('name="a"\nclasses="bedrock10"\n[map]\nfield="GEN_GLG"\n[map.codes]\nC=7\nCz=4\n', "a")
    write_labels(tmp_path / "labels.tif", rasterize([(path, legend)], Region(178, 44, 182, 46), 1.0))
    with LabelFile(tmp_path / "labels.tif") as file:
        lat = np.array([45.5, 44.5])
        assert file.sample(lat, np.array([177.5, 179.5, -179.5, -177.5]))[0].tolist() == [255, 7, 4, 255]
        near = file.read_around(lat, np.array([-179.5]), (0.1, 0.1))
        assert near.bounds_wsen[0] == -180
        assert 4 in near.values
        with pytest.raises(InputError, match="not contiguous"):
            file.read_around(lat, np.array([-179.5, 0.0, 179.5]), (0.1, 0.1))
