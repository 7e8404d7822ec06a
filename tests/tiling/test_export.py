"""Tile sets laid out for ArcGIS and for torchgeo, read the way those two read them."""

import json
import re

import numpy as np
import pytest
import rasterio

from gravmap.errors import InputError, OptionError
from gravmap.tiling import export_tiles, make_tiles


@pytest.fixture(scope="module")
def tiles(sources):
    folder = sources / "exported"
    make_tiles(sources / "fields.nc", sources / "labels.tif", folder, sizes_deg=[2.5, 5], size_px=64)
    return folder


def read(path):
    with rasterio.open(path) as raster:
        return raster.read(1)


def test_arcgis_finds_what_it_reads(tiles, tmp_path):
    """The steps of arcgis.learn.prepare_data for Classified_Tiles: map.txt, the label beside each image, the .emd."""
    assert export_tiles(tiles, tmp_path / "e", "esri") == 21
    root = tmp_path / "e"
    stats = json.loads((root / "esri_accumulated_stats.json").read_text())
    assert (stats["MetaDataMode"], stats["NumBands"], stats["NumTiles"]) == ("Classified_Tiles", 1, 21)
    lines = (root / "map.txt").read_text().splitlines()
    assert len(lines) == 21
    pixels = np.zeros(256, int)
    fields = []
    for line in lines:
        image, label = (root / word.replace("\\", "/") for word in line.split())
        assert label == image.parents[1] / "labels" / image.name
        with rasterio.open(image) as field, rasterio.open(label) as classes:
            assert field.transform == classes.transform
            assert (classes.dtypes, classes.nodata) == (("uint8",), 0)
            pixels += np.bincount(classes.read(1).ravel(), minlength=256)
            fields.append(field.read(1).astype(float))
        name = re.sub(r"deg_", "deg/", image.stem)
        ours = read(tiles / f"{name}_label.tif")
        assert (read(label) == np.where(ours == 255, 0, ours)).all()
        assert (read(image) == read(tiles / f"{name}_field.tif")).all()
    emd = json.loads((root / "esri_model_definition.emd").read_text())
    assert [entry["Value"] for entry in emd["Classes"]] == list(range(1, 11))
    assert (emd["Classes"][6]["Name"], emd["Classes"][9]["Color"]) == ("Carboniferous", [0xCE, 0x4D, 0xA0])
    assert stats["ClassPixelStats"]["NumPixelsPerClass"] == pixels[1:11].tolist()
    (band,) = emd["AllTilesStats"]
    known = np.concatenate([field.ravel() for field in fields])
    expected = (known.min(), known.max(), known.mean(), known.std())
    assert [band[key] for key in ("Min", "Max", "Mean", "StdDev")] == pytest.approx(expected)
    (state,) = stats["BandStatsState"]
    assert state["Num"] == known.size
    assert (state["M2"] / state["Num"]) ** 0.5 == pytest.approx(known.std())


def test_torchgeo_finds_images_and_masks(tiles, tmp_path):
    assert export_tiles(tiles, tmp_path / "g", "torchgeo") == 21
    for scale, count in (("2.5deg", 18), ("5deg", 3)):
        images, masks = (sorted((tmp_path / "g" / scale / part).iterdir()) for part in ("images", "masks"))
        assert [path.name for path in images] == [path.name for path in masks]
        assert len(images) == count
        with rasterio.open(images[0]) as image, rasterio.open(masks[0]) as mask:
            assert image.bounds == mask.bounds
            assert (image.dtypes, mask.dtypes) == (("float32",), ("uint8",))
            assert image.res == pytest.approx((float(scale[:-3]) / 64,) * 2)


def test_an_incomplete_set_is_not_exported(tiles, sources, tmp_path):
    with pytest.raises(OptionError, match="esri or torchgeo"):
        export_tiles(tiles, tmp_path / "e", "tfrecord")
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists"):
        export_tiles(tiles, tmp_path / "there", "esri")
    make_tiles(sources / "fields.nc", sources / "labels.tif", tmp_path / "bare", sizes_deg=[5], index_only=True)
    with pytest.raises(InputError, match="0 of 3 tiles"):
        export_tiles(tmp_path / "bare", tmp_path / "e", "esri")
    with pytest.raises(InputError, match="gravmap tile"):
        export_tiles(tmp_path / "none", tmp_path / "e", "esri")
    assert not (tmp_path / "e").exists()
