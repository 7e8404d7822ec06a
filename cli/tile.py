"""`gravmap tile`: windows, splits and tiles of the fields and labels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import ANGLE, Command, dry_run_option, option, option_group, overwrite_option, seed_option, window_option
from .session import Session, command_options
from .split import split_line

if TYPE_CHECKING:
    from gravmap.tiling.tileset import TilePlan


@click.command(
    "tile",
    cls=Command,
    short_help="Cut fields and labels into windows, tiles and splits.",
    epilog="""\b
Examples:
  gravmap tile
  gravmap tile --format esri
  gravmap tile --index-only --window 2.5deg --stride 1.25deg --folds 4""",
)
@option_group(
    "Windows",
    window_option("Side of a window; may be repeated (default: 1deg, 5deg, 10deg, 15deg).", old_names=()),
    option(
        "--stride",
        "strides_deg",
        type=ANGLE,
        multiple=True,
        metavar="ANGLE",
        help="Step between windows, one per --window or one for all (default: 1, 2.5, 2.5, 5deg; else half a window).",
    ),
    option(
        "--size",
        "size_px",
        type=click.IntRange(16, 16384),
        metavar="PIXELS",
        default=2048,
        show_default=True,
        help="Pixels of a tile's side.",
    ),
)
@option_group(
    "Splits",
    option(
        "--split",
        "splits",
        type=click.Choice(["blocks", "random", "strict"]),
        multiple=True,
        help="Split to add to the index; may be repeated (default: all three). random is the paper's, and leaks.",
    ),
    option("--folds", type=click.IntRange(min=3), metavar="N", default=5, show_default=True, help="Number of folds."),
    option(
        "--block",
        "block_deg",
        type=ANGLE,
        metavar="ANGLE",
        help="Side of a held-out block (default: 2.5deg, for strict 5deg; less where the region is small).",
    ),
    option(
        "--buffer",
        "buffer_deg",
        type=ANGLE,
        default="0.25deg",
        show_default=True,
        help="Training labels nearer than this to a held-out block are ignored.",
    ),
    seed_option,
)
@option_group(
    "Output",
    option(
        "--format",
        "layout",
        type=click.Choice(["geotiff", "esri", "torchgeo"]),
        default="geotiff",
        show_default=True,
        help="Also export tiles for ArcGIS (Classified Tiles, in data/tiles_esri) or torchgeo (data/tiles_torchgeo).",
    ),
    option(
        "--index-only", is_flag=True, help="Write no tiles: training reads the native grids and does not need them."
    ),
    overwrite_option,
    dry_run_option,
)
@command_options()
def command(
    session: Session,
    windows_deg: tuple[float, ...],
    strides_deg: tuple[float, ...],
    size_px: int,
    index_only: bool,
    layout: str,
    splits: tuple[str, ...],
    folds: int,
    block_deg: float | None,
    buffer_deg: float,
    seed: int,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Cut the fields and labels into windows of several sizes, and hold out test blocks.

    Reads data/fields.nc and data/labels.tif (made here from the fetched maps when missing) and writes data/tiles:
    index.parquet, index.json and, unless --index-only, one GeoTIFF of field, label and small bodies per window. The
    default windows over the study area are 450 of 1, 55 of 5, 27 of 10 and 4 of 15 degrees. The same command resumes a
    run that was stopped.
    """
    from gravmap.errors import OptionError
    from gravmap.outputs import check_outputs
    from gravmap.tiling import export_tiles, make_tiles
    from gravmap.tiling.splits import ASSIGNMENTS
    from gravmap.tiling.tileset import plan_tiles
    from gravmap.workspace import require

    from .rasterize import fetched_pairs

    if index_only and layout != "geotiff":
        raise OptionError(f"--index-only writes no tiles to export for {layout}.", "Leave one of the two out.")
    place = session.workspace
    require(place.fields, "gravmap residual --height 10km")
    plan = plan_tiles(place.fields, windows_deg, strides_deg, size_px)
    _print_plan(session, plan)
    inputs = [place.fields, place.labels, place.legend]
    exported = [_export_folder(place.tiles, layout)] if layout != "geotiff" else []
    kept = bool(exported) and not overwrite and _same_tiles(place.tiles, plan)
    if exported:
        session.writing([], inputs, overwrite, dry_run, folders=exported)
    if not kept:
        check_outputs([], inputs, overwrite, folders=[place.tiles])
    labelled = place.labels.exists()
    if not labelled:
        fetched_pairs(session)  # refuses where there is no map to make them from
    make = functools.partial(
        make_tiles,
        place.fields,
        place.labels,
        place.tiles,
        sizes_deg=windows_deg,
        strides_deg=strides_deg,
        size_px=size_px,
        index_only=index_only,
        splits=splits,
        folds=folds,
        block_deg=block_deg,
        buffer_deg=buffer_deg,
        seed=seed,
        overwrite=overwrite,
    )
    if dry_run:
        checked = labelled and not kept
        if checked:
            make(dry_run=True)  # warns of all that differs from the options given
        return _print_dry_run(session, plan, index_only, [] if checked else plan.notes)
    if kept:
        session.say(f"{place.tiles} exists and is kept.")
        _export(session, export_tiles, layout, overwrite)
        session.result({"written": str(_export_folder(place.tiles, layout)), "windows": plan.count})
        return
    if not labelled:
        _make_labels(session, overwrite)
    with session.progress("tile") as progress:
        index = make(progress=progress)
    if index["kept"]:
        session.say(f"{index['kept']} of {index['windows']} tiles of the earlier run were kept.")
    _print_set_apart(session, index["set_apart"])

    for split in index["splits"]:
        session.say(split_line(split))
    written = "index only" if index_only else f"{_folder_bytes(place.tiles) / 1e6:.0f} MB"
    session.say(f"Wrote {place.tiles} ({written})")
    if layout != "geotiff":
        _export(session, export_tiles, layout, overwrite)
    session.result(
        {
            "written": str(place.tiles),
            "windows": index["windows"],
            "kept": index["kept"],
            "windows_set_apart": index["windows_set_apart"],
            "set_apart": index["set_apart"],
            "scales": index["scales"],
            "splits": [
                {key: value for key, value in split.items() if key not in ASSIGNMENTS} for split in index["splits"]
            ],
            "notes": index["notes"],
        }
    )


