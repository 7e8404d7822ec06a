"""Is the region like the crusts that its networks were taught on? What `gravmap predict` asks, and says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravmap.errors import GravmapError
from gravmap.files import read_json
from gravmap.progress import Progress

from .options import usable_cores
from .session import Session

if TYPE_CHECKING:
    from gravmap.regions import Region

Verdict = dict[str, Any]


@dataclass(frozen=True)
class PriorQuestion:
    """Whether a region is like the crusts of the priors that some networks were taught on.

    Attributes
    ----------
    taught_on : tuple of dict
        What each network was taught on, as its record says it; one for each prior and set of fields.
    """

    taught_on: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, runs: Sequence[Path]) -> PriorQuestion:
        """The question that these runs raise; none where no network was taught on crusts."""
        from gravmap.mapping.page.facts import trained_on_crusts

        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for run in runs:
            taught: dict[str, Any] = read_json(run / "model.json", "gravmap train").get("taught_on") or {}
            if trained_on_crusts(taught):
                found.setdefault((taught["prior"]["sha256"], *taught["channels"]), taught)
        return cls(tuple(found.values()))

    @property
    def told(self) -> str:
        """What the region is held against, in words."""
        names = dict.fromkeys(str(taught["prior"]["name"]) for taught in self.taught_on)
        return f"simulated crusts of the prior {' and '.join(names)}"

    def asked(
        self, fields: Path, labels: Path | None, region: Region, cache: Path
    ) -> Callable[[Progress], list[Verdict]] | None:
        """The question as `gravmap.mapping.predict` takes it; None where there is none."""
        if not self.taught_on or labels is None:
            return None
        return lambda progress: [_answer(taught, fields, labels, region, cache, progress) for taught in self.taught_on]


def _answer(
    taught: dict[str, Any], fields: Path, labels: Path, region: Region, cache: Path, progress: Progress
) -> Verdict:
    """The verdict; where there can be none, why, in its place: a map is not stopped by that."""
    from gravmap.prior_check import run_verdict
    from gravmap.prior_check.check import COUNT
    from gravmap.prior_check.verdict import UNKNOWN

    prior = taught["prior"]
    progress(0, COUNT, f"whether the region is like crusts of {prior['name']}")
    try:
        found = run_verdict(
            taught,
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
    assert found is not None  # it was taught on crusts
    return found.to_dict()


def tell_verdicts(session: Session, verdicts: Sequence[Mapping[str, Any]]) -> None:
    """Say each verdict, and what to do where it is not that all is well."""
    from gravmap.prior_check import INSIDE
    from gravmap.prior_check.verdict import UNKNOWN

    for verdict in verdicts:
        words = [verdict["headline"], *([] if verdict["state"] == INSIDE else verdict["advice"])]
        if verdict["state"] == UNKNOWN:
            session.warn(" ".join(words))
        else:
            session.say("\n  ".join(words))
