"""Crops cut from tile files, for tiles someone edited; who reads the files is handed in.

Where a crop lies and how it is changed is drawn as ever, and so is who may see which label: the role of the ground is
the native raster's, whatever a tile says. What a tile gives is the field and the labels at its pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gravmap.errors import OptionError
from gravmap.lattice import BUFFER, TRAIN
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import IGNORE, RegionDataset, to_target
from gravmap.learning.sampling.augmentation import Crop, ValueAugmentation
from gravmap.learning.sampling.native_grids import decode, encode, rimmed_small
from gravmap.learning.sampling.resampling import interpolate, look_up, moved, patch_under

CACHE_BYTES = 2**30
"""So much of the tiles every process keeps in memory: 40 windows of 2048 pixels."""

Window = tuple[float, float, float, float]


class Tiles(Protocol):
    """Reads tiles (`gravmap.tiling.open_tiles` gives one); it is pickled to every process of a run."""

    @property
    def channel(self) -> str:
        """The field the tiles hold."""
        ...

    @property
    def record(self) -> dict[str, Any]:
        """What a run keeps of them, JSON-able: which differ from what was written first, and `sha256` over all."""
        ...

    def read(self, window_wsen: Window) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Field (n, n) in its unit, NaN where unknown, label (n, n), and the mask of small bodies (n, n).

        The mask is None where nobody edited it: the native one stands, which is made of training ground alone.
        """
        ...


@dataclass(frozen=True)
class _Tile:
    """One window's tile: field (n, n) with 0 where unknown, targets and mask as in `native.encode`, with a rim."""

    field: Tensor
    codes: Tensor
    mask_edited: bool

    @property
    def nbytes(self) -> int:
        return self.field.nbytes + self.codes.nbytes


class TileCrops:
    """Cuts crops from the tiles of their windows, at any number of pixels.

    The field is interpolated bilinearly between the tile's pixels, and mirrored at the outermost ones; a label is that
    of the tile's pixel. What of a turned or shifted crop lies outside its window teaches nothing.

    Parameters
    ----------
    tiles : Tiles
        Reads them.
    area : RegionDataset
        Roles, and the native nodes: noise is made there, as it is without tiles.
    inputs : InputChannels
        The fields that are read; the tiles' alone.
    changes : Changes
        Of the crops' values.
    crop_px : int
        Pixels across a crop.
    device : torch.device
        Where crops appear.
    cache_bytes : int
        How much of the tiles is kept in memory.

    Raises
    ------
    OptionError
        The input holds another field than the tiles.
    """

    def __init__(
        self,
        tiles: Tiles,
        area: RegionDataset,
        inputs: InputChannels,
        changes: ValueAugmentation,
        crop_px: int,
        device: torch.device,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if others := [name for name in inputs.fields if name != tiles.channel]:
            raise OptionError(
                f"The tiles hold {tiles.channel} alone, not {', '.join(others)}.",
                f"From tiles a network reads {tiles.channel}, rgb:{tiles.channel} and scale; leave --from-tiles out "
                "for other fields.",
            )
        self._area, self._changes, self._crop_px, self._device = area, changes, crop_px, device
        ground = np.where(np.pad(area.role, 1, constant_values=BUFFER) == TRAIN, 0, IGNORE).astype(np.int16)
        self._ground = encode(torch.from_numpy(ground), torch.from_numpy(rimmed_small(area))).to(device)
        self._kept = _Kept(tiles, cache_bytes)

    def expect(self, crops: Iterable[Crop]) -> None:
        """Read the tiles that crops to come need, in the meantime."""
        self._kept.expect(_window(crop) for crop in crops)

    def cut(self, crop: Crop) -> tuple[Tensor, Tensor, Tensor]:
        """Fields (1, h, h) in their unit, targets (h, h) int16 and small-body mask (h, h) of one crop."""
        area, px = self._area, self._crop_px
        rows, columns = area.labels.shape
        teaches, native_small = decode(look_up(self._ground, crop.place(area.label_bounds_wsen, columns, rows), px))
        tile = self._kept.get(_window(crop))
        size = len(tile.field)
        place = crop.place(np.array(crop.window_wsen), size, size)
        target, tile_small = decode(look_up(tile.codes.to(self._device), place, px))
        target = torch.where(teaches == IGNORE, IGNORE, target)
        small = tile_small if tile.mask_edited else native_small
        return self._values(crop, tile.field, place), target, small & (target != IGNORE)

    def _values(self, crop: Crop, field: Tensor, place: NDArray[np.float64]) -> Tensor:
        size, px = len(field), self._crop_px
        from_centre = moved(place, -0.5)  # pixel 0's centre is 0
        rows, columns, in_part = patch_under(from_centre, size, size)
        values = interpolate(field[None, rows, columns].to(self._device), in_part, px)
        height, width = self._area.field_valid.shape
        rows, columns, on_nodes = patch_under(
            crop.place(self._area.field_nodes_wsen, width - 1, height - 1), width, height
        )
        noise = self._changes.noise(crop, rows.stop - rows.start, columns.stop - columns.start)
        return self._changes.vary(values, crop, None if noise is None else interpolate(noise, on_nodes, px))


class _Kept:
    """Tiles by window: those used last stay in memory, those expected are read by a thread."""

    def __init__(self, tiles: Tiles, limit_bytes: int) -> None:
        self._tiles, self._limit = tiles, limit_bytes
        self._held: OrderedDict[Window, _Tile] = OrderedDict()
        self._coming: dict[Window, Future[_Tile]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tiles")

    def expect(self, windows: Iterable[Window]) -> None:
        for window in windows:
            if window not in self._held and window not in self._coming:
                self._coming[window] = self._thread.submit(self._read, window)

    def get(self, window: Window) -> _Tile:
        tile = self._held.get(window)
        if tile is None:
            coming = self._coming.pop(window, None)
            tile = coming.result() if coming else self._read(window)
            self._held[window] = tile
        self._held.move_to_end(window)
        while len(self._held) > 1 and sum(each.nbytes for each in self._held.values()) > self._limit:
            self._held.popitem(last=False)
        return tile

    def _read(self, window: Window) -> _Tile:
        field, label, small = self._tiles.read(window)
        known = np.isfinite(field)
        target = to_target(np.arange(256, dtype=np.uint8)).astype(np.int16)[label]
        target[~known] = IGNORE
        mask = np.zeros(label.shape, dtype=bool) if small is None else small > 0
        codes = encode(
            *(torch.from_numpy(np.pad(each, 1, constant_values=rim)) for each, rim in ((target, IGNORE), (mask, 0)))
        )
        return _Tile(torch.from_numpy(np.where(known, field, np.float32(0))), codes, small is not None)


def _window(crop: Crop) -> Window:
    assert crop.window_wsen is not None, "a crop that was not drawn in a window has no tile"
    return crop.window_wsen
