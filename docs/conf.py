"""The documentation site, built by `make docs` from the Markdown of this folder and the docstrings."""

import gravmap

project = "gravmap"
author = "The gravmap developers"
copyright = "2026, The gravmap developers"
version = release = gravmap.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["images"]

# Links such as method/scores.md#distance-to-outcrop, which work in the repository too.
myst_heading_anchors = 4
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc prints the types, with shapes and units
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "secondary_sidebar_items": ["page-toc"],
}
# Pages of a section have the list of its pages on the left, the others none.
html_sidebars = {"*": []} | {page: ["sidebar-nav-bs"] for page in ("tutorials", "tutorials/*", "method", "method/*")}
html_show_sourcelink = False
