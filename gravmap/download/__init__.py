"""Download: named sources, verified files in ``data/raw``, and which of them are present."""
