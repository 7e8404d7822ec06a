"""Layers in the file of fields: adding, listing, removing, and taking them over into new fields.

The recipe of the fields says what the values of a layer depend on (``by_channel``), their sources say which files they
come from. So a layer can be made again for other nodes, and compared with its files.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gravmap import __version__
from gravmap.errors import GravmapError, InputError, OptionError
from gravmap.files import sha256
from gravmap.geology.layers import FAULT_DISTANCE, DistanceLayer, Layer, LayerValues, RasterLayer
from gravmap.gravity import open_fields, write_fields
from gravmap.gravity.fields_file import field_recipe, field_sources

if TYPE_CHECKING:
    import xarray as xr

ROLE = "layer"
_OLD_ROLE = "faults"  # of versions in which the distance to faults was the only layer


@dataclass(frozen=True)
class LayerSummary:
    """A layer in a file of fields.

    Attributes
    ----------
    name, unit : str
        Of the channel.
    files : tuple of str
        Names of its files.
    source, licence : str
        As stated.
    nodes : tuple of int
        Rows, columns.
    missing_fraction : float
        Fraction of the nodes without data.
    low, median, high : float
        1st, 50th and 99th percentile of the values.
    lines : tuple of int
        Of a distance that was just added: lines of each file within the upper limit.
    capped_fraction : float or None
        Of a distance: fraction of the nodes at the upper limit.
    """

    name: str
    unit: str
    files: tuple[str, ...]
    source: str
    licence: str
    nodes: tuple[int, int]
    missing_fraction: float
    low: float
    median: float
    high: float
    lines: tuple[int, ...] = ()
    capped_fraction: float | None = None


def add_layer(fields_path: Path, layer: Layer, *, overwrite: bool = False, write: bool = True) -> LayerSummary:
    """Add a layer to the file of fields, or replace it.

    A network trained with the channel accepts only fields with the layer made of the same files in the same way.

    Parameters
    ----------
    fields_path : Path
        File written by `gravmap residual`; replaced.
    layer : RasterLayer or DistanceLayer
        What to add.
    overwrite : bool
        Replace a layer of this name.
    write : bool
        False: read the layer and make all checks, but leave the file as it is.

    Raises
    ------
    InputError
        There are no fields, they have a field or layer of this name, or a file cannot be used.
    OptionError
        An option is not valid.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import geopandas, numpy as np, shapely, xarray as xr
    >>> from gravmap.geology import DistanceLayer, add_layer
    >>> from gravmap.gravity import open_fields, residual_fields, write_fields
    >>> lat, lon = np.arange(40, 44.1, 0.5), np.arange(80, 85.1, 0.5)
    >>> bumps = 30 * np.cos(2 * lat)[:, None] * np.sin(2 * lon)
    >>> grid = xr.DataArray(bumps, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))
    >>> meridian = shapely.LineString([(82, 39), (82, 45)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fields_path, faults_path = Path(folder) / "fields.nc", Path(folder) / "faults.gpkg"
    ...     write_fields(residual_fields(grid, [10e3]), fields_path)
    ...     geopandas.GeoDataFrame(geometry=[meridian], crs="EPSG:4326").to_file(faults_path)
    ...     summary = add_layer(fields_path, DistanceLayer((faults_path,)))
    ...     fields = open_fields(fields_path)
    >>> fields["fault_distance"].sel(lat=42, lon=[82, 82.5]).values.round()
    array([ 0., 41.], dtype=float32)
    """
    check_free(fields_path, layer.name, overwrite)
    fields = open_fields(fields_path)
    made = layer.read(*_nodes(fields))
    fields = _with_layer(_without(fields, layer.name), layer, made, fields_path)
    _note(fields, f"layer {layer.name}")
    if write:
        write_fields(fields, fields_path)
    return replace(_summary(fields, layer.name), lines=made.lines)


def check_free(fields_path: Path, name: str, overwrite: bool) -> None:
    """Refuse a name that a field has, or a layer that may not be replaced.

    Raises
    ------
    InputError
        There are no fields, or they have a field or layer of this name.
    """
    with open_fields(fields_path, lazily=True) as fields:
        if name not in fields:
            return
        if name not in field_recipe(fields).get("by_channel", {}):
            raise InputError(f"{fields_path} has a field {name}, which is no layer.", "Give another --name.")
    if not overwrite:
        raise InputError(f"{fields_path} has {name} already.", "Add --overwrite to replace it.")


def list_layers(fields_path: Path) -> list[LayerSummary]:
    """The layers of a file of fields, in the order they were added.

    Raises
    ------
    InputError
        The file is missing or was not written by gravmap.
    """
    with open_fields(fields_path, lazily=True) as fields:
        return [_summary(fields, name) for name in field_recipe(fields).get("by_channel", {}) if name in fields]


def remove_layers(fields_path: Path, names: Sequence[str]) -> None:
    """Remove layers from a file of fields: all of them, or none.

    Raises
    ------
    InputError
        There are no fields, or no layer of one of these names.
    """
    fields = open_fields(fields_path)
    layers = field_recipe(fields).get("by_channel", {})
    if absent := [name for name in names if name not in layers]:
        known = f"It has {', '.join(layers)}." if layers else "It has none; `gravmap layer add` adds one."
        raise InputError(f"{fields_path} has no layer {', '.join(map(repr, absent))}.", known)
    for name in dict.fromkeys(names):
        fields = _without(fields, name)
        _note(fields, f"layer {name} removed")
    write_fields(fields, fields_path)


def carry_layers(old_path: Path, fields: xr.Dataset, new_path: Path) -> tuple[xr.Dataset, dict[str, str]]:
    """Take the layers of an older file into new fields: as they are on the same nodes, else made again.

    Parameters
    ----------
    old_path : Path
        The older file; it may be missing, or be none of gravmap's.
    fields : xr.Dataset
        The new fields.
    new_path : Path
        Where they will be written.

    Returns
    -------
    fields : xr.Dataset
        With the layers.
    how : dict of str to str
        Layer to "kept" or "made again".

    Raises
    ------
    InputError
        A layer has to be made again, and its file is missing, has changed or cannot be used.
    """
    nodes = _nodes(fields)
    how = {}
    for layer, entries, kept in _carried(old_path, nodes):
        if layer.name in fields:
            continue
        made = kept if kept is not None else _made_again(layer, entries, nodes, old_path)
        how[layer.name] = "made again" if kept is None else "kept"
        fields = _with_layer(fields, layer, made, new_path)
    return fields, how


def check_carried_layers(old_path: Path, nodes: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    """Make the checks of :func:`carry_layers` that need no values, before the new fields are computed.

    Parameters
    ----------
    old_path : Path
        As for :func:`carry_layers`.
    nodes : tuple of ndarray
        Latitudes and longitudes of the new fields, degrees.

    Raises
    ------
    InputError
        A layer would have to be made again, and its file is missing or has changed.
    """
    for layer, entries, kept in _carried(old_path, nodes):
        if kept is None:
            _require_files(layer, entries, old_path)


def _carried(
    old_path: Path, nodes: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> Iterator[tuple[Layer, list[dict[str, Any]], LayerValues | None]]:
    """The layers of an older file with their recorded files, and their values where the nodes are the same."""
    try:
        old = open_fields(old_path)
        recipes, sources = field_recipe(old).get("by_channel", {}), field_sources(old)
    except GravmapError:
        return
    same = all(
        one.shape == two.shape and np.allclose(one, two, atol=1e-9) for one, two in zip(nodes, _nodes(old), strict=True)
    )
    for name in (name for name in recipes if name in old):
        layer, entries = _layer_of(name, recipes[name], sources, old_path)
        values = None
        if same:
            attrs = old[name].attrs
            values = LayerValues(
                old[name].values, attrs.get("units", "1"), attrs.get("long_name", name), recipes[name], entries
            )
        yield layer, entries, values


def layer_files(sources: Sequence[Mapping[str, Any]], fields_path: Path) -> list[tuple[str, Path, Mapping[str, Any]]]:
    """The files that the layers among recorded sources were made of: layer, where the file was, and its record."""
    return [
        (str(entry.get("layer", FAULT_DISTANCE)), _found(str(entry.get("path", "")), fields_path), entry)
        for entry in sources
        if entry.get("role") in (ROLE, _OLD_ROLE) and entry.get("path")
    ]


def _made_again(
    layer: Layer,
    entries: Sequence[Mapping[str, Any]],
    nodes: tuple[NDArray[np.float64], NDArray[np.float64]],
    old_path: Path,
) -> LayerValues:
    _require_files(layer, entries, old_path)
    return layer.read(*nodes)


def _require_files(layer: Layer, entries: Sequence[Mapping[str, Any]], old_path: Path) -> None:
    """Refuse a layer that cannot be made again, because its files are missing or have changed."""
    if len(entries) != len(layer.paths) or not entries:
        raise InputError(
            f"{old_path} does not say which file the layer {layer.name} was made of.",
            f"Drop it first, and add it again: gravmap layer remove {layer.name}",
        )
    remedy = f"Put it back; or drop the layer first: gravmap layer remove {layer.name}"
    for path, entry in zip(layer.paths, entries, strict=True):
        if not path.exists():
            raise InputError(f"{old_path} holds the layer {layer.name}, whose file {path} is missing.", remedy)
        if path.is_file() and sha256(path) != entry.get("sha256"):
            raise InputError(f"{old_path} holds the layer {layer.name}, whose file {path} has changed.", remedy)


def _layer_of(
    name: str, recipe: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], fields_path: Path
) -> tuple[Layer, list[dict[str, Any]]]:
    """The layer that was recorded, and its files as recorded but for their paths, which are those of now."""
    found = [(path, entry) for layer, path, entry in layer_files(sources, fields_path) if layer == name]
    entries = [{**{key: entry.get(key, "") for key in ("sha256", "crs")}, "path": str(path)} for path, entry in found]
    first = found[0][1] if found else {}
    stated = {key: str(first.get(key, "")) for key in ("source", "licence")}
    paths = tuple(path for path, _ in found)
    try:
        if "cap_km" in recipe:
            return DistanceLayer(paths, float(recipe["cap_km"]), name, **stated), entries
        options = ("band", "units", "resampling", "transform", "upward_m", "derivative")
        known: dict[str, Any] = {key: recipe[key] for key in options}
        return RasterLayer(name, paths[0], **{**known, **stated}), entries
    except (OptionError, KeyError, IndexError, TypeError, ValueError):
        raise InputError(
            f"The record of the layer {name} in {fields_path} is damaged.",
            f"Remove it, and add it again: gravmap layer remove {name}",
        ) from None


def _with_layer(fields: xr.Dataset, layer: Layer, made: LayerValues, fields_path: Path) -> xr.Dataset:
    """Fields with one more channel, its recipe and its sources."""
    home = fields_path.resolve().parent
    terms = {"source": layer.source, "licence": layer.licence}
    entries = [
        {
            "role": ROLE,
            "layer": layer.name,
            # As seen from the fields, so that a workspace can be moved.
            "path": Path(os.path.relpath(Path(file["path"]).resolve(), home)).as_posix(),
            "sha256": file["sha256"],
            "crs": file["crs"],
            **{key: value for key, value in terms.items() if value},
        }
        for file in made.files
    ]
    attrs: dict[str, Any] = {"units": made.unit, "long_name": made.long_name}
    if isinstance(layer, DistanceLayer):
        attrs["cap_km"] = float(layer.cap_km)
    attrs |= {key: value for key, value in terms.items() if value and key == "licence"}
    attrs |= {
        "source": ", ".join(filter(None, [layer.source, *(Path(entry["path"]).name for entry in entries)])),
        "source_sha256": ", ".join(entry["sha256"] for entry in entries),
    }
    recipe = field_recipe(fields)
    recipe["channels"] = [*recipe.get("channels", []), layer.name]
    recipe["by_channel"] = {**recipe.get("by_channel", {}), layer.name: made.recipe}
    sources = [*field_sources(fields), *entries]
    result = fields.assign({layer.name: (("lat", "lon"), made.values, attrs)})
    result.attrs = {**fields.attrs, **_as_text(recipe, sources)}
    return result


def _without(fields: xr.Dataset, name: str) -> xr.Dataset:
    """Fields without a layer, if they have it."""
    recipe = field_recipe(fields)
    recipe["channels"] = [each for each in recipe.get("channels", []) if each != name]
    recipe["by_channel"] = {key: value for key, value in recipe.get("by_channel", {}).items() if key != name}
    others = [
        entry
        for entry in field_sources(fields)
        if entry.get("role") not in (ROLE, _OLD_ROLE) or entry.get("layer", FAULT_DISTANCE) != name
    ]
    result = fields.drop_vars([name], errors="ignore")
    result.attrs = {**fields.attrs, **_as_text(recipe, others)}
    return result


def _as_text(recipe: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {
        "gravmap_recipe": json.dumps({key: value for key, value in recipe.items() if key != "by_channel" or value}),
        "gravmap_sources": json.dumps(list(sources), ensure_ascii=False),
    }


def _note(fields: xr.Dataset, what: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    line = f"{now:%Y-%m-%dT%H:%M:%SZ} gravmap {__version__}: {what}"
    fields.attrs["history"] = "\n".join(filter(None, [str(fields.attrs.get("history", "")), line]))


def _summary(fields: xr.Dataset, name: str) -> LayerSummary:
    values, attrs = fields[name].values, fields[name].attrs
    known = values[np.isfinite(values)]
    low, median, high = (float(each) for each in np.percentile(known, (1, 50, 99))) if known.size else (np.nan,) * 3
    entries = [each for layer, _, each in layer_files(field_sources(fields), Path()) if layer == name]
    first = entries[0] if entries else {}
    cap_km = attrs.get("cap_km")
    return LayerSummary(
        name,
        str(attrs.get("units", "1")),
        tuple(Path(str(each["path"])).name for each in entries),
        str(first.get("source", "")),
        str(first.get("licence", "")),
        (values.shape[0], values.shape[1]),
        1 - known.size / values.size,
        low,
        median,
        high,
        capped_fraction=None if cap_km is None else float(np.mean(values >= float(cap_km))),
    )


def _nodes(fields: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lat, lon = (np.asarray(fields[axis].values, dtype=np.float64) for axis in ("lat", "lon"))
    return lat, lon


def _found(path: str, fields_path: Path) -> Path:
    """Where a recorded file is: as seen from the fields, or by its name among the downloads."""
    home = fields_path.resolve().parent
    seen = home / path
    downloaded = home / "raw" / Path(path).name
    return Path(os.path.normpath(seen)) if seen.exists() or not downloaded.exists() else downloaded
