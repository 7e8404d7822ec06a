"""Run by the system's Python, which has QGIS: opens the files of a map as a user would and draws them.

Arguments: folder of the map, folder for pictures, pixels per cell, rows, columns. Says what it saw as JSON.
"""

import json
import os
import sys

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

folder, pictures, zoom, rows, cols = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
application = QgsApplication([], False)
application.initQgis()


def draw(layers, name):
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(layers[-1].crs())
    settings.setExtent(layers[-1].extent())
    settings.setOutputSize(QSize(cols * zoom, rows * zoom))
    settings.setBackgroundColor(QColor("#010203"))
    settings.setFlag(QgsMapSettings.Antialiasing, False)
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(os.path.join(pictures, f"{name}.png"))


def classes_of(layer):
    renderer = layer.renderer()
    if renderer.type() == "paletted":
        return [(int(one.value), one.label, one.color.name().upper()) for one in renderer.classes()]
    if renderer.type() == "categorizedSymbol":
        return [(int(one.value()), one.label(), one.symbol().color().name().upper()) for one in renderer.categories()]
    if not hasattr(renderer, "shader"):
        return []  # no style was found
    shader = renderer.shader().rasterShaderFunction()
    return [(one.value, one.label, one.color.name()) for one in shader.colorRampItemList()]


seen = {"version": Qgis.QGIS_VERSION}
for name in ("lithology.tif", "evidence.tif", "probability.tif", "uncertainty.tif"):
    layer = QgsRasterLayer(os.path.join(folder, name), name)
    # Every band has a minimum and a maximum already: QGIS need not read the whole raster to draw it.
    seen[name] = {"valid": layer.isValid(), "kind": layer.renderer().type(), "classes": classes_of(layer)}
    draw([layer], name)
layer = QgsVectorLayer(os.path.join(folder, "lithology.gpkg"), "polygons", "ogr")
seen["lithology.gpkg"] = {
    "valid": layer.isValid(),
    "kind": layer.renderer().type(),
    "classes": classes_of(layer),
    "count": layer.featureCount(),
}
draw([layer], "lithology.gpkg")
# QGIS reads SLD of polygons; of rasters it reads none.
message, loaded = layer.loadSldStyle(os.path.join(pictures, "polygons.sld"))
seen["polygons.sld"] = {"valid": loaded, "kind": layer.renderer().type(), "message": message}
draw([layer], "polygons.sld")
project = QgsProject.instance()
seen["map.qgz"] = {"valid": project.read(os.path.join(folder, "map.qgz")), "crs": project.crs().authid()}
nodes = project.layerTreeRoot().findLayers()
seen["map.qgz"]["layers"] = [
    (node.name(), node.layer() is not None and node.layer().isValid(), node.isVisible()) for node in nodes
]
draw(project.layerTreeRoot().checkedLayers(), "map.qgz")
print("SEEN " + json.dumps(seen), flush=True)
# QGIS may crash while it exits; the results are printed by now.
os._exit(0)
