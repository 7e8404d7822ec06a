"""The grounds a network is taught, tuned and tested on: one region, or many crusts.

Everything that trains or scores goes through :class:`DatasetSplits`; a single region serves as all three.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.files import atomic_path, read_json, write_json
from gravmap.lattice import TEST, TRAIN, TUNE
from gravmap.learning.data.cover_masks import CoverMaskedDatasets
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.outcrop_context import is_context, with_context
from gravmap.learning.evaluation.null_models import known_labels

CRUSTS = "crusts"
_LIST, _COVER = "grounds.json", "cover.npz"


@dataclass(frozen=True)
class DatasetSplits:
    """Areas by what they are for. Who may see which label is said by the roles inside each, as ever.

    Attributes
    ----------
    train : tuple of RegionDataset
        Crops are drawn from these: a ground first, all alike, then a crop in it.
    tune, test : tuple of RegionDataset
        Scored are their nodes of the role TUNE, and TEST; an area may stand in more than one tuple.
    cuts : CoverMaskedDatasets, optional
        Of a region that is taught with outcrop as context: crops are drawn from these instead of `train`.
    record : dict
        JSON-able: what the grounds are, where they are no region's (kept with the weights as ``taught_on``).
    cover_m : tuple of (ny, nx) float32 array
        Metres of cover at the nodes of each of `tune`, then of each of `test`; empty where nobody knows them.

    Raises
    ------
    InputError
        No ground to train on; or two grounds differ in fields, units or classes.
    """

    train: tuple[RegionDataset, ...]
    tune: tuple[RegionDataset, ...]
    test: tuple[RegionDataset, ...]
    cuts: CoverMaskedDatasets | None = None
    record: dict[str, Any] = field(default_factory=dict)
    cover_m: tuple[NDArray[np.float32], ...] = ()

    def __post_init__(self) -> None:
        if not self.train:
            raise InputError("There is no ground to train on.", "Ask for more crusts: --count.")
        for other in self.every:
            for what in ("channels", "channel_units", "classes"):
                if getattr(other, what) != getattr(self.first, what):
                    raise InputError(
                        f"Two grounds of one training differ in their {what.replace('_', ' ')}: "
                        f"{getattr(self.first, what)} and {getattr(other, what)}.",
                        "Make all of them alike.",
                    )

    @classmethod
    def of(cls, ground: RegionDataset | DatasetSplits) -> DatasetSplits:
        """One area as the ground of everything; grounds as they are."""
        return ground if isinstance(ground, DatasetSplits) else cls((ground,), (ground,), (ground,))

    def with_outcrop(self, cuts: int, seed: int) -> DatasetSplits:
        """The grounds with outcrop as context.

        Crusts have it already. A region is scored with the context of all its training outcrop, and taught on cuts.

        Parameters
        ----------
        cuts : int
            In use at a time.
        seed : int
            Of the cuts.

        Raises
        ------
        InputError
            Training sees no outcrop, or of one class only.
        """
        if any(map(is_context, self.first.channels)):
            return self
        whole = {id(area): with_context(area, known_labels(area)) for area in self.every}
        train, tune, test = (tuple(whole[id(area)] for area in areas) for areas in (self.train, self.tune, self.test))
        return DatasetSplits(train, tune, test, CoverMaskedDatasets(self.first, cuts, seed), self.record)

    @property
    def first(self) -> RegionDataset:
        """The first of those to train on: what it says of fields and classes holds for all."""
        return self.train[0]

    @property
    def every(self) -> tuple[RegionDataset, ...]:
        """Each area once."""
        return tuple({id(area): area for area in (*self.train, *self.tune, *self.test)}.values())

    @property
    def many(self) -> bool:
        """Whether there is more than one."""
        return len(self.every) > 1

    @property
    def simulated(self) -> bool:
        """Whether they are crusts, whose truth under cover is known."""
        return self.record.get("on") == CRUSTS

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Index, name, colour and age of each class, in order of the index."""
        return self.first.classes

    @property
    def meta(self) -> dict[str, Any]:
        """What the first ground says of itself."""
        return self.first.meta

    @property
    def scales_deg(self) -> list[float]:
        """Sizes of the training windows, degrees."""
        return sorted({scale for area in self.train for scale in area.window_scale_deg.tolist()})

    def held(self, *roles: int) -> Iterator[tuple[RegionDataset, tuple[int, ...]]]:
        """Areas with held-out ground of these roles, each once, and which of the roles are asked of it."""
        serving = {TUNE: self.tune, TEST: self.test, TRAIN: self.train}
        for area in self.every:
            mine = tuple(role for role in roles if any(area is each for each in serving[role]))
            if mine:
                yield area, mine

    def fingerprint(self) -> str:
        """SHA-256 over all grounds; of a single one that of the area."""
        if not self.many:
            return self.first.fingerprint()
        known = {id(area): area.fingerprint() for area in self.every}
        lines = [
            " ".join([name, *(known[id(area)] for area in areas)])
            for name, areas in (("train", self.train), ("tune", self.tune), ("test", self.test))
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write all into a folder: one ``.npz`` each, and a list of who is what. Cuts are made from a region anew."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {id(area): f"ground-{number}.npz" for number, area in enumerate(self.every)}
        for area in self.every:
            area.save(folder / files[id(area)])
        lists = {name: [files[id(area)] for area in getattr(self, name)] for name in ("train", "tune", "test")}
        with atomic_path(folder / _COVER) as temporary, temporary.open("wb") as stream:
            np.savez(stream, *self.cover_m)
        write_json(folder / _LIST, {**lists, "record": self.record})

    @classmethod
    def load(cls, folder: Path) -> DatasetSplits:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            A file is missing or damaged.
        """
        lists = read_json(folder / _LIST, "gravmap train")
        read = {file: RegionDataset.load(folder / file) for name in ("train", "tune", "test") for file in lists[name]}
        train, tune, test = (tuple(read[file] for file in lists[name]) for name in ("train", "tune", "test"))
        with np.load(folder / _COVER, allow_pickle=False) as stored:
            cover_m = tuple(stored[name] for name in stored.files)
        return cls(train, tune, test, record=lists["record"], cover_m=cover_m)
