"""Crops cut from the native grids, which live on the device: no file is read, the field is interpolated once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gravmap.lattice import TRAIN
from gravmap.learning.data.dataset import IGNORE, RegionDataset, to_target
from gravmap.learning.sampling.augmentation import Crop, ValueAugmentation
from gravmap.learning.sampling.resampling import interpolate, look_up, patch_under

SMALL = 1024
"""Added to the targets of small bodies, on the device."""


class NativeGrids:
    """Cuts crops from an area's arrays.

    Parameters
    ----------
    area : RegionDataset
        Labels and roles.
    fields : Tensor, shape (F, ny, nx)
        Those that are read, on the device of the crops.
    targets : ndarray, shape (Ny + 2, Nx + 2), int16
        What :func:`teaching_targets` gives, with its rim.
    changes : Changes
        Of the crops' values.
    crop_px : int
        Pixels across a crop.
    """

    def __init__(
        self, area: RegionDataset, fields: Tensor, targets: NDArray[np.int16], changes: ValueAugmentation, crop_px: int
    ) -> None:
        self._area, self._changes, self._crop_px, self._fields = area, changes, crop_px, fields
        self._codes = encode(torch.from_numpy(targets), torch.from_numpy(rimmed_small(area))).to(fields.device)

    def cut(self, crop: Crop) -> tuple[Tensor, Tensor, Tensor]:
        """Fields (F, h, h) in their units, targets (h, h) int16 and small-body mask (h, h) of one crop."""
        area, px = self._area, self._crop_px
        _, rows, columns = self._fields.shape
        some_rows, some_columns, place = patch_under(
            crop.place(area.field_nodes_wsen, columns - 1, rows - 1), columns, rows
        )
        patch = self._fields[:, some_rows, some_columns]
        varied = self._changes.vary(patch, crop, self._changes.noise(crop, *patch.shape[1:]))
        rows, columns = area.labels.shape
        codes = look_up(self._codes, crop.place(area.label_bounds_wsen, columns, rows), px)
        return interpolate(varied, place, px), *decode(codes)


def teaching_targets(area: RegionDataset) -> NDArray[np.int16]:
    """Target of every label cell, with a rim of one cell outside: class - 1, or IGNORE.

    Nothing is learnt from cells without bedrock, held-out cells, and cells where the field was not measured.
    """
    targets = to_target(np.arange(256, dtype=np.uint8)).astype(np.int16)[area.labels]
    targets[(area.role != TRAIN) | ~_measured(area)] = IGNORE
    return np.pad(targets, 1, constant_values=IGNORE)


def encode(target: Tensor, small: Tensor) -> Tensor:
    """Target and small-body mask in one int16, so that both are looked up at once; IGNORE has no mask."""
    return target + SMALL * (small & (target != IGNORE)).to(torch.int16)


def decode(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Targets, int16, and small-body mask, bool, of the same shape."""
    small = codes >= SMALL
    return codes - SMALL * small.to(torch.int16), small


def rimmed_small(area: RegionDataset) -> NDArray[np.bool_]:
    """The mask of small bodies with a rim of one cell."""
    return np.pad(area.small > 0, 1)


def _measured(area: RegionDataset) -> NDArray[np.bool_]:
    """Label cells whose nearest node has a measured field."""
    west, south, east, north = area.label_bounds_wsen
    ny, nx = area.labels.shape
    lat = north - (np.arange(ny) + 0.5) * (north - south) / ny
    lon = west + (np.arange(nx) + 0.5) * (east - west) / nx
    node_west, node_south, node_east, node_north = area.field_nodes_wsen
    row = np.rint((node_north - lat) / (node_north - node_south) * (area.field_valid.shape[0] - 1)).astype(np.int64)
    column = np.rint((lon - node_west) / (node_east - node_west) * (area.field_valid.shape[1] - 1)).astype(np.int64)
    inside_row = (row >= 0) & (row < area.field_valid.shape[0])
    inside_column = (column >= 0) & (column < area.field_valid.shape[1])
    found = area.field_valid[
        np.clip(row, 0, area.field_valid.shape[0] - 1)[:, None], np.clip(column, 0, area.field_valid.shape[1] - 1)
    ]
    measured: NDArray[np.bool_] = found & inside_row[:, None] & inside_column[None, :]
    return measured
