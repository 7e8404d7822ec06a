"""`gravmap layer`: add further rasters, or the distance to lines, to the fields as channels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import LENGTH, Command, Group, dry_run_option, given_on_command_line, option, overwrite_option
from .session import Session, command_options

if TYPE_CHECKING:
    from gravmap.geology.layers import Layer
    from gravmap.geology.layers_file import LayerSummary

_RESAMPLINGS = ("average", "bilinear", "nearest")
_DERIVATIVES = ("vertical", "east", "north", "horizontal", "tilt", "analytic-signal")


@click.group(
    "layer",
    cls=Group,
    short_help="Add rasters or fault distance as channels.",
    epilog="""\b
Examples:
  gravmap layer add magnetics.tif --name magnetic --units nT
  gravmap layer add --distance faults.gpkg
  gravmap layer list""",
)
def command() -> None:
    """Add further rasters, or the distance to faults, to data/fields.nc as channels; list or remove them.

    `gravmap train --input residual,magnetic` takes such a channel beside gravity.
    """


@command.command(
    "add",
    cls=Command,
    short_help="Add a raster, or the distance to lines.",
    epilog="""\b
Examples:
  gravmap layer add magnetics.tif --name magnetic --units nT
  gravmap layer add radiometrics.tif --band 2 --name thorium --transform log
  gravmap layer add magnetics.tif --name tilt --derivative tilt
  gravmap layer add --distance faults.gpkg --cap 50km""",
)
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@option("--name", metavar="NAME", help="Name of the channel; of a --distance, fault_distance by default.")
@option(
    "--band", default="", metavar="N|NAME", help="Number of the band, or name of the variable (default: the only one)."
)
@option("--units", default="", metavar="UNIT", help="Unit of the values, such as nT (default: that of the file).")
@option(
    "--resampling",
    type=click.Choice(_RESAMPLINGS),
    help="Mean over the cell of each node, or between pixels (default: average where FILE is finer than the nodes, else"
    " bilinear).",
)
@option(
    "--transform",
    type=click.Choice(["none", "log", "rank"]),
    default="none",
    show_default=True,
    help="Logarithm, or rank among the values of FILE: for values that span orders of magnitude.",
)
@option(
    "--upward",
    "upward_m",
    type=LENGTH,
    default="0km",
    metavar="LENGTH",
    help="Of a potential field: continue it upward.",
)
@option(
    "--derivative",
    type=click.Choice(_DERIVATIVES),
    help="Of a potential field: a derivative, at the height of --upward (default 2km).",
)
@option(
    "--distance",
    "lines",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="LINES",
    help="A map of lines such as faults, in place of FILE: the channel is the distance to them; may be repeated.",
)
@option(
    "--cap",
    "cap_m",
    type=LENGTH,
    default="100km",
    show_default=True,
    metavar="LENGTH",
    help="Larger distances are given this value; lines as far outside the fields count.",
)
@option(
    "--source", default="", metavar="TEXT", help="Where the data come from, for the record: an address or a citation."
)
@option("--licence", default="", metavar="TEXT", help="Their terms, for the record.")
@dry_run_option
@overwrite_option
@command_options()
def add(
    session: Session,
    file: Path | None,
    name: str | None,
    band: str,
    units: str,
    resampling: str | None,
    transform: str,
    upward_m: float,
    derivative: str | None,
    lines: tuple[Path, ...],
    cap_m: float,
    source: str,
    licence: str,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Bring a raster, or the distance to lines, onto the nodes of data/fields.nc as a channel.

    FILE is a GeoTIFF, a netCDF or another raster of GDAL, in any coordinate reference system. A raster finer than the
    nodes is averaged over their cells. Nodes without data are missing: their percentage is printed and drawn
    (data/layer_NAME.png), and they have a mask among a network's inputs. The file's hash, source and licence are
    recorded, and `gravmap verify` compares the file with them.
    """
    from gravmap.geology.layers import FAULT_DISTANCE, DistanceLayer, RasterLayer

    if (file is None) == (not lines):
        raise click.UsageError("Give either a FILE or --distance LINES.")
    typed = given_on_command_line()
    raster_only = ("band", "units", "resampling", "transform", "upward_m", "derivative")
    if wrong := [typed[each] for each in (raster_only if file is None else ("cap_m",)) if each in typed]:
        meant = "a FILE, not for --distance" if file is None else "--distance, not for a FILE"
        raise click.UsageError(f"{', '.join(wrong)}: only for {meant}.")
    layer: Layer
    if file is None:
        layer = DistanceLayer(lines, cap_m / 1000, name or FAULT_DISTANCE, source, licence)
    else:
        if name is None:
            raise click.UsageError("--name is missing: the name of the channel, such as magnetic.")
        how = {"horizontal": "horizontal_gradient", "tilt": "tilt", "analytic-signal": "analytic_signal"}
        derived = how.get(derivative, f"{derivative}_derivative") if derivative else ""
        layer = RasterLayer(name, file, band, units, resampling or "", transform, upward_m, derived, source, licence)
    session.result(add_layer_to_fields(session, layer, overwrite, dry_run))


