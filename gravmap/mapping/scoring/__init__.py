"""Runs and maps scored: on held-out ground, under known cover, against boreholes."""
