"""What a GGMNet costs part by part, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gravmap.network.architecture import Architecture
from gravmap.network.cost import count_parameters, macs_by_layer
from gravmap.network.ggmnet import GGMNet

HEADINGS = ("Part", "Cells", "Parameters", "GMAC")
_PARTS = {
    "encoder": "encoder",
    "refine": "attention (ARM)",
    "fuse": "fusion (FFM)",
    "head": "head",
    "classify": "classifier",
}


@dataclass(frozen=True)
class PartCost:
    """One row of the table.

    Parameters
    ----------
    part : str
        Its name.
    cells : int or None
        How many cells it has of its own; None for what is not made of cells.
    parameters, macs : int
        What it costs.
    """

    part: str
    cells: int | None
    parameters: int
    macs: int


def cost_by_part(
    architecture: Architecture, in_channels: int = 1, classes: int = 10, size: int = 1024
) -> list[PartCost]:
    """Count parameters, and multiply-adds over one size x size image, part by part; the last row is the whole.

    A cell that branches share counts for the first of them. Nothing is computed (see `count_macs`).
    """
    with torch.device("meta"):
        network = GGMNet(architecture, in_channels, classes)
    macs = macs_by_layer(network, in_channels, size)
    rows = [_row(network, macs, "encoder", ["encoder"])]
    for branch, (route, shared) in enumerate(zip(network.routes, network.shared, strict=True)):
        end = 8 << architecture.scale(branch, architecture.depth - 1)
        names = [f"cells.{number}" for number in route[shared:]]
        part = f"branch to 1/{end}" + (f", from cell {shared} on" if shared else "")
        rows.append(_row(network, macs, part, names, cells=len(names)))
    rows += [_row(network, macs, part, [name]) for name, part in _PARTS.items() if name != "encoder"]
    rows = [row for row in rows if row.parameters or row.cells is not None]
    total = sum(row.cells or 0 for row in rows)
    return [*rows, PartCost("all", total, sum(row.parameters for row in rows), sum(row.macs for row in rows))]


def as_markdown(rows: Sequence[PartCost]) -> str:
    """Write the table in Markdown: parameters in millions, multiply-adds in thousands of millions."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---:|---:|---:|"]
    for row in rows:
        cells = "" if row.cells is None else str(row.cells)
        lines.append(f"| {row.part} | {cells} | {row.parameters / 1e6:.3f} M | {row.macs / 1e9:.2f} |")
    return "\n".join(lines) + "\n"


def _row(network: GGMNet, macs: dict[str, int], part: str, names: Sequence[str], cells: int | None = None) -> PartCost:
    modules = dict(network.named_children()) | {f"cells.{i}": cell for i, cell in enumerate(network.cells)}
    found = [modules[name] for name in names if modules.get(name) is not None]
    counted = sum(
        number for layer, number in macs.items() if any(layer == name or layer.startswith(f"{name}.") for name in names)
    )
    return PartCost(part, cells, sum(count_parameters(module) for module in found), counted)
