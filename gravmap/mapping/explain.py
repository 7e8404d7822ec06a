"""Attribution of a network's prediction for a region to the input fields: a raster, a picture and a record."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_bounds
from scipy.ndimage import gaussian_filter

from gravmap.errors import OptionError
from gravmap.files import atomic_path, sha256, write_json
from gravmap.geology.labels import LabelFile
from gravmap.lattice import UNUSABLE, spacing_yx_km
from gravmap.learning.evaluation.attribution import STEPS, Attribution, integrated_gradients
from gravmap.learning.training.checkpoint import ModelSpec
from gravmap.mapping.compatibility import check_labels, require_labels
from gravmap.mapping.outcrop_file import mapped_outcrop, write_outcrop_context
from gravmap.mapping.page.figures import FieldPanel, draw
from gravmap.mapping.plan import Plan
from gravmap.mapping.predictor import Predictor
from gravmap.mapping.record.model_record import describe_run
from gravmap.mapping.record.provenance import hashed_inputs, machine, versions
from gravmap.outputs import check_outputs
from gravmap.progress import Progress, silent
from gravmap.regions import Region

FILES = RASTER, PICTURE, RECORD = "attribution.tif", "attribution.png", "attribution.json"


@dataclass(frozen=True)
class Explanation:
    """The result of :func:`explain`.

    Attributes
    ----------
    files : dict of str to Path
        Raster, picture and record.
    record : dict
        Contents of ``attribution.json``.
    complete : bool
        Whether the attributions sum to the difference of the logits, within 5 %.
    """

    files: dict[str, Path]
    record: dict[str, Any]
    complete: bool

    def lines(self) -> list[str]:
        """Return a summary of the record, line by line."""
        record = self.record
        lines = [
            f"{record['class']}: logit {record['logit']:+.3f} above the mean of all classes, "
            f"{record['baseline_logit']:+.3f} for fields without anomalies."
        ]
        for name, part in record["fields"].items():
            lines.append(f"  {name}: {part['sum']:+.3f} ({part['inside']:+.3f} of it from inside the region)")
        fraction = abs(record["gap"] / (record["logit"] - record["baseline_logit"] or 1))
        if record["unmapped"]:
            lines.append(f"{100 * record['unmapped']:.0f} % of the region's cells are unmapped, and not counted.")
        lines.append(
            f"The sum differs from the difference of the logits by {record['gap']:+.4f} ({100 * fraction:.1f} %)."
        )
        return lines


def count_forward_passes(plan: Plan, steps: int = STEPS) -> int:
    """Return how often :func:`explain` runs the network; with a gradient, a pass takes about three times as long."""
    return sum(len(windows) for windows in plan.windows.values()) * (steps + 2)


def check_explanation(
    predictor: Predictor,
    plan: Plan,
    folder: Path,
    *,
    labels_path: Path | None = None,
    class_name: str | None = None,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Make all checks that precede :func:`explain`, whose parameters and errors these are; return the files by name."""
    files = {name: folder / name for name in (RASTER, PICTURE, RECORD)}
    check_outputs(files.values(), [predictor.fields.path, labels_path], overwrite)
    if len(predictor.members) > 1:
        raise OptionError("Several networks cannot be explained together.", "Name a single --run.")
    spec, reader = predictor.members[0].spec, predictor.fields
    _target(spec.classes, class_name)
    require_labels(labels_path, predictor.reads_outcrop)
    if labels_path is not None and predictor.reads_outcrop:
        _check_classes(labels_path, spec, predictor.members[0].folder)
        mapped_outcrop(reader.lat, reader.lon, labels_path, plan.windows)
    return files


