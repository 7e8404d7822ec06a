"""Training crops: drawn here from random numbers alone, cut from native grids on the device or from tile files.

A crop is half a window wide. Where it lies, how it is turned, and how its values are changed is drawn
on the host from (seed, epoch, sample number) alone, so it depends neither on the number of processes nor
on what was drawn before. Of several grounds one is drawn first, all alike. Window, crop, flips and rotation make one
affine map from the crop's pixels to degrees; what lies there is cut by `ground_crops.py`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from gravmap.errors import InputError, OptionError
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.sampling.augmentation import Augmentation, Crop
from gravmap.learning.sampling.crop_source import CropSource
from gravmap.learning.sampling.tiles import Tiles

TRIES = 20
MIN_VALID = 0.05


class Sampler:
    """Draws crops from one ground or many, and cuts them on one device.

    Parameters
    ----------
    ground : RegionDataset or DatasetSplits
        Where to draw from; only windows and cells of role "train" teach.
    inputs : InputChannels
        How fields become the network's input.
    tile_size_px : int
        Pixels across a window; crops are half as wide.
    device : str or torch.device
        Where arrays live and crops appear.
    seed : int
        With epoch and sample number it fixes a crop.
    augmentation : Augmentation
        How crops are changed.
    even_scales : bool
        Draw the window's size first, all sizes alike; else draw evenly among windows, so that the
        many small ones prevail.
    scales_deg : sequence of float, optional
        Use only windows of these sizes.
    tiles : Tiles, optional
        Cut from these files instead of the native grids.

    Raises
    ------
    InputError
        No training window holds a labelled training cell.
    OptionError
        The input holds a field that the tiles do not; or tiles are asked for beside cuts.
    """

    def __init__(
        self,
        ground: RegionDataset | DatasetSplits,
        inputs: InputChannels,
        tile_size_px: int,
        device: str | torch.device = "cpu",
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        even_scales: bool = True,
        scales_deg: list[float] | None = None,
        tiles: Tiles | None = None,
    ) -> None:
        self.crop_px = tile_size_px // 2
        self.seed = seed
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self.device = torch.device(device)
        self._inputs = inputs
        self._tiles = tiles
        self._windows = (even_scales, scales_deg)
        grounds = DatasetSplits.of(ground)
        self._cuts = grounds.cuts
        if tiles is not None and self._cuts is not None:
            raise OptionError(
                "Cuts are made in the native labels; tiles that were edited have others.",
                "Leave --from-tiles out, or --context.",
            )
        self._held = self._refuse_empty({each: self._crops(area) for each, area in enumerate(grounds.train)})
        self.window_count = sum(each.window_count for each in self._held.values())
        if self._cuts is not None:
            self._held = {}  # of a region only the cuts teach

    def _crops(self, area: RegionDataset) -> CropSource:
        return CropSource(area, self._inputs, self.crop_px, self.device, *self._windows, self._tiles)

    def _refuse_empty(self, held: dict[int, CropSource]) -> dict[int, CropSource]:
        """One ground may hold nothing to learn (a crust without cover, a cut outside all windows), but not all."""
        if not any(each.window_count for each in held.values()):
            scales_deg = self._windows[1]
            asked = f" of {', '.join(f'{scale:g}' for scale in scales_deg)} degrees" if scales_deg else ""
            raise InputError(
                f"No training window{asked} of the tile set holds a labelled cell outside the held-out blocks.",
                "Check the labels (`gravmap rasterize`), the windows and the split (`gravmap tile`).",
            )
        return held

    def _at(self, epoch: int) -> dict[int, CropSource]:
        """The grounds of an epoch by number; cuts that are still in use are kept."""
        if self._cuts is not None and list(self._held) != list(self._cuts.numbers(epoch)):
            before = self._held
            self._held = self._refuse_empty(
                {each: before.get(each) or self._crops(self._cuts.make(each)) for each in self._cuts.numbers(epoch)}
            )
        return self._held

    def draw(self, epoch: int, number: int) -> Crop:
        """Choose the crop of a sample: drawn anew until at least 5 % of it teaches, at most 20 times."""
        drawing = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, epoch, number))))
        teaching = [(each, ground) for each, ground in self._at(epoch).items() if ground.window_count]
        which, ground = teaching[drawing.integers(len(teaching))]
        best, most = None, -1.0
        for _ in range(TRIES):
            crop = self._propose(drawing, ground)
            share = ground.valid_share(crop)
            if share > most:
                best, most = crop, share
            if share >= MIN_VALID:
                break
        assert best is not None
        return dataclasses.replace(best, ground=which)

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
        return self._cut([self.draw(epoch, number) for number in numbers])

    def cut(self, crop: Crop) -> tuple[Tensor, Tensor, Tensor]:
        """Input (C, h, h), targets (h, h) int64 and small-body mask (h, h) of one crop."""
        fields, target, small = self._cut([crop])
        return fields[0], target[0], small[0]

    def expect(self, epoch: int, numbers: list[int]) -> None:
        """Let what these samples will need be read in the meantime; native grids are there already."""
        if self._tiles is not None:
            for ground in self._held.values():
                ground.expect(self.draw(epoch, number) for number in numbers)

    def _cut(self, crops: list[Crop]) -> tuple[Tensor, Tensor, Tensor]:
        shape = (len(crops), self.crop_px, self.crop_px)
        fields = torch.empty((shape[0], self._inputs.width, *shape[1:]), device=self.device)
        target = torch.empty(shape, dtype=torch.int64, device=self.device)
        small = torch.empty(shape, dtype=torch.bool, device=self.device)
        for number, crop in enumerate(crops):
            values, target[number], small[number] = self._held[crop.ground].cut(crop)
            fields[number] = self._inputs.prepare(values, 2 * crop.half_deg / self.crop_px)
        return fields, target, small

    def _propose(self, drawing: np.random.Generator, ground: CropSource) -> Crop:
        group = ground.groups[drawing.integers(len(ground.groups))]
        west, south, east, north, half = group[drawing.integers(len(group))]
        aug = self.augmentation
        turned = drawing.random() < aug.rotate_share
        mirrored = drawing.integers(2, size=2) if aug.flip else np.zeros(2, int)
        crop = Crop(
            # A crust may be just as high as a crop, but for rounding.
            lat=float(drawing.uniform(south + half, max(north - half, south + half))),
            lon=float(drawing.uniform(west + half, max(east - half, west + half))),
            half_deg=float(half),
            flip_x=1 - 2 * int(mirrored[0]),
            flip_y=1 - 2 * int(mirrored[1]),
            angle_rad=float(drawing.uniform(0, math.pi)) if turned else 0.0,
            noise=float(drawing.uniform(*aug.noise)),
            amplitude=float(drawing.uniform(*aug.amplitude)),
            offset_mgal=float(drawing.uniform(-aug.offset_mgal, aug.offset_mgal)),
            noise_seed=int(drawing.integers(2**62)),
            metric=aug.metric,
            window_wsen=(float(west), float(south), float(east), float(north)),
        )
        crop = self._as_picture(crop, drawing) if aug.picture else crop
        return crop.moved_inside((west, south, east, north)) if ground.stays_inside else crop

    def _as_picture(self, crop: Crop, drawing: np.random.Generator) -> Crop:
        """Add the changes of photographs, each in half of the crops."""
        aug, side = self.augmentation, 2 * crop.half_deg
        shifted, noisy, contrasted, lit = (drawing.random(4) < 0.5).tolist()
        east, north = (drawing.uniform(-aug.shift, aug.shift, size=2) * side * shifted).tolist()
        noise, contrast, brightness = (
            float(drawing.uniform(*span)) for span in (aug.picture_noise, aug.contrast, aug.brightness)
        )
        return dataclasses.replace(
            crop,
            lon=crop.lon + east,
            lat=crop.lat + north,
            picture_noise=noise if noisy else 0.0,
            contrast=contrast if contrasted else 1.0,
            brightness=brightness if lit else 1.0,
        )
