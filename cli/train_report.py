"""What `gravmap train` prints: before training, and its scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravmap.progress import describe_time
from gravmap.units import describe_angle

from .session import Session

if TYPE_CHECKING:
    from gravmap.learning import RegionDataset, TrainConfig
    from gravmap.learning.data.splits import DatasetSplits
    from gravmap.learning.training.state import TrainingCost
    from gravmap.tiling import TileDataset

LONG_S = 3600.0

FEW_STEPS = 300
"""After fewer steps from random weights networks are no better than the majority class (docs/results.md)."""


def _describe(dataset: RegionDataset | DatasetSplits, config: TrainConfig, processes: int) -> str:
    from gravmap.learning.data.outcrop_context import measured_names
    from gravmap.learning.data.splits import DatasetSplits
    from gravmap.learning.sampling.crop_source import training_windows

    splits = DatasetSplits.of(dataset)
    scales = sorted(set(config.scales_deg or splits.scales_deg))
    where = "the CPU" if config.device == "cpu" else f"{processes} GPU(s)"
    size = config.tile_size_px or splits.meta["tile_size_px"]
    channels = ", ".join(measured_names(config.inputs or splits.first.channels))
    windows = "windows"
    if not splits.simulated:
        windows = f"{sum(map(len, training_windows(splits.first, scales).values()))} training windows"
    network = (
        f"{config.model} on {where}: {channels}{' and mapped outcrop' if config.context else ''}; {windows} of "
        f"{', '.join(describe_angle(scale) for scale in scales)}, {size} pixels per window side, "
        f"{len(splits.classes)} classes."
    )
    return " ".join([network, *_describe_data(splits, config)])


def _describe_data(splits: DatasetSplits, config: TrainConfig) -> list[str]:
    """Crusts, cover masks and pretrained weights, in sentences."""
    sentences = []
    if splits.simulated:
        record, seeds = splits.record, splits.record["seeds"]
        rows, columns = record["shape"]
        sentences.append(
            f"{record['count']} crusts of {rows} x {columns} cells sampled from the prior {record['prior']['name']}, "
            f"{len(seeds['tune'])} more for tuning and {len(seeds['test'])} for the test; scored under cover only."
        )
    elif config.context:
        sentences.append(f"{config.cuts} synthetic cover masks of the outcrop at a time, one replaced each epoch.")
    if config.context and config.thickness_weight and splits.knows_thickness:
        sentences.append("A second output is the thickness of the cover.")
    if config.init:
        sentences.append(f"Fine-tunes the weights of {config.init['run']}.")
        theirs, ours = config.init.get("scales_deg", []), config.scales_deg or splits.scales_deg
        if theirs and not set(theirs) & set(ours):
            sizes = [", ".join(map(describe_angle, scales)) for scales in (theirs, ours)]
            sentences.append(
                f"That run has windows of {sizes[0]}, this one of {sizes[1]}: `gravmap predict` can use either, but "
                "not both as an ensemble."
            )
    return sentences


def _describe_course(config: TrainConfig) -> str:
    """The recipe in words."""
    steps = f"At most {config.epochs} epoch{'' if config.epochs == 1 else 's'}, batch size {config.batch_size}"
    if config.micro_batch:
        steps += f" by gradient accumulation over micro-batches of {config.micro_batch}"
    if config.schedule == "cosine":
        return f"Recipe {config.recipe}: Adam, peak learning rate {config.lr:g}, cosine schedule. {steps}."
    first = config.switch_from
    when = f"at a plateau, between epochs {first} and {config.switch_by}"
    if config.switch != "plateau":
        first = int(config.switch.removeprefix("epoch:"))
        when = f"after epoch {first}"
    if config.epochs <= first:
        return (
            f"Recipe {config.recipe}: Adam, learning rate {config.lr:g}; SGD would follow after epoch {first}. {steps}."
        )
    return f"Recipe {config.recipe}: Adam, learning rate {config.lr:g}, then SGD {when}. {steps}."


def print_cpu_default(session: Session, config: TrainConfig) -> None:
    """Name the recipe that is the default on a CPU, and the command that trains at the paper's size."""
    limit = f", at most {describe_time(config.time_limit_s)} (--time-limit)" if config.time_limit_s else ""
    session.say(
        f"On a CPU the default is --recipe cpu: {config.model}, windows of {config.tile_size_px} pixels{limit}; the"
        " paper's size: `gravmap train --gpus 0 --recipe default`."
    )


