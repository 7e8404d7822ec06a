"""What the demo has to show for itself: scores under cover and the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from gravmap.files import write_json
from gravmap.geology import Legend, open_labels
from gravmap.learning.area import Area
from gravmap.learning.null_models import NULL_MODELS
from gravmap.mapping.page.figures import ClassPanel, FieldPanel, Panel, classes_of_legend, draw
from gravmap.mapping.page.report import REPORT
from gravmap.mapping.scoring.under_cover import NETWORK, UnderCover, score_under_cover
from gravmap.tiling import load_arrays
from gravmap.workspace import Workspace


@dataclass(frozen=True)
class Report:
    """The demo's outcome.

    Attributes
    ----------
    scores : dict
        Predictor to its scores under cover.
    lines : list of str
        The table, in words.
    pictures : list of Path
        What to look at.
    """

    scores: dict[str, Any]
    lines: list[str]
    pictures: list[Path]


def report(root: Path, truth_path: Path, region: str = "demo") -> Report:
    """Score the demo's map against the truth below its cover and draw both.

    Parameters
    ----------
    root : Path
        The demo's workspace, all steps done.
    truth_path : Path
        Index raster of the bedrock below the cover, on the nodes of the gravity grid.
    region : str
        Name of the map's folder.

    Raises
    ------
    InputError
        A step is missing or the grids differ.
    """
    workspace = Workspace(root)
    area = Area.from_arrays(load_arrays(workspace.tiles))
    folder = workspace.maps / region
    mapped, bounds = _read(folder / "lithology.tif")
    truth, _ = _read(truth_path)
    found = score_under_cover(area, mapped, truth)
    write_json(
        folder / "under_cover.json", {"cells": found.cells, "far_cells": found.far_cells, "scores": found.scores}
    )
    picture = folder / "demo.png"
    legend = open_labels(workspace.labels).legend
    _draw(picture, area, found, truth, bounds, legend)
    looked_at = [picture, folder / "map.png", folder / REPORT, workspace.runs / "demo" / "curves.png"]
    return Report(found.scores, found.table(), [path for path in looked_at if path.exists()])


def _draw(
    path: Path,
    area: Area,
    found: UnderCover,
    truth: NDArray[np.uint8],
    bounds: tuple[float, float, float, float],
    legend: Legend,
) -> None:
    surface, _ = area.node_truth()
    outcrop = (surface > 0) & (surface != 255)
    merged = {name: np.where(outcrop, surface, values).astype(np.uint8) for name, values in found.maps.items()}
    nearest, diffused = (NULL_MODELS[key].title for key in ("nearest_outcrop", "label_diffusion"))
    scores = {name: row["all"] for name, row in found.scores.items()}

    def score(name: str) -> str:
        return f"{name}: PA {100 * scores[name]['pa']:.0f} %, FWIoU {100 * scores[name]['fwiou']:.0f} % under cover"

    panels: list[Panel] = [
        FieldPanel(area.channels[0].replace("_", " "), "mGal", area.fields[0], bounds, diverging=True),
        ClassPanel("The map a geologist has: bedrock where it crops out", surface, bounds, outcrop),
        ClassPanel(score(NETWORK), merged[NETWORK], bounds, outcrop, ~outcrop),
        ClassPanel("The truth below the cover", truth, bounds, outcrop),
        ClassPanel(score(nearest), merged[nearest], bounds, outcrop, ~outcrop),
        ClassPanel(score(diffused), merged[diffused], bounds, outcrop, ~outcrop),
    ]
    notes = [
        "A simulated crust. Inside the outlines the bedrock crops out and is shown as mapped; where ruled in white it"
        " is predicted.",
        "Every predictor saw the same training outcrop: held-out blocks were kept from all of them.",
    ]
    draw(path, panels, classes_of_legend(legend), title="gravmap demo", notes=notes, columns=2, panel_width_in=6.0)


def _read(path: Path) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    with rasterio.open(path) as raster:
        bounds = raster.bounds
        return raster.read(1), (bounds.left, bounds.bottom, bounds.right, bounds.top)
