"""Prediction of the bedrock map of a region: its files, figures and record, and the verification of that record."""

from gravmap.mapping.clip import read_clip
from gravmap.mapping.options import Options
from gravmap.mapping.predict import predict
from gravmap.mapping.record.verify import verify

__all__ = ["Options", "predict", "read_clip", "verify"]