def print_start(
    session: Session,
    dataset: RegionDataset | DatasetSplits,
    config: TrainConfig,
    run_dir: Path,
    processes: int,
    cost: TrainingCost | None,
) -> None:
    from gravmap.learning.data.splits import DatasetSplits

    session.say(_describe(dataset, config, processes))
    if (tiles := DatasetSplits.of(dataset).tiles) is not None:
        session.say(_describe_tiles(tiles))
    session.say(_describe_course(config))
    if cost is not None:
        session.say(_estimate(cost, config)[0])
    session.say(f"Writing {run_dir}.")


def _describe_tiles(tiles: TileDataset) -> str:
    files = tiles.record["files"]
    if not tiles.edited:
        return (
            f"Crops are cut from tiles; all {files} files are as `gravmap tile` wrote them: without --from-tiles the "
            "same crops are cut faster."
        )
    return f"Crops are cut from tiles; {len(tiles.edited)} of {files} files differ from what `gravmap tile` wrote."


def _estimate(cost: TrainingCost, config: TrainConfig) -> tuple[str, float]:
    """How long it will take, in words and in seconds."""
    scoring_s = math.ceil(config.epochs / config.evaluate_every) * cost.score_s + cost.final_s
    total_s = cost.step_s * cost.steps_per_epoch * config.epochs + scoring_s
    text = f"One step takes {cost.step_s:.2f} s here; "
    if cost.processes > 1:
        text = (
            f"One process with its {cost.crops} crops of a step takes {cost.step_s:.2f} s here; what the "
            f"{cost.processes} processes exchange was not measured and comes on top; "
        )
    text += f"{config.epochs} epochs of {cost.steps_per_epoch} step{'s' * (cost.steps_per_epoch != 1)}: "
    if config.time_limit_s and config.time_limit_s < total_s:
        # Each score is as far from the next as its epoch is long.
        epoch_s = cost.step_s * cost.steps_per_epoch + cost.score_s / config.evaluate_every
        epochs = max(config.time_limit_s - cost.measuring_s - cost.final_s, 0) / epoch_s
        steps = max(round(epochs * cost.steps_per_epoch), 1)
        text += f"ended after {describe_time(config.time_limit_s)}, scores included, which is about {steps} steps."
        if steps < FEW_STEPS and config.init is None:
            text += " So few teach a network little: expect a map that is no better than simple methods."
        return text, config.time_limit_s
    text += f"about {describe_time(total_s)}, of which {describe_time(scoring_s)} for scores."
    if total_s > LONG_S:
        text += " Faster: --time-limit 15min, a smaller --size, --model ggmnet-small."
    return text, total_s


def print_plan(
    session: Session,
    dataset: RegionDataset | DatasetSplits,
    config: TrainConfig,
    run_dir: Path,
    processes: int,
    cost: TrainingCost | None,
) -> None:
    """What would be trained; without a cost, on GPUs that are not here."""
    from gravmap.learning.data.splits import DatasetSplits

    estimate = "This machine has not as many GPUs, and would refuse the training: how long it takes is not known here."
    seconds = None
    if cost is not None:
        estimate, seconds = _estimate(cost, config)
    memory = _bytes(DatasetSplits.of(dataset), config)
    session.say(_describe(dataset, config, processes))
    if (tiles := DatasetSplits.of(dataset).tiles) is not None:
        session.say(_describe_tiles(tiles))
    session.say(_describe_course(config))
    session.say(estimate)
    session.say(
        f"Would write {run_dir}, and keep {memory / 1e6:.0f} MB of fields and labels in memory beside the network."
    )
    session.result(
        {
            "would_write": str(run_dir),
            "seconds": None if seconds is None else round(seconds, 1),
            "config": dataclasses.asdict(config),
        }
    )