def _print_plan(session: Session, plan: TilePlan) -> None:
    from gravmap.units import describe_angle

    for scale in plan.scales:
        count = scale.rows * scale.columns
        sides = f"{describe_angle(scale.size_deg)} every {describe_angle(scale.stride_deg)}"
        session.say(f"  {count:>5} windows of {sides} ({scale.rows} rows, {scale.columns} columns)")
    session.say(f"  {plan.count:>5} windows over {plan.region}, of {plan.channel}")


def _print_dry_run(session: Session, plan: TilePlan, index_only: bool, notes: Sequence[str]) -> None:
    place = session.workspace
    for note in notes:
        session.say(note)
    if index_only:
        session.say(f"Would write {place.tiles} without tiles, in seconds.")
    else:
        size, minutes = plan.disk_bytes / 1e9, plan.seconds / 60
        session.say(
            f"Would write {place.tiles}: about {size:.2f} GB, {minutes:.1f} minutes on 2 free cores, 0.6 GB of memory."
        )
    if not place.labels.exists():
        session.say(f"Would make {place.labels} first, from the fetched maps.")
    session.result(
        {
            "would_write": str(place.tiles),
            "windows": plan.count,
            "disk_bytes": 0 if index_only else plan.disk_bytes,
            "seconds": 0.0 if index_only else plan.seconds,
            "notes": list(plan.notes),
        }
    )


def _print_set_apart(session: Session, set_apart: dict[str, list[str]], shown: int = 8) -> None:
    """The windows that the paper would set apart as a test set: how many of each size, and the first of them."""
    total = sum(map(len, set_apart.values()))
    session.say(f"{total} windows have under 10 % bedrock and are set apart{':' if total else '.'}")
    for scale, names in set_apart.items():
        if names:
            places = " ".join(name.partition("/")[2] for name in names[:shown])
            more = f" and {len(names) - shown} more" if len(names) > shown else ""
            session.say(f"  {len(names):>5} of {scale}: {places}{more}")


def _same_tiles(tiles: Path, plan: TilePlan) -> bool:
    """Whether the existing tile set has the windows and tiles of the plan."""
    from dataclasses import asdict

    from gravmap.tiling.training_arrays import read_index

    if not (tiles / "index.json").exists():
        return False
    index = read_index(tiles)
    planned = [{**asdict(scale), "name": scale.name} for scale in plan.scales]
    return bool(index["tiles"] and index["scales"] == planned and index["size_px"] == plan.size_px)


def _export_folder(tiles: Path, layout: str) -> Path:
    return tiles.with_name(f"{tiles.name}_{layout}")


def _export(session: Session, export: Callable[..., int], layout: str, overwrite: bool) -> None:
    tiles = session.workspace.tiles
    target = _export_folder(tiles, layout)
    with session.progress(layout) as progress:
        pairs = export(tiles, target, layout, overwrite=overwrite, progress=progress)
    session.say(f"Wrote {target} ({pairs} pairs)")


def _make_labels(session: Session, overwrite: bool) -> None:
    """Make the label raster from the fetched maps, as `gravmap rasterize` alone would."""
    from gravmap.geology import rasterize, write_labels
    from gravmap.geology.labels import label_files

    from .rasterize import fetched_pairs, region_of_labels

    labels = session.workspace.labels
    session.writing(label_files(labels), overwrite=overwrite)
    session.say(f"{labels} is missing; it is made from the fetched maps.")
    region, _ = region_of_labels(session, None)
    with session.progress("rasterize") as progress:
        write_labels(labels, rasterize(fetched_pairs(session), region, progress=progress))


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
