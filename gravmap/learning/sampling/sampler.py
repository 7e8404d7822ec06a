"""Draws training crops from random numbers alone, and reads them from native grids on the device or from tiles.

A crop is half a window wide. Its position, rotation and changes of values are drawn on the CPU from (seed, epoch,
sample number) alone, so they depend neither on the number of processes nor on what was drawn before. With several
datasets, one is drawn first, all with the same probability. Window, crop, flips and rotation make one affine map from
the crop's pixels to degrees; `crop_source.py` reads what lies there.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from gravmap.errors import InputError
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.sampling.augmentation import Augmentation, Crop
from gravmap.learning.sampling.crop_source import CropSource

TRIES = 20
MIN_USABLE = 0.05


class Sampler:
    """Draws crops from one dataset or several, and reads them on one device.

    Parameters
    ----------
    data : RegionDataset or DatasetSplits
        Where to draw from; only windows and cells of role "train" are used. Crops are read from the tiles of the
        splits where there are any, and for outcrop as context from datasets with cover masks.
    inputs : InputChannels
        How fields become the network's input.
    tile_size_px : int
        Pixels across a window; crops are half as wide.
    device : str or torch.device
        Where arrays live and crops appear.
    seed : int
        With epoch and sample number it fixes a crop.
    augmentation : Augmentation
        Ranges of the augmentation.
    even_scales : bool
        Draw the size of the window first, all sizes with the same probability; else draw among all windows, most of
        which are small.
    scales_deg : sequence of float, optional
        Use only windows of these sizes.

    Attributes
    ----------
    crop_px : int
        Pixels across a crop.
    window_count : int
        Windows that crops are drawn from.

    Raises
    ------
    InputError
        No training window holds a labelled training cell.
    OptionError
        The input holds a field that the tiles do not.

    Examples
    --------
    >>> from gravmap.learning.data.channels import InputChannels
    >>> from gravmap.learning.data.dataset import RegionDataset
    >>> from gravmap.learning.sampling.sampler import Sampler
    >>> from gravmap.tiling import load_arrays
    >>> dataset = RegionDataset.from_arrays(load_arrays("data/tiles"))
    >>> sampler = Sampler(dataset, InputChannels.fit(dataset), tile_size_px=64, seed=1)
    >>> fields, target, small = sampler.batch(epoch=0, numbers=[0, 1, 2])
    >>> tuple(fields.shape), tuple(target.shape)
    ((3, 1, 32, 32), (3, 32, 32))
    """

    def __init__(
        self,
        data: RegionDataset | DatasetSplits,
        inputs: InputChannels,
        tile_size_px: int,
        device: str | torch.device = "cpu",
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        even_scales: bool = True,
        scales_deg: list[float] | None = None,
    ) -> None:
        splits = DatasetSplits.of(data)
        self.crop_px = tile_size_px // 2
        self.seed = seed
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self.device = torch.device(device)
        self._inputs = inputs
        self._tiles, self._cover_masks = splits.tiles, splits.cover_masks
        self._windows = (even_scales, scales_deg)
        self._last_crops: tuple[tuple[int, tuple[int, ...]], list[Crop]] = ((-1, ()), [])
        self._sources = self._refuse_empty({each: self._source(dataset) for each, dataset in enumerate(splits.train)})
        self.window_count = sum(each.window_count for each in self._sources.values())
        if self._cover_masks is not None:
            self._sources = {}  # of a region, crops come only from datasets with a cover mask

    def _source(self, dataset: RegionDataset) -> CropSource:
        return CropSource(dataset, self._inputs, self.crop_px, self.device, *self._windows, self._tiles)

    def _refuse_empty(self, sources: dict[int, CropSource]) -> dict[int, CropSource]:
        """One dataset may have no training label (a crust without cover, a mask outside all windows), but not all."""
        if not any(each.window_count for each in sources.values()):
            scales_deg = self._windows[1]
            sizes = f" of {', '.join(f'{scale:g}' for scale in scales_deg)} degrees" if scales_deg else ""
            raise InputError(
                f"No training window{sizes} of the tile set holds a labelled cell outside the held-out blocks.",
                "Check the labels (`gravmap rasterize`), the windows and the split (`gravmap tile`).",
            )
        return sources

    def _sources_of(self, epoch: int) -> dict[int, CropSource]:
        """The sources of an epoch by number; cover masks that are still in use are kept."""
        masks = self._cover_masks
        if masks is not None and list(self._sources) != list(masks.numbers(epoch)):
            before = self._sources
            self._sources = self._refuse_empty(
                {each: before.get(each) or self._source(masks.make(each)) for each in masks.numbers(epoch)}
            )
        return self._sources

    def draw(self, epoch: int, number: int) -> Crop:
        """Draw the crop of a sample, again until at least 5 % of it has a training label, at most 20 times."""
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, epoch, number))))
        usable = [(each, source) for each, source in self._sources_of(epoch).items() if source.window_count]
        which, source = usable[rng.integers(len(usable))]
        best, most = None, -1.0
        for _ in range(TRIES):
            crop = self._propose(rng, source)
            fraction = source.usable_fraction(crop)
            if fraction > most:
                best, most = crop, fraction
            if fraction >= MIN_USABLE:
                break
        assert best is not None
        return dataclasses.replace(best, dataset=which)

    def batch(self, epoch: int, numbers: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The samples of an epoch with these numbers.

        Returns
        -------
        fields : Tensor, shape (N, C, h, h), float32
            As the network reads them.
        target : Tensor, shape (N, h, h), int64
            Class, or IGNORE.
        small : Tensor, shape (N, h, h), bool
            Pixels in small bodies.
        """
        return self._read(self._crops(epoch, numbers))

    def cover_km(self, epoch: int, numbers: list[int]) -> Tensor:
        """Thickness of the cover in the samples of :meth:`batch`, km, (N, h, h) float32.

        Raises
        ------
        ValueError
            A dataset has no thickness.
        """
        crops = self._crops(epoch, numbers)
        return torch.stack([self._sources[crop.dataset].read_cover_km(crop) for crop in crops])

    def _crops(self, epoch: int, numbers: list[int]) -> list[Crop]:
        """The crops of samples; those of the last call are kept, because :meth:`cover_km` reads them again."""
        key = epoch, tuple(numbers)
        if self._last_crops[0] != key:
            self._last_crops = key, [self.draw(epoch, number) for number in numbers]
        return self._last_crops[1]

    def read(self, crop: Crop) -> tuple[Tensor, Tensor, Tensor]:
        """Input (C, h, h), targets (h, h) int64 and small-body mask (h, h) of one crop."""
        fields, target, small = self._read([crop])
        return fields[0], target[0], small[0]

    def _read(self, crops: list[Crop]) -> tuple[Tensor, Tensor, Tensor]:
        shape = (len(crops), self.crop_px, self.crop_px)
        fields = torch.empty((shape[0], self._inputs.width, *shape[1:]), device=self.device)
        target = torch.empty(shape, dtype=torch.int64, device=self.device)
        small = torch.empty(shape, dtype=torch.bool, device=self.device)
        for number in {crop.dataset for crop in crops}:
            self._sources[number].preload(crop for crop in crops if crop.dataset == number)
        for number, crop in enumerate(crops):
            values, target[number], small[number] = self._sources[crop.dataset].read(crop)
            fields[number] = self._inputs.prepare(values, 2 * crop.half_deg / self.crop_px)
        return fields, target, small

    def _propose(self, rng: np.random.Generator, source: CropSource) -> Crop:
        group = source.groups[rng.integers(len(source.groups))]
        west, south, east, north, half = group[rng.integers(len(group))]
        aug = self.augmentation
        rotated = rng.random() < aug.rotate_share
        mirrored = rng.integers(2, size=2) if aug.flip else np.zeros(2, int)
        crop = Crop(
            # A crust may be exactly as high as a crop, up to rounding.
            lat=float(rng.uniform(south + half, max(north - half, south + half))),
            lon=float(rng.uniform(west + half, max(east - half, west + half))),
            half_deg=float(half),
            flip_x=1 - 2 * int(mirrored[0]),
            flip_y=1 - 2 * int(mirrored[1]),
            angle_rad=float(rng.uniform(0, math.pi)) if rotated else 0.0,
            noise=float(rng.uniform(*aug.noise)),
            amplitude=float(rng.uniform(*aug.amplitude)),
            offset_mgal=float(rng.uniform(-aug.offset_mgal, aug.offset_mgal)),
            noise_seed=int(rng.integers(2**62)),
            metric=aug.metric,
            window_wsen=(float(west), float(south), float(east), float(north)),
        )
        crop = self._as_picture(crop, rng) if aug.picture else crop
        return crop.moved_inside((west, south, east, north)) if source.stays_inside else crop

    def _as_picture(self, crop: Crop, rng: np.random.Generator) -> Crop:
        """Add the augmentation of photographs, each part in half of the crops."""
        aug, side = self.augmentation, 2 * crop.half_deg
        shifted, noisy, contrasted, brightened = (rng.random(4) < 0.5).tolist()
        east, north = (rng.uniform(-aug.shift, aug.shift, size=2) * side * shifted).tolist()
        noise, contrast, brightness = (
            float(rng.uniform(*span)) for span in (aug.picture_noise, aug.contrast, aug.brightness)
        )
        return dataclasses.replace(
            crop,
            lon=crop.lon + east,
            lat=crop.lat + north,
            picture_noise=noise if noisy else 0.0,
            contrast=contrast if contrasted else 1.0,
            brightness=brightness if brightened else 1.0,
        )
