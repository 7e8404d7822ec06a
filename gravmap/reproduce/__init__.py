"""The paper reproduced: what is trained, what came out, and the page that holds it beside the paper's numbers.

Uses every room; only the command line uses it. Training, prediction and the steps before them are the commands' own.
"""

from gravmap.reproduce.plan import PROFILES, Plan, PlannedRun, load_plan
from gravmap.reproduce.results import write_results

__all__ = ["PROFILES", "Plan", "PlannedRun", "load_plan", "write_results"]
