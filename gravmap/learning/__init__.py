"""Learning: from an area's arrays to a trained, scored network.

Works on arrays and torch alone; no raster package is imported here.
"""

from gravmap.learning.data.dataset import IGNORE, RegionDataset, to_label, to_target
from gravmap.learning.evaluation.held_out import evaluate
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.mosaic import covering_windows, predict_logits
from gravmap.learning.training.checkpoint import ModelSpec, load_model, save_model
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.recipes import make_config
from gravmap.learning.training.trainer import train

__all__ = [
    "IGNORE",
    "ModelSpec",
    "RegionDataset",
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
