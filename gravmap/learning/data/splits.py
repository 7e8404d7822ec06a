"""The datasets a network is trained, tuned and tested on: one region, or many simulated crusts.

Everything that trains or scores takes :class:`DatasetSplits`; a single region serves as all three.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gravmap.errors import InputError, OptionError
from gravmap.files import write_json
from gravmap.lattice import TEST, TRAIN, TUNE
from gravmap.learning.data.cover_masks import CoverMaskedDatasets
from gravmap.learning.data.dataset import RegionDataset, known_labels
from gravmap.learning.data.outcrop_context import is_context, with_context
from gravmap.records import read_record

CRUSTS = "crusts"
_LIST = "splits.json"


@dataclass(frozen=True)
class DatasetSplits:
    """Datasets by purpose. Which labels may be seen is decided by the roles inside each dataset.

    Attributes
    ----------
    train : tuple of RegionDataset
        Crops are drawn from these: a dataset first, all with the same probability, then a crop in it.
    tune, test : tuple of RegionDataset
        Scored are their nodes of the role TUNE, and TEST; a dataset may stand in more than one tuple.
    cover_masks : CoverMaskedDatasets, optional
        Of a region with outcrop as context: crops are drawn from these instead of `train`.
    record : dict
        JSON-able: what the datasets are, where they are not a region (kept with the weights as ``taught_on``).
    tiles : Dataset, optional
        Training crops are read from these tiles instead of the native grids: a map-style dataset with the items and
        attributes of :class:`gravmap.tiling.TileDataset`. Held-out cells, class weights and scores stay those of
        `train`, `tune` and `test`.

    Raises
    ------
    InputError
        No dataset to train on; or two datasets differ in fields, units or classes.
    OptionError
        Both tiles and cover masks.

    Examples
    --------
    A single region serves as training, tuning and test data; its roles keep them apart:

    >>> from gravmap.learning.data.splits import DatasetSplits

    >>> from gravmap.learning.data.dataset import RegionDataset
    >>> from gravmap.tiling import TileDataset, load_arrays
    >>> dataset = RegionDataset.from_arrays(load_arrays("data/tiles"))
    >>> splits = DatasetSplits.of(dataset)
    >>> splits.first is dataset, len(splits.every), splits.scales_deg
    (True, 1, [2.5, 5.0])

    Training crops may be read from tiles that were edited:

    >>> splits = DatasetSplits.from_tiles(dataset, TileDataset("data/tiles"))
    """

    train: tuple[RegionDataset, ...]
    tune: tuple[RegionDataset, ...]
    test: tuple[RegionDataset, ...]
    cover_masks: CoverMaskedDatasets | None = None
    record: dict[str, Any] = field(default_factory=dict)
    tiles: Any = None

    def __post_init__(self) -> None:
        if not self.train:
            raise InputError("There is no dataset to train on.", "Give a larger --count of crusts.")
        for other in self.every:
            for what in ("channels", "channel_units", "classes"):
                if getattr(other, what) != getattr(self.first, what):
                    raise InputError(
                        f"Two training datasets differ in their {what.replace('_', ' ')}: "
                        f"{getattr(self.first, what)} and {getattr(other, what)}.",
                        "Make all of them with the same fields and classes.",
                    )
        if self.tiles is not None and self.cover_masks is not None:
            raise OptionError(
                "Cover masks are applied to the native labels; edited tiles have other labels.",
                "Leave out --from-tiles or --context.",
            )

    @classmethod
    def of(cls, data: RegionDataset | DatasetSplits) -> DatasetSplits:
        """One dataset as training, tuning and test data; splits as they are."""
        return data if isinstance(data, DatasetSplits) else cls((data,), (data,), (data,))

    @classmethod
    def from_tiles(cls, dataset: RegionDataset, tiles: Any) -> DatasetSplits:
        """One dataset whose training crops are read from tiles.

        Parameters
        ----------
        dataset : RegionDataset
            The arrays of the tile set (:func:`gravmap.tiling.load_arrays`).
        tiles : Dataset
            Its tiles (:class:`gravmap.tiling.TileDataset`).
        """
        return replace(cls.of(dataset), tiles=tiles)

    def with_outcrop(self, cuts: int, seed: int) -> DatasetSplits:
        """The datasets with outcrop as context.

        Crusts have it already. A region is scored with the context of all its training outcrop, and its training crops
        come from datasets in which synthetic cover masks hide part of that outcrop.

        Parameters
        ----------
        cuts : int
            Cover masks in use at a time.
        seed : int
            Of the cover masks.

        Raises
        ------
        InputError
            Training sees no outcrop, or of one class only.
        OptionError
            Training crops are read from tiles.
        """
        if any(map(is_context, self.first.channels)):
            return self
        whole = {id(each): with_context(each, known_labels(each)) for each in self.every}
        train, tune, test = (tuple(whole[id(each)] for each in some) for some in (self.train, self.tune, self.test))
        masks = CoverMaskedDatasets(self.first, cuts, seed)
        return DatasetSplits(train, tune, test, masks, self.record, tiles=self.tiles)

    @property
    def first(self) -> RegionDataset:
        """The first training dataset: its fields and classes are those of all."""
        return self.train[0]

    @property
    def every(self) -> tuple[RegionDataset, ...]:
        """Each dataset once."""
        return tuple({id(each): each for each in (*self.train, *self.tune, *self.test)}.values())

    @property
    def many(self) -> bool:
        """Whether there is more than one dataset."""
        return len(self.every) > 1

    @property
    def simulated(self) -> bool:
        """Whether they are crusts, for which the bedrock under cover is known."""
        return self.record.get("on") == CRUSTS

    @property
    def knows_thickness(self) -> bool:
        """Whether the thickness of the cover is known in every dataset."""
        return all(each.cover_m is not None for each in self.every)

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Index, name, colour and age of each class, in order of the index."""
        return self.first.classes

    @property
    def meta(self) -> dict[str, Any]:
        """Metadata of the first training dataset."""
        return self.first.meta

    @property
    def scales_deg(self) -> list[float]:
        """Sizes of the training windows, degrees."""
        return sorted({scale for dataset in self.train for scale in dataset.window_scale_deg.tolist()})

    def held_out(self, *roles: int) -> Iterator[tuple[RegionDataset, tuple[int, ...]]]:
        """Datasets with held-out cells of these roles, each once, and which of the roles are evaluated on it."""
        serving = {TUNE: self.tune, TEST: self.test, TRAIN: self.train}
        for dataset in self.every:
            mine = tuple(role for role in roles if any(dataset is each for each in serving[role]))
            if mine:
                yield dataset, mine

    def fingerprint(self) -> str:
        """SHA-256 over all datasets, and the tiles where crops are read from these; of a single dataset its own."""
        if self.many:
            known = {id(each): each.fingerprint() for each in self.every}
            lines = [
                " ".join([name, *(known[id(each)] for each in some)])
                for name, some in (("train", self.train), ("tune", self.tune), ("test", self.test))
            ]
            found = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        else:
            found = self.first.fingerprint()
        if self.tiles is None:
            return found
        return hashlib.sha256(f"{found} {self.tiles.record['sha256']}".encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write all into a folder: one ``.npz`` per dataset, and a list of which is used for what.

        Cover masks are made again from a region, and tiles are read from their own files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = {id(each): f"dataset-{number}.npz" for number, each in enumerate(self.every)}
        for dataset in self.every:
            dataset.save(folder / files[id(dataset)])
        lists = {name: [files[id(each)] for each in getattr(self, name)] for name in ("train", "tune", "test")}
        write_json(folder / _LIST, {**lists, "record": self.record})

    @classmethod
    def load(cls, folder: Path) -> DatasetSplits:
        """Read the files of :meth:`save`.

        Raises
        ------
        InputError
            A file is missing or damaged.
        """
        lists = read_record(folder / _LIST, dict[str, Any], "gravmap train")
        read = {file: RegionDataset.load(folder / file) for name in ("train", "tune", "test") for file in lists[name]}
        train, tune, test = (tuple(read[file] for file in lists[name]) for name in ("train", "tune", "test"))
        return cls(train, tune, test, record=lists["record"])
