"""What `gravmap evaluate` prints: its plan, and tables of scores, protocol by protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .session import Session
from .train_report import describe_temperature

if TYPE_CHECKING:
    from gravmap.mapping.scoring.estimate import CostEstimate
    from gravmap.mapping.scoring.evaluate import EvaluateOptions

MEASURES = (
    ("pa", "PA"),
    ("mpa", "MPA"),
    ("mpa_all_classes", "MPA all"),
    ("miou", "mIoU"),
    ("fwiou", "FWIoU"),
    ("macro_f1", "F1"),
)
WIDE = 44
FEW_POINTS = 30  # below it, the weight of a single point is printed
_HEAD = f"  {'':<{WIDE}}" + "".join(f"{label:>9}" for _, label in MEASURES) + f"{'kappa':>9}"
KINDS = {
    "blocks": "Held-out blocks",
    "strict": "Held-out blocks that no training window touches",
    "random": "Random windows, as in the paper",
}


def print_scores(
    session: Session,
    protocols: Mapping[str, Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
    folders: Sequence[Path],
    pictures: Sequence[Path],
) -> None:
    session.say(
        "Percent of the labelled nodes in the test blocks, each counted once. MPA, mIoU and F1 are means over the "
        "classes that occur; MPA all counts a class that does not occur as missed."
    )
    if records[0]["counted_by"] == "km2":
        session.say("Weighted by the area of each node, km² on the WGS 84 ellipsoid.")
    for name, protocol in protocols.items():
        session.say("")
        for line in _protocol(name, protocol):
            session.say(line)
    for line in _run_details(records):
        session.say(line)
    session.say("")
    session.say("Wrote evaluation.json, confusion.png and distance.png into:")
    scored = {record["run"] for record in records}
    for folder in folders:
        if folder.name in scored:
            session.say(f"  {folder}")
    for path in pictures:
        session.say(f"Wrote {path}: the runs behind the mean of a group.")


def print_plan(
    session: Session,
    runs: Sequence[CostEstimate],
    groups: Sequence[Sequence[str]],
    options: EvaluateOptions,
    folder: Path,
) -> None:
    """Runs, protocols, nodes and windows, about how long, and what would be written."""
    from gravmap.progress import describe_time
    from gravmap.units import describe_angle

    wide = max(len("run"), *(len(run.run) for run in runs))
    widest = max(len("network"), *(len(run.model) for run in runs))
    session.say("Would score on the test blocks of each run's own fold:")
    session.say(
        f"  {'run':<{wide}}  {'network':<{widest}}  {'split':<8}{'fold':>5}{'seed':>6}{'nodes':>9}"
        f"  {'windows':<18}{'passes':>7}  time"
    )
    for run in runs:
        windows = f"{run.windows} of {describe_angle(run.window_deg)}, {run.size_px} px"
        took = f"about {describe_time(run.seconds)}" if run.passes else "none: predictions are cached"
        session.say(
            f"  {run.run:<{wide}}  {run.model:<{widest}}  {run.split:<8}{run.fold:>5}{run.seed:>6}{run.nodes:>9,}"
            f"  {windows:<18}{run.passes:>7}  {took}"
        )
    several = [group for group in groups if len(group) > 1]
    for group in several:
        session.say(f"One group, with mean and standard deviation: {', '.join(group)}.")
    if runs[0].boreholes is not None:
        session.say(f"Boreholes that can be scored: {runs[0].boreholes}.")
    for run in runs:
        if run.importance_left_out:
            session.say(_importance_unknown(run.run, run.importance_left_out))
    if options.baselines:
        session.say(f"Baselines on the same nodes: {'; '.join(_title(name) for name in runs[0].null_models)}.")
        if runs[0].left_out:
            session.say(_left_out(runs[0].left_out, "would be left out"))
    passes, seconds = sum(run.passes for run in runs), sum(run.seconds for run in runs)
    if passes:
        cost = f"{passes} passes of one window through a network, about {describe_time(seconds)} on {options.device}"
        session.say(f"{cost}, plus the baselines." if options.baselines else f"{cost}.")
    pictures = [f"group-{group[0]}.png" for group in several]
    into = f", and {', '.join(pictures)} into {folder}" if pictures else ""
    session.say(f"Would write evaluation.json, confusion.png and distance.png into the folder of each run{into}.")


def _protocol(name: str, protocol: Mapping[str, Any]) -> list[str]:
    kind = KINDS.get(protocol["kind"], protocol["kind"])
    leak = protocol["leak"]
    seen = "" if leak is None else f"; training sees the labels of {_percent(leak)} % of the held-out bedrock"
    folds = "" if not protocol["folds"] else f", {protocol['folds']} folds"
    head = f"{kind} (split {name}{folds}{seen})"
    if isinstance(protocol["scores"], str):
        leaky = " --allow-leak" if protocol["kind"] == "random" else ""
        return [f"{head}: {protocol['scores']}.", f"  `gravmap train --split {name}{leaky}` would train one."]
    groups = protocol["groups"]
    lines = [head, _HEAD]
    for group in groups:
        name = f"network {group['label']}"
        if len(name) >= WIDE:  # only its end differs from other names
            lines.append(f"  {name}")
            name = ""
        lines.append(_row(name, group["scores"]))
        lines += _spread(group)
    shown = next(group for group in groups if group["label"] == protocol["group"])
    lines += [_row(_title(null), row) for null, row in shown.get("baselines", {}).items()]
    lines += _added(shown)
    if len(groups) > 1:
        lines.append(f"  The rest is for the best group on the tuning blocks: {shown['label']}.")
    lines += _classes(shown["scores"])
    lines += _distances(shown, "nodes" if len(shown["runs"]) == 1 else "answers")
    if "points" in shown:
        lines += _points(shown["points"], len(shown["runs"]))
    return lines


def _row(name: str, scores: Mapping[str, Any]) -> str:
    values = "".join(f"{_percent(scores[key]):>9}" for key, _ in MEASURES)
    kappa = "-" if scores["kappa"] is None else f"{scores['kappa']:.3f}"
    return f"  {_cut(name):<{WIDE}}{values}{kappa:>9}"


def _spread(group: Mapping[str, Any]) -> list[str]:
    """The runs behind a mean, and their standard deviation."""
    runs, folds, seeds = (len(group[key]) for key in ("runs", "folds", "seeds"))
    if runs == 1:
        return [f"    fold {group['folds'][0]} alone, seed {group['seeds'][0]}"]
    lines = [f"    mean of {runs} runs: {folds} fold{'s' * (folds > 1)}, {seeds} seed{'s' * (seeds > 1)}"]
    for between in ("folds", "seeds"):
        values = [group["spread"][key][between] for key, _ in MEASURES]
        if any(value is not None for value in values):
            row = "".join(f"{'± ' + _percent(value) if value is not None else '-':>9}" for value in values)
            kappa = group["spread"]["kappa"][between]
            lines.append(f"  {f'  standard deviation between {between}':<{WIDE}}{row}" + f"{f'± {kappa:.3f}':>9}")
    return lines


def _added(group: Mapping[str, Any]) -> list[str]:
    """What the network adds to the baselines, in points, with a block bootstrap interval; in words to the best one."""
    from gravmap.learning.evaluation.comparison import no_better_than

    compared = group.get("gravity_adds", [])
    if not compared:
        return []
    blocks = compared[0]["blocks"]
    wide = 2 * 9 + 6
    measures = list(dict.fromkeys(each["measure"] for each in compared))
    names = dict(MEASURES)
    title = f"points that the network adds (95 %, {blocks} block{'s' * (blocks > 1)})"
    lines = [f"  {title:<{WIDE}}" + "".join(f"{names[measure]:>{wide}}" for measure in measures)]
    for null in dict.fromkeys(each["null"] for each in compared):
        cells = "".join(f"{_interval(each):>{wide}}" for each in compared if each["null"] == null)
        lines.append(f"    {_cut('over ' + _title(null), 2):<{WIDE - 2}}{cells}")
    lines.append(f"  In words, beside the best baseline: {compared[-1]['sentence']}.")
    if trivial := no_better_than(group["scores"], group["baselines"]):
        lines.append(f"  The network is no better than {', and no better than '.join(trivial)}.")
    return lines


def _interval(each: Mapping[str, Any]) -> str:
    mean = f"{100 * each['mean']:+.1f}"
    if each["low"] is None:
        return mean
    return f"{mean} ({100 * each['low']:+.1f} to {100 * each['high']:+.1f})"


def _classes(scores: Mapping[str, Any]) -> list[str]:
    """Recall, precision, IoU and F1 of each class."""
    total = "km2" if "km2" in scores else "places"
    unit = "km²" if total == "km2" else "nodes"
    heads = ("recall", "precision", "IoU", "F1")
    lines = [f"  {'class by class':<{WIDE}}{unit:>9}" + "".join(f"{head:>10}" for head in heads)]
    for name, each in scores["per_class"].items():
        if name in scores["absent"]:
            continue
        cells = "".join(f"{_percent(each[key]):>10}" for key in ("recall", "precision", "iou", "f1"))
        lines.append(f"    {_cut(name, 2):<{WIDE - 2}}{each[total]:>9,.0f}{cells}")
    if scores["absent"]:
        lines.append(f"    not in the test blocks, left out: {', '.join(scores['absent'])}")
    return lines


def _distances(found: Mapping[str, Any], unit: str) -> list[str]:
    """Accuracy by distance to the nearest training outcrop, beside the best baseline of each bin."""
    from gravmap.learning.evaluation.metrics import distance_bin_label

    table = found["distance"]
    beside = bool(table) and "baselines" in table[0]
    head = f"{unit:>9}{'PA':>9}" + ("   best baseline" if beside else "")
    lines = [f"  {'distance to training outcrop':<{WIDE}}{head}"]
    for row in table:
        best = ""
        if beside and row["baselines"]:
            name, value = max(row["baselines"].items(), key=lambda item: float(item[1]))
            best = f"{_percent(value):>9}   {_title(name)}"
        lines.append(f"    {distance_bin_label(row):<{WIDE - 2}}{row['places']:>9,}{_percent(row['pa']):>9}{best}")
    return lines


def print_hidden_outcrop(session: Session, records: Sequence[Mapping[str, Any]]) -> None:
    """Networks that were not trained on the region, at its outcrop, which was hidden from them block by block."""
    for record in records:
        if "left_out" in record:
            session.say(f"Hidden outcrop was not predicted: {record['left_out']}")
            continue
        height, width = record["block_deg"]
        session.say(
            f"{record['run']} at {record['places']:,} nodes of mapped outcrop, hidden from it in {record['blocks']} "
            f"blocks of {height:.3g} x {width:.3g} degrees, percent:"
        )
        session.say(f"  {'':<{WIDE}}{'PA':>9}{'MPA':>9}{'FWIoU':>9}")
        for name, row in {"network": record["scores"], **record["baselines"]}.items():
            title = name if name == "network" else _title(name)
            session.say(f"  {title:<{WIDE}}" + "".join(f"{_percent(row[key]):>9}" for key in ("pa", "mpa", "fwiou")))
        best = record["gravity_adds"][-1]["null"]
        for each in record["gravity_adds"]:
            if each["null"] == best:
                session.say(f"  {each['sentence'].replace('the network', 'The network', 1)}.")


def print_at_points(session: Session, records: Sequence[Mapping[str, Any]]) -> None:
    """Networks trained on simulated crusts, at boreholes under mapped cover."""
    for record in records:
        session.say(f"{record['run']}, trained on simulated crusts, at boreholes under mapped cover:")
        for line in _points(record["points"], 1):
            session.say(line)


def _depths(depth: Mapping[str, Any], file: str) -> list[str]:
    """Scores of the thickness of the cover at boreholes."""
    from gravmap.mapping.scoring.boreholes import describe_depths_left_out

    if "left_out" in depth:
        return [f"  depths of the basement ({depth['field']}) of {file} are not scored: {depth['left_out']}."]
    counts = depth["counts"]
    why = describe_depths_left_out(counts)
    rank = depth["rank_correlation"]
    return [
        f"  depths of the basement ({depth['field']}) of {file}: {counts['scored']} of {counts['read']} scored"
        + (f"; {why}" if why else ""),
        f"    rmse {depth['rmse_m']:.0f} m, bias {depth['bias_m']:+.0f} m (predicted minus measured), rank correlation "
        f"{'-' if rank is None else f'{rank:.2f}'}; the 80 % interval holds {_percent(depth['coverage'])} % of them, "
        f"and is {depth['width_m']:.0f} m wide on average.",
    ]


def _points(points: Mapping[str, Any], networks: int) -> list[str]:
    from gravmap.mapping.scoring.boreholes import describe_left_out

    depths = _depths(points["depth"], points["file"]) if "depth" in points else []
    if "class_field" not in points:
        return depths
    title = f"  boreholes of {points['file']}: {points['scored']} of {points['read']} scored"
    if why := describe_left_out(points):
        title += f"; {why}"
    if outside := points.get("not_under_cover"):
        title += f"; {outside} not under mapped cover"
    reading = f"    {points['class_field']} is read as {points['class_reading']}."
    if "scores" not in points:
        return [title, reading, *depths]
    lines = [
        title,
        reading,
        _HEAD,
        _row("network" if networks == 1 else f"network (mean of {networks} runs)", points["scores"]),
    ]
    lines += [_row(_title(null), row) for null, row in points.get("baselines", {}).items()]
    if points["scored"] < FEW_POINTS:
        lines.append(
            f"    With {points['scored']} points, one more or less changes PA by {100 / points['scored']:.1f} %."
        )
    by_distance = _distances(points, "holes" if networks == 1 else "answers") if "distance" in points else []
    return [*lines, *by_distance, *depths]


def _run_details(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Calibration and importance of the input fields, run by run; baselines that are missing."""
    lines = []
    for record in records:
        short = record["calibration"]
        if short is not None:
            before, after = short["before"], short["after"]
            lines.append(
                f"Calibration of {record['run']}: expected calibration error {before['ece']:.3f} before "
                f"scaling, {after['ece']:.3f} with the {describe_temperature(short)}; log loss {before['nll']:.3f} "
                f"and {after['nll']:.3f}."
            )
    for record in records:
        if "importance" in record:
            lines.append(f"Importance of the input fields of {record['run']}, on the tuning blocks:")
            lines += _importance(record["importance"])
        elif "importance_left_out" in record:
            lines.append(_importance_unknown(record["run"], record["importance_left_out"]))
    if missing := records[0].get("baselines_left_out"):
        lines.append(_left_out(missing, "were left out"))
    topography = records[0].get("topography", {})
    if unknown := topography.get("unknown_nodes"):
        lines.append(
            f"{topography['file']} has no height at {unknown} of the nodes that {records[0]['run']} is scored on:"
            " there the baseline on topography predicts the most common class."
        )
    return ["", *lines] if lines else []


def _importance_unknown(run: str, why: str) -> str:
    return f"The importance of the input fields of {run} is unknown: {why}."


def _left_out(missing: Mapping[str, str], verb: str) -> str:
    listed = "; ".join(f"{_title(name)} ({why})" for name, why in missing.items())
    return f"Baselines that {verb}: {listed}."


def _importance(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    from gravmap.learning.evaluation.importance import Importance, importance_table

    return [f"  {line}" for line in importance_table([Importance.from_dict(row) for row in rows])]


def _title(name: str) -> str:
    from gravmap.learning.evaluation.comparison import TITLES

    return TITLES[name]


def _cut(text: str, less: int = 0) -> str:
    wide = WIDE - less - 1
    return text if len(text) <= wide else text[: wide - 3] + "..."


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"
