"""Training arrays of a tile set: plain numpy arrays, or one ``.npz`` of them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from gravmap.classes import NamedClasses
from gravmap.errors import InputError, OptionError
from gravmap.files import atomic_path, refuse_edited, sha256
from gravmap.geology import open_labels
from gravmap.geology.labels import LabelFile, Labels, legend_path
from gravmap.geology.legend_file import legend_to_toml
from gravmap.gravity.field_reader import read_fields
from gravmap.gravity.fields_file import changed_channels, hash_channels
from gravmap.gravity.missing_heights import file_with_channels
from gravmap.lattice import BUFFER, COVER, TRAIN, UNUSABLE
from gravmap.records import (
    Bounds,
    ClassRecord,
    Count,
    Ge,
    Gt,
    Le,
    Len,
    Positive,
    SourceRecord,
    check_record,
    read_record,
    record,
)
from gravmap.tiling.label_statistics import count_classes, small_bodies
from gravmap.tiling.resumable_folder import refuse_unfinished
from gravmap.tiling.splits import KINDS, Split, StoredSplit, read_split, split_settings
from gravmap.tiling.tile_files import FORMAT, read_windows

MADE_BY = "gravmap tile"
_ANEW = f"`{MADE_BY} --overwrite` makes the tile set again."


@record
class ScaleRecord(TypedDict):
    """Windows of one size."""

    name: str
    size_deg: Positive
    stride_deg: Positive
    rows: Count
    columns: Count


@record
class TileSource(TypedDict):
    """A file that the tile set was made from; the path is relative to its folder."""

    path: str
    sha256: str
    channels: NotRequired[dict[str, str]]


@record
class TileSources(TypedDict):
    """The two files that a tile set was made from."""

    fields: TileSource
    labels: TileSource


@record
class TileIndex(TypedDict):
    """Content of ``index.json``: how a tile set was made, and its splits."""

    format: int
    made_by: str
    tiles: bool
    size_px: Annotated[int, Ge(1), Le(1 << 16)]
    region_wsen: Bounds
    scales: Annotated[list[ScaleRecord], Len(1)]
    windows: Count
    set_apart: dict[str, list[str]]
    channel: str
    field_recipe: NotRequired[dict[str, Any]]
    small_km2: Annotated[float, Gt(0)]
    classes: Annotated[list[ClassRecord], Len(1, 256)]
    splits: list[StoredSplit]
    sources: TileSources
    field_sources: NotRequired[list[SourceRecord]]
    legend_toml: NotRequired[str]
    windows_sha256: NotRequired[str]
    record_sha256: NotRequired[str]


def read_index(folder: Path | str) -> TileIndex:
    """Read ``index.json`` of a tile set.

    Raises
    ------
    InputError
        No tile set there, an incomplete one, or one of another version.

    Examples
    --------
    >>> from gravmap.tiling.training_arrays import read_index
    >>> index = read_index("data/tiles")
    >>> index["channel"], index["windows"], index["size_px"]
    ('residual_10km', 21, 64)
    """
    refuse_unfinished(Path(folder))
    path = Path(folder) / "index.json"
    if not path.exists():
        raise InputError(
            f"{path} is missing.", f"`{MADE_BY}` makes it; `{MADE_BY} --index-only` is enough for all but edited tiles."
        )
    stored = read_record(path, dict[str, Any], f"{MADE_BY} --overwrite")
    if stored.get("format") != FORMAT:
        raise InputError(f"{folder} is a tile set of another format than this version's.", _ANEW)
    index = check_record(stored, TileIndex, str(path), _ANEW)
    refuse_edited(path, f"Restore it, or: {_ANEW}", required="windows_sha256" in index)
    return index


def load_arrays(
    folder: Path | str,
    *,
    channels: Sequence[str] | None = None,
    split: str = "blocks",
    fold: int = 0,
    fields_path: Path | None = None,
) -> dict[str, Any]:
    """The arrays a network is trained on, all north-up (row 0 northernmost, column 0 westernmost).

    They are read from the native grids that the index names, so a tile set made with ``--index-only`` has them, too.

    Parameters
    ----------
    folder : Path
        The tile set.
    channels : sequence of str, optional
        Fields to read; default the one in the tiles.
    split : str
        Name of a split in the index: ``blocks``, ``strict``, ``random``, or another name.
    fold : int
        Which of its folds.
    fields_path : Path, optional
        A file with further residuals of the tile set's fields (:func:`gravmap.gravity.missing_heights.add_heights`);
        by default the one beside them where it is needed.

    Returns
    -------
    dict
        ``fields`` (C, ny, nx) float32 in ``meta["channel_units"]``, 0 where unknown (the mean of a layer without a
        mask), a layer with missing values followed by its mask; ``field_valid`` (ny, nx) bool;
        ``field_nodes_wsen`` (4,) float64, outermost nodes; ``labels`` (Ny, Nx) uint8;
        ``label_bounds_wsen`` (4,) float64, outer edges; ``small`` (Ny, Nx) uint8; ``role`` (Ny, Nx)
        uint8: 0 train, 1 tune, 2 test, 3 ignored; ``windows`` (n, 4) float64, ``window_scale_deg``
        (n,) float64, ``window_role`` (n,) uint8; ``meta``, JSON-able.

        With ``blocks`` these are all windows with at least one training cell of bedrock, with role 0; with ``strict``
        those of them that touch no held-out block. With ``random`` all cells have role 0, and windows are 0 train,
        1 tune or 2 test; windows with less than 10 % bedrock are left out.

    Raises
    ------
    InputError
        No tile set, sources changed since it was made, no such split or channel, or a fold without a training
        window.
    OptionError
        No such fold.

    Examples
    --------
    >>> from gravmap.tiling import load_arrays
    >>> arrays = load_arrays("data/tiles", split="blocks", fold=0)
    >>> arrays["fields"].shape, arrays["labels"].shape, arrays["meta"]["channels"]
    ((1, 51, 81), (250, 400), ['residual_10km'])
    """
    folder = Path(folder)
    index = read_index(folder)
    fields = _unchanged(folder, index, "fields")
    stored = _find_split(index, split, fold)
    names = channels or [index["channel"]]
    grid = read_fields(fields_path or file_with_channels(fields, names), names).with_masks()
    raster = labels_of(folder, index)
    table = _read_windows(folder, index)
    boxes = table["boxes"]
    drawn = read_split(stored)
    role = drawn.roles(fold, raster.values.shape, raster.bounds_wsen)
    window_role = drawn.window_roles(fold, boxes)
    training_labels = np.where(role == TRAIN, raster.values, np.uint8(UNUSABLE))
    usable = count_classes(training_labels, raster.bounds_wsen, boxes)[:, COVER + 1 : UNUSABLE].any(axis=1)
    kept = np.where(window_role == TRAIN, usable, window_role != BUFFER)
    if not (window_role[kept] == TRAIN).any():
        raise InputError(
            f"Fold {fold} of the split {split} leaves no training window with bedrock.",
            "Choose another --fold or --split, or add one: `gravmap split --add blocks --block ...`.",
        )
    settings = split_settings(stored)
    return {
        "fields": grid.filled(),
        "field_valid": grid.valid,
        "field_nodes_wsen": np.array(grid.nodes_wsen, dtype=np.float64),
        "labels": raster.values,
        "label_bounds_wsen": np.array(raster.bounds_wsen, dtype=np.float64),
        # From training labels alone: the extent of a body under a held-out block is held out, too.
        "small": small_bodies(training_labels, raster.bounds_wsen, index["small_km2"]),
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
            "sources": _sources(index, fields, names, grid.sources, raster.legend.sources),
            "split": {**settings, "fold": fold},
            "legend_toml": legend_to_toml(raster.legend),
        },
    }


def pack(
    folder: Path | str, path: Path | str, *, channels: Sequence[str] | None = None, split: str = "blocks", fold: int = 0
) -> None:
    """Write the arrays of :func:`load_arrays` into one compressed ``.npz``, ``meta`` as a JSON string.

    A machine with numpy and torch alone can train on that file (:meth:`gravmap.learning.RegionDataset.load`); it
    holds no pickle.

    Examples
    --------
    >>> from gravmap.learning import RegionDataset
    >>> from gravmap.tiling.training_arrays import pack
    >>> pack("data/tiles", "region.npz", split="blocks", fold=0)
    >>> RegionDataset.load("region.npz").channels
    ['residual_10km']
    """
    arrays = load_arrays(folder, channels=channels, split=split, fold=fold)
    meta = np.array(json.dumps(arrays.pop("meta"), ensure_ascii=False))
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, meta=meta, **arrays)


def open_split(folder: Path, split: str) -> tuple[StoredSplit, Split, Labels, NDArray[np.float64]]:
    """The entry of a split in the index, the split, and the labels and windows (n, 4) it was made for.

    Raises
    ------
    InputError
        No tile set, labels changed since it was made, or no such split.
    """
    index = read_index(folder)
    stored = _find_split(index, split, 0)
    return stored, read_split(stored), *open_windows(folder, index)


def open_windows(folder: Path, index: TileIndex) -> tuple[Labels, NDArray[np.float64]]:
    """The labels that a tile set was made from, and its windows (n, 4).

    Raises
    ------
    InputError
        Fields, labels or their legend have changed, or a file of the tile set or the labels are missing.
    """
    if Path(folder, index["sources"]["fields"]["path"]).exists():  # not read here, so it may be gone
        _unchanged(folder, index, "fields")
    return labels_of(folder, index), _read_windows(folder, index)["boxes"]


def refuse_stale(folder: Path) -> None:
    """Raise InputError if a tile set was not made from the fields and labels that are in their place now.

    Raises
    ------
    InputError
        As :func:`open_windows`, or the tile set cannot be read.
    """
    open_windows(folder, read_index(folder))


def stale_files(labels: Path, tiles: Path) -> list[str]:
    """What does not belong together: labels and their legend, or a tile set and the files it was made from.

    Parameters
    ----------
    labels, tiles : Path
        ``data/labels.tif`` and ``data/tiles`` of a workspace; either may be missing.

    Returns
    -------
    list of str
        What was found, each with what to do.
    """
    found = []
    for path, check in ((labels, _check_labels), (tiles / "index.json", lambda path: refuse_stale(path.parent))):
        try:
            if path.exists():
                check(path)
        except InputError as error:
            found.append(" ".join(filter(None, (error.message, error.hint))))
    return list(dict.fromkeys(found))


def _check_labels(path: Path) -> None:
    LabelFile(path).close()


def other_class_tables(labels: Path, trained: Mapping[str, tuple[list[ClassRecord], str, bool]]) -> list[str]:
    """Which networks and maps have other classes than the labels.

    Parameters
    ----------
    labels : Path
        ``data/labels.tif`` of a workspace; it may be missing or unreadable, which is another matter.
    trained : mapping of str to (classes, legend, whether it is a map)
        By what it is called in messages.

    Returns
    -------
    list of str
        What was found, each with what to do.
    """
    try:
        with LabelFile(labels) as file:
            legend = file.legend
    except InputError:
        return []
    here = NamedClasses({entry.index: entry.name for entry in legend.bedrock}, legend.table)
    found = []
    for subject, (classes, legend_toml, is_map) in trained.items():
        there = NamedClasses.of(classes, legend_toml)
        mismatch = there.describe_mismatch(subject, str(labels), here, "shows" if is_map else "was trained on")
        remedy = "`gravmap predict --overwrite` with a network of these labels remakes it" if is_map else ""
        if mismatch:
            found.append(f"{mismatch} {remedy or there.how_to_make(tiles=True)}.")
    return found


def labels_of(folder: Path, index: TileIndex) -> Labels:
    """The labels that a tile set was made from.

    Raises
    ------
    InputError
        They or their classes have changed, or they are missing.
    """
    path = _unchanged(folder, index, "labels")
    raster = open_labels(path)
    then = [(entry["index"], entry["name"]) for entry in index["classes"]]
    now = [(entry.index, entry.name) for entry in raster.legend.classes]
    if then != now:
        raise InputError(
            f"{legend_path(path).resolve()} has changed since the tile set {folder} was made: its classes are others.",
            f"Restore it, or: {_ANEW}",
        )
    return raster


def _unchanged(folder: Path, index: TileIndex, name: Literal["fields", "labels"]) -> Path:
    """The path of a source, if it is unchanged since the tile set was made."""
    source = index["sources"][name]
    path = Path(folder, source["path"])
    resolved = path.resolve()
    if not path.is_file():
        raise InputError(f"{resolved} is missing; the tile set {folder} was made from it.", f"Restore it, or: {_ANEW}")
    why = ""
    if name == "fields":
        differing = changed_channels(path, source)
        why = f" ({', '.join(differing)})" if differing and source.get("channels") else ""
    else:
        differing = [name] if sha256(path) != source["sha256"] else None
        why = _other_table(path, index) if differing else ""
    if differing:
        raise InputError(f"{resolved} has changed since the tile set {folder} was made{why}.", _ANEW)
    return resolved


def _other_table(path: Path, index: TileIndex) -> str:
    """That labels have another class table than a tile set, in words; empty if they have not, or cannot be read."""
    try:
        with LabelFile(path) as file:
            now = file.legend
    except InputError:
        return ""
    bedrock = [entry for entry in index["classes"] if entry["index"] != COVER]
    then = NamedClasses.of(bedrock, index.get("legend_toml", ""))
    differing = then.differences(NamedClasses({entry.index: entry.name for entry in now.bedrock}, now.table))
    if not differing:
        return ""
    tables = f"from the classes of {then.table} to those of {now.table}: " if then.table else "its classes are others: "
    return f" ({tables}{differing[0]})"


def _find_split(index: TileIndex, name: str, fold: int) -> StoredSplit:
    for stored in index["splits"]:
        if stored["name"] == name:
            if not 0 <= fold < stored["folds"]:
                raise OptionError(f"The split {name} has no fold {fold}.", f"It has folds 0 to {stored['folds'] - 1}.")
            return stored
    known = [stored["name"] for stored in index["splits"]]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]}?" if near else _how_to_add(name)
    raise InputError(f"The tile set holds no split {name!r}; it has {', '.join(known)}.", hint)


def _how_to_add(name: str) -> str:
    if name in KINDS:
        return f"`gravmap split --add {name}` adds it."
    return f"`gravmap split --add blocks --name {name}` adds one of that name."


def _read_windows(folder: Path, index: TileIndex) -> dict[str, NDArray[Any]]:
    """Boxes and scales of the windows."""
    columns = ["west", "south", "east", "north", "scale_deg"]
    table = read_windows(folder, index)
    values = {name: np.asarray(table[name].to_numpy(), dtype=np.float64) for name in columns}
    return {**values, "boxes": np.column_stack([values[side] for side in columns[:4]])}


def _sources(
    index: TileIndex, path: Path, names: Sequence[str], fields: list[dict[str, Any]], maps: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Every file behind the arrays: gravity, maps, and the two files made from them, the fields as they are now."""
    now = {"sha256": sha256(path), "channels": hash_channels(path, names)}
    own: list[dict[str, Any]] = [
        {"role": "fields", "path": index["sources"]["fields"]["path"], **now},
        {"role": "labels", **index["sources"]["labels"]},
    ]
    brief = ("file", "sha256", "dbf_sha256", "legend", "field", "source", "citation")
    geology = [{"role": "map", **{key: entry[key] for key in brief if key in entry}} for entry in maps]
    return [*({"role": "gravity", **entry} for entry in fields), *geology, *own]
