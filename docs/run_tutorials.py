"""Run the pages of docs/tutorials as a reader would, and renew their pictures (`make pictures`); the tests run them.

The blocks of a page run in order in one empty folder: ``bash`` in a shell, ``python`` in one namespace. A ``text``
block after a command is a part of what it printed, where ``...`` stands for anything. A picture
``../images/PAGE/maps/here/map.png`` is the file maps/here/map.png that the commands made.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

DOCS = Path(__file__).resolve().parent
PAGES = sorted(page.stem for page in (DOCS / "tutorials").glob("*.md"))
WIDTH_PX = 800  # of the pictures, in 256 colours: a tenth of the size of what the commands write


def run(page: str, folder: Path) -> dict[str, Any]:
    """Run the blocks of a page in a folder; return the names that its Python blocks defined.

    Raises
    ------
    AssertionError
        A command failed, did not print what the page shows, or did not make a picture of the page.
    """
    text = (DOCS / "tutorials" / f"{page}.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    output = ""
    for kind, block in re.findall(r"^```(bash|python|text)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        if kind == "bash":
            output = _shell(block, folder)
        elif kind == "python":
            output = _python(block, folder, names)
        else:
            assert _shows(block, output), f"{page}: expected\n{block}\nbut the command printed\n{output}"
    for path in pictures(page):
        assert (folder / path).exists(), f"{page}: no command made {path}"
    return names


def pictures(page: str) -> list[str]:
    """The pictures of a page, as paths in the folder it ran in."""
    text = (DOCS / "tutorials" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"\]\(\.\./images/{page}/([^)]*)\)", text)


def _shell(block: str, folder: Path) -> str:
    # The gravmap of this Python, and not another one on the path.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}"
    return done.stdout


def _python(block: str, folder: Path, names: dict[str, Any]) -> str:
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(block, names)
    return printed.getvalue()


def _shows(shown: str, output: str) -> bool:
    """Whether the lines shown follow each other in the output, blanks aside."""
    parts = [re.escape(part) for part in re.split(r"\s*\.\.\.\s*", " ".join(shown.split()))]
    return re.search(".*".join(parts), " ".join(output.split())) is not None


def renew(page: str) -> None:
    """Run a page in a temporary folder and write its pictures to docs/images."""
    with tempfile.TemporaryDirectory() as folder:
        run(page, Path(folder))
        for path in pictures(page):
            target = DOCS / "images" / page / path
            target.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.open(Path(folder) / path).convert("RGB")
            picture.thumbnail((WIDTH_PX, 10 * WIDTH_PX))
            # The octree keeps the colours of the legend; the default method merges rare ones.
            picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or PAGES:
        renew(name)
