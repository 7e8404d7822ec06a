"""A geological map, and networks that start from its outcrop, for the gravity of toys.map."""

import numpy as np
import torch
from scipy import ndimage

from gravmap.geology.labels import legend_path, write_index_raster
from gravmap.geology.legend_file import write_legend
from gravmap.learning.calibration.temperature import write_calibration
from gravmap.learning.data.outcrop_context import context_names
from gravmap.learning.training.checkpoint import save_model
from gravmap.network.outcrop_start import with_outcrop_start
from gravmap.network.registry import build_from_dict
from toys.map import LEGEND, make_project, spec_for

LABEL_BOX = (79.0, 42.0, 86.0, 48.0)
NAMES = context_names(10)
BODY = {"kind": "unet", "widths": [8, 16]}


def make_labels(path, seed=0, values=None, legend=LEGEND):
    """Labels of 3 arc-minutes, half of them cover, with their legend beside them."""
    write_legend(legend, legend_path(path))
    rng = np.random.default_rng(seed)
    kind, depth = (ndimage.gaussian_filter(rng.normal(size=(120, 140)), 8) for _ in range(2))
    classes = np.digitize(kind, np.quantile(kind, np.linspace(0, 1, 11)[1:-1])) + 1
    mapped = np.where(depth > 0, classes, 0).astype(np.uint8) if values is None else values
    write_index_raster(path, mapped, LABEL_BOX, legend)
    return mapped


def make_context_run(folder, fields, trained=False):
    torch.manual_seed(0)
    network = build_from_dict(with_outcrop_start(BODY, (1, 11)), 13, 10)
    if trained:
        torch.nn.init.normal_(network.body.classify.weight, std=0.5)
    inputs = [{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 7.0}]
    inputs += [{"kind": "field", "field": name, "unit": "1", "spread": 1.0} for name in NAMES]
    save_model(folder, network, spec_for(fields, network, model="unet", inputs=inputs, scales_deg=[2.5, 5.0]))


def make_outcrop_project(folder):
    """Fields, labels, and two networks that start from outcrop: `null` adds nothing to it, `trained` does."""
    fields = make_project(folder)
    make_labels(folder / "labels.tif")
    make_context_run(folder / "null", fields)
    make_context_run(folder / "trained", fields, trained=True)
    return folder


THICKNESS_SPREAD = 10.0


def planted_thickness_m(residual_mgal):
    """Median, p10 and p90 of the network of `make_thickness_run`, metres."""
    median = np.logaddexp(0, np.maximum(residual_mgal, 0) / THICKNESS_SPREAD + np.log(np.expm1(0.8)))
    return 1000 * np.stack([median, median / 2, median + 1])


def planted_network(classes):
    """A network without class scores of its own whose thickness is a known function of the residual at each pixel."""
    architecture = with_outcrop_start({"kind": "unet", "widths": [1, 1]}, (1, 1 + classes), thickness=True)
    network = build_from_dict(architecture, 3 + classes, classes)
    with torch.no_grad():
        for layer in network.body.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.zero_()
        # One channel is passed on from layer to layer at full size: the first of the input, the second where two meet.
        for layer, channel in ((network.body.down[0], 0), (network.body.join[0], 1)):
            first, second = (part for part in layer.modules() if isinstance(part, torch.nn.Conv2d))
            first.weight[0, channel, 1, 1] = second.weight[0, 0, 1, 1] = 1
        network.body.classify.weight[classes + 1] = 1  # after the class scores, of three quantiles the median
    return network


def make_thickness_run(folder, fields, interval=None):
    """A run of :func:`planted_network`."""
    network = planted_network(10)
    inputs = [{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": THICKNESS_SPREAD}]
    inputs += [{"kind": "field", "field": name, "unit": "1", "spread": 1.0} for name in NAMES]
    save_model(folder, network, spec_for(fields, network, model="unet", inputs=inputs, scales_deg=[2.5, 5.0]))
    if interval is not None:
        temperatures = {"temperatures": {"2.5deg+5deg": 1.0}, "scales": [2.5, 5.0]}
        write_calibration(folder, temperatures | {"thickness": interval.to_dict()})
    return network
