"""A small workspace made with gravmap, its commands run in forked processes with limits, and the outcomes counted."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

CPU_S, WALL_S, MEMORY_BYTES = 10, 60, 2_000_000_000
FAULTS = ("WRONG", "UNEXPECTED", "HANG", "MEMORY", "LOST")
TRAIN = ["train", "--gpus", "0", "--model", "residual-unet", "--size", "64", "--epochs", "1", "--steps-per-epoch", "1"]
TRAIN += ["--batch-size", "2"]


@dataclass
class Ended:
    """How a command ended."""

    status: int | None
    text: str
    cpu_s: float
    memory_bytes: int

    @property
    def kind(self) -> str:
        """The class of the outcome, before its result is looked at."""
        if self.status in (None, -signal.SIGXCPU, -signal.SIGKILL) or self.cpu_s > CPU_S:
            return "HANG"
        if self.memory_bytes > MEMORY_BYTES:
            return "MEMORY"
        if self.status is None or self.status < 0 or self.status == 1:
            return "UNEXPECTED"
        if re.search(r"Error: unexpected |Traceback|\.py:\d+: \w*Warning", self.text):
            return "UNEXPECTED"
        return "refused" if self.status else "same"


def run(args: list[str], folder: Path, before: Callable[[], None] | None = None, kill_after_s: float = 0) -> Ended:
    """Run a gravmap command in a forked process in `folder`; forked, because the imports take longer than it."""
    log = folder / ".output"
    with log.open("wb") as stream:
        child = os.fork()
        if child == 0:
            code = 99
            try:
                os.setsid()
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
                os.chdir(folder)
                resource.setrlimit(resource.RLIMIT_CPU, (CPU_S * 2, CPU_S * 2 + 1))
                if before is not None:
                    before()
                sys.argv = ["gravmap", *args]
                from gravmap_cli import gravmap

                gravmap(args)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
    deadline = time.monotonic() + (kill_after_s or WALL_S)
    while True:
        found, status, used = os.wait4(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
            if not kill_after_s:
                return Ended(None, "", used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
            break
        time.sleep(0.005)
    text = log.read_text(encoding="utf-8", errors="replace")
    log.unlink()
    code = os.waitstatus_to_exitcode(status)
    return Ended(code, text, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def make_workspace(folder: Path) -> None:
    """Fields, labels, tiles, a finished run, an unfinished one, and a map; and the inputs in other formats."""
    steps = [
        ["crust", "--shape", "72", "96", "-o", "data/raw"],
        ["residual", "data/raw/gravity.nc", "--height", "5km"],
        ["rasterize", "data/raw/map.gpkg", "--legend", "crust", "--resolution", "30arcsec"],
        ["tile", "--window", "1deg", "--size", "64", "--block", "0.5deg", "--buffer", "0.05deg", "--folds", "3"],
        [*TRAIN, "--name", "u"],
        [*TRAIN, "--name", "a"],
        ["predict", "--region", "r", "--run", "a", "--no-prior-check"],
    ]
    folder.mkdir(parents=True)
    (folder / "regions.toml").write_text("r = [82.3, 46.9, 84.3, 48.3]\n")
    (folder / "gravmap.toml").write_text('[residual]\nheight = ["5km"]\n\n[predict]\nbatch-size = 2\n')
    (folder / "points.csv").write_text("lon,lat,lith\n83.6331,48.2009,Archean\n82.6036,48.1973,Proterozoic\n")
    for step in steps:
        ended = run(["-q", *step], folder)
        if ended.status:
            raise SystemExit(f"gravmap {' '.join(step)}: {ended.text}")
    make_formats(folder)


def make_formats(folder: Path) -> None:
    """The grid and the map of the workspace in the other formats that gravmap reads."""
    import geopandas as gpd
    import rasterio
    import xarray as xr
    from rasterio.transform import from_origin

    (folder / "in").mkdir()
    shutil.copy(folder / "data" / "raw" / "prior.toml", folder / "in" / "prior.toml")
    grid = xr.open_dataset(folder / "data" / "raw" / "gravity.nc").load()
    z = grid["bouguer"]
    grid.to_netcdf(folder / "in" / "nc4.nc")
    packed = {"bouguer": {"zlib": True, "dtype": "i2", "scale_factor": 0.01, "_FillValue": -32768}}
    grid.to_netcdf(folder / "in" / "packed.nc", encoding=packed)
    grid.to_netcdf(folder / "in" / "nc3.nc", format="NETCDF3_CLASSIC")
    lat, lon, values = z["lat"].values, z["lon"].values, z.values.astype("f4")
    step_y, step_x = float(lat[1] - lat[0]), float(lon[1] - lon[0])
    transform = from_origin(lon[0] - step_x / 2, lat[-1] + step_y / 2, step_x, step_y)
    shape = {"height": lat.size, "width": lon.size, "count": 1, "dtype": "float32", "crs": "EPSG:4326"}
    for name, more in (("plain.tif", {}), ("deflated.tif", {"compress": "deflate", "tiled": True})):
        more = {"blockxsize": 64, "blockysize": 64, **more} if "tiled" in more else more
        with rasterio.open(folder / "in" / name, "w", driver="GTiff", transform=transform, **shape, **more) as file:
            file.write(values[::-1], 1)
            file.units = ("mGal",)
    rows = [
        f"{x:.6f} {y:.6f} {v:.4f}" for y, line in zip(lat, values, strict=True) for x, v in zip(lon, line, strict=True)
    ]
    (folder / "in" / "grid.xyz").write_text("\n".join(rows) + "\n")
    head = "longitude latitude gravity_anomaly\n[deg.] [deg.] [mGal]\nend_of_head\n"
    (folder / "in" / "grid.gdf").write_text("gapvalue 99999\n" + head + "\n".join(rows) + "\n")
    limits = (lon[0], lon[-1], lat[0], lat[-1], float(values.min()), float(values.max()))
    text = [" ".join(f"{v:.4f}" for v in line) for line in values]
    (folder / "in" / "dsaa.grd").write_text(
        f"DSAA\n{lon.size} {lat.size}\n{limits[0]} {limits[1]}\n{limits[2]} {limits[3]}\n{limits[4]} {limits[5]}\n"
        + "\n".join(text)
        + "\n"
    )
    header = struct.pack("<4shh6d", b"DSBB", lon.size, lat.size, *limits)
    (folder / "in" / "surfer6.grd").write_bytes(header + values.astype("<f4").tobytes())
    section = struct.pack(
        "<ii8d", lat.size, lon.size, lon[0], lat[0], step_x, step_y, limits[4], limits[5], 0.0, 1.70141e38
    )
    (folder / "in" / "surfer7.grd").write_bytes(
        struct.pack("<iii", 0x42525344, 4, 1)
        + struct.pack("<ii", 0x44495247, len(section))
        + section
        + struct.pack("<ii", 0x41544144, values.size * 8)
        + values.astype("<f8").tobytes()
    )
    polygons = gpd.read_file(folder / "data" / "raw" / "map.gpkg")
    polygons.to_file(folder / "in" / "map.gpkg")
    polygons.to_file(folder / "in" / "map.geojson")
    (folder / "in" / "shp").mkdir()
    polygons.to_file(folder / "in" / "shp" / "map.shp")
    with zipfile.ZipFile(folder / "in" / "map.zip", "w", zipfile.ZIP_DEFLATED) as pack:
        for part in sorted((folder / "in" / "shp").iterdir()):
            pack.write(part, part.name)
    region = gpd.GeoDataFrame({"n": [1]}, geometry=gpd.points_from_xy([83.3], [47.6]).buffer(0.4), crs=4326)
    region.to_file(folder / "in" / "clip.geojson")
    legends = resources.files("gravmap.geology.legends")
    (folder / "in" / "legend.toml").write_text(legends.joinpath("crust.toml").read_text(encoding="utf-8"))


@dataclass
class Tally:
    """The outcomes, counted by input and by kind, and an example of each fault."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, where: str, kind: str, note: str = "") -> None:
        """Count one outcome."""
        self.counts.setdefault(where, Counter())[kind] += 1
        if kind in FAULTS:
            self.faults.append(f"{kind} {where}: {note}")
            print(self.faults[-1], flush=True)

    def report(self) -> int:
        """Print the table; the number of faults."""
        total: Counter[str] = Counter()
        for where, counter in self.counts.items():
            print(f"{where:64s} {dict(sorted(counter.items()))}")
            total += counter
        print(f"{sum(total.values())} trials: {dict(sorted(total.items()))}")
        return sum(total[kind] for kind in FAULTS)
