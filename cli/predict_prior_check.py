"""The prior check of `gravmap predict`: is the region like the crusts that its networks were trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravmap.errors import GravmapError
from gravmap.progress import Progress
from gravmap.records import read_model

from .options import usable_cores
from .session import Session

if TYPE_CHECKING:
    from gravmap.regions import Region

Verdict = dict[str, Any]


@dataclass(frozen=True)
class PriorCheck:
    """Compares a region with the crusts of the priors that some networks were trained on.

    Attributes
    ----------
    trained_on : tuple of dict
        The training data of the networks, as recorded; one for each prior and set of fields.
    """

    trained_on: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, runs: Sequence[Path]) -> PriorCheck:
        """The check for these runs; an empty one where no network was trained on crusts."""
        from gravmap.mapping.page.facts import trained_on_crusts

        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for run in runs:
            trained_on: dict[str, Any] = {**read_model(run).get("taught_on", {})}
            if trained_on_crusts(trained_on):
                found.setdefault((trained_on["prior"]["sha256"], *trained_on["channels"]), trained_on)
        return cls(tuple(found.values()))

    @property
    def reference(self) -> str:
        """What the region is compared with, in words."""
        names = dict.fromkeys(str(each["prior"]["name"]) for each in self.trained_on)
        return f"simulated crusts of the prior {' and '.join(names)}"

    def function(
        self, fields: Path, labels: Path | None, region: Region, cache: Path
    ) -> Callable[[Progress], list[Verdict]] | None:
        """The check as `gravmap.mapping.predict` takes it; None where there is none."""
        if not self.trained_on or labels is None:
            return None
        return lambda progress: [_verdict(each, fields, labels, region, cache, progress) for each in self.trained_on]


def _verdict(
    trained_on: dict[str, Any], fields: Path, labels: Path, region: Region, cache: Path, progress: Progress
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


def print_verdicts(session: Session, verdicts: Sequence[Mapping[str, Any]]) -> None:
    """Print each verdict, and the advice where the region is not inside the prior."""
    from gravmap.prior_check.verdict import INSIDE, UNKNOWN

    for verdict in verdicts:
        lines = [verdict["headline"], *([] if verdict["state"] == INSIDE else verdict["advice"])]
        if verdict["state"] == UNKNOWN:
            session.warn(" ".join(lines))
        else:
            session.say("\n  ".join(lines))
