"""Files of a map for GIS software: rasters, polygons, styles and coordinate systems."""