def add_layer_to_fields(session: Session, layer: Layer, overwrite: bool, dry_run: bool) -> dict[str, Any]:
    """Add a layer to the fields of the workspace and draw it, or print the plan; returns the result for --json."""
    from gravmap.geology.layers import DistanceLayer
    from gravmap.geology.layers_file import add_layer
    from gravmap.gravity.fields_file import MADE_BY
    from gravmap.mapping.page.fields_picture import draw_layer
    from gravmap.workspace import require

    fields = require(session.workspace.fields, MADE_BY)
    picture = fields.with_name(f"layer_{layer.name}.png")
    session.writing([fields, picture], layer.paths, True, dry_run)
    made = add_layer(fields, layer, overwrite=overwrite, write=not dry_run)
    named = ", ".join(map(str, layer.paths))
    cap = f", at most {layer.cap_km:g} km," if isinstance(layer, DistanceLayer) else ""
    if dry_run:
        session.say(f"Would read {named} and add {layer.name}{cap} to {fields}: {_described(made)}")
        return {"would_add": layer.name, "to": str(fields), "files": [str(path) for path in layer.paths]}
    draw_layer(fields, made, picture)
    result = {"added": made.name, "to": str(fields), "picture": str(picture), **_as_json(made)}
    if isinstance(layer, DistanceLayer):
        for path, count in zip(made.files, made.lines, strict=True):
            session.say(f"{path}: {count} line{'' if count == 1 else 's'} within {layer.cap_km:g} km of the fields")
        result |= {"lines": list(made.lines), "cap_km": layer.cap_km, "median_km": made.median}
    session.say(f"Added {_described(made)}")
    session.say(f"Wrote {fields} and {picture}")
    if not _say_stale_tiles(session):
        session.say(f"`gravmap train --input residual,{made.name}` trains on it.")
    return result


def _say_stale_tiles(session: Session) -> bool:
    """Say that a tile set was cut from the layer or an earlier version of it, so is of other fields now, if it was."""
    from gravmap.errors import InputError
    from gravmap.tiling.training_arrays import refuse_stale

    if (session.workspace.tiles / "index.json").exists():
        try:
            refuse_stale(session.workspace.tiles)
        except InputError as error:
            session.say(f"{error.message} {error.hint}")
            return True
    return False


@command.command("list", cls=Command, short_help="List the layers of the fields.", epilog="Example: gravmap layer list")
@command_options()
def list_(session: Session) -> None:
    """List the layers of data/fields.nc: unit, values, missing nodes, files, source and licence."""
    from gravmap.geology.layers_file import list_layers

    found = list_layers(session.workspace.fields)
    for layer in found:
        session.say(_described(layer))
        terms = f"source: {layer.source or 'not stated'}; licence: {layer.licence or 'not stated'}"
        session.say(f"  from {', '.join(layer.files)}; {terms}")
    if not found:
        session.say(f"{session.workspace.fields} has no layers; `gravmap layer add` adds one.")
    session.result({"layers": [{"name": layer.name, **_as_json(layer)} for layer in found]})


@command.command(
    "remove",
    cls=Command,
    short_help="Remove layers from the fields.",
    epilog="Example: gravmap layer remove magnetic",
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@command_options()
def remove(session: Session, names: tuple[str, ...]) -> None:
    """Remove layers and their pictures from data/fields.nc; the files that they were made of stay."""
    from gravmap.geology.layers_file import remove_layers

    fields = session.workspace.fields
    session.writing([fields], [], True, False)
    remove_layers(fields, names)
    for name in names:
        fields.with_name(f"layer_{name}.png").unlink(missing_ok=True)
        session.say(f"Removed {name} from {fields}")
    _say_stale_tiles(session)
    session.result({"removed": list(names), "from": str(fields)})


def _described(layer: LayerSummary) -> str:
    unit = "" if layer.unit == "1" else f" {layer.unit}"
    text = f"{layer.name}: median {layer.median:.4g}{unit}, 98 % from {layer.low:.4g} to {layer.high:.4g}"
    if layer.capped_fraction is not None:
        text += f"; {100 * layer.capped_fraction:.1f} % of the nodes at the cap"
    if layer.missing_fraction:
        text += f"; {100 * layer.missing_fraction:.1f} % of the nodes have no data"
    return text


def _as_json(layer: LayerSummary) -> dict[str, Any]:
    found: dict[str, Any] = {
        "unit": layer.unit,
        "files": list(layer.files),
        "source": layer.source,
        "licence": layer.licence,
        "missing_fraction": layer.missing_fraction,
        "percentiles_1_50_99": [layer.low, layer.median, layer.high],
    }
    return found if layer.capped_fraction is None else {**found, "capped_fraction": layer.capped_fraction}
