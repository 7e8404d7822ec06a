"""Calibration: temperatures, reliability, class offsets and the area of applicability."""
