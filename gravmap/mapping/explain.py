"""Why a region's map says what it says: the attribution of a network's answer as a raster, a picture and a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_bounds

from gravmap.errors import OptionError
from gravmap.files import atomic_path, refuse_existing, sha256, write_json
from gravmap.geology import LabelFile
from gravmap.learning.data.outcrop_context import is_context
from gravmap.learning.evaluation.attribution import STEPS, Attribution, integrated_gradients
from gravmap.learning.training.checkpoint import ModelSpec
from gravmap.mapping.compatibility import check_labels, need_labels
from gravmap.mapping.outcrop_file import lay_outcrop
from gravmap.mapping.page.figures import FieldPanel, draw
from gravmap.mapping.plan import Plan
from gravmap.mapping.predictor import Predictor
from gravmap.mapping.record.model_record import describe_run
from gravmap.mapping.record.provenance import hashed_inputs, machine, versions
from gravmap.progress import Progress, silent
from gravmap.regions import Region

RASTER, PICTURE, RECORD = "attribution.tif", "attribution.png", "attribution.json"


@dataclass(frozen=True)
class Explanation:
    """What was written, and what it says.

    Attributes
    ----------
    files : dict of str to Path
        Raster, picture, record.
    record : dict
        All of ``attribution.json``.
    complete : bool
        Whether the raster sums to the difference of the logits it explains.
    """

    files: dict[str, Path]
    record: dict[str, Any]
    complete: bool

    def lines(self) -> list[str]:
        """What it says, in words."""
        told = self.record
        lines = [
            f"{told['class']}: {told['logit']:+.3f} above the mean of all classes, "
            f"{told['baseline_logit']:+.3f} on ground without any anomaly."
        ]
        for name, part in told["fields"].items():
            lines.append(f"  {name}: {part['sum']:+.3f} ({part['inside']:+.3f} of it from inside the region)")
        share = abs(told["gap"] / (told["logit"] - told["baseline_logit"] or 1))
        lines.append(f"The sum misses the difference by {told['gap']:+.4f} ({100 * share:.1f} %).")
        return lines


def passes_of(plan: Plan, steps: int = STEPS) -> int:
    """How often :func:`explain` runs the network; gradients cost about three times a pass."""
    return sum(len(some) for some in plan.windows.values()) * (steps + 2)


def explain(
    predictor: Predictor,
    plan: Plan,
    folder: Path,
    *,
    labels_path: Path | None = None,
    class_name: str | None = None,
    steps: int = STEPS,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> Explanation:
    """Write where in the fields a network's answer for a region comes from.

    Parameters
    ----------
    predictor : Predictor
        One trained network beside the fields.
    plan : Plan
        Region, cells at the nodes of the fields, and windows (:meth:`Predictor.plan`).
    folder : Path
        Gets ``attribution.tif`` (float32, a band for each field, in units of the logit; also of the ground around the
        region that its windows reach), ``attribution.png`` and ``attribution.json``.
    labels_path : Path, optional
        ``data/labels.tif``, for a network that starts from mapped outcrop. That stays as it is: what is explained is
        what gravity adds to it.
    class_name : str, optional
        The class to explain; by default the one that most of the region is named.
    steps : int
        See :func:`gravmap.learning.evaluation.attribution.integrated_gradients`.
    overwrite : bool
        Replace files that exist.
    command : str
        The command line, for the record.
    progress : Progress
        Told the passes done.

    Raises
    ------
    InputError
        A file exists already; or the network starts from outcrop, and none is mapped here.
    OptionError
        No such class, or several networks.
    """
    files = {name: folder / name for name in (RASTER, PICTURE, RECORD)}
    for path in files.values():
        refuse_existing(path, overwrite)
    if len(predictor.members) > 1:
        raise OptionError("Several networks cannot be explained together.", "Name one --run.")
    member, reader = predictor.members[0], predictor.fields
    spec = member.spec
    names = [str(entry["name"]) for entry in spec.classes]
    if class_name is not None and class_name not in names:
        raise OptionError(f"The network knows no class {class_name!r}.", f"It knows {', '.join(names)}.")
    need_labels(labels_path, predictor.reads_outcrop)
    everything = slice(0, reader.shape[0]), slice(0, reader.shape[1])
    with TemporaryDirectory(prefix="gravmap-") as scratch:
        if labels_path is not None and predictor.reads_outcrop:
            _check_classes(labels_path, spec)
            kept = Path(scratch) / "outcrop.npy"
            reader.outcrop = lay_outcrop(kept, reader.lat, reader.lon, labels_path, plan.windows, len(names))
        fields = reader.read(spec.input.fields, *everything)
    found = integrated_gradients(
        member.network,
        fields,
        reader.nodes_wsen,
        plan.windows,
        spec.tile_size_px,
        plan.grid.lat_deg,
        plan.grid.lon_deg,
        inputs=spec.input,
        target=None if class_name is None else names.index(class_name),
        steps=steps,
        device=predictor.device,
        progress=progress,
    )
    lat, lon = reader.lat[found.rows], reader.lon[found.columns]
    fields = fields[[spec.input.fields.index(name) for name in spec.input.measured]]
    values = np.where(np.isfinite(fields[:, found.rows, found.columns]), found.values, np.nan)
    region = plan.region
    inside = np.ix_((lat >= region.south) & (lat <= region.north), (lon >= region.west) & (lon <= region.east))
    outcrop = labels_path if predictor.reads_outcrop else None
    read = hashed_inputs(reader.path, [member.folder], outcrop, {}, folder.resolve())
    units = [unit for name, unit in zip(spec.input.fields, spec.input.units, strict=True) if not is_context(name)]
    record: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "region_wsen": list(region.bounds_wsen),
        "run": describe_run(member.folder)["name"],
        "class": names[found.target],
        "scales_deg": list(plan.windows),
        "steps": steps,
        "logit": found.logit,
        "baseline_logit": found.baseline_logit,
        "sum": float(found.values.sum()),
        "gap": found.gap,
        "complete": found.complete,
        "fields": {
            name: {
                "unit": unit,
                "baseline": found.baseline[name],
                "sum": float(part.sum()),
                "inside": float(part[inside].sum()),
            }
            for name, unit, part in zip(spec.input.measured, units, found.values, strict=True)
        },
        "inputs": {role: entry for role, entry in read.items() if role in ("fields", "model", "model_json", "labels")},
        "versions": versions(),
        "platform": machine(predictor.device),
    }
    bounds = _cells_around(lat, lon)
    _write_raster(files[RASTER], values, spec.input.measured, bounds, record)
    _draw(files[PICTURE], found, fields[:, found.rows, found.columns], values, bounds, region, record)
    record["outputs"] = {name: sha256(files[name]) for name in (RASTER, PICTURE)}
    write_json(files[RECORD], record)
    return Explanation(files, record, found.complete)


def _check_classes(labels_path: Path, spec: ModelSpec) -> None:
    with LabelFile(labels_path) as labels:
        check_labels(labels.legend, spec, labels_path)
        labels.check()


def _cells_around(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Outer edges of the cells whose centres the nodes are."""
    half_y, half_x = (lat[0] - lat[-1]) / (lat.size - 1) / 2, (lon[-1] - lon[0]) / (lon.size - 1) / 2
    return float(lon[0] - half_x), float(lat[-1] - half_y), float(lon[-1] + half_x), float(lat[0] + half_y)


