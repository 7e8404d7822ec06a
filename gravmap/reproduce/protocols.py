"""Results under each split: summary, Tables 4 to 7, and baselines on the same nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from gravmap.learning.evaluation.null_models import NULL_MODELS
from gravmap.mapping.page.words import count, percent
from gravmap.reproduce.held_out import NEAREST, HeldOutMaps
from gravmap.reproduce.outcome import Outcome, Trained
from gravmap.reproduce.page import Part, Table, Text
from gravmap.reproduce.plan import REFERENCE, Plan, PlannedRun

TITLES = {
    "random": "Random windows, the paper's protocol",
    "blocks": "Held-out blocks",
}
_MEASURES = (
    ("mpa", "MPA"),
    ("mpa_all_classes", "MPA, all classes"),
    ("fwiou", "FWIoU"),
    ("pa", "PA"),
    ("miou", "mIoU"),
)
_NOT_TRAINED = "not trained"
_LEFT_OUT = (
    "Tables 4 to 6 compare depths, parts and networks, which this profile does not train: `--profile laptop` or `full`."
)


def verdict(outcome: Outcome, predicted: HeldOutMaps | None = None) -> str:
    """A few sentences on whether GGMNet scores higher than the baselines on held-out blocks."""
    found, ours = outcome.protocols.get("blocks"), outcome.of(REFERENCE, "blocks")
    if found is None or ours is None or not ours.test:
        return "GGMNet was not trained on held-out blocks, so its accuracy away from its training labels is not known."
    test = ours.test
    reached = f"On {count(test['places'])} nodes of held-out blocks GGMNet scores {_pair(test)} (MPA / FWIoU, percent)"
    nearest = found.baselines.get(NEAREST)
    if nearest is None:
        return f"{reached}; baselines were not scored there. {found.no_baselines}".strip()
    gains = [100 * (test[key] - nearest[key]) for key in ("mpa", "fwiou")]
    beats = "Higher" if min(gains) > 0 else "Not higher" if max(gains) <= 0 else "Higher in one of the two measures"
    best = max(found.baselines.items(), key=lambda item: float(item[1]["fwiou"]))
    points = f" ({gains[0]:+.1f} and {gains[1]:+.1f} points)"
    if predicted is not None:
        sentences = (
            predicted.gain(ours.run.label, key).sentence("GGMNet", "nearest outcrop") for key in ("mpa", "fwiou")
        )
        points = f": {'; '.join(sentences)}"
    return (
        f"{reached}; the class of the nearest outcrop, without gravity or network, scores {_pair(nearest)}."
        f" {beats}{points}. The best baseline by FWIoU is {best[0]},"
        f" {_pair(best[1])}.{_of_random(outcome)}"
    )


def _of_random(outcome: Outcome) -> str:
    """The score of nearest outcrop under the paper's split, which shows how far the split leaks."""
    found = outcome.protocols.get("random")
    nearest = [row for name, row in found.baselines.items() if name.startswith("nearest outcrop")] if found else []
    if not nearest:
        return ""
    return (
        f" On random windows, the paper's protocol, nearest outcrop scores {_pair(nearest[0])}: test nodes lie close to"
        " training labels there."
    )


def protocol_parts(outcome: Outcome, name: str, without: Mapping[str, str]) -> list[Part]:
    """Tables 4 to 7 and the baselines of one split; `without` has the reason for each baseline that is left out."""
    plan, found = outcome.plan, outcome.protocols.get(name)
    parts: list[Part] = [Text(_describe_split(name, found.leak if found else None))]
    if found is None:
        parts.append(Text("No network was trained under this split.", "missing"))
    captions = {
        "depth": "Table 4. Depth of GGMNet: cells per branch, and parameters.",
        "ablation": "Table 5. Ablation: every network has one part more than the one before it.",
        "comparison": "Table 6. GGMNet and other networks.",
    }
    # A table of one network compares nothing.
    shown = [table for table in captions if len(plan.networks(table)) > 1]
    parts += [_scores_table(outcome, name, table, captions[table]) for table in shown]
    if not shown:
        parts += [_scores_table(outcome, name, "depth", "GGMNet."), Text(_LEFT_OUT, "soft")]
    if found is not None:
        rows = tuple(
            (null, *(percent(row.get(key), 1) for key, _ in _MEASURES)) for null, row in found.baselines.items()
        )
        head = ("Baseline", *(label for _, label in _MEASURES))
        caption = "Baselines (null models) on the same nodes: they use the training labels and no network."
        caption += "".join(f" {NULL_MODELS[key].title}: left out, {why}." for key, why in without.items())
        parts.append(Table(caption, head, rows) if rows else Text(found.no_baselines, "missing"))
    ours = outcome.of(REFERENCE, name)
    if ours is not None and ours.test:
        parts.append(_class_scores(ours, plan))
    return parts


