"""Only the rows of a region, out of a netCDF-3 grid on a server that gives parts of files.

The header says where each row lies; the rows come in one piece, and a small netCDF file of the same layout is written
around them: whole parallels, so that any region between them can be cut from it.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gravmap.errors import DownloadError, InputError
from gravmap.files import atomic_path, sha256, write_text
from gravmap.gravity.body import check_head, check_size
from gravmap.gravity.download import Job, ask, check_disk, download, part_of
from gravmap.gravity.netcdf3 import Header, HeaderIsLonger, NotNetCDF3, Variable, parse_header
from gravmap.gravity.server import RangeRefused, Remote
from gravmap.gravity.sources import SourceFile
from gravmap.progress import Progress
from gravmap.regions import Region

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

# How much beyond the region `gravmap residual` has use for.
ROWS_MARGIN_DEG = 5.0

# Asked for first; headers of gravity grids are about 1 kB, and the axes mostly lie right behind.
_FIRST_LOOK = 1 << 16
_LONGEST_HEADER = 1 << 22
# Variables beside the grid and its axes are copied when they are smaller than this.
_SMALL = 1 << 20
_NAME = re.compile(r"\.rows_(-?[\d.]+)_(-?[\d.]+)$")


class CannotCut(Exception):
    """Rows cannot be had from this file or this server; the argument says why."""


@dataclass(frozen=True)
class Rows:
    """A file of some rows of a source's grid.

    Attributes
    ----------
    path : Path
        The file.
    south, north : float
        Latitudes of the outermost rows asked for, degrees.
    """

    path: Path
    south: float
    north: float

    def covers(self, region: Region, margin_deg: float = 0.0) -> bool:
        """Whether the rows reach from the south to the north of a region, and `margin_deg` beyond."""
        south, north = max(region.south - margin_deg, -90.0), min(region.north + margin_deg, 90.0)
        return self.south <= south + 1e-6 and self.north >= north - 1e-6


def rows_path(whole: Path, region: Region) -> Path:
    """The name of the file of rows from the south to the north of `region`, beside the whole file's."""
    return whole.with_name(f"{whole.stem}.rows_{region.south:g}_{region.north:g}{whole.suffix}")


def rows_present(whole: Path) -> list[Rows]:
    """The files of rows that lie where the whole file would."""
    found = []
    for path in sorted(whole.parent.glob(f"{whole.stem}.rows_*{whole.suffix}")):
        match = _NAME.search(path.stem)
        if match:
            found.append(Rows(path, float(match[1]), float(match[2])))
    return found


def fetch_rows(file: SourceFile, whole: Path, url: str, region: Region, progress: Progress) -> tuple[Path, str]:
    """Fetch the rows of a region into a file of their own.

    Parameters
    ----------
    file : SourceFile
        What is on record of the whole file.
    whole : Path
        Where the whole file would be.
    url : str
        Where it is.
    region : Region
        Its south and north, margin included.
    progress : callable
        Told bytes done and bytes in all.

    Returns
    -------
    path, news
        The file, and what was done.

    Raises
    ------
    CannotCut
        The server gives no parts, or the file is not netCDF-3.
    DownloadError
        It cannot be had, or is not what it should be.
    """
    try:
        header, remote, begin = _read_header(file, url)
        grid = _find_grid(header)
        axis = _values(header.variables[grid.dims[0]], url, remote, begin)
        first, end = _wanted(axis, region)
        path = rows_path(whole, region)
        span = grid.span(first, end)
        check_disk(path.parent, span[1] - span[0], path.name)
        job = Job(url, part_of(path), span=span, like=remote)
        download(job, progress)
        _check_length(job, span)
        others = _others(header, grid, (first, end), url, remote, begin)
        note = (
            f"rows {first} to {end - 1} of {grid.dims[0]} (0 to {grid.shape[0] - 1}), bytes {span[0]} to {span[1] - 1}"
            f" of the {remote.total} bytes of {url}, fetched {time.strftime('%Y-%m-%d', time.gmtime())} by gravmap"
        )
        try:
            with atomic_path(path) as temporary:
                _write(temporary, header, grid, (first, end), job.part, others, note)
                _check(temporary, region)
        except InputError as error:
            raise DownloadError(f"what came is no grid: {error.message}") from None
        finally:
            job.forget()
    except RangeRefused:
        raise CannotCut("the server gives whole files only") from None
    except NotNetCDF3 as error:
        raise CannotCut(f"the file is not netCDF-3: {error}") from None
    write_text(path.with_name(path.name + ".sha256"), f"{sha256(path)}  {path.name}\n")
    share = f"{path.stat().st_size / 1e6:.1f} of {(remote.total or 0) / 1e6:.1f} MB"
    return path, (
        f"{path.name} cut from {url} ({share}). The hash of the whole file cannot be checked this way: only its size"
        f"{' and layout were' if file.bytes is not None else ' is not on record either; its layout was'} checked"
    )


def _read_header(file: SourceFile, url: str) -> tuple[Header, Remote, bytes]:
    wanted = _FIRST_LOOK
    while True:
        begin, remote = ask(url, 0, wanted)
        check_head(file, begin)
        check_size(remote.total or 0, file.bytes)
        try:
            return parse_header(begin), remote, begin
        except HeaderIsLonger:
            if wanted >= min(_LONGEST_HEADER, remote.total or 0):
                raise NotNetCDF3("its header has no end") from None
            wanted *= 4


