"""Learning: from the arrays of a region to a trained and scored network.

Works on arrays and torch alone; no raster package is imported here.
"""

from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.evaluation.attribution import integrated_gradients
from gravmap.learning.evaluation.held_out import evaluate
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.null_models import null_maps
from gravmap.learning.training.checkpoint import load_model
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.recipes import make_config
from gravmap.learning.training.run import train

__all__ = [
    "DatasetSplits",
    "RegionDataset",
    "TrainConfig",
    "confusion",
    "evaluate",
    "integrated_gradients",
    "load_model",
    "make_config",
    "null_maps",
    "scores",
    "train",
]
