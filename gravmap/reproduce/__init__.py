"""Reproduction of the paper (Liu et al. 2024), and the demo: training plan, results, and the page with both.

Uses every package; only the command line uses it.
"""
