"""A small workspace with a tile set, and runs of one training step on it."""

import json

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from gravmap.geology.labels import write_index_raster
from gravmap.geology.legend import Legend, LegendClass
from gravmap.geology.legend_file import write_legend
from gravmap.gravity import write_fields
from gravmap_cli import gravmap
from toys.dataset import field_at

BOUNDS = (80, 42, 84, 46)
NAMES = ("cover", "high", "low", "rare")


def legend(names=NAMES):
    colours = ("#FFFFFF", "#AA0000", "#0000AA", "#00AA00")
    classes = [LegendClass(number, name, "any", colours[number]) for number, name in enumerate(names)]
    return Legend("toy", tuple(classes))


def call(root, *words):
    """Run `gravmap -w ROOT WORDS`."""
    return CliRunner().invoke(gravmap, ["-w", str(root), *map(str, words)])


def write_labels(root, seed=1, names=NAMES):
    """Two classes by the sign of the field, and a third in one corner; a fifth of the cells are cover."""
    at = (np.arange(80) + 0.5) / 20
    values = np.where(field_at(46 - at[:, None], 80 + at[None, :]) > 0, 1, 2).astype(np.uint8)
    values[-4:, -4:] = 3
    values[np.random.default_rng(seed).random(values.shape) < 0.2] = 0
    write_index_raster(root / "data" / "labels.tif", values, BOUNDS, legend(names))
    write_legend(legend(names), root / "data" / "labels.legend.toml")


def make_tiled(root):
    lat, lon = np.linspace(42, 46, 41), np.linspace(80, 84, 41)
    values = field_at(lat[:, None], lon[None, :]).astype(np.float32)
    field = xr.DataArray(values, dims=("lat", "lon"), coords={"lat": lat, "lon": lon}, attrs={"units": "mGal"})
    attrs = {"gravmap_recipe": json.dumps({"quantity": "bouguer"}), "gravmap_sources": "[]"}
    write_fields(xr.Dataset({"bouguer": field, "residual_10km": field}, attrs=attrs), root / "data" / "fields.nc")
    write_labels(root)
    tile(root)


def tile(root, *more):
    words = ["--window", "2deg", "--size", 32, "--index-only", "--block", "1deg", "--folds", 4, "--buffer", "0.1deg"]
    done = call(root, "tile", *words, *more)
    assert done.exit_code == 0, done.output


def train(root, name, *words):
    """A run of one step; its own pictures, which take longer than that, are looked at in the tests of training."""
    short = ["--device", "cpu", "--model", "ggmnet-tiny", "--epochs", 1, "--steps-per-epoch", 1, "--batch-size", 2]
    with pytest.MonkeyPatch.context() as patch:
        for picture in ("draw_curves", "draw_reliability"):
            patch.setattr(f"gravmap.learning.training.finish.{picture}", lambda *_: None)
        done = call(root, "train", *short, "--name", name, *words)
    assert done.exit_code == 0, done.output
    return root / "runs" / name
