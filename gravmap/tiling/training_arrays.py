"""The hand-over to the network wing: plain arrays of a tile set, or one ``.npz`` of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError, OptionError
from gravmap.files import atomic_path, read_json, sha256
from gravmap.geology import Labels, open_labels
from gravmap.geology.legend_file import legend_to_toml
from gravmap.gravity.field_reader import read_fields
from gravmap.lattice import BUFFER, COVER, TRAIN, UNUSABLE
from gravmap.tiling.label_statistics import count_classes, small_bodies
from gravmap.tiling.resumable_folder import refuse_unfinished
from gravmap.tiling.splits import KINDS, Split, read_split, split_settings
from gravmap.tiling.tile_files import FORMAT

MADE_BY = "gravmap tile"
_ANEW = f"`{MADE_BY} --overwrite` makes the tile set anew."


def read_index(folder: Path) -> dict[str, Any]:
    """What ``index.json`` of a tile set says.

    Raises
    ------
    InputError
        No tile set there, a half-written one, or one of another version.
    """
    refuse_unfinished(Path(folder))
    index: dict[str, Any] = read_json(Path(folder) / "index.json", MADE_BY)
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise InputError(f"{folder} is a tile set of another format than this gravmap's.", _ANEW)
    return index


def load_arrays(
    folder: Path, *, channels: Sequence[str] | None = None, split: str = "blocks", fold: int = 0
) -> dict[str, Any]:
    """The arrays a network is taught on, all north-up (row 0 northernmost, column 0 westernmost).

    They come from the native grids that the index names, so a tile set made with ``--index-only``
    serves as well as one with tiles.

    Parameters
    ----------
    folder : Path
        The tile set.
    channels : sequence of str, optional
        Fields to hand over; default the one the tiles hold.
    split : str
        Name of one of the splits that the index holds: ``blocks``, ``strict``, ``random``, or a name of your own.
    fold : int
        Which of its folds.

    Returns
    -------
    dict
        ``fields`` (C, ny, nx) float32 in ``meta["channel_units"]``, 0 where unknown; ``field_valid`` (ny, nx) bool;
        ``field_nodes_wsen`` (4,) float64, outermost nodes; ``labels`` (Ny, Nx) uint8;
        ``label_bounds_wsen`` (4,) float64, outer edges; ``small`` (Ny, Nx) uint8; ``role`` (Ny, Nx)
        uint8: 0 train, 1 tune, 2 test, 3 ignored; ``windows`` (n, 4) float64, ``window_scale_deg``
        (n,) float64, ``window_role`` (n,) uint8; ``meta``, JSON-able.

        Under ``blocks`` every window with at least one bedrock cell to learn from is there, with
        role 0; under ``strict`` those of them that touch no held-out block. Under ``random`` the cells have
        role 0 and the windows have theirs: 0 train, 1 tune, 2 test; windows under 10 % bedrock are left out.

    Raises
    ------
    InputError
        No tile set, sources changed since it was made, no such split or channel, or a fold in which
        nothing is left to learn from.
    OptionError
        No such fold.
    """
    folder = Path(folder)
    index = read_index(folder)
    paths = {name: _unchanged(folder, index, name) for name in ("fields", "labels")}
    stored = _find_split(index, split, fold)
    grid = read_fields(paths["fields"], channels or [index["channel"]])
    raster = open_labels(paths["labels"])
    table = _read_windows(folder)
    boxes = table["boxes"]
    held_out = read_split(stored)
    role = held_out.roles(fold, raster.values.shape, raster.bounds_wsen)
    window_role = held_out.window_roles(fold, boxes)
    learned_from = np.where(role == TRAIN, raster.values, np.uint8(UNUSABLE))
    teaches = count_classes(learned_from, raster.bounds_wsen, boxes)[:, COVER + 1 : UNUSABLE].any(axis=1)
    kept = np.where(window_role == TRAIN, teaches, window_role != BUFFER)
    if not (window_role[kept] == TRAIN).any():
        raise InputError(
            f"Fold {fold} of the split {split} leaves no window with bedrock to learn from.",
            "Choose another --fold or --split, or add one: `gravmap split --add blocks --block ...`.",
        )
    valid = np.isfinite(grid.values).all(axis=0)
    described = split_settings(stored)
    return {
        "fields": np.where(np.isfinite(grid.values), grid.values, np.float32(0)),
        "field_valid": valid,
        "field_nodes_wsen": np.array(grid.nodes_wsen, dtype=np.float64),
        "labels": raster.values,
        "label_bounds_wsen": np.array(raster.bounds_wsen, dtype=np.float64),
        # Of what may be learned from alone: how far a body goes on under a held-out block is held out, too.
        "small": small_bodies(learned_from, raster.bounds_wsen, index["small_km2"]),
        "role": role,
        "windows": boxes[kept],
        "window_scale_deg": table["scale_deg"][kept],
        "window_role": window_role[kept],
        "meta": {
            "channels": list(grid.channels),
            "channel_units": list(grid.units),
            "classes": [
                {"index": entry.index, "name": entry.name, "colour": entry.colour, "age": entry.age}
                for entry in raster.legend.bedrock
            ],
            "tile_size_px": index["size_px"],
            "region_wsen": index["region_wsen"],
            "field_recipe": grid.recipe,
            "sources": _sources(index, grid.sources, raster.legend.sources),
            "split": {**described, "fold": fold},
            "legend_toml": legend_to_toml(raster.legend),
        },
    }


def pack(
    folder: Path, path: Path, *, channels: Sequence[str] | None = None, split: str = "blocks", fold: int = 0
) -> None:
    """Write what :func:`load_arrays` gives into one compressed ``.npz``, ``meta`` as a JSON string.

    A machine with numpy and torch alone can train on that file; no pickle is in it.
    """
    arrays = load_arrays(folder, channels=channels, split=split, fold=fold)
    meta = np.array(json.dumps(arrays.pop("meta"), ensure_ascii=False))
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, meta=meta, **arrays)


def open_split(folder: Path, split: str) -> tuple[dict[str, Any], Split, Labels, NDArray[np.float64]]:
    """What the index says of a split, the split itself, and the labels and windows (n, 4) it was drawn for.

    Raises
    ------
    InputError
        No tile set, labels changed since it was made, or no such split.
    """
    index = read_index(folder)
    stored = _find_split(index, split, 0)
    return stored, read_split(stored), *open_windows(folder, index)


def open_windows(folder: Path, index: dict[str, Any]) -> tuple[Labels, NDArray[np.float64]]:
    """The labels that a tile set was made from, and its windows (n, 4).

    Raises
    ------
    InputError
        The labels have changed, or a file is missing.
    """
    return open_labels(_unchanged(folder, index, "labels")), _read_windows(folder)["boxes"]


def _unchanged(folder: Path, index: dict[str, Any], name: str) -> Path:
    """The path of a source, if it still is what the tile set was made from."""
    source = index["sources"][name]
    path = Path(folder, source["path"])
    tidy = path.resolve()
    if not path.exists():
        raise InputError(f"{tidy} is missing; the tile set {folder} was made from it.", f"Put it back, or: {_ANEW}")
    if sha256(path) != source["sha256"]:
        raise InputError(f"{tidy} has changed since the tile set {folder} was made.", _ANEW)
    return path


def _find_split(index: dict[str, Any], name: str, fold: int) -> dict[str, Any]:
    for stored in index["splits"]:
        if stored["name"] == name:
            if not 0 <= fold < stored["folds"]:
                raise OptionError(f"The split {name} has no fold {fold}.", f"It has folds 0 to {stored['folds'] - 1}.")
            found: dict[str, Any] = stored
            return found
    held = ", ".join(stored["name"] for stored in index["splits"])
    raise InputError(f"The tile set holds no split {name!r}; it has {held}.", _how_to_add(name))


def _how_to_add(name: str) -> str:
    if name in KINDS:
        return f"`gravmap split --add {name}` adds it."
    return f"`gravmap split --add blocks --name {name}` would add one of that name."


def _read_windows(folder: Path) -> dict[str, NDArray[Any]]:
    """The windows of index.parquet; read without geopandas, which is slow to load and not needed for numbers."""
    import pyarrow.parquet as parquet

    columns = ["west", "south", "east", "north", "scale_deg"]
    try:
        table = parquet.read_table(folder / "index.parquet", columns=columns)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'index.parquet'} cannot be read: {error}.", _ANEW) from None
    values = {name: np.asarray(table[name].to_numpy(), dtype=np.float64) for name in columns}
    return {**values, "boxes": np.column_stack([values[side] for side in columns[:4]])}


def _sources(
    index: dict[str, Any], fields: list[dict[str, Any]], maps: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Every file behind the arrays: gravity, maps, and our own two made from them."""
    own = [
        {"role": name, **{key: entry[key] for key in ("path", "sha256")}} for name, entry in index["sources"].items()
    ]
    brief = ("file", "sha256", "dbf_sha256", "legend", "field", "citation")
    geology = [{"role": "map", **{key: entry[key] for key in brief if key in entry}} for entry in maps]
    return [*({"role": "gravity", **entry} for entry in fields), *geology, *own]
