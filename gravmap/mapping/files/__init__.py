"""The files of a map, as a GIS opens them: rasters, tables, styles, polygons, projections."""
