"""The GeoTIFFs of a window as GDAL's own tools see them."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import rasterio

from gravmap.geology import load_legend
from gravmap.tiling import make_tiles

pytestmark = pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")


@pytest.fixture(scope="module")
def tiles(sources):
    folder = sources / "looked_at"
    make_tiles(sources / "fields.nc", sources / "labels.tif", folder, sizes_deg=[5], size_px=512)
    return folder


@pytest.mark.parametrize("kind", ["field", "label", "small"])
def test_gdalinfo(tiles, kind):
    path = tiles / "5deg" / f"r000_c001_{kind}.tif"  # 82.5 to 87.5 E, 43 to 48 N
    message = json.loads(subprocess.check_output(["gdalinfo", "-json", "-mm", str(path)]))
    assert (message["size"], message["geoTransform"]) == ([512, 512], [82.5, 5 / 512, 0.0, 48.0, 0.0, -5 / 512])
    assert 'ID["EPSG",4326]' in message["coordinateSystem"]["wkt"]
    (band,) = message["bands"]
    assert band["block"] == [512, 512]
    structure = message["metadata"]["IMAGE_STRUCTURE"]
    assert structure["COMPRESSION"] == "DEFLATE"
    if kind == "field":
        assert (band["type"], band["unit"], band["description"]) == ("Float32", "mGal", "residual_10km (mGal)")
        assert np.isnan(float(band["noDataValue"]))
        assert -60 < band["computedMin"] < band["computedMax"] < 60
    elif kind == "label":
        assert (band["type"], band["noDataValue"], band["colorInterpretation"]) == ("Byte", 255, "Palette")
        entries = band["colorTable"]["entries"]
        assert entries[10] == [0xCE, 0x4D, 0xA0, 255]
        assert entries[255][3] == 0
        assert band["categories"][7] == "Carboniferous"
        assert message["metadata"][""]["GRAVMAP_LEGEND"] == load_legend("bedrock10").name
    else:
        assert (band["type"], band["computedMin"], band["computedMax"]) == ("Byte", 0, 1)
        assert "noDataValue" not in band


def test_a_field_tile_is_off_by_less_than_a_thousandth(tiles):
    with rasterio.open(tiles / "5deg" / "r000_c001_field.tif") as tile:
        steps = tile.read(1).astype(float) * 512
    assert (steps == np.rint(steps)).all()
