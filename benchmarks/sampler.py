"""Training crops per second: the sampler compared with a DataLoader over tiles and torchvision transforms.

The grids are those of benchmarks/tiles.py: a rough 2 arc-minute residual of 65-95 E, 40-55 N and ten thousand polygons
at 15 arc-seconds. Tiles of 2048 pixels are written for the windows of 1, 5, 10 and 15 degrees in 65-80 E, 40-55 N: 225,
25, 9 and 1. Crops are 1024 x 1024 pixels: field, class, and, from gravmap, the mask of small bodies. A batch has two
crops, the default of training on a CPU at this size.

- gravmap: `Sampler.batch` on the native grids in two threads, one batch each, with one torch thread each; the same
  with --from-tiles, which caches 1 GiB of tiles in memory; and on the native grids with two torch threads for one
  batch, which synchronise after every operation.
- DataLoader: two workers; the dataset reads a random 1024 x 1024 window of field and label of a random tile with
  rasterio and augments them with torchvision's v2: flips, a rotation by 0 to 180 degrees in half of the crops
  (bilinear; the mask nearest), Gaussian noise.

They run in turn, and the best of three is reported. On a machine with other load compare the CPU seconds, which are
those of all processes and threads. Needs torchvision.

    python benchmarks/sampler.py [--folder DIR] [--crops 96]
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from tiles import PREPARE, run
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from gravmap.gravity import open_fields, write_fields
from gravmap.learning import RegionDataset
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.sampling.sampler import Sampler
from gravmap.tiling import TileDataset, load_arrays, make_tiles

SIZES_DEG, STRIDES_DEG = (1.0, 5.0, 10.0, 15.0), (1.0, 2.5, 2.5, 5.0)
CROP_PX, BATCH, THREADS, TURNS = 1024, 2, 2, 3
DATA_LOADER = "DataLoader"


class TileWindows(Dataset):
    """Random windows of random tiles with common image augmentation."""

    def __init__(self, folder: Path, count: int) -> None:
        by_size: dict[str, list[Path]] = {}
        for path in sorted(folder.glob("*/*_field.tif")):
            by_size.setdefault(path.parent.name, []).append(path)
        self.groups, self.count = list(by_size.values()), count
        self.augment = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomApply(
                    [
                        v2.RandomRotation(
                            (0, 180),
                            interpolation=InterpolationMode.BILINEAR,
                            fill={tv_tensors.Image: 0, tv_tensors.Mask: 255},
                        )
                    ]
                ),
                v2.GaussianNoise(sigma=0.5, clip=False),
            ]
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = random.Random(number)
        field = rng.choice(rng.choice(self.groups))
        window = Window(rng.randrange(2048 - CROP_PX), rng.randrange(2048 - CROP_PX), CROP_PX, CROP_PX)
        with rasterio.open(field) as source:
            image = tv_tensors.Image(torch.from_numpy(source.read(window=window)))
        with rasterio.open(str(field).replace("_field", "_label")) as source:
            mask = tv_tensors.Mask(torch.from_numpy(source.read(window=window)))
        image, mask = self.augment(image, mask)
        return image, mask[0].long()


def from_data_loader(folder: Path, crops: int) -> Iterator[None]:
    """Yield after every batch; the first includes the start of the workers."""
    loader = DataLoader(TileWindows(folder, crops + BATCH), BATCH, num_workers=THREADS)
    for image, mask in loader:
        assert image.shape == (BATCH, 1, CROP_PX, CROP_PX)
        assert mask.shape == (BATCH, CROP_PX, CROP_PX)
        yield


def ours(sampler: Sampler, crops: int, side_by_side: int = THREADS) -> Iterator[None]:
    """Yield after every batch; `side_by_side` batches run in parallel and share the threads."""

    def batch(first: int) -> None:
        fields, target, _ = sampler.batch(0, list(range(first, first + BATCH)))
        assert fields.shape == (BATCH, 1, CROP_PX, CROP_PX)
        assert target.shape == (BATCH, CROP_PX, CROP_PX)

    torch.set_num_threads(THREADS // side_by_side)
    with ThreadPoolExecutor(side_by_side) as pool:
        for _ in pool.map(batch, range(0, crops + BATCH, BATCH)):
            yield


def rate(batches: Iterator[None], crops: int) -> tuple[float, float]:
    """Crops per second after the first batch, and seconds of CPU per crop over all batches."""

    def cpu() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in used)

    before = cpu()
    next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    seconds = time.perf_counter() - start
    return crops / seconds, (cpu() - before) / (crops + BATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--crops", type=int, default=96, help="crops per turn, in batches of two")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = (options.folder or Path(temporary)).absolute()
        data.mkdir(parents=True, exist_ok=True)
        if not (data / "labels.tif").exists():
            print(run([sys.executable, "-c", PREPARE, str(data), str(Path(__file__).parent)], data)[3])
        folder = data / "some-tiles"
        if not folder.exists():
            with open_fields(data / "fields.nc") as fields:
                write_fields(fields.sel(lon=slice(65, 80)).load(), data / "part.nc")
            sources = data / "part.nc", data / "labels.tif"
            made = make_tiles(*sources, folder, sizes_deg=SIZES_DEG, strides_deg=STRIDES_DEG)
            print(f"{made['windows']} windows")
        compare(folder, options.crops)


def compare(folder: Path, crops: int) -> None:
    dataset = RegionDataset.from_arrays(load_arrays(folder))
    sizes, counts = np.unique(dataset.window_scale_deg, return_counts=True)
    sizes_and_counts = ", ".join(f"{count} of {size:g} degrees" for size, count in zip(sizes, counts, strict=True))
    print(f"windows with a training label: {sizes_and_counts}")
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    inputs, splits = InputChannels.fit(dataset), DatasetSplits.from_tiles(dataset, TileDataset(folder))
    native, tiled = (Sampler(data, inputs, 2 * CROP_PX) for data in (dataset, splits))
    ways: dict[str, Callable[[], Iterator[None]]] = {
        "gravmap, native grids": lambda: ours(native, crops),
        "  two torch threads": lambda: ours(native, crops, 1),
        DATA_LOADER: lambda: from_data_loader(folder, crops),
        "gravmap --from-tiles": lambda: ours(tiled, crops),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            found[name].append(rate(way(), crops))
    best = {name: (max(each[0] for each in turns), min(each[1] for each in turns)) for name, turns in found.items()}
    reference = best[DATA_LOADER]
    for name, (speed, cpu) in best.items():
        turns = ", ".join(f"{each[0]:.1f}" for each in found[name])
        print(
            f"{name:<22} {speed:6.1f} crops/s ({turns}), {1000 * cpu:5.1f} ms of CPU a crop: "
            f"{speed / reference[0]:.1f} times as many, {reference[1] / cpu:.1f} times less CPU"
        )
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
