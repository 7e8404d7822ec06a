"""The distance from faults as a channel of the fields: added to ``fields.nc`` beside gravity."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gravmap import __version__
from gravmap.errors import InputError
from gravmap.files import sha256
from gravmap.geology.faults import CAP_KM, FaultLines, check_cap, fault_distance_km, joined, read_faults
from gravmap.gravity import field_recipe, field_sources, open_fields, write_fields
from gravmap.regions import Region

log = logging.getLogger(__name__)

FAULT_DISTANCE = "fault_distance"
# Raised whenever the same lines give other distances than before; part of the recipe of the channel.
FAULT_VERSION = 1


@dataclass(frozen=True)
class FaultField:
    """The account of a channel of fault distances.

    Attributes
    ----------
    files : tuple of str
        The files' names.
    lines : tuple of int
        Of each file, the lines within reach of the fields.
    cap_km : float
        What is further away is given this value.
    nodes : tuple of int
        Rows, columns.
    capped_share : float
        Share of the nodes that are further away than the cap.
    median_km : float
        Of all nodes.
    """

    files: tuple[str, ...]
    lines: tuple[int, ...]
    cap_km: float
    nodes: tuple[int, int]
    capped_share: float
    median_km: float


def add_fault_distance(fields_path: Path, files: Sequence[Path], cap_km: float = CAP_KM) -> FaultField:
    """Add the channel ``fault_distance`` to the fields, or replace it; all else in the file stays.

    Every node gets its distance in km on the WGS 84 ellipsoid from the nearest line, those outside the
    fields within the cap included; nodes without gravity get theirs, too. The recipe of the fields
    says which files and which cap: a network that reads the channel refuses any other.

    Parameters
    ----------
    fields_path : Path
        What `gravmap residual` wrote; replaced whole.
    files : sequence of Path
        Maps with a layer of lines each; a node's distance is that from the nearest of all.
    cap_km : float
        Larger distances are given this value.

    Raises
    ------
    InputError
        No fields, a file that cannot be used, or no line within the cap of the fields.
    OptionError
        A cap that is no length between 0 and 2000 km.
    """
    check_cap(cap_km)
    fields = open_fields(fields_path)
    lat, lon = (np.asarray(fields[axis].values, dtype=np.float64) for axis in ("lat", "lon"))
    region = Region(float(lon[0]), float(lat[0]), float(lon[-1]), float(lat[-1]))
    read = [read_faults(Path(path), region, cap_km) for path in files]
    for path, lines in zip(files, read, strict=True):
        if lines.count == 0 and len(read) > 1:
            log.warning("%s has no line within %g km of the fields and adds nothing.", path, cap_km)
    near = [lines for lines in read if lines.count]
    distance = fault_distance_km(joined(near), lat, lon, cap_km) if near else None
    if distance is None or float(distance.min()) >= cap_km:
        named = ", ".join(str(path) for path in files)
        raise InputError(
            f"{named}: no line within {cap_km:g} km of the fields, which cover {region}.",
            "Give a fault map of the region, or a larger --fault-cap.",
        )
    described = [_source(Path(path), lines) for path, lines in zip(files, read, strict=True)]
    recipe = field_recipe(fields)
    recipe["channels"] = [*(name for name in recipe.get("channels", []) if name != FAULT_DISTANCE), FAULT_DISTANCE]
    recipe["by_channel"] = {**recipe.get("by_channel", {}), FAULT_DISTANCE: _recipe(described, cap_km)}
    sources = [entry for entry in field_sources(fields) if entry.get("role") != "faults"] + described
    fields[FAULT_DISTANCE] = (
        ("lat", "lon"),
        distance,
        {
            "units": "km",
            "long_name": f"distance to the nearest fault, at most {cap_km:g} km",
            "cap_km": float(cap_km),
            "source": ", ".join(entry["path"] for entry in described),
            "source_sha256": ", ".join(entry["sha256"] for entry in described),
        },
    )
    now = datetime.datetime.now(datetime.UTC)
    fields.attrs |= {
        "history": f"{fields.attrs.get('history', '')}\n{now:%Y-%m-%dT%H:%M:%SZ} gravmap {__version__}: fault distance",
        "gravmap_recipe": json.dumps(recipe),
        "gravmap_sources": json.dumps(sources, ensure_ascii=False),
    }
    write_fields(fields, fields_path)
    return FaultField(
        tuple(Path(path).name for path in files),
        tuple(lines.count for lines in read),
        float(cap_km),
        (len(lat), len(lon)),
        float(np.mean(distance >= cap_km)),
        float(np.median(distance)),
    )


def _source(path: Path, lines: FaultLines) -> dict[str, Any]:
    # A file geodatabase is a folder: it has no bytes of its own to be told by.
    return {"role": "faults", "path": path.name, "sha256": sha256(path) if path.is_file() else "", "crs": lines.crs}


def _recipe(described: Sequence[dict[str, Any]], cap_km: float) -> dict[str, Any]:
    """What shaped the channel; the order and the place of the files did not."""
    files = sorted([entry["sha256"], entry["crs"]] for entry in described)
    return {"version": FAULT_VERSION, "cap_km": float(cap_km), "files_sha256_crs": files}
