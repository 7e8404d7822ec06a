"""Blocks: ground held out whole, with a buffer around it, so that a score says what happens where nothing was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError, OptionError
from gravmap.lattice import BUFFER as IGNORED
from gravmap.lattice import COVER, TEST, TRAIN, TUNE, UNUSABLE
from gravmap.regions import Region
from gravmap.tiling.blocks import assign_folds, unlearned
from gravmap.units import describe_angle

BLOCK_DEG = 2.5
BUFFER_DEG = 0.25
FOLDS = 5
SMALLEST_BLOCK_DEG = 0.01  # what halving stops at where there is no buffer
MOST_BLOCKS = 20_000


@dataclass(frozen=True)
class BlockSplit:
    """Ground cut into blocks, each held out in one fold.

    Fold k scores on the blocks numbered k and tunes on those numbered k + 1 (the last one on 0).

    Attributes
    ----------
    region : Region
        What the blocks divide evenly.
    fold_of : ndarray, shape (rows, columns), int
        Fold of each block, row 0 northernmost; -1 where a block holds no bedrock label and is never held out.
    folds : int
        Number of folds, at least 3.
    buffer_deg : float
        Training labels nearer than this to a held-out block are ignored, degrees.
    seed : int
        What the assignment was drawn with.
    name : str
        What the tile set calls the split.
    notes : tuple of str
        What was changed while it was drawn, in plain words.
    """

    region: Region
    fold_of: NDArray[np.int64]
    folds: int
    buffer_deg: float
    seed: int
    name: str = "blocks"
    notes: tuple[str, ...] = ()

    kind: ClassVar[str] = "blocks"

    @property
    def block_deg(self) -> tuple[float, float]:
        """Height and width of a block, degrees."""
        rows, columns = self.fold_of.shape
        return self.region.height_deg / rows, self.region.width_deg / columns

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` rebuilds the split from; plain JSON values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "folds": self.folds,
            "block_deg": [round(side, 9) for side in self.block_deg],
            "buffer_deg": self.buffer_deg,
            "seed": self.seed,
            "region_wsen": list(self.region.bounds_wsen),
            "fold_of_block": self.fold_of.tolist(),
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The split that :meth:`to_dict` described."""
        fold_of = np.array(stored["fold_of_block"], dtype=np.int64)
        region, rest = Region(*stored["region_wsen"]), (stored["folds"], stored["buffer_deg"], stored["seed"])
        return cls(region, fold_of, *rest, name=stored["name"])

    def block_roles(self, fold: int) -> NDArray[np.uint8]:
        """The role of every block in one fold, shape (rows, columns): 0 train, 1 tune, 2 test."""
        of_block = np.full(self.fold_of.shape, TRAIN, dtype=np.uint8)
        of_block[self.fold_of == (fold + 1) % self.folds] = TUNE
        of_block[self.fold_of == fold] = TEST
        return of_block

    def window_roles(self, fold: int, boxes_wsen: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The role of every window, shape (n,): all train, because labels are held out cell by cell."""
        return np.full(len(boxes_wsen), TRAIN, dtype=np.uint8)

    def columns(self, boxes_wsen: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """What ``index.parquet`` says of the windows: the fold of the block under each centre, -1 none."""
        centre_lat, centre_lon = boxes_wsen[:, 1::2].mean(axis=1), boxes_wsen[:, 0::2].mean(axis=1)
        return {f"{self.name}_fold": self.fold_at(centre_lat, centre_lon)}

    def roles(
        self, fold: int, shape: tuple[int, int], bounds_wsen: tuple[float, float, float, float]
    ) -> NDArray[np.uint8]:
        """The role of every cell of a raster in one fold.

        Parameters
        ----------
        fold : int
            0 .. folds - 1.
        shape : tuple of int
            Rows and columns of the raster, north-up.
        bounds_wsen : tuple of float
            Its outer edges, degrees.

        Returns
        -------
        ndarray, shape (rows, columns), uint8
            0 train, 1 tune, 2 test, 3 ignored: in the buffer, or outside the region.

        Raises
        ------
        OptionError
            No such fold.
        """
        if not 0 <= fold < self.folds:
            raise OptionError(f"The split {self.name} has no fold {fold}.", f"It has the folds 0 to {self.folds - 1}.")
        west, south, east, north = bounds_wsen
        lat = north - (np.arange(shape[0]) + 0.5) * (north - south) / shape[0]
        lon = west + (np.arange(shape[1]) + 0.5) * (east - west) / shape[1]
        block_row, block_column = self._block_rows(lat), self._block_columns(lon)
        of_block = self.block_roles(fold)
        roles = of_block[np.clip(block_row, 0, None)][:, np.clip(block_column, 0, None)]
        height, width = self.block_deg
        for row, column in np.argwhere(of_block != TRAIN):
            # The block grown on every side; a box holds at least every point nearer than the buffer.
            top = self.region.north - row * height + self.buffer_deg
            left = self.region.west + column * width - self.buffer_deg
            rows = np.flatnonzero((lat < top) & (lat > top - height - 2 * self.buffer_deg))
            columns = np.flatnonzero((lon > left) & (lon < left + width + 2 * self.buffer_deg))
            if rows.size and columns.size:
                near = roles[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                near[near == TRAIN] = IGNORED
        roles[block_row < 0] = IGNORED
        roles[:, block_column < 0] = IGNORED
        return roles

    def _block_rows(self, lat: NDArray[np.float64]) -> NDArray[np.intp]:
        return _place((self.region.north - lat) / self.region.height_deg, self.fold_of.shape[0])

    def _block_columns(self, lon: NDArray[np.float64]) -> NDArray[np.intp]:
        return _place((lon - self.region.west) / self.region.width_deg, self.fold_of.shape[1])

    def fold_at(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.int64]:
        """Fold of the block each point lies in; -1 where none is held out."""
        rows, columns = self._block_rows(lat), self._block_columns(lon)
        return np.where((rows < 0) | (columns < 0), -1, self.fold_of[rows, columns])


def _place(share: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Number of the part a share of an extent falls in; -1 outside. The far edge belongs to the last part."""
    place = np.floor(share * count + 1e-9).astype(np.intp)
    place[(place == count) & (share <= 1 + 1e-9)] = count - 1
    return np.where((place < 0) | (place >= count), -1, place)


def split_blocks(
    labels: NDArray[np.uint8],
    bounds_wsen: tuple[float, float, float, float],
    region: Region,
    *,
    block_deg: float | None = None,
    folds: int = FOLDS,
    buffer_deg: float = BUFFER_DEG,
    seed: int = 0,
    name: str = "blocks",
) -> BlockSplit:
    """Cut a region into blocks and deal them to folds so that every fold sees every class.

    The region is divided evenly into blocks as near to `block_deg` as that allows. Blocks without
    bedrock labels belong to no fold: holding them out would score nothing.

    Parameters
    ----------
    labels : ndarray, shape (rows, columns), uint8
        North-up; 1, 2, ... are bedrock.
    bounds_wsen : tuple of float
        Outer edges of the labels, degrees.
    region : Region
        What to divide.
    block_deg : float, optional
        Side of a block. By default 2.5 degrees, halved until two blocks with labels fall to each fold.
    folds : int
        At least 3: one to score on, one to tune on, the rest to learn from.
    buffer_deg : float
        Training labels nearer than this to a held-out block are ignored.
    seed : int
        Of the search for a balanced assignment.
    name : str
        What the tile set calls the split.

    Returns
    -------
    BlockSplit
        Its ``notes`` say what was changed.

    Raises
    ------
    OptionError
        Fewer than 3 folds, or a block or buffer that is none.
    InputError
        Fewer blocks with labels than folds.
    """
    check_block_options(folds, block_deg, buffer_deg)
    side = BLOCK_DEG if block_deg is None else block_deg
    while True:
        shape, counts = count_blocks(labels, bounds_wsen, region, side)
        labelled = np.flatnonzero(counts.sum(axis=1))
        if block_deg is not None or len(labelled) >= 2 * folds or not may_halve(side, buffer_deg):
            break
        side /= 2
    check_labelled(len(labelled), folds, side)
    fold_of = np.full(shape[0] * shape[1], -1, dtype=np.int64)
    fold_of[labelled] = assign_folds(counts[labelled], folds, seed)
    notes = smaller_note(region, block_deg, side, BLOCK_DEG)
    notes += unlearned(counts[labelled], fold_of[labelled], folds)
    return BlockSplit(region, fold_of.reshape(shape), folds, float(buffer_deg), seed, name, tuple(notes))


def check_block_options(folds: int, block_deg: float | None, buffer_deg: float) -> None:
    """Refuse what cannot be a split by blocks, whatever the labels."""
    if folds < 3:
        raise OptionError(
            f"{folds} folds are too few.", "At least 3: one to score on, one to tune on, one to learn from."
        )
    if (block_deg is not None and not block_deg > 0) or not buffer_deg >= 0:
        raise OptionError(
            "A block must have a size, and a buffer must not be negative.", "Such as --block 2.5deg --buffer 0.25deg."
        )


def check_labelled(labelled: int, folds: int, side: float) -> None:
    """Refuse a region with fewer blocks of bedrock than folds."""
    if labelled < folds:
        raise InputError(
            f"Only {labelled} blocks of {describe_angle(side)} hold bedrock labels, for {folds} folds.",
            "Give a smaller --block or fewer --folds, or a map with more bedrock.",
        )


def may_halve(side: float, buffer_deg: float) -> bool:
    """Whether blocks may be half as large: below four buffers one would be mostly its neighbours' buffer."""
    return side / 2 >= max(4 * buffer_deg, SMALLEST_BLOCK_DEG)


def smaller_note(region: Region, asked: float | None, side: float, usual: float) -> list[str]:
    """Say that blocks were made smaller than usual."""
    if asked is not None or side == usual:
        return []
    return [f"{region} is small: blocks of about {describe_angle(side)} instead of {describe_angle(usual)} (--block)."]


def count_blocks(
    labels: NDArray[np.uint8], bounds_wsen: tuple[float, float, float, float], region: Region, side: float
) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """Rows and columns of blocks about `side` degrees wide, and cells per block (row by row) and bedrock class.

    Returns
    -------
    tuple of int
        Rows and columns of blocks.
    ndarray, shape (blocks, 254), int64
    """
    shape = max(1, round(region.height_deg / side)), max(1, round(region.width_deg / side))
    if shape[0] * shape[1] > MOST_BLOCKS:
        raise OptionError(
            f"Blocks of {describe_angle(side)} would cut {region} into {shape[0] * shape[1]} pieces.",
            "Choose a larger --block; a block smaller than the rocks on it holds nothing out.",
        )
    whole = BlockSplit(region, np.full(shape, -1, dtype=np.int64), 3, 0.0, 0)
    west, south, east, north = bounds_wsen
    rows = whole._block_rows(north - (np.arange(labels.shape[0]) + 0.5) * (north - south) / labels.shape[0])
    columns = whole._block_columns(west + (np.arange(labels.shape[1]) + 0.5) * (east - west) / labels.shape[1])
    counts = np.zeros((shape[0], shape[1], 256), dtype=np.int64)
    for row in range(shape[0]):
        in_row = np.flatnonzero(rows == row)
        for column in range(shape[1]):
            in_column = np.flatnonzero(columns == column)
            if in_row.size and in_column.size:
                part = labels[in_row[0] : in_row[-1] + 1, in_column[0] : in_column[-1] + 1]
                counts[row, column] = np.bincount(part.ravel(), minlength=256)
    return shape, counts.reshape(-1, 256)[:, COVER + 1 : UNUSABLE]