def _write_raster(
    path: Path,
    values: NDArray[np.float64],
    names: Sequence[str],
    bounds: tuple[float, float, float, float],
    record: dict[str, Any],
) -> None:
    bands, height, width = values.shape
    with (
        atomic_path(path) as temporary,
        rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            dtype="float32",
            count=bands,
            height=height,
            width=width,
            crs="EPSG:4326",
            transform=from_bounds(*bounds, width, height),
            nodata=float("nan"),
            compress="deflate",
            predictor=3,
        ) as raster,
    ):
        raster.write(values.astype(np.float32))
        for number, name in enumerate(names, start=1):
            raster.set_band_description(number, name)
        raster.update_tags(
            **{
                "class": record["class"],
                "run": record["run"],
                "units": "logit",
                "logit": record["logit"],
                "baseline_logit": record["baseline_logit"],
                "gap": record["gap"],
            }
        )


def _draw(
    path: Path,
    found: Attribution,
    fields: NDArray[np.float32],
    values: NDArray[np.float64],
    bounds: tuple[float, float, float, float],
    region: Region,
    record: dict[str, Any],
) -> None:
    west, south, east, north = bounds
    height, width = values.shape[1:]
    lat = north - (np.arange(height) + 0.5) * (north - south) / height
    lon = west + (np.arange(width) + 0.5) * (east - west) / width
    asked = ((lat >= region.south) & (lat <= region.north))[:, None] & ((lon >= region.west) & (lon <= region.east))
    panels = []
    for name, field, part in zip(record["fields"], fields, values, strict=True):
        level, unit = found.baseline[name], record["fields"][name]["unit"]
        plain = name.replace("_", " ")
        panels.append(FieldPanel(f"{plain}, less its mean here", unit, field - level, bounds, True, outline=asked))
        panels.append(
            FieldPanel(f"What {plain} says for (red) or against (blue) it", "logit", part, bounds, True, outline=asked)
        )
    notes = [
        f"The logit of {record['class']} over the mean of all classes, averaged over the outlined region, is"
        f" {record['logit']:+.2f}; on ground without any anomaly {record['baseline_logit']:+.2f}. The right side sums"
        f" to the difference, {record['sum']:+.2f}.",
        "It tells what moved this network, not what lies below.",
    ]
    title = f"Why {record['class']}? {record['run']}, integrated gradients"
    draw(path, panels, [], title=title, notes=notes, columns=2, panel_width_in=6.0)
