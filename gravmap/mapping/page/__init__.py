"""Figures of a map, and its report as an HTML page."""
