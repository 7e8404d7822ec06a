"""Writers of the grid formats, after their descriptions; a plane from 40N to 46N, 70E to 79E."""

import struct

import numpy as np

LAT, LON = np.arange(40, 46.01, 0.5), np.arange(70, 79.01, 0.5)
Y, X = np.meshgrid(LAT, LON, indexing="ij")
VALUES = (2 * (Y - 40) + 7 * (X - 70) - 100).astype(np.float32)


def surfer6(path, values=VALUES, lat=LAT, lon=LON):
    body = np.where(np.isnan(values), np.float32(1.70141e38), values).astype("<f4")
    limits = (lon[0], lon[-1], lat[0], lat[-1], np.nanmin(values), np.nanmax(values))
    path.write_bytes(b"DSBB" + struct.pack("<2h6d", len(lon), len(lat), *limits) + body.tobytes())
    return path


def surfer7(path, values=VALUES, lat=LAT, lon=LON, *, version=1, rotation=0.0, blank=1.70141e38, extra=b""):
    body = np.where(np.isnan(values), blank, values.astype("f8")).astype("<f8").tobytes()
    head = struct.pack(
        "<2i8d", len(lat), len(lon), lon[0], lat[0], lon[1] - lon[0], lat[1] - lat[0],
        np.nanmin(values), np.nanmax(values), rotation, blank,
    )  # fmt: skip
    sections = ((b"DSRB", struct.pack("<i", version)), (b"GRID", head), (b"DATA", body))
    path.write_bytes(extra.join(tag + struct.pack("<i", len(part)) + part for tag, part in sections))
    return path


def surfer_ascii(path, values=VALUES, lat=LAT, lon=LON):
    rows = "\n".join(" ".join("1.70141e+38" if np.isnan(v) else f"{v:.6g}" for v in row) for row in values)
    limits = (lon[0], lon[-1], lat[0], lat[-1], np.nanmin(values), np.nanmax(values))
    head = "DSAA\n{} {}\n{} {}\n{} {}\n{} {}\n".format(len(lon), len(lat), *limits)
    path.write_text(head + rows + "\n")
    return path


def gdf(
    path, values=VALUES, lat=LAT, lon=LON, *, unit="mgal", step=0.5, level=None, column="", gap="99999.000", **keys
):
    header = {
        "modelname": "EIGEN-6C4", "functional": "gravity_anomaly_bg", "unit": unit,
        "latlimit_north": f"{lat.max():.6f}  degrees", "latlimit_south": f"{lat.min():.6f}  degrees",
        "longlimit_west": f"{lon.min():.6f}  degrees", "longlimit_east": f"{lon.max():.6f}  degrees",
        "gridstep": f"{step:.10f} degrees", "latitude_parallels": len(lat), "longitude_parallels": len(lon),
        "number_of_gridpoints": len(lat) * len(lon), "gapvalue": gap,
    } | ({"height_over_ell": f"{level:.4f} m"} if level is not None else {}) | keys  # fmt: skip
    lines = ["generating_institute     gfz-potsdam", *(f"{key:>24s}     {value}" for key, value in header.items()), ""]
    lines += [f"longitude    latitude    {'h_over_ell ' if column else ''}gravity_anomaly_bg"]
    lines += [f"[deg.]    [deg.]    {'[m] ' if column else ''}[{unit}]", "end_of_head =================="]
    for row in range(len(lat) - 1, -1, -1):
        for at in range(len(lon)):
            value = gap if np.isnan(values[row, at]) else f"{values[row, at]:.6f}"
            lines.append(f"{lon[at]:14.6f} {lat[row]:14.6f} {column} {value}")
    path.write_text("\n".join(lines) + "\n")
    return path


def columns(path, values=VALUES, lat=LAT, lon=LON, *, head="", mark=" ", form="{:.4f}", keep=None, order=None):
    lines = [mark.join((form.format(lon[x]), form.format(lat[y]), f"{values[y, x]:.5f}"))
             for y in range(len(lat)) for x in range(len(lon))]  # fmt: skip
    lines = [line for at, line in enumerate(lines) if keep is None or keep(at)]
    if order is not None:
        lines = [lines[at] for at in order.permutation(len(lines))]
    path.write_text(head + "\n".join(lines) + "\n")
    return path


WRITERS = {"surfer6": surfer6, "surfer7": surfer7, "surfer ascii": surfer_ascii, "gdf": gdf, "columns": columns}
