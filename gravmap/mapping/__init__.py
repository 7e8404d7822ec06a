"""The map: prediction over a region, its files, pictures and provenance."""

from gravmap.mapping.predict import Prediction, predict
from gravmap.mapping.predictor import Plan, Predictor

__all__ = ["Plan", "Prediction", "Predictor", "predict"]
