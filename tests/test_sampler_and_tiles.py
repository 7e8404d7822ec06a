"""What the network is fed from the native grids, and the tile files: the same field to 0.01 mGal, label for label."""

import json

import numpy as np
import pytest
import rasterio
import xarray as xr

from gravmap.geology import load_legend
from gravmap.geology.labels import write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.gravity import write_fields
from gravmap.learning import RegionDataset
from gravmap.learning.data.channels import FieldChannel, InputChannels
from gravmap.learning.data.dataset import IGNORE
from gravmap.learning.sampling.augmentation import UNCHANGED, Crop
from gravmap.learning.sampling.sampler import Sampler
from gravmap.tiling import load_arrays, make_tiles

SIZE = 90  # some pixel centres lie on the line between two label cells, where rounding must not decide
STEP = 0.1  # of the gravity, degrees


@pytest.fixture(scope="module", params=["gridline", "pixel"])
def tiles(request, tmp_path_factory):
    """80-86 E, 43-48 N in either registration, with rough gravity and labels from single cells to wide bodies."""
    folder = tmp_path_factory.mktemp(request.param)
    off = 0.5 * (request.param == "pixel")
    lat = 43 + STEP * (np.arange(51 - (off > 0)) + off)
    lon = 80 + STEP * (np.arange(61 - (off > 0)) + off)
    rng = np.random.default_rng(4)
    gravity = rng.normal(0, 30, (len(lat), len(lon))).astype(np.float32)
    grid = xr.DataArray(gravity, dims=("lat", "lon"), coords={"lat": lat, "lon": lon}, attrs={"units": "mGal"})
    attrs = {"gravmap_recipe": json.dumps({"quantity": "bouguer"}), "gravmap_sources": "[]"}
    write_fields(xr.Dataset({"bouguer": grid, "residual_10km": grid}, attrs=attrs), folder / "fields.nc")
    coarse, fine = (rng.integers(0, 12, shape) for shape in ((10, 12), (300, 360)))
    labels = np.where(rng.random((300, 360)) < 0.1, fine, coarse.repeat(30, 0).repeat(30, 1)).astype(np.uint8)
    labels[labels == 11] = 255
    legend = load_legend("bedrock10")
    write_index_raster(folder / "labels.tif", labels, (80, 43, 86, 48), legend)
    write_legend(legend, folder / "labels.legend.toml")
    index = make_tiles(
        folder / "fields.nc", folder / "labels.tif", folder / "tiles", sizes_deg=[1, 2.5, 5], size_px=SIZE
    )
    assert index["region_wsen"] == [80, 43, 86, 48]
    return folder / "tiles"


@pytest.fixture(scope="module")
def sampler(tiles):
    # A split by windows holds no cells out, so that crops may lie everywhere.
    area = RegionDataset.from_arrays(load_arrays(tiles, split="random"))
    plain = InputChannels((FieldChannel(area.channels[0], "mGal", 1.0),))
    return Sampler(area, plain, 2 * SIZE, augmentation=UNCHANGED)


# The four corners of the region and a place inside, at every scale.
@pytest.mark.parametrize("name", ["1deg/r000_c000", "1deg/r004_c005", "1deg/r002_c003",
                                  "2.5deg/r000_c003", "2.5deg/r002_c000", "2.5deg/r001_c001",
                                  "5deg/r000_c000", "5deg/r000_c001"])  # fmt: skip
def test_the_sampler_sees_what_the_tile_files_hold(tiles, sampler, name):
    read = {}
    for kind in ("field", "label", "small"):
        with rasterio.open(tiles / f"{name}_{kind}.tif") as tile:
            read[kind], bounds = tile.read(1), tile.bounds
    crop = Crop(
        lat=(bounds.bottom + bounds.top) / 2,
        lon=(bounds.left + bounds.right) / 2,
        half_deg=(bounds.right - bounds.left) / 2,
    )
    fields, target, small = (values.numpy() for values in sampler.read(crop))
    assert fields.shape == (1, SIZE, SIZE)
    assert np.abs(fields[0] - read["field"]).max() < 0.01
    bedrock = (read["label"] > 0) & (read["label"] < 255)
    assert 0 < bedrock.mean() < 1
    assert (target == np.where(bedrock, read["label"].astype(int) - 1, IGNORE)).all()
    assert (small == (read["small"].astype(bool) & bedrock)).all()
    assert 0 < small.mean() < bedrock.mean()
