"""What every HTML page of gravmap has around its content: it stands alone, fetches nothing and runs nothing."""

from __future__ import annotations

from importlib import resources

from gravmap import __version__

# Nothing is fetched, and nothing runs: the page holds all it shows.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html_page(*, title: str, over: str, heading: str, lead: str, body: str, footer: str, style: str = "") -> str:
    """Wrap content into a page in the style of a map's report.

    Parameters
    ----------
    title : str
        For the browser's tab; HTML, as all others.
    over, heading, lead : str
        A line above the heading, the heading, and what follows it.
    body, footer : str
        Sections; a sentence on where the page comes from.
    style : str
        CSS beyond that of a map's report.
    """
    common = resources.files("gravmap.mapping.page").joinpath("report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="generator" content="gravmap {__version__}">
<title>{title}</title>
<style>
{common}{style}</style>
</head>
<body>
<div class="page">
<header>
<p class="over">{over}</p>
<h1>{heading}</h1>
{lead}
</header>
<main>
{body}
</main>
<footer>Written by gravmap {__version__}{footer}</footer>
</div>
</body>
</html>
"""