def _bytes(splits: DatasetSplits, config: TrainConfig) -> int:
    """Bytes of all fields and labels; in a dry run on crusts, as many times those of the one that was made."""
    first = splits.first
    one = first.fields.nbytes + first.labels.nbytes
    if splits.simulated:
        return one * sum(len(seeds) for seeds in splits.record["seeds"].values())
    planes = len(first.classes) + 2
    context = 4 * planes * first.field_valid.size
    return one + (config.cuts * (one + context) + context if config.context else 0)


def print_result(session: Session, run_dir: Path, result: dict[str, Any]) -> None:
    kept = f"Kept the checkpoint of epoch {result['best_epoch']} of {result['epochs']}."
    for name in ("tune", "test"):
        scores, nodes = result[name], _held_out(result, name)
        if scores["fwiou"] is None:
            session.say(f"No labelled node in the {nodes}: no score.")
        else:
            session.say(
                f"On {scores['places']} nodes of the {nodes}: accuracy {scores['pa']:.3f}, "
                f"mean accuracy {scores['mpa']:.3f}, mIoU {scores['miou']:.3f}, FWIoU {scores['fwiou']:.3f}."
            )
    for lines in (_class_table(result), _under_cover(result), _thickness(result), [_calibration(result)]):
        for line in lines:
            session.say(line)
    for line in _calibration_strata(result):
        session.say(line)
    session.say(f"{kept} Wrote {run_dir}; `gravmap predict` uses it.")
    session.result({"run": str(run_dir), **result})


def _thickness(result: dict[str, Any]) -> list[str]:
    """On test crusts: errors of the median thickness of the cover, and coverage of its interval."""
    found = result["test"].get("thickness")
    if found is None:
        return []
    rows = {"all": found["all"]}
    rows |= {f"{name} away": row for name, row in found.get("distance", {}).items()}
    rows |= {f"{name} of cover": row for name, row in found.get("cover", {}).items()}
    lines = [
        "Thickness of the cover on the test crusts: errors of the median, metres, Spearman's rank correlation, and",
        "percent of the true values inside the 80 % interval:",
        f"  {'':<27}{'nodes':>9}{'rmse':>8}{'bias':>8}{'rank':>8}{'inside':>8}",
    ]
    for name, row in rows.items():
        if row["nodes"]:
            rank = "-" if row["rank_correlation"] is None else f"{row['rank_correlation']:.2f}"
            lines.append(
                f"  {name:<27}{row['nodes']:>9}{row['rmse_m']:>8.0f}{row['bias_m']:>+8.0f}{rank:>8}"
                f"{100 * row['coverage']:>8.1f}"
            )
    return lines


def _held_out(result: dict[str, Any], role: str) -> str:
    """What was held out: blocks, crusts, or windows of the random split, whose labels training has seen."""
    kind = {"random": "windows", "crusts": "crusts"}.get(str(result["split"].get("name")), "blocks")
    return f"{'tuning' if role == 'tune' else 'test'} {kind}"


def _calibration(result: dict[str, Any]) -> str:
    """Expected calibration error of a map's probabilities before and after the temperature, in one line."""
    short = result["calibration"]
    for name in ("test", "tune"):
        before, after = (short[f"{name}_ece_{when}"] for when in ("before", "after"))
        if before is not None:
            return (
                f"Expected calibration error on the {_held_out(result, name)}: {before:.3f} before scaling, "
                f"{after:.3f} with the {describe_temperature(short)} of the {_held_out(result, 'tune')} "
                "(reliability.png)."
            )
    return "No labelled held-out node: the calibration of the probabilities is unknown."


