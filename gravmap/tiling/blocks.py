"""Spatial block cross-validation: whole blocks are held out, with a buffer around them, so that scores do not leak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError, OptionError
from gravmap.lattice import BUFFER, COVER, TEST, TRAIN, TUNE, UNUSABLE
from gravmap.regions import Region
from gravmap.units import describe_angle


def assign_folds(counts: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Assign blocks to folds so that each fold holds the same fraction of every class.

    The cost is the sum over folds and classes of (fraction of the class in the fold - 1/folds)², plus a
    large penalty for every class that is missing in a fold's training blocks. It is minimized
    from several random starts, by moving single blocks and swapping pairs.

    Parameters
    ----------
    counts : ndarray, shape (blocks, classes), int
        Cells.
    folds, seed : int
        Number of folds; seed of the search.

    Returns
    -------
    ndarray, shape (blocks,), int
        Fold of each block.
    """
    present = counts.sum(axis=0) > 0
    fraction = counts[:, present] / counts[:, present].sum(axis=0)
    blocks = len(fraction)
    rng = np.random.default_rng(seed)
    best, best_cost = np.zeros(blocks, dtype=np.int64), np.inf
    for _ in range(max(1, min(8, 4000 // blocks))):
        fold_of = rng.permutation(np.arange(blocks) % folds)
        held_out = np.zeros((folds, fraction.shape[1]))
        np.add.at(held_out, fold_of, fraction)
        cost = _cost(held_out)
        for _ in range(min(1500, 20 * blocks)):
            first, second = rng.integers(blocks, size=2)
            a, b = fold_of[first], fold_of[second]
            if rng.random() < 0.5:  # move one block
                b, change = int(rng.integers(folds)), fraction[first]
                moved = True
            else:
                change, moved = fraction[first] - fraction[second], False
            if a == b:
                continue
            trial = held_out.copy()
            trial[a] -= change
            trial[b] += change
            trial_cost = _cost(trial)
            if trial_cost < cost and not (moved and np.count_nonzero(fold_of == a) == 1):
                held_out, cost = trial, trial_cost
                fold_of[first] = b
                if not moved:
                    fold_of[second] = a
        if cost < best_cost:
            best, best_cost = fold_of.copy(), cost
    return best


def _cost(held_out: NDArray[np.float64]) -> float:
    """Imbalance of the fractions of classes per fold, shape (folds, classes)."""
    training = 1 - held_out - np.roll(held_out, -1, axis=0)
    return float(((held_out - 1 / len(held_out)) ** 2).sum() + 10 * np.count_nonzero(training < 1e-9))


def untrained_classes(counts: NDArray[np.int64], fold_of: NDArray[np.int64], folds: int) -> list[str]:
    """A note on the classes that are missing in the training blocks of some fold."""
    missing = []
    for index in np.flatnonzero(counts.sum(axis=0)):
        owners = set(fold_of[counts[:, index] > 0].tolist())
        if any(owners <= {fold, (fold + 1) % folds} for fold in range(folds)):
            missing.append(str(index + 1))
    return [f"Class {', '.join(missing)}: so few blocks that a fold has none to learn it from."] if missing else []


BLOCK_DEG = 2.5
BUFFER_DEG = 0.25
FOLDS = 5
SMALLEST_BLOCK_DEG = 0.01  # blocks are not halved below this, if there is no buffer
MAX_BLOCKS = 20_000


@dataclass(frozen=True)
class BlockSplit:
    """A region divided into blocks, each held out in one fold.

    Fold k scores on the blocks numbered k and tunes on those numbered k + 1 (the last one on 0).

    Attributes
    ----------
    region : Region
        Divided evenly into blocks.
    fold_of : ndarray, shape (rows, columns), int
        Fold of each block, row 0 northernmost; -1 where a block holds no bedrock label and is never held out.
    folds : int
        Number of folds, at least 3.
    buffer_deg : float
        Training labels nearer than this to a held-out block are ignored, degrees.
    seed : int
        Seed of the assignment.
    name : str
        Name of the split in the tile set.
    notes : tuple of str
        Warnings: what differs from the options given.
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
        """JSON-able description, from which :meth:`from_dict` makes the split again."""
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
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Make the split from the dictionary of :meth:`to_dict`.

        Raises
        ------
        KeyError, ValueError, OptionError
            A key is missing, or the folds of the blocks do not fit the number of folds.
        """
        if len({len(row) for row in stored["fold_of_block"]}) != 1:
            raise ValueError("the rows of fold_of_block differ in length")
        fold_of = np.array(stored["fold_of_block"], dtype=np.int64)
        if not fold_of.size or fold_of.min() < -1 or fold_of.max() >= stored["folds"]:
            raise ValueError("fold_of_block names a fold that does not exist")
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
        """Columns of ``index.parquet``: the fold of the block under the centre of each window, -1 for none."""
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
            The split has no such fold.
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
            # The block grown by the buffer on every side; the box contains every point nearer than the buffer.
            top = self.region.north - row * height + self.buffer_deg
            left = self.region.west + column * width - self.buffer_deg
            rows = np.flatnonzero((lat < top) & (lat > top - height - 2 * self.buffer_deg))
            columns = np.flatnonzero((lon > left) & (lon < left + width + 2 * self.buffer_deg))
            if rows.size and columns.size:
                near = roles[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                near[near == TRAIN] = BUFFER
        roles[block_row < 0] = BUFFER
        roles[:, block_column < 0] = BUFFER
        return roles

    def _block_rows(self, lat: NDArray[np.float64]) -> NDArray[np.intp]:
        return _part_of((self.region.north - lat) / self.region.height_deg, self.fold_of.shape[0])

    def _block_columns(self, lon: NDArray[np.float64]) -> NDArray[np.intp]:
        return _part_of((lon - self.region.west) / self.region.width_deg, self.fold_of.shape[1])

    def fold_at(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.int64]:
        """Fold of the block each point lies in; -1 outside, and in blocks that are never held out."""
        rows, columns = self._block_rows(lat), self._block_columns(lon)
        return np.where((rows < 0) | (columns < 0), -1, self.fold_of[rows, columns])


def _part_of(position: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Number of the part that a relative position (0 to 1) falls in; -1 outside. The far edge is in the last part."""
    part = np.floor(position * count + 1e-9).astype(np.intp)
    part[(part == count) & (position <= 1 + 1e-9)] = count - 1
    return np.where((part < 0) | (part >= count), -1, part)


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
    """Divide a region into blocks and assign them to folds so that every fold trains on every class.

    The region is divided evenly into blocks as near to `block_deg` as that allows. Blocks without
    bedrock labels belong to no fold: there would be nothing to score on.

    Parameters
    ----------
    labels : ndarray, shape (rows, columns), uint8
        North-up; 1, 2, ... are bedrock.
    bounds_wsen : tuple of float
        Outer edges of the labels, degrees.
    region : Region
        The region to divide.
    block_deg : float, optional
        Side of a block. By default 2.5 degrees, halved until there are two blocks with labels per fold.
    folds : int
        At least 3: one to test on, one to tune on, the rest to train on.
    buffer_deg : float
        Training labels nearer than this to a held-out block are ignored.
    seed : int
        Seed of the search for a balanced assignment.
    name : str
        Name of the split in the tile set.

    Returns
    -------
    BlockSplit
        Its ``notes`` report what differs from the options.

    Raises
    ------
    OptionError
        Fewer than 3 folds, or an invalid size of block or buffer.
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
    notes += untrained_classes(counts[labelled], fold_of[labelled], folds)
    return BlockSplit(region, fold_of.reshape(shape), folds, float(buffer_deg), seed, name, tuple(notes))


def check_block_options(folds: int, block_deg: float | None, buffer_deg: float) -> None:
    """Refuse invalid options of a split by blocks."""
    if folds < 3:
        raise OptionError(
            f"{folds} folds are too few.", "Give at least 3: one to test on, one to tune on, one to train on."
        )
    if (block_deg is not None and not block_deg > 0) or not buffer_deg >= 0:
        raise OptionError(
            "The size of a block must be positive, and that of a buffer not negative.",
            "Such as --block 2.5deg --buffer 0.25deg.",
        )


def check_labelled(labelled: int, folds: int, side: float) -> None:
    """Refuse a region with fewer blocks of bedrock than folds."""
    if labelled < folds:
        raise InputError(
            f"Only {labelled} blocks of {describe_angle(side)} hold bedrock labels, for {folds} folds.",
            "Give a smaller --block or fewer --folds, or a map with more bedrock.",
        )


def may_halve(side: float, buffer_deg: float) -> bool:
    """Whether blocks may be halved: one smaller than four buffers would lie mostly in its neighbours' buffers."""
    return side / 2 >= max(4 * buffer_deg, SMALLEST_BLOCK_DEG)


def smaller_note(region: Region, given: float | None, side: float, default: float) -> list[str]:
    """A note that blocks were made smaller than by default."""
    if given is not None or side == default:
        return []
    return [
        f"{region} is small: blocks of about {describe_angle(side)} instead of {describe_angle(default)} (--block)."
    ]


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
    if shape[0] * shape[1] > MAX_BLOCKS:
        raise OptionError(
            f"Blocks of {describe_angle(side)} would divide {region} into {shape[0] * shape[1]} blocks.",
            f"Choose a larger --block: at most {MAX_BLOCKS} blocks are supported.",
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