def _target(classes: Sequence[Mapping[str, Any]], name: str | None) -> int | None:
    """Place of a class among those of a network, by its name in any case; None without a name."""
    names = [str(entry["name"]) for entry in classes]
    lower = [each.casefold() for each in names]
    if name is None:
        return None
    if name.casefold() not in lower:
        near = difflib.get_close_matches(name.casefold(), lower, n=1)
        suggestion = f" Did you mean {names[lower.index(near[0])]}?" if near else ""
        raise OptionError(f"The network has no class {name!r}.{suggestion}", f"Its classes are {', '.join(names)}.")
    return lower.index(name.casefold())


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
    """Attribute the logit of a class, averaged over a region, to the nodes of the fields, and write the result.

    Uses integrated gradients (Sundararajan et al. 2017) from fields without anomalies to the observed fields.

    Parameters
    ----------
    predictor : Predictor
        One trained network and the fields.
    plan : Plan
        Region, cells at the nodes of the fields, and windows (:meth:`Predictor.plan`).
    folder : Path
        Folder for ``attribution.tif`` (float32, one band per field, in units of the logit; it covers all windows of
        the region), ``attribution.png`` and ``attribution.json``.
    labels_path : Path, optional
        ``data/labels.tif``. Cells that are neither outcrop nor cover there are left out of the average, unless all
        are. For a network that reads outcrop context the context is held constant: only the contribution of the other
        fields is attributed.
    class_name : str, optional
        The class to explain; by default the class predicted for most of these cells.
    steps : int
        Number of integration points (:func:`gravmap.learning.evaluation.attribution.integrated_gradients`).
    overwrite : bool
        Replace existing files.
    command : str
        The command line, for the record.
    progress : Progress
        Called with the number of forward passes done.

    Returns
    -------
    Explanation
        Files and record.

    Raises
    ------
    InputError
        A file exists already; or the network reads outcrop context and there is no outcrop.
    OptionError
        The network has no such class, or there are several networks.
    """
    files = check_explanation(
        predictor, plan, folder, labels_path=labels_path, class_name=class_name, overwrite=overwrite
    )
    member, reader = predictor.members[0], predictor.fields
    spec = member.spec
    names = [str(entry["name"]) for entry in spec.classes]
    all_nodes = slice(0, reader.shape[0]), slice(0, reader.shape[1])
    with TemporaryDirectory(prefix="gravmap-") as scratch:
        if labels_path is not None and predictor.reads_outcrop:
            path = Path(scratch) / "outcrop.npy"
            reader.outcrop = write_outcrop_context(path, reader.lat, reader.lon, labels_path, plan.windows, len(names))
        fields = reader.read(spec.input.fields, *all_nodes)
    counted = np.ones(plan.grid.shape, np.bool_)
    if labels_path is not None:
        with LabelFile(labels_path) as surface:
            mapped = surface.sample(plan.grid.lat_deg, plan.grid.lon_deg) != UNUSABLE
        counted = mapped if mapped.any() else counted
    attribution = integrated_gradients(
        member.network,
        fields,
        reader.nodes_wsen,
        plan.windows,
        spec.tile_size_px,
        plan.grid.lat_deg,
        plan.grid.lon_deg,
        inputs=spec.input,
        counted=counted,
        target=_target(spec.classes, class_name),
        steps=steps,
        device=predictor.device,
        progress=progress,
    )
    lat, lon = reader.lat[attribution.rows], reader.lon[attribution.columns]
    fields = fields[[spec.input.fields.index(name) for name in spec.input.measured]]
    values = np.where(np.isfinite(fields[:, attribution.rows, attribution.columns]), attribution.values, np.nan)
    region = plan.region
    inside = np.ix_((lat >= region.south) & (lat <= region.north), (lon >= region.west) & (lon <= region.east))
    inputs = hashed_inputs(reader.path, [member.folder], labels_path, {}, folder.resolve())
    units = [
        unit for name, unit in zip(spec.input.fields, spec.input.units, strict=True) if name in spec.input.measured
    ]
    record: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "region_wsen": list(region.bounds_wsen),
        "run": describe_run(member.folder)["name"],
        "class": names[attribution.target],
        "scales_deg": list(plan.windows),
        "steps": steps,
        "unmapped": float(1 - counted.mean()),
        "logit": attribution.logit,
        "baseline_logit": attribution.baseline_logit,
        "sum": float(attribution.values.sum()),
        "gap": attribution.gap,
        "complete": attribution.complete,
        "fields": {
            name: {
                "unit": unit,
                "baseline": attribution.baseline[name],
                "sum": float(part.sum()),
                "inside": float(part[inside].sum()),
            }
            for name, unit, part in zip(spec.input.measured, units, attribution.values, strict=True)
        },
        "inputs": {
            role: entry for role, entry in inputs.items() if role in ("fields", "model", "model_json", "labels")
        },
        "versions": versions(),
        "platform": machine(predictor.device),
    }
    bounds = _cell_bounds(lat, lon)
    _write_raster(files[RASTER], values, spec.input.measured, bounds, record)
    _draw(files[PICTURE], attribution, fields[:, attribution.rows, attribution.columns], values, bounds, region, record)
    record["outputs"] = {name: sha256(files[name]) for name in (RASTER, PICTURE)}
    write_json(files[RECORD], record)
    return Explanation(files, record, attribution.complete)


