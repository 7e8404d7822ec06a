"""Windows through networks: each one's logits on the map's cells go into a file of its own.

Nothing passes between windows, so that they can be shared out among processes, and a stopped run goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gravmap.files import sha256
from gravmap.learning.mosaic import to_cells, window_input, window_patch
from gravmap.mapping.outcrop import OutcropFile
from gravmap.mapping.plan import FLIPS, FOLDER, Pass
from gravmap.mapping.predictor import Predictor

Finished = Callable[[str, tuple[str, ...]], None]
"""Told the name of each finished pass, and the SHA-256 of its files."""


@dataclass(frozen=True)
class Work:
    """Passes to be made, and all that a process needs to make them.

    Attributes
    ----------
    fields : Path
        ``data/fields.nc``.
    runs : tuple of Path
        The runs, by their number.
    passes : tuple of Pass
        What is to be done.
    lat, lon : (ny,), (nx,) float64
        Centres of the map's cells, degrees, `lat` descending.
    folder : Path
        The map's folder; files go into its folder ``windows``.
    flips : bool
        Whether every window is seen in four mirror images.
    batch_size : int
        Windows at a time.
    outcrop : OutcropFile, optional
        For networks that start from it.
    """

    fields: Path
    runs: tuple[Path, ...]
    passes: tuple[Pass, ...]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    folder: Path
    flips: bool = False
    batch_size: int = 1
    outcrop: OutcropFile | None = None

    def share(self, rank: int, size: int) -> Work:
        """The part of one of several processes."""
        return replace(self, passes=self.passes[rank::size])


def make_passes(work: Work, predictor: Predictor, finished: Finished) -> None:
    """Put windows through networks, and write their logits.

    Parameters
    ----------
    work : Work
        What is to be done.
    predictor : Predictor
        Made from the same fields and runs.
    finished : callable
        Told each pass that is written.
    """
    (work.folder / FOLDER).mkdir(exist_ok=True)
    for each, images in _logits(work, predictor):
        window = np.array(each.wsen)
        cells = [to_cells(image, window, work.lat, work.lon) for image in images]
        sums = []
        if work.flips:
            votes = np.stack([image.argmax(axis=0) for image in cells]).astype(np.uint8)
            sums.append(_write(work.folder / each.votes_file, votes))
        mean = sum(cells[1:], cells[0]) / np.float32(len(cells))
        sums.insert(0, _write(work.folder / each.logits_file, mean))
        finished(each.name, tuple(sums))


def _logits(work: Work, predictor: Predictor) -> Iterator[tuple[Pass, list[Tensor]]]:
    """Each pass with its logits (K, T, T), for each mirror image one, turned back."""
    flips: Sequence[tuple[int, ...]] = FLIPS if work.flips else FLIPS[:1]
    for run, passes in groupby(work.passes, key=lambda each: each.run):
        network = predictor.members[run].network
        for batch in _batches(list(passes), work.batch_size):
            tiles = torch.stack([_tile(each, predictor) for each in batch]).to(predictor.device)
            images: list[list[Tensor]] = [[] for _ in batch]
            with torch.inference_mode():
                for axes in flips:
                    logits = network(tiles.flip(axes)).float().flip(axes)  # (n, K, T, T)
                    for mine, image in zip(images, logits, strict=True):
                        mine.append(image)
            yield from zip(batch, images, strict=True)


def _batches(passes: list[Pass], size: int) -> Iterator[list[Pass]]:
    for first in range(0, len(passes), size):
        yield passes[first : first + size]


def _tile(each: Pass, predictor: Predictor) -> Tensor:
    """What the network reads of a window, (C, T, T): of the fields only the nodes under it are read."""
    spec, fields, window = predictor.members[each.run].spec, predictor.fields, np.array(each.wsen)
    rows, columns, place = window_patch(window, fields.nodes_wsen, *fields.shape)
    patch = np.nan_to_num(fields.read(spec.input.fields, rows, columns), nan=0.0, posinf=0.0, neginf=0.0)
    return window_input(torch.from_numpy(patch), place, window, spec.tile_size_px, spec.input)


def _write(path: Path, values: NDArray[Any]) -> str:
    """Write an array, whole or not at all; its file's SHA-256."""
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("wb") as stream:
        np.save(stream, values, allow_pickle=False)
    checksum = sha256(temporary)
    os.replace(temporary, path)
    return checksum
