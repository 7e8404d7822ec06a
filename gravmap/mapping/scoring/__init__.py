"""Runs and maps scored: on held-out blocks, under known cover, against boreholes."""
