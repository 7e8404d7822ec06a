"""Damage to files of every kind that gravmap reads."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Mutation:
    """Other bytes for a file.

    `seen` is whether the file itself tells of the damage, so that a command that goes on with another result is wrong.
    """

    name: str
    data: bytes
    seen: bool


def of_bytes(rng: random.Random, data: bytes, checked: bool) -> Mutation:
    """Damage that any file may have; `checked` says that the format has checksums or lengths for all of its content."""
    kind = rng.choice(("flip", "zeros", "cut", "tail", "double", "empty", "other kind", "swap"))
    at = rng.randrange(max(len(data), 1))
    if kind == "flip":
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 8, 64))):
            place = rng.randrange(len(data)) if rng.random() < 0.6 else rng.randrange(min(len(data), 600))
            changed[place] ^= 1 << rng.randrange(8)
        return Mutation(kind, bytes(changed), checked)
    if kind == "zeros":
        size = min(rng.choice((16, 512, 4096)), len(data) - at)
        return Mutation(kind, data[:at] + bytes(size) + data[at + size :], checked)
    if kind == "cut":
        return Mutation(kind, data[: int(len(data) * rng.choice((0.02, 0.3, 0.7, 0.95, 0.999)))], True)
    if kind == "tail":
        return Mutation(kind, data + rng.randbytes(rng.choice((1, 100, 5000))), False)
    if kind == "double":
        return Mutation(kind, data[:at] + data[max(at - 256, 0) :], checked)
    if kind == "empty":
        return Mutation(kind, b"", True)
    if kind == "swap":
        size = min(64, len(data) // 4)
        first, second = sorted(rng.sample(range(max(len(data) - size, 2)), 2))
        changed = bytearray(data)
        changed[first : first + size], changed[second : second + size] = (
            data[second : second + size],
            data[first : first + size],
        )
        return Mutation(kind, bytes(changed), checked)
    return Mutation(
        kind, rng.choice((b"<!doctype html><html>", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", rng.randbytes(300))), True
    )


NUMBERS = (
    "NaN",
    "sNaN",
    "inf",
    "-1",
    "1e400",
    "1e38",
    "--",
    "*",
    "",
    "x",
    "0x1F",
    "١٢",
    "1,5",
    "9" * 400,
    "1e-400",
    "null",
)


def of_text(rng: random.Random, data: bytes, checked: bool) -> Mutation:
    """Damage to a table of numbers; another number in place of one cannot be seen."""
    text = data.decode("utf-8", "replace")
    lines = text.splitlines()
    kind = rng.choice(("token", "line gone", "line twice", "cut in number", "separator", "encoding", "bytes"))
    at = rng.randrange(len(lines))
    if kind == "token":
        words = lines[at].split(" ")
        words[rng.randrange(len(words))] = rng.choice(NUMBERS)
        lines[at] = " ".join(words)
        return Mutation(kind, ("\n".join(lines) + "\n").encode(), False)
    if kind == "line gone":
        return Mutation(kind, ("\n".join(lines[:at] + lines[at + 1 :]) + "\n").encode(), False)
    if kind == "line twice":
        return Mutation(kind, ("\n".join(lines[: at + 1] + lines[at:]) + "\n").encode(), False)
    if kind == "cut in number":
        return Mutation(kind, text[: -rng.randrange(2, 7)].encode(), True)
    if kind == "separator":
        return Mutation(kind, text.replace(" ", rng.choice((",", ";", "\t", "|", "  "))).encode(), False)
    if kind == "encoding":
        return Mutation(kind, text.encode(rng.choice(("utf-16", "utf-8-sig", "utf-32"))), False)
    return of_bytes(rng, data, checked)


WRONG_VALUES: tuple[Any, ...] = (
    None,
    -1,
    3,
    1e308,
    "x",
    "",
    [],
    {},
    [1, 2, 3],
    {"a": 1},
    True,
    float("nan"),
    float("inf"),
    "../../x",
)


def places_in(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a record."""
    keys = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [where, *(path for key, part in list(keys)[:50] for path in places_in(part, (*where, key)))]


