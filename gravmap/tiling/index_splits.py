"""One more split for a tile set that exists: its tiles are not cut again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.files import atomic_path, write_json
from gravmap.regions import Region
from gravmap.tiling.blocks import BUFFER_DEG, FOLDS
from gravmap.tiling.handover import open_windows, read_index
from gravmap.tiling.leak import describe_split
from gravmap.tiling.splits import check_name, split


def add_split(
    folder: Path,
    kind: str,
    *,
    name: str | None = None,
    folds: int = FOLDS,
    block_deg: float | None = None,
    buffer_deg: float = BUFFER_DEG,
    seed: int = 0,
    overwrite: bool = False,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Draw one more split for a tile set; its tiles and its other splits stay as they are.

    Parameters
    ----------
    folder : Path
        The tile set.
    kind, folds, block_deg, buffer_deg, seed
        As in :func:`gravmap.tiling.split`.
    name : str, optional
        What to call it; default its kind.
    overwrite : bool
        Replace the split of that name.

    Returns
    -------
    dict
        What ``index.json`` now says of it.
    tuple of str
        What was changed while it was drawn, in plain words.

    Raises
    ------
    OptionError
        No such kind, no fit name, or options that make no split.
    InputError
        No tile set, labels changed since it was made, a split of that name, or too little bedrock.
    """
    folder, name = Path(folder), name or kind
    check_name(name)
    index = read_index(folder)
    others = [stored for stored in index["splits"] if stored["name"] != name]
    if len(others) < len(index["splits"]) and not overwrite:
        raise InputError(
            f"The tile set {folder} holds a split {name!r} already.",
            "Add --overwrite to replace it, or --name to keep both.",
        )
    raster, boxes = open_windows(folder, index)
    drawn = split(
        raster.values,
        raster.bounds_wsen,
        boxes,
        kind,
        region=Region(*index["region_wsen"]),
        folds=folds,
        block_deg=block_deg,
        buffer_deg=buffer_deg,
        seed=seed,
        name=name,
    )
    described = describe_split(drawn, raster, boxes)
    # The table first: columns of a split that index.json does not name do no harm.
    _write_columns(folder / "index.parquet", name, drawn.columns(boxes))
    write_json(folder / "index.json", {**index, "splits": [*others, described]})
    return described, drawn.notes


def _write_columns(path: Path, name: str, columns: dict[str, NDArray[Any]]) -> None:
    """Put a split's columns into the table of windows, in the place of those that it had."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    own = [held for held in table.column_names if held == f"{name}_fold" or held.startswith(f"{name}_role_fold")]
    table = table.drop_columns(own)
    for column, values in columns.items():
        table = table.append_column(column, arrow.array(values))
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary)
