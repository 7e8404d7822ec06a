"""``map.qgz``: a QGIS project of a map in which every layer is styled, written without QGIS.

Written for and tested with QGIS 3.22; later versions read it too.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import rasterio

from gravmap.files import atomic_path
from gravmap.geology.class_table import ClassRow
from gravmap.gravity.field_reader import DEFAULT_RESIDUAL
from gravmap.mapping.files.polygons import LAYER
from gravmap.mapping.files.styles import (
    class_raster_pipe,
    outline_renderer,
    ramp_raster_pipe,
    ruling_renderer,
)
from gravmap.mapping.files.writer import distance_scale_km, gravity_scale, thickness_scale_m
from gravmap.mapping.layers import DISTANCE_COLOURS, ENTROPY, EVIDENCE_COLOURS, PROBABILITY, THICKNESS_COLOURS
from gravmap.mapping.record.raster_content import read_attribute_table

FILE = "map.qgz"


@dataclass(frozen=True)
class _ProjectLayer:
    """A layer of the project: `source` is relative to the project, `drawing` the XML of its style."""

    name: str
    source: str
    drawing: str
    checked: bool = False
    provider: str = "gdal"
    note: str = ""


def write_qgis_project(folder: Path, title: str, note: str = "") -> Path:
    """Write ``map.qgz`` into the folder of a map, with relative paths to the files there.

    From top to bottom: outlines of the mapped outcrop, ruling of the predicted ground, bedrock, null model, probability
    of the class, uncertainty, evidence, thickness of the cover, gravity, distance to outcrop. Outlines, ruling, bedrock
    and the residual are switched on. A layer whose file is missing is left out.

    Parameters
    ----------
    folder : Path
        Folder with ``lithology.tif``, ``lithology.gpkg`` and the other files of a finished map.
    title : str
        Title of the project.
    note : str
        How far to trust the map: the abstract of the project, and the note of the layers of its classes.

    Returns
    -------
    Path
        The project.
    """
    with rasterio.open(folder / "lithology.tif") as raster:
        bounds, crs = raster.bounds, raster.crs
    text = _project(title, note, list(_layers(folder, note)), bounds, crs)
    path = folder / FILE
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        # A fixed date: the same map gives the same file.
        archive.writestr(zipfile.ZipInfo("map.qgs", (1980, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
    return path


def _layers(folder: Path, note: str) -> Iterator[_ProjectLayer]:
    """Yield the layers from top to bottom."""
    if (folder / "lithology.gpkg").exists():
        polygons = f"./lithology.gpkg|layername={LAYER}|subset="
        yield _ProjectLayer(
            "Outlines of mapped outcrop", f'{polygons}"mapped" = 1', outline_renderer(), True, provider="ogr"
        )
        ruled = f'{polygons}"mapped" = 0'
        yield _ProjectLayer("Predicted (ruled)", ruled, ruling_renderer(), True, provider="ogr", note=note)
    pipe = class_raster_pipe(_rows(folder / "lithology.tif"))
    yield _ProjectLayer("Bedrock", "./lithology.tif", pipe, True, note=note)
    if (path := folder / "null_model.tif").exists():
        name = "Null model: label diffusion, without gravity"
        yield _ProjectLayer(name, "./null_model.tif", class_raster_pipe(_rows(path)))
    measures = _band_numbers(folder / "uncertainty.tif")
    for measure, name, colours in (
        (PROBABILITY.name, "Probability of the class", "viridis"),
        (ENTROPY.name, "Uncertainty (entropy)", "cividis"),
    ):
        if measure in measures:
            yield _ProjectLayer(name, "./uncertainty.tif", ramp_raster_pipe(colours, band=measures[measure]))
    if (path := folder / "evidence.tif").exists():
        yield _ProjectLayer("Evidence", "./evidence.tif", class_raster_pipe(_rows(path)))
    if (path := folder / "cover_thickness.tif").exists():
        pipe = ramp_raster_pipe(THICKNESS_COLOURS, high=thickness_scale_m(path))
        yield _ProjectLayer("Thickness of the cover, median (m)", "./cover_thickness.tif", pipe)
    path = folder / "gravity.tif"
    fields = _band_numbers(path)
    first = DEFAULT_RESIDUAL if DEFAULT_RESIDUAL in fields else next(iter(fields), "")
    for field, number in fields.items():
        pipe = ramp_raster_pipe(*gravity_scale(path, number), band=number)
        yield _ProjectLayer(f"{gravity_title(field)} (mGal)", "./gravity.tif", pipe, checked=field == first)
    if (path := folder / "outcrop_distance.tif").exists():
        yield _ProjectLayer(
            "Distance to mapped outcrop (km)",
            "./outcrop_distance.tif",
            ramp_raster_pipe(DISTANCE_COLOURS, high=distance_scale_km(path)),
        )


def gravity_title(field: str) -> str:
    """Name of a gravity field for people.

    Examples
    --------
    >>> from gravmap.mapping.files.qgis_project import gravity_title
    >>> gravity_title("residual_10km"), gravity_title("bouguer")
    ('Residual gravity 10 km', 'Bouguer gravity')
    """
    kind, _, height = field.partition("_")
    if kind == "residual" and height.endswith("km"):
        return f"Residual gravity {height.removesuffix('km')} km"
    return "Bouguer gravity" if field == "bouguer" else field.replace("_", " ").capitalize()


def _rows(path: Path) -> list[ClassRow]:
    """Values, names and colours of a class raster, from its palette and its attribute table."""
    with rasterio.open(path) as raster:
        palette = raster.colormap(1)
    return [
        ClassRow(
            value, row.name, EVIDENCE_COLOURS.get(value, "") if path.name == "evidence.tif" else _hex(palette[value])
        )
        for value, row in sorted(read_attribute_table(path).items())
    ]


def _hex(colour: tuple[int, ...]) -> str:
    return "#{:02X}{:02X}{:02X}".format(*colour[:3])


def _band_numbers(path: Path) -> dict[str, int]:
    """Numbers of the bands of a raster by name; empty if it is missing."""
    if not path.exists():
        return {}
    with rasterio.open(path) as raster:
        return {str(name): number for number, name in enumerate(raster.descriptions, start=1)}


def _project(title: str, note: str, layers: list[_ProjectLayer], bounds: Any, crs: Any) -> str:
    srs = _spatialrefsys(crs)
    units = "degrees" if crs.is_geographic else "meters"
    sides = zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True)
    extent = "".join(f"<{side}>{value:.10g}</{side}>" for side, value in sides)
    tree = "".join(
        f'    <layer-tree-layer id="{_identity(place)}" name="{_attribute(layer.name)}" '
        f'source="{_attribute(layer.source)}" providerKey="{layer.provider}" '
        f'checked="Qt::{"Checked" if layer.checked else "Unchecked"}" expanded="{int(layer.name == "Bedrock")}"/>\n'
        for place, layer in enumerate(layers)
    )
    order = "".join(f'    <layer id="{_identity(place)}"/>\n' for place in range(len(layers)))
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        f'<qgis projectname="{_attribute(title)}" version="3.22.0">\n  <title>{escape(title)}</title>\n'
        f"  <projectMetadata><title>{escape(title)}</title><abstract>{escape(note)}</abstract></projectMetadata>\n"
        f"  <projectCrs>{srs}</projectCrs>\n"
        f"  <layer-tree-group>\n    <customproperties/>\n{tree}  </layer-tree-group>\n"
        f'  <mapcanvas name="theMapCanvas" annotationsVisible="1"><units>{units}</units><extent>{extent}</extent>'
        f"<rotation>0</rotation><destinationsrs>{srs}</destinationsrs></mapcanvas>\n"
        f"  <projectlayers>\n{''.join(_layer(place, layer, srs) for place, layer in enumerate(layers))}"
        f"  </projectlayers>\n  <layerorder>\n{order}  </layerorder>\n"
        '  <properties><Paths><Absolute type="bool">false</Absolute></Paths>'
        '<SpatialRefSys><ProjectionsEnabled type="int">1</ProjectionsEnabled></SpatialRefSys></properties>\n</qgis>\n'
    )


def _layer(place: int, layer: _ProjectLayer, srs: str) -> str:
    vector = layer.provider == "ogr"
    kind = 'type="vector" geometry="Polygon" wkbType="Polygon"' if vector else 'type="raster"'
    encoding = ' encoding="UTF-8"' if vector else ""
    note = f'<Option type="QString" name="userNotes" value="{_attribute(layer.note)}"/>' if layer.note else ""
    properties = f'  <customproperties><Option type="Map">{note}</Option></customproperties>\n' if note else ""
    return (
        f'    <maplayer {kind} autoRefreshEnabled="0" styleCategories="AllStyleCategories">\n'
        f"  <id>{_identity(place)}</id>\n  <datasource>{escape(layer.source)}</datasource>\n"
        f"  <layername>{escape(layer.name)}</layername>\n  <srs>{srs}</srs>\n"
        f"  <provider{encoding}>{layer.provider}</provider>\n{properties}{layer.drawing}    </maplayer>\n"
    )


def _identity(place: int) -> str:
    return f"gravmap_layer_{place:02d}"  # QGIS replaces an identity of up to ten characters


def _spatialrefsys(crs: Any) -> str:
    authority = crs.to_authority()
    name = f"<authid>{':'.join(authority)}</authid>" if authority else ""
    return f"<spatialrefsys><wkt>{escape(crs.to_wkt())}</wkt>{name}</spatialrefsys>"


def _attribute(text: str) -> str:
    return escape(text, {'"': "&quot;"})