def describe_temperature(short: Mapping[str, Any]) -> str:
    """One temperature, or those by distance to mapped outcrop."""
    curve = short.get("by_distance")
    if not curve:
        return f"temperature {short['temperature']:.3g}"
    ends = [f"{curve['temperature'][place]:.3g} at {curve['km'][place]:g} km" for place in (0, -1)]
    return f"temperatures by distance from outcrop ({' to '.join(ends)})"


def _calibration_strata(result: dict[str, Any]) -> list[str]:
    """Calibration error and coverage before and after, by distance from outcrop and by thickness of cover."""
    tables = result["calibration"].get("test_strata", {})
    heads = {"distance": "by distance from outcrop", "cover": "by thickness of cover"}
    rows: list[str] = []
    for kind, table in tables.items():
        for name, row in table.items():
            if row["nodes"] and not (name == "all" and rows):
                cells = [f"{row[when]['ece']:.3f}" for when in ("before", "after")]
                cells += [f"{100 * row[when]['coverage']:.1f}" for when in ("before", "after")]
                label = name if name == "all" else f"{name} {'away' if kind == 'distance' else 'of cover'}"
                rows.append(f"  {label:<27}{row['nodes']:>9}" + "".join(f"{each:>10}" for each in cells))
    if not rows:
        return []
    parts = " and ".join(heads[kind] for kind in tables)
    return [
        f"Calibration {parts}: expected calibration error, and coverage in percent of the classes",
        "that hold 80 % of the probability, before and after temperature scaling:",
        f"  {'':<27}{'nodes':>9}{'ECE':>10}{'after':>10}{'80 %':>10}{'after':>10}",
        *rows,
    ]


def _class_table(result: dict[str, Any]) -> list[str]:
    """Scores of each class on the test nodes, or on the tuning nodes where there are none."""
    role = "test" if result["test"]["places"] else "tune"
    if not result[role]["places"]:
        return []
    rows = [("", "nodes", "recall", "precision", "IoU")]
    for name, each in result[role]["per_class"].items():
        scores = [each["recall"], each["precision"], each["iou"]]
        rows.append((name, str(each["places"]), *("-" if score is None else f"{score:.3f}" for score in scores)))
    wide = max(len(row[0]) for row in rows)
    lines = [f"Scores by class on the {_held_out(result, role)}:"]
    return lines + [f"  {row[0]:<{wide}}" + "".join(f"{value:>11}" for value in row[1:]) for row in rows]


_PREDICTORS = {
    "network": "network",
    "nearest_outcrop": "nearest outcrop",
    "label_diffusion": "label diffusion",
    "foreign_gravity": "network on control gravity",
}


def _under_cover(result: dict[str, Any]) -> list[str]:
    """On test crusts: the network beside the baselines, by distance from outcrop."""
    found = result["test"].get("under_cover")
    if found is None:
        return []
    strata = {name: row for name, row in found["strata"].items() if row["nodes"]}
    lines = ["Under cover, by distance from mapped outcrop (accuracy, mean accuracy, FWIoU, percent):"]
    lines.append(f"  {'':<27}" + "".join(f"{name:>20}" for name in strata))
    lines.append(f"  {'cells':<27}" + "".join(f"{row['nodes']:>20}" for row in strata.values()))
    for key, title in _PREDICTORS.items():
        cells = [row[key] for row in strata.values()]
        values = ["".join(f"{100 * each[name]:>7.1f}" for name in ("pa", "mpa", "fwiou")).strip() for each in cells]
        lines.append(f"  {title:<27}" + "".join(f"{each:>20}" for each in values))
    gains = [found["gain"][name] for name in strata]
    values = ["".join(f"{100 * each[name]:>+7.1f}" for name in ("pa", "mpa", "fwiou")).strip() for each in gains]
    lines.append(f"  {'gain on the best baseline':<27}" + "".join(f"{each:>20}" for each in values))
    lines.append("Test crusts come from the prior of the training crusts: on real data expect less.")
    return lines
