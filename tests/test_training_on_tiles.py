"""Crops cut from tile files: those of the native grids while no tile is edited, and the edits once one is."""

import dataclasses
import functools
import json
import pickle
import shutil

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from click.testing import CliRunner

from gravmap.errors import InputError, OptionError
from gravmap.files import write_checksummed_json
from gravmap.geology import load_legend
from gravmap.geology.labels import write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.gravity import write_fields
from gravmap.learning import RegionDataset, TrainConfig, load_model
from gravmap.learning import train as train_and_draw
from gravmap.learning.data.channels import FieldChannel, InputChannels
from gravmap.learning.data.dataset import IGNORE
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.sampling.augmentation import PAPER, UNCHANGED, Augmentation, Crop
from gravmap.learning.sampling.crop_source import CropSource
from gravmap.learning.sampling.sampler import Sampler
from gravmap.learning.training.launch import launch
from gravmap.tiling import TileDataset, load_arrays, make_tiles
from gravmap.tiling.tile_files import verify_tiles
from gravmap_cli import gravmap

train = functools.partial(train_and_draw, pictures=False)  # drawing takes longer than a few steps

SIZE = 512  # pixels a tile: 26 from node to node in the smaller windows
STEP = 0.1  # of the gravity, degrees
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """80-85 E, 43-48 N: waves of over a degree, and bodies of half a degree; the noise of a rough field is 0."""
    folder = tmp_path_factory.mktemp("tiles")
    lat, lon = 43 + STEP * np.arange(51), 80 + STEP * np.arange(51)
    x, y = np.meshgrid(lon - 80, lat - 43)
    gravity = (20 * np.sin(1.1 * x + 0.7 * y) + 12 * np.cos(1.3 * y - 0.8 * x)).astype(np.float32)
    grid = xr.DataArray(gravity, dims=("lat", "lon"), coords={"lat": lat, "lon": lon}, attrs={"units": "mGal"})
    attrs = {"gravmap_recipe": json.dumps({"quantity": "bouguer"}), "gravmap_sources": "[]"}
    write_fields(xr.Dataset({"bouguer": grid, "residual_10km": grid}, attrs=attrs), folder / "fields.nc")
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 11, (10, 10)).repeat(30, 0).repeat(30, 1).astype(np.uint8)
    legend = load_legend("bedrock10")
    write_index_raster(folder / "labels.tif", labels, (80, 43, 85, 48), legend)
    write_legend(legend, folder / "labels.legend.toml")
    make_tiles(
        folder / "fields.nc", folder / "labels.tif", folder / "tiles", sizes_deg=[2.5], strides_deg=[1.25],
        size_px=SIZE, block_deg=1.0, buffer_deg=0.1,
    )  # fmt: skip
    return folder


@pytest.fixture
def tiles(made, tmp_path):
    """A copy that may be edited."""
    shutil.copytree(made, tmp_path / "set")
    return tmp_path / "set" / "tiles"


def both(folder, **options):
    """The sampler of the native grids, and that of the tiles."""
    area = RegionDataset.from_arrays(load_arrays(folder))
    plain = InputChannels((FieldChannel(area.channels[0], "mGal", 1.0),))
    options.setdefault("augmentation", UNCHANGED)
    return (
        Sampler(area, plain, SIZE, **options),
        Sampler(DatasetSplits.from_tiles(area, TileDataset(folder)), plain, SIZE, **options),
    )


def near_a_side(target):
    """Pixels beside one of another target, where half a tile's pixel decides."""
    near = torch.zeros_like(target, dtype=torch.bool)
    for axis in (0, 1):
        turned = target.transpose(0, axis)
        beside = turned[1:] != turned[:-1]
        view = near.transpose(0, axis)
        view[1:] |= beside
        view[:-1] |= beside
    return near


WINDOW = (81.25, 44.25, 83.75, 46.75)
PX = 2.5 / SIZE


