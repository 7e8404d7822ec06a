"""`gravmap fetch`: download the gravity grid and the geological maps, and verify them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import Command, dry_run_option, option, overwrite_option
from .session import Session, command_options


@click.command(
    "fetch",
    cls=Command,
    short_help="Download and verify the gravity grid and geological maps.",
    epilog="""\b
Examples:
  gravmap fetch                               all sources
  gravmap fetch wgm2012 --from ~/Downloads/   from a folder, file or mirror
  gravmap fetch --list""",
)
@click.argument("names", metavar="[SOURCE]...", nargs=-1)
@option("--list", "only_list", is_flag=True, help="List the sources, their terms, and which are present.")
@option("--from", "origin", metavar="PATH|URL", help="Take the files from this file, folder, URL or mirror.")
@option("--offline", is_flag=True, help="Only check the files that are present.")
@option("--accept-hash", is_flag=True, help="Accept a file of the right size with another hash than the one on record.")
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
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Download the gravity grid and the geological maps into data/raw, and verify them.

    Each source is downloaded on its own: one that fails is named, the others are kept, and the exit status is 4. Files
    that are present already are only checked; the next run resumes a download that broke off. Nothing is shipped with
    gravmap: each file comes from its owner, on the owner's terms, which are printed.
    """
    from gravmap.download.fetch import fetch
    from gravmap.download.sources import Source, find_source, known_sources
    from gravmap.errors import DownloadError

    chosen = [find_source(name) for name in names] or _sources_of(origin, list(known_sources().values()))
    raw = session.workspace.raw
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
                    progress=progress,
                )
        except DownloadError as error:
            failed.append((source, error))
            continue
        session.say(f"{source.name}: {source.title}")
        for line in item.messages:
            session.say(f"  {line}")
        session.say(f"  terms: {source.terms}")
        session.say(f"  cite: {source.citation}")
        done.append({"source": source.name, "kind": source.kind, "files": [str(path) for path in item.paths]})
    session.result(
        {"fetched": done, "failed": [{"source": source.name, "why": error.message} for source, error in failed]}
    )
    if failed:
        # The first line is the error's own.
        lines = [error.message + (f"\n  {error.hint}" if error.hint else "") for _, error in failed]
        raise DownloadError("\n".join(lines), f"Kept: {', '.join(item['source'] for item in done)}." if done else None)


def _sources_of(origin: str | None, sources: list[Any]) -> list[Any]:
    """All sources, or the one to which the file of --from belongs."""
    if origin is None or ("://" not in origin and Path(origin).is_dir()) or origin.endswith("/"):
        return sources
    from gravmap.download.sources import public_address

    name = origin.rpartition("/")[2].partition("?")[0]
    named = [source for source in sources if any(file.name == name for file in source.files)]
    if not named:
        if "." not in name and "://" in origin:
            return sources
        given = public_address(origin)
        raise click.UsageError(f"--from {given} is not a file of a known source; name the SOURCE it belongs to.")
    return named


def _list(session: Session, sources: list[Any], origin: str | None) -> None:
    from gravmap.download.sources import public_address

    rows = []
    for source in sources:
        there = all((session.workspace.raw / file.name).is_file() for file in source.files)
        size = f"{source.bytes / 1e6:.0f} MB" if source.bytes else "size not on record"
        session.say(f"{source.name} ({source.kind}, {size}, {'present' if there else 'not present'}): {source.title}")
        session.say(f"  {source.layout}")
        for file in source.files:
            session.say(f"  from {public_address(origin or file.url)}")
            session.say(f"  to   {session.workspace.raw / file.name}")
        session.say(f"  terms: {source.terms}")
        session.say(f"  cite: {source.citation}")
        rows.append(
            {"source": source.name, "kind": source.kind, "there": there, "files": [file.url for file in source.files]}
        )
    session.result({"sources": rows})
