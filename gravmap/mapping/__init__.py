"""Prediction of the bedrock map of a region: its files, figures and record, and the verification of that record."""

from gravmap.mapping.clip import Clip, read_clip
from gravmap.mapping.options import Options
from gravmap.mapping.plan import Plan
from gravmap.mapping.predict import Prediction, predict
from gravmap.mapping.predictor import Predictor
from gravmap.mapping.record.finding import Verification
from gravmap.mapping.record.verify import verify

__all__ = ["Clip", "Options", "Plan", "Prediction", "Predictor", "Verification", "predict", "read_clip", "verify"]