@pytest.mark.parametrize("how", [{}, {"flip_x": -1}, {"flip_y": -1}, {"flip_x": -1, "angle_rad": 0.0}])
def test_crops_on_the_pixels_of_a_tile_are_the_native_ones(made, how):
    native, cut = both(made / "tiles")
    crop = Crop(45.5 + 31 * PX, 82.5 - 64 * PX, 0.625, window_wsen=WINDOW, **how)
    (field, target, small), (tile_field, tile_target, tile_small) = native.read(crop), cut.read(crop)
    # 2^-10 mGal is what tiles are rounded to; the field is interpolated in float32.
    assert (field - tile_field).abs().max() < 2**-10 + 1e-4
    assert torch.equal(target, tile_target)
    assert torch.equal(small, tile_small)
    assert 0.1 < (target != IGNORE).float().mean() < 0.99


@pytest.mark.parametrize(
    "how",
    [{}, {"flip_y": -1}, {"angle_rad": 0.5}, {"angle_rad": 2.2, "flip_x": -1},
     {"angle_rad": 1.0, "amplitude": 1.1, "offset_mgal": -1.5, "noise": 0.3, "noise_seed": 4}],
)  # fmt: skip
def test_crops_anywhere_in_the_window_are_the_native_ones(made, how):
    native, cut = both(made / "tiles")
    crop = Crop(45.5123, 82.4871, 0.625, window_wsen=WINDOW, **how)
    (field, target, small), (tile_field, tile_target, tile_small) = native.read(crop), cut.read(crop)
    assert (field - tile_field).abs().max() < 0.01
    clear = ~near_a_side(target)
    assert 0.9 < clear.float().mean() < 1
    assert torch.equal(target[clear], tile_target[clear])
    assert torch.equal(small[clear], tile_small[clear])


def test_the_same_samples_are_drawn_either_way(made):
    native, cut = both(made / "tiles", augmentation=Augmentation(), seed=3)
    assert [native.draw(1, number) for number in range(8)] == [cut.draw(1, number) for number in range(8)]
    (field, target, _), (tile_field, tile_target, _) = native.batch(1, [0, 1, 2, 3]), cut.batch(1, [0, 1, 2, 3])
    # Corners of turned crops lie outside their window; the rest agrees, noise and all.
    inside = (tile_target != IGNORE) & (target != IGNORE)
    assert inside.float().mean() > 0.2
    assert (tile_target[inside] == target[inside]).float().mean() > 0.97
    assert (field[:, 0] - tile_field[:, 0])[inside].abs().quantile(0.95) < 0.01


def test_image_augmentation_agrees_too(made):
    native, cut = both(made / "tiles", augmentation=PAPER, seed=5)
    unturned = [n for n in range(40) if not native.draw(0, n).angle_rad][:6]
    inside = [n for n in unturned if _inside(native.draw(0, n))]
    assert inside
    for number in inside:
        ours, theirs = native.batch(0, [number])[0], cut.batch(0, [number])[0]
        assert (ours - theirs).abs().max() < 0.02


def _inside(crop):
    west, south, east, north = crop.window_wsen
    half = crop.half_deg
    return west <= crop.lon - half and crop.lon + half <= east and south <= crop.lat - half and crop.lat + half <= north


def test_targets_outside_the_window_are_ignored_and_the_field_mirrored(made):
    native, cut = both(made / "tiles")
    crop = Crop(45.5, 83.75, 0.625, window_wsen=WINDOW)  # its eastern half is outside
    field, target, _ = cut.read(crop)
    half = SIZE // 4
    assert (target[:, half:] == IGNORE).all()
    assert torch.equal(target[:, :half], native.read(crop)[1][:, :half])
    # Mirrored at the outermost pixel's centre, half a pixel inside.
    torch.testing.assert_close(field[0, :, half : 2 * half - 1], field[0, :, : half - 1].flip(1), atol=0.3, rtol=0)


def item(folder, window=WINDOW):
    tiles = TileDataset(folder)
    return tiles[tiles.bounds_wsen.tolist().index(list(window))]


def edit(path, change):
    with rasterio.open(path, "r+") as tile:
        tile.write(change(tile.read(1)), 1)


