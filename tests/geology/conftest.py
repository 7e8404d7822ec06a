"""Small hand-made geological maps."""

import geopandas
import pytest
from shapely.geometry import Polygon, box


@pytest.fixture
def write_map(tmp_path):
    """Write a map of (polygon, attributes) rows and give its path."""

    def write(rows, name="map.gpkg", crs="EPSG:4326"):
        frame = geopandas.GeoDataFrame(
            [attributes for _, attributes in rows], geometry=[shape for shape, _ in rows], crs=crs
        )
        path = tmp_path / name
        frame.to_file(path)
        return path

    return write


@pytest.fixture
def patchwork(write_map):
    """C, Cz, Q and an intrusion, side by side between 80-84 E and 44-46 N; east of 84 E nothing."""
    units = [("C", ""), ("Cz", ""), ("Q", "i"), ("D", "i")]
    return write_map(
        [(box(80 + k, 44, 81 + k, 46), {"GEN_GLG": code, "TYPE": kind}) for k, (code, kind) in enumerate(units)]
    )


@pytest.fixture
def bow_tie():
    """Two triangles that meet in one point, written as one self-crossing ring."""
    return Polygon([(80, 44), (82, 46), (82, 44), (80, 46)])
