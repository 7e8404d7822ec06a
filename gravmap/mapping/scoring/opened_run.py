"""A finished run with all that its scores are counted on: what is scored, and what would be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.files import read_json
from gravmap.geology.points import Points
from gravmap.learning.data.dataset import RegionDataset
from gravmap.mapping.scoring.boreholes import Boreholes, lay_points
from gravmap.mapping.scoring.run_ground import dataset_of_run
from gravmap.mapping.scoring.scored_ground import ScoredGround


@dataclass(frozen=True)
class OpenedRun:
    """A run and its ground.

    Attributes
    ----------
    folder : Path
        The run.
    model : dict
        Its ``model.json``.
    area : RegionDataset
        What it was taught on, with its own fold.
    ground : ScoredGround
        The nodes of its test blocks.
    holes : Boreholes or None
        Where boreholes are given.
    """

    folder: Path
    model: dict[str, Any]
    area: RegionDataset
    ground: ScoredGround
    holes: Boreholes | None

    @classmethod
    def of(cls, folder: Path, tiles: Path, points: Points | None = None, by_area: bool = False) -> OpenedRun:
        """Open a run and the tile set it was trained on.

        Raises
        ------
        InputError
            As :func:`gravmap.mapping.scoring.evaluate.evaluate_run`.
        """
        if not (folder / "scores.json").exists():
            raise InputError(
                f"The run {folder.name} is not finished: {folder / 'scores.json'} is missing.",
                f"`gravmap train --resume --name {folder.name}` goes on with it.",
            )
        model = read_json(folder / "model.json", "gravmap train")
        area = dataset_of_run(model, tiles, folder.name)
        ground = ScoredGround.of(area, by_area, folder.name)
        return cls(folder, model, area, ground, None if points is None else lay_points(points, area))

    @property
    def seed(self) -> int:
        """Of its training."""
        return int(self.model.get("seed", 0))

    @property
    def fold(self) -> int:
        """Of its split."""
        return int(self.model["split"].get("fold", 0))

    @property
    def wanted(self) -> NDArray[np.bool_]:
        """Nodes that its network is asked about: of the test blocks, and under boreholes; (ny, nx)."""
        wanted = self.ground.counted.copy()
        if self.holes is not None:
            wanted[self.holes.row, self.holes.column] = True
        return wanted


def finished_runs(runs: Path) -> list[Path]:
    """Folders of a workspace's runs that were trained to their end, by name."""
    return sorted(path.parent for path in runs.glob("*/scores.json") if (path.parent / "model.json").exists())
