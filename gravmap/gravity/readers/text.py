"""Grids as text: columns of longitude, latitude and value; and the .gdf format of ICGEM's calculation service."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.files import check_memory
from gravmap.gravity.quantity import Quantity, unit_factor, warn_once
from gravmap.gravity.readers.plain_grid import SURFER_BLANK, check_last_number, geographic, grid_of_points

# Oasis montaj writes "/" before comments, its dummy is "*", and it begins each line of a survey with "Line 10".
_COMMENTS = ("#", "%", ">", "/", "!")
_MISSING = {"", "*", "na", "n/a", "nan", "null", "none", "--"}
_SURVEY_LINE = re.compile(r"(line|base|tie|test|trend|special|random)\s+\S+", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+(e[-+]?\d+)?", re.IGNORECASE)
_INTEGER = re.compile(r"[-+]?\d+")
# Of the text, and of the numbers while they are arranged.
_MEMORY_PER_BYTE = 8
_LON, _LAT = ("lon", "long", "longitude", "x"), ("lat", "latitude", "y")
_HEADER_LINES = 300


def looks_like_columns(path: Path) -> bool:
    """Whether a text file has lines of three or more numbers after comments and header lines."""
    return _layout(path) is not None


def read_columns(path: Path, variable: str | None, units: str | None, quantity: Quantity) -> xr.DataArray:
    """Columns of longitude, latitude and value, separated by comma, semicolon, tab or blanks; nodes in any order.

    Decimal commas, quoted values, and ``*``, ``NA`` or nothing for a missing value are understood.
    """
    check_last_number(path)
    layout = _layout(path)
    assert layout is not None
    names = layout.names or [str(number + 1) for number in range(layout.count)]
    lon, lat, value, unit = _choose(names, bool(layout.names), variable, path, quantity)
    table = _numbers(path, layout)
    values = table[:, value]
    infinite = int(np.isinf(values).sum())
    if infinite:
        warn_once(f"{path}: {infinite} of its values are infinite; they are NaN.")
    values[np.abs(values) >= SURFER_BLANK] = np.nan
    rounding = _rounding(path, layout, (lon, lat))
    if np.abs(table[:, lat]).max() > 90 + 1e-4 and np.abs(table[:, lon]).max() <= 90 and not layout.names:
        raise InputError(
            f"{path}: its second column runs from {table[:, lat].min():g} to {table[:, lat].max():g}, which is not"
            " a latitude: the columns seem swapped.",
            "The order is longitude, latitude, value; or give a header line with column names.",
        )
    grid, rows, columns, missing = grid_of_points(table[:, lon], table[:, lat], values, rounding, path)
    if missing:
        with path.open("rb") as stream:
            stream.seek(-1, 2)
            complete = stream.read(1) in (b"\n", b"\r")
        if not complete:
            raise InputError(
                f"{path} ends in the middle of a line, and {missing} nodes of {grid.shape[0]} x {grid.shape[1]} are"
                " missing: it is truncated.",
                "Copy it again; or end its last line with a newline.",
            )
        warn_once(f"{path}: {missing} of its {grid.shape[0]} x {grid.shape[1]} nodes are missing; they are NaN.")
    factor = unit_factor(units, unit, str(path), quantity)
    return geographic(
        grid, rows, columns, path, variable=names[value] if layout.names else f"column {names[value]}", _factor=factor
    )


def read_gdf(path: Path, variable: str | None, units: str | None, quantity: Quantity) -> xr.DataArray:
    """ICGEM's .gdf: ``key value`` lines, names and units of the columns, ``end_of_head``, then the points."""
    keys: dict[str, str] = {}
    lines: list[str] = []
    with path.open(encoding="latin-1") as stream:
        for line in islice(stream, _HEADER_LINES):
            lines.append(line.strip())
            key, _, value = lines[-1].partition(" ")
            if key == "end_of_head":
                break
            keys[key.lower()] = value.strip()
    names, unit_of = _gdf_columns(lines, path)
    _, _, value_at, _ = _choose(names, True, variable, path, quantity, of_gdf=True)
    check_last_number(path)
    layout = _Layout(len(lines), None, False, len(names), names)
    table = _numbers(path, layout)
    values = table[:, value_at]
    gap = _number(keys.get("gapvalue"))
    if gap is not None:
        values[np.isclose(values, gap, rtol=1e-9, atol=0)] = np.nan
    grid, lat, lon, missing = grid_of_points(table[:, 0], table[:, 1], values, _rounding(path, layout, (0, 1)), path)
    _check_gdf(keys, table.shape[0], lat, lon, missing, path)
    attrs = {"variable": names[value_at], "_factor": unit_factor(units, unit_of[value_at], str(path), quantity)}
    height = keys.get("height_over_ell")  # text with its unit, parsed by open_grid
    for at, name in enumerate(names[:-1]):
        if name.lower().startswith("h") and at != value_at:
            if np.ptp(table[:, at]) == 0:
                height = f"{table[0, at]} {unit_of[at]}"
            else:
                warn_once(f"{path}: column {name!r} varies; the data are taken to lie on the surface.")
    if height:
        attrs["height_m"] = height
    if keys.get("modelname"):
        attrs["file_source"] = keys["modelname"]
    result = geographic(grid, lat, lon, path, stated=True)
    result.attrs |= attrs
    return result


