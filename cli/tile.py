"""`gravmap tile`: windows, splits and tiles of the fields and labels."""

from __future__ import annotations

from pathlib import Path

import click

from .options import ANGLE, dry_run_option, overwrite_option, seed_option
from .session import Session, command_options
from .split import split_line


@click.command(
    "tile",
    epilog="""\b
Examples:
  gravmap tile
  gravmap tile --index-only --window 2.5deg --stride 1.25deg --block 1.25deg --folds 4""",
)
@click.option(
    "--window",
    "windows_deg",
    type=ANGLE,
    multiple=True,
    metavar="ANGLE",
    help="Side of a window; may be repeated (default: 1deg, 5deg, 10deg, 15deg).",
)
@click.option(
    "--stride",
    "strides_deg",
    type=ANGLE,
    multiple=True,
    metavar="ANGLE",
    help="Step between windows, one per --window or one for all (default: 1, 2.5, 2.5, 5deg; else half a window).",
)
@click.option(
    "--size", "size_px", type=click.IntRange(16, 16384), default=2048, show_default=True, help="Pixels a side."
)
@click.option("--index-only", is_flag=True, help="Write no tiles: training reads the native grids and needs none.")
@click.option(
    "--split",
    "splits",
    type=click.Choice(["blocks", "random", "strict"]),
    multiple=True,
    help="What the index holds; may be repeated (default: all three). random is the paper's, and it leaks.",
)
@click.option("--folds", type=click.IntRange(min=3), default=5, show_default=True, help="How many folds.")
@click.option(
    "--block",
    "block_deg",
    type=ANGLE,
    metavar="ANGLE",
    help="Side of a held-out block (default: 2.5deg, for strict 5deg; less where the region is small).",
)
@click.option(
    "--buffer",
    "buffer_deg",
    type=ANGLE,
    default="0.25deg",
    show_default=True,
    help="Training labels nearer than this to a held-out block are ignored.",
)
@seed_option
@dry_run_option
@overwrite_option
@command_options()
def command(
    session: Session,
    windows_deg: tuple[float, ...],
    strides_deg: tuple[float, ...],
    size_px: int,
    index_only: bool,
    splits: tuple[str, ...],
    folds: int,
    block_deg: float | None,
    buffer_deg: float,
    seed: int,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Cut the fields and labels into windows of several sizes, and hold out ground to score on.

    Reads data/fields.nc and data/labels.tif (made here from the fetched maps when missing) and writes data/tiles:
    index.parquet, index.json and, unless --index-only, one GeoTIFF of field, label and small bodies per window. The
    default windows over the study area are 450 of 1, 55 of 5, 27 of 10 and 4 of 15 degrees.
    """
    from gravmap.files import refuse_existing
    from gravmap.tiling import make_tiles, plan_tiles
    from gravmap.tiling.splits import ASSIGNMENTS
    from gravmap.units import format_angle
    from gravmap.workspace import require

    place = session.workspace
    require(place.fields, "gravmap residual --height 10km")
    plan = plan_tiles(place.fields, windows_deg, strides_deg, size_px)
    for scale in plan.scales:
        count = scale.rows * scale.columns
        sides = f"{format_angle(scale.size_deg)} every {format_angle(scale.stride_deg)}"
        session.say(f"  {count:>5} windows of {sides} ({scale.rows} rows, {scale.columns} columns)")
    session.say(f"  {plan.count:>5} windows over {plan.region}")
    if dry_run:
        for note in plan.notes:
            session.say(note)
        if index_only:
            session.say(f"Would write {place.tiles} without tiles, in seconds.")
        else:
            size, minutes = plan.disk_bytes / 1e9, plan.seconds / 60
            session.say(
                f"Would write {place.tiles}: up to {size:.2f} GB, about {minutes:.1f} minutes, 0.5 GB of memory."
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
        return
    refuse_existing(place.tiles, overwrite)
    if not place.labels.exists():
        _make_labels(session)
    with session.progress("tile") as progress:
        index = make_tiles(
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
            progress=progress,
        )
    session.say(f"{index['windows_set_apart']} windows have under 10 % bedrock.")
    for split in index["splits"]:
        session.say(split_line(split))
    written = "index only" if index_only else f"{_folder_bytes(place.tiles) / 1e6:.0f} MB"
    session.say(f"Wrote {place.tiles} ({written})")
    session.result(
        {
            "written": str(place.tiles),
            "windows": index["windows"],
            "windows_set_apart": index["windows_set_apart"],
            "scales": index["scales"],
            "splits": [
                {key: value for key, value in split.items() if key not in ASSIGNMENTS} for split in index["splits"]
            ],
            "notes": index["notes"],
        }
    )


def _make_labels(session: Session) -> None:
    """Make the label raster from the fetched maps, as `gravmap rasterize` alone would."""
    from gravmap.geology import rasterize, write_labels

    from .rasterize import fetched_pairs, region_of_labels

    labels = session.workspace.labels
    session.say(f"{labels} is missing; it is made from the fetched maps.")
    region, _ = region_of_labels(session, None)
    with session.progress("rasterize") as progress:
        write_labels(labels, rasterize(fetched_pairs(session), region, progress=progress))


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