def test_edits_are_used_but_not_on_held_out_cells(tiles):
    before = TileDataset(tiles)
    crop = Crop(45.5, 82.5, 0.625, window_wsen=WINDOW)
    edit(tiles / "2.5deg/r001_c001_label.tif", lambda values: np.full_like(values, 7))
    edit(tiles / "2.5deg/r001_c001_field.tif", lambda values: values + np.float32(5))
    faults = verify_tiles(tiles)
    edited = TileDataset(tiles)
    assert set(faults) == edited.edited == {"2.5deg/r001_c001_label.tif", "2.5deg/r001_c001_field.tif"}
    assert edited.record["sha256"] != before.record["sha256"]
    native, cut = both(tiles)
    field, target, _ = cut.read(crop)
    assert (field - native.read(crop)[0]).median() == pytest.approx(5, abs=0.01)
    area = RegionDataset.from_arrays(load_arrays(tiles))
    u = ((np.arange(SIZE // 2) + 0.5) / (SIZE // 2) * 2 - 1) * 0.625
    role = area.role[area.label_rows(45.5 - u)[:, None], area.label_columns(82.5 + u)[None, :]]
    assert {0, 3} < set(np.unique(role).tolist())
    np.testing.assert_array_equal(target.numpy(), np.where(role == 0, 6, IGNORE))


def test_the_mask_of_small_bodies_is_the_native_one_until_it_is_edited(tiles):
    assert item(tiles)["small_edited"] is False
    edit(tiles / "2.5deg/r001_c001_small.tif", np.ones_like)
    assert item(tiles)["small_edited"] is True
    assert item(tiles)["small"].all()
    _, target, small = both(tiles)[1].read(Crop(45.5, 82.5, 0.625, window_wsen=WINDOW))
    assert torch.equal(small, target != IGNORE)


def test_targets_without_data_are_ignored_for_any_nodata_value(tiles):
    path = tiles / "2.5deg/r001_c001_field.tif"

    def hole(values):
        values[:, :256] = -9999
        return values

    edit(path, hole)
    with pytest.raises(InputError, match="-9999 mGal"):
        item(tiles)
    with rasterio.open(path, "r+") as tile:
        tile.nodata = -9999
    field, target, _ = both(tiles)[1].read(Crop(45.5, 82.5, 0.625, window_wsen=WINDOW))
    assert (target[:, :128] == IGNORE).all()
    assert (target[:, 128:] != IGNORE).any()
    assert field.isfinite().all()


def resave(path, **changes):
    with rasterio.open(path) as tile:
        values, profile = tile.read(1), tile.profile
    values = changes.pop("values", lambda each: each)(values)
    profile.update(width=values.shape[1], height=values.shape[0], **changes)
    with rasterio.open(path, "w", **profile) as tile:
        tile.write(values, 1)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("field", {"crs": "EPSG:3857"}, "EPSG:3857"),
        ("field", {"values": lambda each: each[:-2]}, "512 x 510 pixels"),
        ("field", {"transform": rasterio.transform.from_bounds(81.25, 44.25, 83.7, 46.75, SIZE, SIZE)}, "83.7"),
        ("label", {"values": lambda each: each * 0 + 11}, "holds 11"),
        ("label", {"dtype": "float32", "values": lambda each: each.astype("f4") + 0.5}, "holds 0.5"),
        ("small", {"values": lambda each: each * 0 + 2}, "holds 2"),
    ],
)
def test_an_invalid_tile_is_refused_by_name(tiles, kind, changes, message):
    path = tiles / f"2.5deg/r001_c001_{kind}.tif"
    resave(path, **changes)
    with pytest.raises(InputError, match=message) as refused:
        item(tiles)
    assert path.name in str(refused.value)


def test_a_program_that_saves_labels_as_floats_is_understood(tiles):
    before = item(tiles)["mask"]
    resave(tiles / "2.5deg/r001_c001_label.tif", dtype="float32", values=lambda each: each.astype("f4"))
    assert torch.equal(item(tiles)["mask"], before)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_missing_damaged_and_never_made_tiles(tiles):
    dataset = TileDataset(tiles)
    path = tiles / f"{dataset.names[4]}_field.tif"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="cannot be read"):
        dataset[4]
    path.unlink()
    with pytest.raises(InputError, match="1 of 27 tile files"):
        TileDataset(tiles)
    index = json.loads((tiles / "index.json").read_text())
    write_checksummed_json(tiles / "index.json", {**index, "tiles": False})
    with pytest.raises(InputError, match="--index-only") as refused:
        TileDataset(tiles)
    assert "gravmap tile --overwrite" in refused.value.hint


