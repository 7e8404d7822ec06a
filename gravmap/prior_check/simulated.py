"""The statistics of many simulated crusts, made in parallel and kept: what a region is held against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gravmap.files import write_json
from gravmap.gravity.patch import OPERATOR_VERSION
from gravmap.learning.evaluation.baselines import spacing_yx_km
from gravmap.prior_check.quantities import SCORE_VERSION, cover_mask_score
from gravmap.progress import Progress, silent
from gravmap.synthetic import Prior, draw_crust
from gravmap.synthetic.measured import Measuring, measured_fields, surface_at
from gravmap.synthetic.pool import CRUST_VERSION, run_in_processes
from gravmap.synthetic.statistics import field_statistics, map_statistics, outcrop_statistics

STATISTICS_VERSION = 2
"""Raised whenever one crust gets other statistics than before."""

CLASSES = 10
Statistics = dict[str, float]


def simulated_statistics(
    prior: Prior,
    seeds: Sequence[int],
    shape: tuple[int, int],
    how: Measuring,
    *,
    processes: int = 1,
    cache: Path | None = None,
    progress: Progress = silent,
) -> list[Statistics]:
    """Draw crusts, measure them as a region's field was, and describe each in numbers.

    Parameters
    ----------
    prior : Prior
        What they are drawn from.
    seeds : sequence of int
        One crust each.
    shape : (int, int)
        Rows and columns of cells of 2 arc-minutes.
    how : Measuring
        Level, spacing and heights of the field.
    processes : int
        How many to make at the same time.
    cache : Path, optional
        A folder in which the numbers are kept, one small file a crust; it can be thrown away at any time.
    progress : callable
        Told after every crust.

    Returns
    -------
    list of dict of str to float
        In the order of the seeds; keys as in :mod:`gravmap.prior_check.quantities`.
    """
    wanted = [_Described(prior, int(seed), (int(shape[0]), int(shape[1])), how, cache) for seed in seeds]
    return run_in_processes(wanted, processes, progress)


@dataclass(frozen=True)
class _Described:
    """One crust that is to be described."""

    prior: Prior
    seed: int
    shape: tuple[int, int]
    how: Measuring
    cache: Path | None

    def path(self) -> Path | None:
        """Its file: named after everything that decides its numbers."""
        if self.cache is None:
            return None
        versions = [CRUST_VERSION, OPERATOR_VERSION, STATISTICS_VERSION, SCORE_VERSION]
        how = [self.how.level_m, list(self.how.spacing_yx_deg), list(self.how.heights_m)]
        key = json.dumps([self.prior.sha256, versions, self.seed, list(self.shape), how])
        return self.cache / f"statistics-{self.seed}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"

    def read(self) -> Statistics | None:
        """What is kept of it; None when nothing whole is."""
        path = self.path()
        if path is None:
            return None
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return {str(key): float(value) for key, value in kept.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return None  # not there, or damaged: made anew

    def make(self) -> Statistics:
        """Make the crust, describe it, and keep the numbers where that is wanted."""
        crust = draw_crust(self.prior, self.seed, self.shape)
        made: Statistics = {}
        if self.how.why_not() is None:
            fields = measured_fields(crust, self.how)
            lat, lon = fields["lat"].values, fields["lon"].values
            planes = {str(name): fields[name].values for name in fields.data_vars}
            made |= field_statistics(planes, spacing_yx_km(lat, lon))
            made |= outcrop_statistics(planes, surface_at(crust, lat, lon))
        lat, lon = crust.gravity["lat"].values, crust.gravity["lon"].values
        cells = spacing_yx_km(lat, lon)
        surface = np.ascontiguousarray(crust.surface[::-1])
        made |= map_statistics(surface, cells, CLASSES)
        score = cover_mask_score(surface, cells, CLASSES)
        if score is not None:
            made["diffusion_score"] = score
        path = self.path()
        if path is not None:
            write_json(path, made)
        return made