def _find_grid(header: Header) -> Variable:
    """The largest variable of two dimensions that have axes."""
    grids = [
        variable
        for variable in header.variables.values()
        if len(variable.dims) == 2
        and all(dim in header.variables and header.variables[dim].dims == (dim,) for dim in variable.dims)
    ]
    if not grids:
        raise CannotCut("no variable of the file has two dimensions with axes")
    return max(grids, key=lambda variable: variable.shape[0] * variable.shape[1])


def _values(variable: Variable, url: str, remote: Remote, begin: bytes) -> NDArray[Any]:
    """A small variable: out of the bytes that are there, or asked for."""
    import numpy as np

    first, end = variable.span(0, variable.shape[0] if variable.shape else 1)
    if end <= len(begin):
        body = begin[first:end]
    else:
        body, now = ask(url, first, end)
        if remote.differs(now):
            raise DownloadError("the file has changed on the server while it was fetched", "Run the command again.")
    return _unpacked_rows(np.frombuffer(body, dtype="u1"), variable, variable.shape[0] if variable.shape else 1)


def _unpacked_rows(body: NDArray[np.uint8], variable: Variable, rows: int) -> NDArray[Any]:
    """The values of some rows, out of their bytes: records of other variables lie in between."""
    import numpy as np

    shape = (rows, *variable.shape[1:])
    if not variable.shape or variable.stride == variable.row_bytes:
        return body.view(variable.dtype).reshape(shape if variable.shape else ())
    strides = np.lib.stride_tricks.as_strided(body, (rows, variable.row_bytes), (variable.stride, 1))
    return np.ascontiguousarray(strides).view(variable.dtype).reshape(shape)


def _wanted(axis: NDArray[Any], region: Region) -> tuple[int, int]:
    """First and end of the rows whose latitude (or longitude, where that comes first) is of use."""
    import numpy as np

    nodes = np.asarray(axis, dtype=np.float64)
    if np.abs(nodes).max() > 90 + 1e-4:
        raise CannotCut("the rows of the file are meridians or no degrees")
    inside = np.flatnonzero((nodes >= region.south - 1e-4) & (nodes <= region.north + 1e-4))
    if inside.size < 2 or not np.isfinite(nodes).all():
        raise DownloadError(f"no rows of the file lie in {region}; it covers {nodes.min():g} to {nodes.max():g}")
    return int(inside[0]), int(inside[-1]) + 1


def _check_length(job: Job, span: tuple[int, int]) -> None:
    size = job.part.stat().st_size
    if size != span[1] - span[0]:
        job.forget()
        raise DownloadError(f"{size} bytes came instead of {span[1] - span[0]}")


def _others(
    header: Header, grid: Variable, rows: tuple[int, int], url: str, remote: Remote, begin: bytes
) -> dict[str, NDArray[Any]]:
    """The values of the axes and of whatever else is small."""
    values = {}
    for name, variable in header.variables.items():
        first, end = variable.span(0, variable.shape[0] if variable.shape else 1)
        if variable is grid:
            continue
        if end - first > _SMALL:
            log.info("Variable %r is left out.", name)
            continue
        whole = _values(variable, url, remote, begin)
        values[name] = whole[rows[0] : rows[1]] if variable.dims[:1] == grid.dims[:1] else whole
    return values


def _write(
    path: Path,
    header: Header,
    grid: Variable,
    rows: tuple[int, int],
    part: Path,
    others: dict[str, NDArray[Any]],
    note: str,
) -> None:
    """A netCDF file of the same layout around the rows."""
    import netCDF4
    import numpy as np

    values = dict(others)
    values[grid.name] = _unpacked_rows(np.fromfile(part, dtype="u1"), grid, rows[1] - rows[0])
    form: Literal["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET"]
    form = "NETCDF3_CLASSIC" if header.version == 1 else "NETCDF3_64BIT_OFFSET"
    with netCDF4.Dataset(path, "w", format=form) as file:
        for name, length in header.dims.items():
            cut = rows[1] - rows[0] if name == grid.dims[0] else length
            file.createDimension(name, None if name == header.unlimited else cut)
        for name, array in values.items():
            variable = header.variables[name]
            attrs = {key: _attribute(value) for key, value in variable.attrs.items()}
            fill = attrs.pop("_FillValue", None)
            made = file.createVariable(name, np.dtype(variable.dtype).newbyteorder("="), variable.dims, fill_value=fill)
            made.set_auto_maskandscale(False)
            if "actual_range" in attrs and grid.dims[0] in variable.dims:
                known = array[np.isfinite(array) & (array != fill)] if fill is not None else array[np.isfinite(array)]
                ends = np.array([known.min(), known.max()]) * attrs.get("scale_factor", 1.0)
                attrs["actual_range"] = ends + attrs.get("add_offset", 0.0)
            made.setncatts(attrs)
            made[...] = array
        file.setncatts({key: _attribute(value) for key, value in header.attrs.items()})
        file.cut_from = note


def _attribute(value: Any) -> Any:
    """An attribute as netCDF4 takes it: text, or numbers of the type that they were stored with."""
    import numpy as np

    if isinstance(value, str):
        return value
    kind, numbers = value
    array = np.array(numbers, dtype={1: "i1", 3: "i2", 4: "i4", 5: "f4", 6: "f8"}[kind])
    return array if array.size != 1 else array[0]


def _check(path: Path, region: Region) -> None:
    """Open what was written as any grid is opened: axes, spacing and values are looked at there."""
    from gravmap.gravity.grid import open_grid

    grid = open_grid(path)
    lat = grid["lat"].values
    if lat[0] > region.south + 1 or lat[-1] < region.north - 1:
        log.info("%s covers %g to %g degrees of latitude only.", path.name, lat[0], lat[-1])