def test_other_fields_are_not_in_tiles(made):
    area = RegionDataset.from_arrays(load_arrays(made / "tiles", channels=["residual_10km", "bouguer"]))
    tiles = TileDataset(made / "tiles")
    with pytest.raises(OptionError, match="not bouguer"):
        Sampler(DatasetSplits.from_tiles(area, tiles), InputChannels.fit(area), SIZE)
    inputs = InputChannels.fit(area, ["rgb:residual_10km", "scale"])
    sampler = Sampler(DatasetSplits.from_tiles(area, tiles), inputs, SIZE)
    assert sampler.batch(0, [0])[0].shape == (1, 4, SIZE // 2, SIZE // 2)


class Counting(TileDataset):
    """Counts the samples that are read."""

    def __getitem__(self, index):
        self.read = [*getattr(self, "read", []), index]
        return super().__getitem__(index)


def test_a_tile_is_read_once_while_it_is_in_memory(made):
    tiles, area = Counting(made / "tiles"), RegionDataset.from_arrays(load_arrays(made / "tiles"))
    inputs = InputChannels((FieldChannel(area.channels[0], "mGal", 1.0),))
    two = 2 * 6 * SIZE**2
    source = CropSource(area, inputs, 32, torch.device("cpu"), tiles=tiles, tile_cache_bytes=two)
    crops = [Crop(south + 1, west + 1, 0.5, window_wsen=(west, south, *rest))
             for west, south, *rest in tiles.bounds_wsen[:3].tolist()]  # fmt: skip
    source.preload([crops[0], crops[1], crops[0]])
    for number in (0, 1, 0, 2, 0, 1):  # the third replaces the one used longest ago
        source.read(crops[number])
    assert sorted(tiles.read[:2]) == [0, 1]
    assert tiles.read[2:] == [2, 1]


def test_arrays_of_another_tile_set_are_refused(made):
    tiles, area = TileDataset(made / "tiles"), RegionDataset.from_arrays(load_arrays(made / "tiles"))
    tiles.bounds_wsen = tiles.bounds_wsen + 0.5
    with pytest.raises(InputError, match="has no tile"):
        Sampler(DatasetSplits.from_tiles(area, tiles), InputChannels.fit(area), SIZE)


@pytest.mark.parametrize("workers", [0, 2])
def test_tiles_are_a_plain_dataset(made, workers):
    tiles = TileDataset(made / "tiles")
    loader = torch.utils.data.DataLoader(tiles, batch_size=2, num_workers=workers)
    batches = list(loader)
    assert len(batches) == 5
    assert batches[0]["image"].shape == (2, 1, SIZE, SIZE)
    assert batches[0]["image"].dtype == torch.float32
    assert batches[0]["mask"].shape == (2, SIZE, SIZE)
    assert batches[0]["mask"].dtype == torch.int64
    assert torch.equal(torch.cat([batch["bounds"] for batch in batches]), torch.from_numpy(tiles.bounds_wsen))
    for number in (0, 5):
        sample = tiles[number]
        assert torch.equal(batches[number // 2]["image"][number % 2], sample["image"])
        with (
            rasterio.open(made / "tiles" / f"{tiles.names[number]}_field.tif") as field,
            rasterio.open(made / "tiles" / f"{tiles.names[number]}_label.tif") as label,
        ):
            np.testing.assert_array_equal(sample["image"][0], field.read(1))
            np.testing.assert_array_equal(sample["mask"], label.read(1))
            assert sample["transform"].tolist() == pytest.approx(list(field.transform)[:6])
            assert sample["bounds"].tolist() == pytest.approx(list(field.bounds))
            assert rasterio.crs.CRS.from_string(sample["crs"]) == field.crs
    doubled = TileDataset(made / "tiles", lambda sample: {**sample, "image": 2 * sample["image"]})
    assert torch.equal(doubled[5]["image"], 2 * tiles[5]["image"])


def config(**options):
    return TrainConfig(model="ggmnet-tiny", tile_size_px=64, epochs=1, steps=2, batch_size=2, **options)


def test_a_run_records_the_tiles_it_read(tiles, tmp_path):
    area = RegionDataset.from_arrays(load_arrays(tiles))
    began = pickle.loads(pickle.dumps(TileDataset(tiles)))  # as it comes to another process
    train(DatasetSplits.from_tiles(area, began), tmp_path / "a", config())
    spec = load_model(tmp_path / "a")[1]
    assert spec.recipe["from_tiles"] is True
    assert spec.sources[-1] == {"role": "tiles", "files": 27, "changed": [], "sha256": began.record["sha256"]}
    edit(tiles / "2.5deg/r001_c001_label.tif", lambda values: np.full_like(values, 7))
    more = TrainConfig.from_json(json.dumps({**json.loads(config().to_json()), "epochs": 2}))
    for now in (area, DatasetSplits.from_tiles(area, TileDataset(tiles))):
        with pytest.raises(InputError, match="tile set is not the one"):
            train(now, tmp_path / "a", more, resume=True)
    train(DatasetSplits.from_tiles(area, began), tmp_path / "a", more, resume=True)


@pytest.mark.slow
def test_the_command_reports_edited_tiles_and_resumes_with_them(tiles, tmp_path):
    workspace = tmp_path / "w"
    shutil.copytree(tiles.parent, workspace / "data")

    def gravmap_in(*words):
        return CliRunner().invoke(gravmap, ["-w", str(workspace), "train", "--device", "cpu", *words])

    short = ("--model", "ggmnet-tiny", "--size", "64", "--epochs", "1", "--steps-per-epoch", "1", "--batch-size", "2")
    plain = gravmap_in(*short, "--from-tiles", "--dry-run")
    assert plain.exit_code == 0, plain.output
    assert "all 27 files are as `gravmap tile` wrote them" in plain.output
    edit(workspace / "data/tiles/2.5deg/r001_c001_label.tif", lambda values: np.full_like(values, 7))
    done = gravmap_in(*short, "--from-tiles", "--name", "a")
    assert done.exit_code == 0, done.output
    assert "1 of 27 files differ from what `gravmap tile` wrote" in done.output
    source = json.loads((workspace / "runs/a/model.json").read_text())["sources"][-1]
    assert source["changed"] == ["2.5deg/r001_c001_label.tif"]
    more = gravmap_in("--resume", "--epochs", "2")
    assert more.exit_code == 0, more.output
    assert "1 of 27 files" in more.output
    multi = gravmap_in(*short, "--from-tiles", "--input", "multi")
    assert multi.exit_code == 2
    assert "The tiles hold residual_10km alone, not bouguer." in multi.output


@pytest.mark.slow
def test_two_processes_read_the_edited_tiles_as_one_does(tiles, tmp_path):
    edit(tiles / "2.5deg/r001_c001_label.tif", lambda values: np.full_like(values, 7))
    area = RegionDataset.from_arrays(load_arrays(tiles))
    splits = DatasetSplits.from_tiles(area, TileDataset(tiles))
    # Batch statistics are frozen: synchronised ones do not exist on a CPU.
    short = dataclasses.replace(config(freeze_statistics=True), batch_size=4)
    assert train(area, tmp_path / "native", short)["epochs"] == 1
    alone = train(splits, tmp_path / "one", short)
    shared = launch(splits, tmp_path / "two", short, 2)
    np.testing.assert_allclose(shared["test"]["confusion"], alone["test"]["confusion"], atol=1)
    native, one, two = (
        float((tmp_path / name / "metrics.csv").read_text().splitlines()[1].split(",")[3])
        for name in ("native", "one", "two")
    )
    assert two == pytest.approx(one, rel=1e-4)
    assert abs(native - one) > 1e-3  # the edit is learnt from
