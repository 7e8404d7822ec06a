"""`gravmap explore`: a page to question a finished map in a browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

import click

from .options import Command, output_option, overwrite_option
from .session import Session, command_options


@click.command(
    "explore",
    cls=Command,
    short_help="Explore a map in a browser.",
    epilog="Example: gravmap explore maps/junggar",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@output_option("The page (default: DIR/explore.html).", "FILE")
@overwrite_option
@command_options()
def command(session: Session, folder: Path, output: Path | None, overwrite: bool) -> None:
    """Write one HTML file that shows every layer of a map, and open it in a browser.

    DIR is the folder of a map. The page pans and zooms over bedrock, null model, uncertainty, evidence, thickness of
    the cover and gravity. Under the pointer it shows the place, the class, the probability of every class, gravity,
    distance to outcrop and evidence; two clicks draw a profile of gravity and classes. It needs no network and no other
    file, and is smaller than 15 MB: of a larger map it shows fewer cells.

    Needs Bokeh: pip install "gravmap[explore]". Without a screen, the file is written and its place printed.
    """
    from gravmap.mapping.page.explore import FILE, check_map, is_current, require_bokeh, write_explore_page

    record = check_map(folder)
    path = output or folder / FILE
    missing: list[str] = []
    if is_current(path, record):
        session.say(f"{path} shows this map already.")
    else:
        require_bokeh()
        session.writing([path], [folder / "lithology.tif"], overwrite)
        page = write_explore_page(folder, path)
        missing = page.missing
        rows, columns = page.cells
        session.say(f"{path}: {columns} x {rows} cells, {path.stat().st_size / 1e6:.1f} MB")
        if page.reduced > 1.01:
            session.say(f"One cell of the page stands for {page.reduced:.2g} x {page.reduced:.2g} of the map's files.")
        if missing:
            session.warn(
                f"{folder} has no {', '.join(missing)}, as maps of earlier versions of gravmap: the page is without."
                " `gravmap predict --overwrite` makes the map anew."
            )
    opened = _open(path)
    if not opened:
        session.say(f"Open it in a browser: {path.resolve().as_uri()}")
    session.result(
        {"file": str(path), "bytes": path.stat().st_size, "missing": missing, "opened": opened},
    )


def _open(path: Path) -> bool:
    """Open a page in a browser with a window; False where there is none, or nobody at the terminal."""
    if not sys.stdout.isatty():
        return False
    # Without a screen, webbrowser would start a browser for text, in this terminal.
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        return webbrowser.open(path.resolve().as_uri())
    except webbrowser.Error:
        return False
