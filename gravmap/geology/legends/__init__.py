"""The legends gravmap brings along, as TOML files; :func:`gravmap.geology.load_legend` reads them by name."""
