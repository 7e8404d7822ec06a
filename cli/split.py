"""`gravmap split`: list the splits of a tile set, measure how much of them leaks, and add another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gravmap.outputs import check_outputs
from gravmap.units import describe_angle
from gravmap.workspace import require

from .options import ANGLE, Command, option, overwrite_option, seed_option
from .session import Session, command_options

if TYPE_CHECKING:
    from gravmap.tiling.leak import LeakReport


@click.command(
    "split",
    cls=Command,
    short_help="List splits, measure their leak, or add one.",
    epilog="""\b
Examples:
  gravmap split
  gravmap split --report
  gravmap split --add strict --block 2.5deg --folds 8 --name strict-small""",
)
@option(
    "--report",
    is_flag=True,
    help="Measure the leak: what training sees of the held-out labels, and what each channel says of the place; and"
    " draw a map.",
)
@option("--split", "names", multiple=True, metavar="NAME", help="Only this split; may be repeated.")
@option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the pictures leak_NAME.png (default: data/tiles).",
)
@option(
    "--add",
    "kind",
    type=click.Choice(["blocks", "random", "strict"]),
    help="Add a split of this kind; the tiles are not changed.",
)
@option("--name", metavar="NAME", help="Name of the added split (default: its kind).")
@option(
    "--folds", type=click.IntRange(min=3), metavar="N", default=5, show_default=True, help="Folds of the added split."
)
@option(
    "--block", "block_deg", type=ANGLE, metavar="ANGLE", help="Side of its blocks (default: 2.5deg, for strict 5deg)."
)
@option(
    "--buffer", "buffer_deg", type=ANGLE, default="0.25deg", show_default=True, help="Buffer around held-out blocks."
)
@seed_option
@overwrite_option
@command_options()
def command(
    session: Session,
    report: bool,
    names: tuple[str, ...],
    output: Path | None,
    kind: str | None,
    name: str | None,
    folds: int,
    block_deg: float | None,
    buffer_deg: float,
    seed: int,
    overwrite: bool,
) -> None:
    """List the splits of data/tiles, measure their leak, or add one.

    Without options it lists the splits of the index. --report measures each of them on the roles used in training: the
    percentage of the held-out bedrock whose labels are seen, the distance to the nearest seen label, windows and
    classes per fold; and draws a map, data/tiles/leak_NAME.png. It also predicts longitude and latitude from each
    channel of the fields alone, on held-out blocks, and warns of one that does: a network can learn the place
    from it. --add makes another split without cutting tiles again.
    """
    from gravmap.tiling import leak_report
    from gravmap.tiling.leak_figure import draw_leak
    from gravmap.tiling.splits import read_split, split_settings
    from gravmap.tiling.tileset import add_split
    from gravmap.tiling.training_arrays import read_index, refuse_stale

    place = session.workspace
    require(place.tiles / "index.json", "gravmap tile")
    if name and kind is None:
        raise click.UsageError("--name is the name of a split to --add.")
    if kind is not None:
        stored, notes = add_split(
            place.tiles,
            kind,
            name=name,
            folds=folds,
            block_deg=block_deg,
            buffer_deg=buffer_deg,
            seed=seed,
            overwrite=overwrite,
        )
        for note in notes:
            session.say(note)
        names = (*names, stored["name"])
    refuse_stale(place.tiles)
    held = {stored["name"]: stored for stored in read_index(place.tiles)["splits"]}
    chosen = names or tuple(held)
    if not report:
        for each in chosen:
            if each not in held:
                leak_report(place.tiles, each)  # raises, with how to add it
            read_split(held[each])  # raises where its record is damaged
            session.say(split_line(held[each]))
        session.result({"splits": [split_settings(held[each]) for each in chosen]})
        return
    pictures = {each: (output or place.tiles) / f"leak_{each}.png" for each in chosen}
    check_outputs(pictures.values(), [], True)
    reports = {}
    for each, picture in pictures.items():
        found = leak_report(place.tiles, each)
        draw_leak(place.tiles, found, picture)
        session.say("\n".join([split_line({**held[each], "leak": found.leak}), *_table(found), f"Wrote {picture}", ""]))
        reports[each] = {**found.to_dict(), "picture": str(picture)}
    session.result({"splits": reports, "location_r2": _say_location(session, place.tiles)})


def _say_location(session: Session, tiles: Path) -> dict[str, Any]:
    """Print how well each channel alone predicts the place on held-out blocks; returns the same for --json."""
    from gravmap.tiling.location import location_r2
    from gravmap.tiling.training_arrays import read_index

    fields = tiles / read_index(tiles)["sources"]["fields"]["path"]
    if not fields.exists():
        session.warn(f"{fields} is missing: how well each channel predicts the place was not measured.")
        return {}
    found = location_r2(fields)
    width = max(len(each.channel) for each in found)
    session.say("Longitude and latitude predicted from each channel alone, on held-out blocks:")
    session.say(f"  {'channel':<{width}}{'R2 of lon':>11}{'of lat':>8}")
    for each in found:
        numbers = ["-" if r2 is None else f"{r2:.2f}" for r2 in (each.lon, each.lat)]
        session.say(f"  {each.channel:<{width}}{numbers[0]:>11}{numbers[1]:>8}")
    for each in found:
        if each.predicts:
            session.warn(
                f"{each.channel} alone predicts {each.predicts}: a network can learn the place from it instead of the"
                " rock. Trust scores on blocks alone, and compare with a run without it."
            )
    return {each.channel: {"lon": each.lon, "lat": each.lat} for each in found}


def split_line(stored: Mapping[str, Any]) -> str:
    """One line on a split, from its record in the index."""
    text = f"Split {stored['name']}: {stored['folds']} folds"
    if stored["kind"] == "random":
        text += f", {100 * stored['share']:.0f} % of the windows held out"
    else:
        height, width = (describe_angle(side) for side in stored["block_deg"])
        what = "windows and labels" if stored["kind"] == "strict" else "labels"
        text += f" of blocks of {height} x {width}, {what} within {describe_angle(stored['buffer_deg'])} of one unused"
    return f"{text}; training sees the labels of {percent(stored['leak'])} of the held-out bedrock."


def percent(fraction: float) -> str:
    """A fraction in percent; 0 % only for exactly 0."""
    return "0 %" if fraction == 0 else f"{100 * fraction:.1f} %" if fraction >= 0.001 else "under 0.1 %"


def _table(report: LeakReport) -> list[str]:
    """What was measured, fold by fold, and the classes."""
    scales = list(report.folds[0].windows["train"])
    lines = [
        f"  {'fold':<5}{'held out':>13}{'labels':>11}{'gravity':>9}{'nearest':>11}   training windows",
        f"  {'':<5}{'km2':>13}{'seen':>11}{'seen':>9}{'label':>11}   " + "".join(f"{scale:>8}" for scale in scales),
    ]
    for fold in report.folds:
        near = "-" if fold.distance_km is None else f"{fold.distance_km:.1f} km"
        kept = "".join(f"{fold.windows['train'][scale]:>8}" for scale in scales)
        lines.append(
            f"  {fold.fold:<5}{fold.held_out_km2:>13,.0f}{percent(fold.leak):>11}{percent(fold.gravity_seen):>9}"
            f"{near:>11}   {kept}"
        )
    width = max(len(name) for name in report.classes)
    heads = "".join(f"{'fold ' + str(fold.fold):>21}" for fold in report.folds)
    lines += ["  Bedrock in km2, training / test:", f"  {'':<{width}}{heads}"]
    for index, name in enumerate(report.classes):
        cells = [(fold.class_km2["train"][index], fold.class_km2["test"][index]) for fold in report.folds]
        if any(sum(pair) for pair in cells):
            shown = "".join(f"{_km2(train) + ' / ' + _km2(test):>21}" for train, test in cells)
            lines.append(f"  {name:<{width}}{shown}")
    lacking = [
        f"fold {fold.fold}: {', '.join(report.classes[index - 1] for index in fold.absent['train'])}"
        for fold in report.folds
        if fold.absent["train"]
    ]
    if lacking:
        lines.append(f"  Classes missing in the training data: {'; '.join(lacking)}.")
    return lines


def _km2(area: float) -> str:
    return f"{area:,.0f}" if area else "-"