def of_json(rng: random.Random, data: bytes, checked: bool) -> Mutation:
    """Damage to a JSON record: a key gone, or another value. A value of the right kind cannot be seen."""
    kind = rng.choice(("gone", "value", "value", "value", "deep", "digits", "bytes"))
    if kind == "bytes":
        return of_bytes(rng, data, checked)
    if kind in ("deep", "digits"):
        filler = b"[" * 6000 if kind == "deep" else b'{"a":' + b"9" * 5000 + b"}"
        return Mutation(kind, filler, True)
    record = json.loads(data)
    path = rng.choice(places_in(record))
    if not path:
        return Mutation("whole", json.dumps(rng.choice(WRONG_VALUES)).encode(), True)
    parent = record
    for key in path[:-1]:
        parent = parent[key]
    if kind == "gone":
        del parent[path[-1]]
    else:
        parent[path[-1]] = rng.choice(WRONG_VALUES)
    return Mutation(f"{kind} {'.'.join(map(str, path))[:40]}", json.dumps(record).encode(), checked)


def of_toml(rng: random.Random, data: bytes, checked: bool) -> Mutation:
    """Damage to a TOML file, line by line."""
    lines = data.decode().splitlines()
    kind = rng.choice(("value", "value", "value", "gone", "key", "deep", "digits", "bytes"))
    at = rng.choice([index for index, line in enumerate(lines) if "=" in line])
    key, _, _ = lines[at].partition("=")
    if kind == "value":
        value = rng.choice(
            (
                "-1",
                "3",
                "1e308",
                '"x"',
                '""',
                "[]",
                "{}",
                "[1, 2]",
                "{a = 1}",
                "true",
                "nan",
                "inf",
                "1979-05-27",
                '"../../x"',
            )
        )
        lines[at] = f"{key}= {value}"
    elif kind == "gone":
        del lines[at]
    elif kind == "key":
        lines[at] = "unknown_key = 1\n" + lines[at]
    elif kind == "deep":
        lines[at] = f"{key}= {'[' * 5000}{']' * 5000}"
    elif kind == "digits":
        lines[at] = f"{key}= {'9' * 5000}"
    else:
        return of_bytes(rng, data, checked)
    return Mutation(f"{kind} {key.strip()[:30]}", ("\n".join(lines) + "\n").encode(), False)


def of_geojson(rng: random.Random, data: bytes, checked: bool) -> Mutation:
    """Damage to GeoJSON; a coordinate that is still a number cannot be seen."""
    if rng.random() < 0.3:
        return of_bytes(rng, data, False)
    mutation = of_json(rng, data, False)
    return mutation


def of_netcdf(rng: random.Random, data: bytes, checked: bool) -> Mutation:
    """Attributes of other kinds and values on the variables of a netCDF file, or damaged bytes."""
    import netCDF4

    if rng.random() < 0.5:
        return of_bytes(rng, data, checked)
    names = (
        "units",
        "_FillValue",
        "missing_value",
        "valid_range",
        "scale_factor",
        "add_offset",
        "height_m",
        "grid_mapping",
    )
    name = rng.choice(
        (*names, "positive", "axis", "standard_name", "actual_range", "node_offset", "calendar", "_Unsigned")
    )
    values = (
        "x",
        "",
        "10",
        "-999",
        "km",
        "degrees_north",
        np.nan,
        np.inf,
        0.0,
        -1.5,
        np.array([1.0, 2.0]),
        np.int16(7),
        "mGal",
    )
    value = rng.choice(values)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "x.nc"
        path.write_bytes(data)
        try:
            with netCDF4.Dataset(path, "a") as file:
                variable = file[rng.choice(list(file.variables))] if rng.random() < 0.9 else file
                if name == "_FillValue" and isinstance(variable, netCDF4.Variable):
                    value = np.asarray(0, variable.dtype)[()]
                variable.setncattr(name, value)
        except (OSError, RuntimeError, AttributeError, TypeError, ValueError):
            return of_bytes(rng, data, checked)
        return Mutation(f"{name} = {value!r}"[:50], path.read_bytes(), False)


Mutator = Callable[[random.Random, bytes, bool], Mutation]
