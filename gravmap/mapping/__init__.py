"""The map: prediction over a region, its files, pictures and record, and the check of that record."""

from gravmap.mapping.finding import Verification
from gravmap.mapping.predict import Prediction, predict
from gravmap.mapping.predictor import Plan, Predictor
from gravmap.mapping.verify import verify

__all__ = ["Plan", "Prediction", "Predictor", "Verification", "predict", "verify"]