@dataclass(frozen=True)
class _Layout:
    """Where the numbers of a text file begin, how they are separated, and whether they have decimal commas."""

    skip: int
    delimiter: str | None
    decimal_comma: bool
    count: int
    names: list[str]


def _layout(path: Path) -> _Layout | None:
    names: list[str] = []
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        for skip, raw in enumerate(islice(stream, _HEADER_LINES)):
            line = raw.strip()
            if "\0" in line:
                return None
            bare = line.lstrip("#%>/! ").strip()
            delimiter, decimal_comma = _separators(bare)
            words = _words(bare, delimiter)
            found = [_cleaned(word, decimal_comma) for word in words]
            numbers = [_number(word) for word in found]
            if not line.startswith(_COMMENTS) and len(words) >= 3 and None not in numbers and found.count("nan") < 2:
                fitting = names if len(names) == len(words) else []
                return _Layout(skip, delimiter, decimal_comma, len(words), fitting)
            # A comment of as many words need not be a header line.
            of_columns = not line.startswith(_COMMENTS) or {*_LON} & {word.lower() for word in found}
            if of_columns and len(words) >= 3 and all(number is None for number in numbers):
                names = found
    return None


def _separators(line: str) -> tuple[str | None, bool]:
    """What separates the words of a line (None: blanks), and whether its numbers have decimal commas."""
    if ";" in line:
        return ";", any(_DECIMAL_COMMA.fullmatch(word.strip()) for word in line.split(";"))
    words = line.split()
    commas = [_DECIMAL_COMMA.fullmatch(word) is not None for word in words]
    others = [word for word, comma in zip(words, commas, strict=True) if not comma]
    if len(words) >= 3 and any(commas) and all(_INTEGER.fullmatch(word) or word.lower() in _MISSING for word in others):
        return None, True
    return "," if "," in line else None, False


def _words(line: str, delimiter: str | None) -> list[str]:
    return [word.strip() for word in line.split(delimiter)] if line else []


def _cleaned(word: str, decimal_comma: bool) -> str:
    """A word without quotes, with a decimal point, and ``nan`` for a missing value."""
    bare = word.strip()
    if len(bare) >= 2 and bare[0] == bare[-1] and bare[0] in "\"'":
        bare = bare[1:-1].strip()
    if bare.lower() in _MISSING:
        return "nan"
    return bare.replace(",", ".") if decimal_comma and _DECIMAL_COMMA.fullmatch(bare) else bare


def _cleaned_lines(stream: Iterable[str], layout: _Layout) -> Iterator[str]:
    for line in stream:
        bare = line.strip()
        if bare and not bare.startswith(_COMMENTS) and not _SURVEY_LINE.fullmatch(bare):
            yield " ".join(_cleaned(word, layout.decimal_comma) for word in bare.split(layout.delimiter))


def _choose(
    names: list[str], named: bool, variable: str | None, path: Path, quantity: Quantity, *, of_gdf: bool = False
) -> tuple[int, int, int, str]:
    """Indices of the longitude, latitude and value columns; and the unit in brackets in the name of the value."""
    plain = [re.sub(r"[\[(].*", "", name).strip(" _").lower() for name in names]
    lon = next((at for at, name in enumerate(plain) if name in _LON), None)
    lat = next((at for at, name in enumerate(plain) if name in _LAT), None)
    if not named:
        lon, lat = 0, 1
    if lon is None or lat is None:
        raise InputError(
            f"{path} names its columns {', '.join(names)}; lon and lat are not among them.", "Name them lon lat value."
        )
    rest = [at for at in range(len(names)) if at not in (lon, lat)]
    if of_gdf and len(rest) > 1 and variable is None:
        rest = [at for at in rest if not plain[at].startswith("h")]
    if variable is not None:
        rest = [at for at in rest if variable.lower() in (names[at].lower(), plain[at], str(at + 1))]
        if not rest:
            raise InputError(f"{path} has no column {variable!r}.", f"It has: {', '.join(names)}.")
    if len(rest) != 1:
        raise InputError(
            f"{path} has {len(rest)} columns of values: {', '.join(names[at] for at in rest)}.",
            quantity.variable_hint,
        )
    unit = re.search(r"[\[(]([^\])]*)[\])]", names[rest[0]])
    return lon, lat, rest[0], unit[1] if unit else ""


