"""Reproduction of Liu et al. (2024): the plan of runs, their scores, and a page that compares them with the paper.

It uses every other package, and only the command line uses it. The commands train the networks and make the map.
"""

from gravmap.reproduce.plan import PROFILES, Plan, PlannedRun, load_plan
from gravmap.reproduce.results import write_results

__all__ = ["PROFILES", "Plan", "PlannedRun", "load_plan", "write_results"]
