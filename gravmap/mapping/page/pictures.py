"""The pictures of a finished map, for print: the map itself, and how sure it is and on what it rests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.geology import Legend
from gravmap.mapping.layers import ENTROPY, EVIDENCE_COLOURS, NODATA, OUTCROP
from gravmap.mapping.page.figures import ClassPanel, FieldPanel, Panel, classes_of_legend, draw
from gravmap.mapping.page.sheet import Sheet, read_sheet
from gravmap.plotting import map_aspect

PRINT_DPI = 300
PICTURES = ("map.png", "map.pdf", "uncertainty.png", "uncertainty.pdf")

# A landscape page of A4 or Letter, less its margins.
_WIDEST_IN, _TALLEST_IN = 9.6, 6.6
_DRAWN_PX = 2880  # 9.6 inches at 300 dpi


def draw_pictures(folder: Path, legend: Legend, *, title: str, notes: Sequence[str] = ()) -> list[Path]:
    """Draw a map folder's files as PNG and PDF at 300 dpi.

    ``map``: the classes, the mapped outcrop outlined. ``uncertainty``: the entropy of the probabilities, and the
    evidence beside it; left out where the folder has neither layer.

    Parameters
    ----------
    folder : Path
        Holds ``lithology.tif`` and, as far as there are, ``evidence.tif`` and ``uncertainty.tif``.
    legend : Legend
        Names and colours of the classes.
    title : str
        Of the map, such as the region's name.
    notes : sequence of str
        Under both pictures: what it was made with, and credits.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    InputError
        A layer is missing or cannot be read.
    """
    sheet = read_sheet(folder, _DRAWN_PX)
    outcrop = None if sheet.evidence is None else np.asarray(sheet.evidence == OUTCROP)
    width = _panel_width(sheet, 1)
    ruled = predicted(sheet)
    if outcrop is None:
        shown = "Bedrock lithology"
    elif ruled is None:
        shown = "Predicted everywhere; mapped outcrop is outlined"
    else:
        shown = "As mapped inside the outlines; predicted under cover where ruled in white"
    draw(
        [folder / "map.png", folder / "map.pdf"],
        [ClassPanel(shown, sheet.lithology, sheet.bounds_wsen, outcrop, ruled)],
        classes_of_legend(legend),
        title=f"{title}: bedrock lithology",
        notes=notes,
        panel_width_in=width,
        dpi=PRINT_DPI,
    )
    written = [folder / "map.png", folder / "map.pdf"]
    panels = _doubts(sheet, outcrop)
    if panels:
        written += [folder / "uncertainty.png", folder / "uncertainty.pdf"]
        # A wide region is drawn one map above the other, a tall one side by side.
        columns = 1 if len(panels) == 1 or map_aspect(sheet.bounds_wsen) < 0.8 else 2
        draw(
            written[2:],
            panels,
            evidence_classes(sheet.evidence_names),
            title=f"{title}: how sure, and on what it rests",
            notes=notes,
            columns=columns,
            panel_width_in=_panel_width(sheet, columns),
            dpi=PRINT_DPI,
        )
    return written


def evidence_classes(names: dict[int, str]) -> list[dict[str, Any]]:
    """Index, name and colour of the evidence values, as :func:`gravmap.mapping.page.figures.draw` takes them."""
    return [
        {"index": value, "name": names.get(value, str(value)), "colour": colour}
        for value, colour in EVIDENCE_COLOURS.items()
    ]


def predicted(sheet: Sheet) -> NDArray[np.bool_] | None:
    """Where the class shown is the network's while the outcrop's is the mapped one; None where that is not so."""
    if sheet.evidence is None or not sheet.as_mapped:
        return None
    return np.asarray((sheet.evidence != OUTCROP) & (sheet.lithology != NODATA))


def _doubts(sheet: Sheet, outcrop: NDArray[np.bool_] | None) -> list[Panel]:
    panels: list[Panel] = []
    entropy = sheet.measures.get(ENTROPY.name)
    if entropy is not None:
        panels.append(
            FieldPanel(
                "Uncertainty: entropy of the class probabilities",
                "0 one class is sure, 1 all are equal",
                entropy,
                sheet.bounds_wsen,
                limits=(0, 1),
                colours="cividis",
                outline=outcrop,
            )
        )
    if sheet.evidence is not None and (sheet.evidence != NODATA).any():
        panels.append(ClassPanel("Evidence: what the class of a cell rests on", sheet.evidence, sheet.bounds_wsen))
    return panels


def _panel_width(sheet: Sheet, columns: int) -> float:
    """Width of a map that fits a landscape page, alone or beside another; inches."""
    widest = _WIDEST_IN if columns == 1 else 5.6
    return min(
        widest, _TALLEST_IN / map_aspect(sheet.bounds_wsen) if math.isfinite(map_aspect(sheet.bounds_wsen)) else widest
    )