def _numbers(path: Path, layout: _Layout) -> NDArray[np.float64]:
    check_memory(path.stat().st_size * _MEMORY_PER_BYTE, f"{path} takes", "Cut out a smaller region first.")
    table = None
    if not layout.decimal_comma:
        # numpy reads plain columns several times faster than the lines below.
        with suppress(ValueError):
            table = np.loadtxt(
                path,
                delimiter=layout.delimiter,
                skiprows=layout.skip,
                comments=list(_COMMENTS),
                encoding="latin-1",
                ndmin=2,
            )
    try:
        if table is None:
            with path.open(encoding="latin-1") as stream:
                body = islice(stream, layout.skip, None)
                table = np.loadtxt(_cleaned_lines(body, layout), comments=None, ndmin=2)
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read as {layout.count} columns of numbers (row 1 is line {layout.skip + 1}):"
            f" {str(error).rstrip('.')}.",
            "Correct that row; if it is the last one, the file may be truncated: copy it again.",
        ) from None
    if table.shape[0] == 0 or table.shape[1] != layout.count:
        raise InputError(f"{path} has no points.", "It may be truncated: copy it again.")
    return np.asarray(table, dtype=np.float64)


def _rounding(path: Path, layout: _Layout, columns: tuple[int, ...]) -> float:
    """Half a unit of the last printed digit of the coordinates."""
    digits = 0
    with path.open(encoding="latin-1") as stream:
        for line in islice(stream, layout.skip, layout.skip + 3000):
            words = [_cleaned(word, layout.decimal_comma) for word in _words(line.strip(), layout.delimiter)]
            for at in columns:
                if at < len(words) and _number(words[at]) is not None:
                    exponent = Decimal(words[at]).as_tuple().exponent
                    digits = max(digits, -exponent if isinstance(exponent, int) else 0)
    return float(0.5 * 10.0**-digits)


def _number(text: str | None) -> float | None:
    """The first word of a text as a number; None if it is not one."""
    try:
        return float(Decimal(text.split()[0])) if text and text.split() else None
    except (InvalidOperation, ValueError, OverflowError):  # a signaling NaN is a Decimal, but not a float
        return None


def _gdf_columns(lines: list[str], path: Path) -> tuple[list[str], list[str]]:
    if not lines or not lines[-1].startswith("end_of_head"):
        raise InputError(
            f"{path} has no end_of_head in its first {_HEADER_LINES} lines.", "Download it again from ICGEM."
        )
    for at, line in enumerate(lines):
        names = line.split()
        if len(names) >= 3 and names[0].lower() == "longitude" and names[1].lower() == "latitude":
            units = re.findall(r"\[([^\]]*)\]", lines[at + 1]) if at + 1 < len(lines) else []
            return names, units if len(units) == len(names) else [""] * len(names)
    raise InputError(
        f"{path} does not name its columns longitude latitude ... before end_of_head.", "Download it again from ICGEM."
    )


def _check_gdf(
    keys: dict[str, str],
    count: int,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
    missing: int,
    path: Path,
) -> None:
    """Check the values against the header."""
    step_lat, step_lon = (float(axis[-1] - axis[0]) / (axis.size - 1) for axis in (lat, lon))
    expected = {
        "latitude_parallels": (lat.size, 0.5),
        "longitude_parallels": (lon.size, 0.5),
        "number_of_gridpoints": (count, 0.5),
        "latlimit_north": (lat[-1], 0.51 * step_lat),
        "latlimit_south": (lat[0], 0.51 * step_lat),
        "longlimit_west": (lon[0], 0.51 * step_lon),
        "longlimit_east": (lon[-1], 0.51 * step_lon),
        "gridstep": (step_lat, 1e-3 * step_lat),
    }
    for key, (found, tolerance) in expected.items():
        header = _number(keys.get(key))
        if header is not None and abs(header - float(found)) > tolerance:
            raise InputError(
                f"{path}: {key} is {header:g} in its header, but {float(found):g} by its values.",
                "It may be truncated: download it again from ICGEM.",
            )
    if missing:
        raise InputError(
            f"{path} is truncated: {missing} of its {lat.size} x {lon.size} nodes are missing.",
            "Download it again from ICGEM.",
        )
