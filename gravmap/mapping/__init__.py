"""The map: prediction over a region, its files, pictures and provenance."""

from gravmap.mapping.clip import Clip, read_clip
from gravmap.mapping.plan import Plan
from gravmap.mapping.predict import Options, Prediction, predict
from gravmap.mapping.predictor import Predictor

__all__ = ["Clip", "Options", "Plan", "Prediction", "Predictor", "predict", "read_clip"]
