"""Styles of a map: ``.qml``, which QGIS loads together with a raster, and ``.sld`` for other GIS software.

The parts of a ``.qml`` that a QGIS project holds as well are functions of their own.

Written for and tested with QGIS 3.22; later versions read them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from gravmap.geology.class_table import ClassRow
from gravmap.plotting import INK

_RAMP_STOPS = 11
_QML = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_SLD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<StyledLayerDescriptor version="1.0.0" '
    'xmlns="http://www.opengis.net/sld" xmlns:ogc="http://www.opengis.net/ogc">\n'
)


def class_raster_qml(rows: Sequence[ClassRow]) -> str:
    """Return the QGIS style of a class raster: a colour and a name per value, in the order of `rows`."""
    return _qml(class_raster_pipe(rows))


def class_raster_pipe(rows: Sequence[ClassRow]) -> str:
    """Return the part of :func:`class_raster_qml` that draws."""
    entries = "".join(
        f'        <paletteEntry value="{row.value}" color="{row.colour}" label={quoteattr(row.name)} alpha="255"/>\n'
        for row in rows
    )
    renderer = (
        '      <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">\n'
        f"       <colorPalette>\n{entries}       </colorPalette>\n      </rasterrenderer>\n"
    )
    return _pipe(renderer)


def ramp_raster_qml(colours: str, low: float = 0.0, high: float = 1.0, band: int = 1) -> str:
    """Return the QGIS style of a raster of continuous values: a colour ramp for one band.

    Parameters
    ----------
    colours : str
        Colour map of matplotlib; ``cividis`` and ``viridis`` can be read by colour-blind readers and in greyscale.
    low, high : float
        Values at the ends of the ramp, after scale and offset of the band are applied.
    band : int
        The band, from 1.
    """
    return _qml(ramp_raster_pipe(colours, low, high, band))


def ramp_raster_pipe(colours: str, low: float = 0.0, high: float = 1.0, band: int = 1) -> str:
    """Return the part of :func:`ramp_raster_qml` that draws."""
    ramp = colormaps[colours]
    entries = "".join(
        f'         <item value="{low + fraction * (high - low):g}" color="{to_hex(ramp(fraction))}" '
        f'label="{low + fraction * (high - low):g}" alpha="255"/>\n'
        for fraction in np.linspace(0, 1, _RAMP_STOPS)
    )
    renderer = (
        f'      <rasterrenderer type="singlebandpseudocolor" band="{band}" opacity="1" alphaBand="-1" nodataColor="" '
        f'classificationMin="{low:g}" classificationMax="{high:g}">\n       <rastershader>\n'
        '        <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" '
        f'minimumValue="{low:g}" maximumValue="{high:g}">\n{entries}        </colorrampshader>\n'
        "       </rastershader>\n      </rasterrenderer>\n"
    )
    return _pipe(renderer)


def _pipe(renderer: str) -> str:
    return (
        f"  <pipe>\n{renderer}      <brightnesscontrast/>\n      <huesaturation/>\n"
        '      <rasterresampler maxOversampling="2"/>\n  </pipe>\n  <blendMode>0</blendMode>\n'
    )


def _qml(drawing: str) -> str:
    return f'{_QML}<qgis version="3.22.0" styleCategories="Symbology">\n{drawing}</qgis>\n'


def class_raster_sld(name: str, rows: Sequence[ClassRow]) -> str:
    """Return the OGC style (SLD 1.0) of a class raster.

    Parameters
    ----------
    name : str
        Name of the layer.
    rows : sequence of ClassRow
        Values, names and colours, in the order of the legend.
    """
    entries = "".join(
        f'            <ColorMapEntry color="{row.colour}" quantity="{row.value}" label={quoteattr(row.name)} '
        'opacity="1"/>\n'
        for row in rows
    )
    rule = (
        "          <Rule>\n           <RasterSymbolizer>\n"
        f'            <ColorMap type="values">\n{entries}            </ColorMap>\n'
        "           </RasterSymbolizer>\n          </Rule>\n"
    )
    return _sld(name, rule)


def polygon_qml(rows: Sequence[ClassRow], mapped_outline: str = INK) -> str:
    """Return the QGIS style of the polygons: filled by class; mapped polygons have a dark outline, predicted ones none.

    Parameters
    ----------
    rows : sequence of ClassRow
        Values of the attribute ``class``, names and colours, in the order of the legend.
    mapped_outline : str
        Outline colour of polygons whose attribute ``mapped`` is true.
    """
    categories = "".join(
        f'      <category value="{row.value}" type="integer" symbol="{place}" label={quoteattr(row.name)} '
        'render="true"/>\n'
        for place, row in enumerate(rows)
    )
    symbols = "".join(_fill(place, row, mapped_outline) for place, row in enumerate(rows))
    return (
        f'{_QML}<qgis version="3.22.0" styleCategories="Symbology">\n'
        '  <renderer-v2 type="categorizedSymbol" attr="class" symbollevels="0" forceraster="0" enableorderby="0">\n'
        f"    <categories>\n{categories}    </categories>\n    <symbols>\n{symbols}    </symbols>\n"
        "  </renderer-v2>\n  <blendMode>0</blendMode>\n  <layerOpacity>1</layerOpacity>\n</qgis>\n"
    )


def _fill(place: int, row: ClassRow, mapped_outline: str) -> str:
    colour = ",".join(map(str, (*row.rgb, 255)))
    settings = {
        "color": colour,
        "style": "solid",
        # A thin outline in the fill's colour closes the gaps that antialiasing leaves between neighbours.
        "outline_color": colour,
        "outline_style": "solid",
        "outline_width": "0.1",
        "outline_width_unit": "MM",
        "joinstyle": "bevel",
    }
    options = "".join(f'<Option name="{key}" type="QString" value="{value}"/>' for key, value in settings.items())
    defined = "".join(
        f'<Option name="{key}" type="Map"><Option name="active" type="bool" value="true"/>'
        f'<Option name="expression" type="QString" value={quoteattr(expression)}/>'
        '<Option name="type" type="int" value="3"/></Option>'
        for key, expression in (
            ("outlineColor", f"if(\"mapped\", '{mapped_outline}', '{row.colour}')"),
            ("outlineWidth", 'if("mapped", 0.26, 0.1)'),
        )
    )
    return (
        f'      <symbol name="{place}" type="fill" alpha="1" clip_to_extent="1" force_rhr="0">\n'
        '       <layer class="SimpleFill" enabled="1" locked="0" pass="0">\n'
        f'        <Option type="Map">{options}</Option>\n'
        '        <data_defined_properties><Option type="Map"><Option name="name" type="QString" value=""/>'
        f'<Option name="properties" type="Map">{defined}</Option>'
        '<Option name="type" type="QString" value="collection"/></Option></data_defined_properties>\n'
        "       </layer>\n      </symbol>\n"
    )


def ruling_renderer() -> str:
    """Return the QGIS renderer of polygons over a class raster: white lines at 45 degrees, no outline."""
    line = _symbol_layer("SimpleLine", {"line_color": "255,255,255,150", "line_width": "0.35", "line_width_unit": "MM"})
    symbol = f'<symbol name="@0@0" type="line" alpha="1" clip_to_extent="1" force_rhr="0">\n{line}</symbol>\n'
    settings = {"angle": "45", "distance": "1.4", "distance_unit": "MM", "offset": "0"}
    return _single_symbol(_symbol_layer("LinePatternFill", settings, symbol))


def outline_renderer(colour: str = INK) -> str:
    """Return the QGIS renderer of polygons as outlines alone."""
    settings = {"line_color": ",".join(map(str, _rgb(colour))), "line_width": "0.26", "line_width_unit": "MM"}
    return _single_symbol(_symbol_layer("SimpleLine", {**settings, "joinstyle": "bevel"}))


def _single_symbol(layers: str) -> str:
    return (
        '  <renderer-v2 type="singleSymbol" symbollevels="0" forceraster="0" enableorderby="0">\n    <symbols>\n'
        '      <symbol name="0" type="fill" alpha="1" clip_to_extent="1" force_rhr="0">\n'
        f"{layers}      </symbol>\n    </symbols>\n  </renderer-v2>\n  <blendMode>0</blendMode>\n"
    )


def _symbol_layer(kind: str, settings: Mapping[str, str], inner: str = "") -> str:
    options = "".join(f'<Option name="{key}" type="QString" value="{value}"/>' for key, value in settings.items())
    return (
        f'       <layer class="{kind}" enabled="1" locked="0" pass="0">\n'
        f'        <Option type="Map">{options}</Option>\n{inner}       </layer>\n'
    )


def _rgb(colour: str) -> tuple[int, ...]:
    return (*bytes.fromhex(colour.removeprefix("#")), 255)


def polygon_sld(name: str, rows: Sequence[ClassRow]) -> str:
    """Return the OGC style (SLD 1.0) of the polygons: filled by the attribute ``class``."""
    rules = "".join(
        f"          <Rule>\n           <Name>{escape(row.name)}</Name>\n           <ogc:Filter><ogc:PropertyIsEqualTo>"
        f"<ogc:PropertyName>class</ogc:PropertyName><ogc:Literal>{row.value}</ogc:Literal>"
        "</ogc:PropertyIsEqualTo></ogc:Filter>\n           <PolygonSymbolizer><Fill>"
        f'<CssParameter name="fill">{row.colour}</CssParameter></Fill></PolygonSymbolizer>\n          </Rule>\n'
        for row in rows
    )
    return _sld(name, rules)


def _sld(name: str, rules: str) -> str:
    return (
        f"{_SLD}  <NamedLayer>\n    <Name>{escape(name)}</Name>\n    <UserStyle>\n      <FeatureTypeStyle>\n{rules}"
        "      </FeatureTypeStyle>\n    </UserStyle>\n  </NamedLayer>\n</StyledLayerDescriptor>\n"
    )