def _describe_split(name: str, leak: float | None) -> str:
    words = {
        "random": "15 % of the windows are held out at random. They overlap the training windows, so the scores reward"
        " memorisation of the training labels.",
        "blocks": "Whole blocks are held out, with a buffer around them. None of their labels was used in training;"
        " the paper has no such score.",
    }[name]
    if leak is None:
        return words
    seen = (
        f"the labels of {percent(leak, 1)} of the held-out bedrock" if leak > 0 else "no label of the held-out bedrock"
    )
    return f"{words} Measured leak: training sees {seen}."


def _scores_table(outcome: Outcome, protocol: str, table: str, caption: str) -> Table:
    plan = outcome.plan
    beside = protocol == plan.paper["protocol"]
    head = ["Network", "Parameters", *(label for _, label in _MEASURES)]
    head += ["By window: MPA", "By window: FWIoU", "Paper: MPA", "Paper: FWIoU"] if beside else []
    rows = []
    for planned in plan.networks(table):
        seeds = outcome.seeds_of(planned.network, protocol)
        done = [each for each in seeds if each.done]
        cells = [planned.label, _millions(seeds[0] if seeds else None, outcome, planned)]
        if done:
            cells += [_mean([each.test.get(key) for each in done]) for key, _ in _MEASURES]
        else:
            cells += [_NOT_TRAINED, *[""] * (len(_MEASURES) - 1)]
        if beside:
            by_window = [each.test.get("by_window") or {} for each in done]
            cells += [_mean([row.get(key) for row in by_window]) if done else "" for key in ("mpa", "fwiou")]
            known = plan.paper["scores"].get(planned.network, {})
            mark = " (sum)" if planned.network in plan.paper["sums"] else ""
            cells += [percent(known[key] / 100, 2) + mark if key in known else "–" for key in ("mpa", "fwiou")]
        rows.append(tuple(cells))
    remarks = {run.missing for run in plan.networks(table) if run.missing}
    if beside:
        remarks.add("By window: every held-out window is one image and has the same weight, as the paper scores tiles.")
    if beside and table == "ablation":
        remarks.add(str(plan.paper["footnote"]))
    return Table(" ".join([caption, *sorted(remarks)]), tuple(head), tuple(rows))


def _mean(scores: Sequence[float | None]) -> str:
    """Mean of a score over seeds, percent, with its standard deviation where there are several."""
    known = [100 * score for score in scores if score is not None]
    if len(known) < 2:
        return percent(known[0] / 100 if known else None, 1)
    return f"{mean(known):.1f} ± {stdev(known):.1f}"


def _millions(each: Trained | None, outcome: Outcome, planned: PlannedRun) -> str:
    """Number of parameters of a network, the same under every split."""
    same = each or next((one for one in outcome.trained if one.run.network == planned.network), None)
    return "–" if same is None or same.parameters is None else f"{same.parameters / 1e6:.2f} M"


def _class_scores(ours: Trained, plan: Plan) -> Table:
    rows = tuple(
        (
            name,
            count(row["places"]),
            percent(row["recall"], 1),
            percent(row["precision"], 1),
            percent(row["iou"], 1),
            "–",
        )
        for name, row in ours.test["per_class"].items()
    )
    return Table(
        f"Table 7. {ours.run.label}, by class: fraction of the nodes of the class that were predicted correctly"
        " (accuracy), fraction of the nodes predicted as the class that are correct (precision), and overlap (IoU). The"
        " paper gives its values in a figure only.",
        ("Class", "Nodes", "Accuracy", "Precision", "IoU", "Paper"),
        rows,
    )


def _pair(scores: Mapping[str, Any]) -> str:
    return f"{100 * scores['mpa']:.1f} / {100 * scores['fwiou']:.1f}"
