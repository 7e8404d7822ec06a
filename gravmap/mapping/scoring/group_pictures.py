"""A picture of each group of runs: what is reported is a mean, and this shows what stands behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gravmap.learning.evaluation.comparison import TITLES
from gravmap.learning.evaluation.figures import Row, draw_group
from gravmap.learning.evaluation.run_groups import group_runs


def group_pictures(protocols: Mapping[str, Any], records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw ``group-NAME.png`` of every group that has several runs; NAME is its first run.

    Parameters
    ----------
    protocols : mapping
        From :func:`gravmap.mapping.scoring.protocols.protocols`.
    records : sequence of mapping
        Of the runs.
    folder : Path
        Where the pictures go: the workspace's ``runs``.

    Returns
    -------
    list of Path
        The pictures.
    """
    made = []
    for split, protocol in protocols.items():
        summaries = protocol.get("groups", [])
        groups = group_runs([record for record in records if record["setup"]["split"] == split])
        for members, group in zip(groups, summaries, strict=True):
            if len(members) < 2:
                continue
            rows = [Row("network", [each["scores"] for each in members], group["scores"], network=True)]
            nulls = group.get("baselines", {})
            rows += [
                Row(TITLES[name], [each["baselines"][name] for each in members], nulls[name])
                for name in sorted(nulls, key=lambda name: -float(nulls[name]["fwiou"]))
            ]
            folds, seeds = ([int(each[key]) for each in members] for key in ("fold", "seed"))
            path = folder / f"group-{members[0]['run']}.png"
            names = ", ".join(str(each["run"]) for each in members)
            told = f"{group['label']}: {names}\non the test blocks of each run's fold of the split {split}"
            draw_group(rows, folds, seeds, path, told)
            made.append(path)
    return made
