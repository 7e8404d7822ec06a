"""`gravmap fetch`: download and verify the gravity grid and the geological maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import Command, chosen_region, dry_run_option, option, overwrite_option, region_options
from .session import Session, command_options


@click.command(
    "fetch",
    cls=Command,
    short_help="Download and verify the gravity grid and geological maps.",
    epilog="""\b
Examples:
  gravmap fetch                               every source, each on its own
  gravmap fetch wgm2012 --from ~/Downloads/   from a folder, file or mirror
  gravmap fetch wgm2012 --region-only         32 of the 233 MB: 35N-60N
  gravmap fetch --list""",
)
@click.argument("names", metavar="[SOURCE]...", nargs=-1)
@option("--list", "only_list", is_flag=True, help="List what can be fetched, on what terms, and what exists.")
@option("--from", "origin", metavar="PATH|URL", help="Take the files from this file, folder, URL or mirror.")
@option("--offline", is_flag=True, help="Only check the files that exist.")
@option("--accept-hash", is_flag=True, help="Take a file of the right size whose hash is not the one on record.")
@option(
    "--region-only",
    is_flag=True,
    help="Of the gravity grid only the rows of --region or --bbox (default: liu2024) and 5 degrees around, by Range"
    " requests; the whole file where the server knows none. The hash of the whole file cannot be checked then.",
)
@region_options
@dry_run_option
@overwrite_option
@command_options()
def command(
    session: Session,
    names: tuple[str, ...],
    only_list: bool,
    origin: str | None,
    offline: bool,
    accept_hash: bool,
    region_only: bool,
    region: str | None,
    bbox: tuple[float, ...] | None,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Download the gravity grid and the geological maps into data/raw, and verify them.

    Each source is downloaded on its own: one that fails is named, the others are kept, and the status is 4. A file that
    exists is only verified; an interrupted download is resumed by the next run. Nothing is shipped with gravmap: each
    file comes from its owner, on the owner's terms, which are printed.
    """
    from gravmap.errors import DownloadError
    from gravmap.gravity.fetch import fetch
    from gravmap.gravity.sources import Source, find_source, known_sources

    chosen = [find_source(name) for name in names] or _meant_by(origin, list(known_sources().values()))
    raw = session.workspace.raw
    wanted = chosen_region(session, region, bbox)
    if wanted is not None and not region_only:
        raise click.UsageError("--region and --bbox go with --region-only.")
    rows = None
    if region_only:
        from gravmap.gravity.region_rows import ROWS_MARGIN_DEG
        from gravmap.regions import Region, find_region

        box = wanted or find_region("liu2024", session.workspace.regions)
        # Whole parallels: a box anywhere between them can be cut from the rows.
        rows = Region(-180, max(box.south - ROWS_MARGIN_DEG, -90), 180, min(box.north + ROWS_MARGIN_DEG, 90))
    if only_list or dry_run:
        _list(session, chosen, origin)
        return

    done: list[dict[str, Any]] = []
    failed: list[tuple[Source, DownloadError]] = []
    for source in chosen:
        try:
            with session.progress(source.name) as progress:
                item = fetch(
                    source,
                    raw,
                    origin=origin,
                    offline=offline,
                    accept_hash=accept_hash,
                    overwrite=overwrite,
                    rows=rows,
                    progress=progress,
                )
        except DownloadError as error:
            failed.append((source, error))
            continue
        session.say(f"{source.name}: {source.title}")
        for line in item.news:
            session.say(f"  {line}")
        session.say(f"  terms: {source.terms}")
        session.say(f"  cite: {source.citation}")
        done.append({"source": source.name, "kind": source.kind, "files": [str(path) for path in item.paths]})
    session.result(
        {"fetched": done, "failed": [{"source": source.name, "why": error.message} for source, error in failed]}
    )
    if failed:
        # One line each; the first is the error's own.
        lines = [f"{error.message} {error.hint or ''}".strip() for _, error in failed]
        raise DownloadError("\n".join(lines), f"Kept: {', '.join(item['source'] for item in done)}." if done else None)


def _meant_by(origin: str | None, sources: list[Any]) -> list[Any]:
    """All sources, or the one whose file --from points at."""
    if origin is None or ("://" not in origin and Path(origin).is_dir()) or origin.endswith("/"):
        return sources
    name = origin.rpartition("/")[2].partition("?")[0]
    meant = [source for source in sources if any(file.name == name for file in source.files)]
    if not meant:
        if "." not in name and "://" in origin:
            return sources
        raise click.UsageError(f"--from {origin} is not a file of a known source; name the SOURCE.")
    return meant


def _list(session: Session, sources: list[Any], origin: str | None) -> None:
    rows = []
    for source in sources:
        there = all((session.workspace.raw / file.name).is_file() for file in source.files)
        size = f"{source.bytes / 1e6:.0f} MB" if source.bytes else "size not on record"
        session.say(
            f"{source.name} ({source.kind}, {size}, {'downloaded' if there else 'not downloaded'}): {source.title}"
        )
        session.say(f"  {source.layout}")
        for file in source.files:
            session.say(f"  from {origin or file.url}")
            session.say(f"  to   {session.workspace.raw / file.name}")
        session.say(f"  terms: {source.terms}")
        session.say(f"  cite: {source.citation}")
        rows.append(
            {"source": source.name, "kind": source.kind, "there": there, "files": [file.url for file in source.files]}
        )
    session.result({"sources": rows})