def _check_classes(labels_path: Path, spec: ModelSpec, run: Path) -> None:
    with LabelFile(labels_path) as labels:
        check_labels(labels.legend, spec, labels_path, run)
        labels.check()


def _cell_bounds(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return west, south, east, north edges of the cells that are centred on the nodes."""
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


_RIM_DEG = 1.0
"""What the picture shows around the region."""

_SMOOTH_KM = 10.0
"""Standard deviation of the smoothing of the picture: gradients of a network differ in sign from node to node."""


def _draw(
    path: Path,
    attribution: Attribution,
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
    inside = ((lat >= region.south) & (lat <= region.north))[:, None] & ((lon >= region.west) & (lon <= region.east))
    # The region and a rim of it: windows reach much further than what counts.
    rows = np.flatnonzero((lat >= region.south - _RIM_DEG) & (lat <= region.north + _RIM_DEG))
    columns = np.flatnonzero((lon >= region.west - _RIM_DEG) & (lon <= region.east + _RIM_DEG))
    shown = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    tall, wide = (north - south) / height, (east - west) / width
    bounds = (
        west + columns[0] * wide,
        north - (rows[-1] + 1) * tall,
        west + (columns[-1] + 1) * wide,
        north - rows[0] * tall,
    )
    whole, sigma = np.abs(values).sum() or 1.0, np.array(spacing_yx_km(lat, lon))
    panels = []
    for name, field, part in zip(record["fields"], fields, values, strict=True):
        level, unit = attribution.baseline[name], record["fields"][name]["unit"]
        plain = name.replace("_", " ").replace("km", " km")
        panels.append(
            FieldPanel(f"{plain} minus its mean", unit, (field - level)[shown], bounds, True, outline=inside[shown])
        )
        share = 1e5 * gaussian_filter(part, _SMOOTH_KM / sigma) / whole / np.prod(sigma)
        title = f"What of {plain} counts for (red) or against (blue) the class"
        panels.append(FieldPanel(title, "% per 1000 km²", share[shown], bounds, True, outline=inside[shown]))
    notes = [
        f"The logit of {record['class']} above the mean of all classes, averaged over"
        f" {'the mapped part of ' if record['unmapped'] else ''}the outlined region, is"
        f" {record['logit']:+.2f}; for fields without anomalies it is {record['baseline_logit']:+.2f}. The attributions"
        f" sum to {record['sum']:+.2f}, the difference but for the error of the integration.",
        "Right: percent of all attributions, whatever their sign, in 1000 km², smoothed over 10 km; attribution.tif has"
        " them node by node, in units of the logit.",
        "They show what determined the prediction of this network, not what lies below the surface.",
    ]
    title = f"{record['class']}: {record['run']}, integrated gradients"
    draw(path, panels, [], title=title, notes=notes, columns=2, panel_width_in=6.0)
