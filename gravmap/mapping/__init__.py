"""The map: prediction over a region, its files, pictures and provenance."""

from gravmap.mapping.predict import Plan, Prediction, Predictor, predict

__all__ = ["Plan", "Prediction", "Predictor", "predict"]
