"""Learning: from an area's arrays to a trained, scored network.

Works on arrays and torch alone; no raster package is imported here.
"""

from gravmap.learning.area import Area
from gravmap.learning.checkpoint import ModelSpec, load_model, save_model
from gravmap.learning.config import TrainConfig
from gravmap.learning.evaluation import evaluate
from gravmap.learning.metrics import confusion, scores
from gravmap.learning.mosaic import covering_windows, predict_logits
from gravmap.learning.recipes import make_config
from gravmap.learning.target import IGNORE, to_label, to_target
from gravmap.learning.trainer import train

__all__ = [
    "IGNORE",
    "Area",
    "ModelSpec",
    "TrainConfig",
    "confusion",
    "covering_windows",
    "evaluate",
    "load_model",
    "make_config",
    "predict_logits",
    "save_model",
    "scores",
    "to_label",
    "to_target",
    "train",
]
