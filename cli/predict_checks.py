"""The checks of `gravmap predict` for networks trained on simulated crusts: how far they can be trusted in a region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravmap.errors import GravmapError
from gravmap.progress import Progress
from gravmap.records import read_model

from .evaluate_report import print_hidden_outcrop
from .options import usable_cores
from .session import Session

if TYPE_CHECKING:
    from gravmap.mapping.options import Checks
    from gravmap.regions import Region

Verdict = dict[str, Any]


@dataclass(frozen=True)
class CrustChecks:
    """Predicts hidden outcrop of a region, and compares the region with the crusts that networks were trained on.

    Attributes
    ----------
    trained_on : dict of str to dict
        The training data of the networks, as recorded; one for each prior and set of fields, by its first network.
    runs : tuple of Path
        The networks that were trained on crusts.
    """

    trained_on: dict[str, dict[str, Any]]
    runs: tuple[Path, ...] = ()

    @classmethod
    def of(cls, runs: Sequence[Path]) -> CrustChecks:
        """The checks for these runs; empty where no network was trained on crusts."""
        from gravmap.mapping.page.facts import trained_on_crusts

        found: dict[tuple[Any, ...], tuple[str, dict[str, Any]]] = {}
        checked = []
        for run in runs:
            trained_on: dict[str, Any] = {**read_model(run).get("taught_on", {})}
            if trained_on_crusts(trained_on):
                found.setdefault((trained_on["prior"]["sha256"], *trained_on["channels"]), (run.name, trained_on))
                checked.append(run)
        return cls(dict(found.values()), tuple(checked))

    @property
    def reference(self) -> str:
        """What the region is compared with, in words."""
        names = dict.fromkeys(str(each["prior"]["name"]) for each in self.trained_on.values())
        return f"simulated crusts of the prior {' and '.join(names)}"

    def function(
        self, fields: Path, labels: Path | None, region: Region, cache: Path, device: str
    ) -> Callable[[Progress], Checks] | None:
        """The checks as `gravmap.mapping.predict` takes them; None where there are none."""
        from gravmap.mapping.options import Checks
        from gravmap.mapping.scoring.hidden_outcrop import score_hidden_outcrop

        if not self.trained_on or labels is None:
            return None
        known = labels

        def check(progress: Progress) -> Checks:
            verdicts = [
                _verdict(run, trained_on, fields, known, region, cache, progress)
                for run, trained_on in self.trained_on.items()
            ]
            try:
                hidden = score_hidden_outcrop(fields, known, self.runs, region, device=device, progress=progress)
            except GravmapError as error:  # the map is made all the same, and says why it was not tested
                hidden = [{"left_out": error.message}]
            return Checks(verdicts, hidden)

        return check


def _verdict(
    run: str, trained_on: dict[str, Any], fields: Path, labels: Path, region: Region, cache: Path, progress: Progress
) -> Verdict:
    """The verdict; where there is none, the reason in its place: the map is made all the same."""
    from gravmap.prior_check.check import COUNT, run_verdict
    from gravmap.prior_check.verdict import UNKNOWN

    prior = trained_on["prior"]
    progress(0, COUNT, f"comparing the region with crusts of {prior['name']}")
    try:
        found = run_verdict(
            trained_on,
            fields,
            labels,
            run=run,
            region=region,
            count=COUNT,
            processes=usable_cores(),
            cache=cache,
            progress=progress,
        )
    except GravmapError as error:
        return {
            "prior": {"name": prior["name"], "sha256": prior["sha256"]},
            "state": UNKNOWN,
            "headline": f"Whether the region is inside the prior {prior['name']} is not known. {error.message}",
            "advice": [error.hint] if error.hint else [],
        }
    assert found is not None  # it was trained on crusts
    return found.to_dict()


def print_checks(session: Session, checks: Checks) -> None:
    """Print the scores at hidden outcrop, each verdict, and the advice where the region is not inside the prior."""
    from gravmap.prior_check.verdict import INSIDE, UNKNOWN

    print_hidden_outcrop(session, checks.hidden_outcrop)
    for verdict in checks.prior_verdicts:
        lines = [verdict["headline"], *([] if verdict["state"] == INSIDE else verdict["advice"])]
        if verdict["state"] == UNKNOWN:
            session.warn(" ".join(lines))
        else:
            session.say("\n  ".join(lines))
            if verdict["state"] != INSIDE:
                session.say("  `gravmap prior-check` shows every quantity, and what to change in a prior.")
