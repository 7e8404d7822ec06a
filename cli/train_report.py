"""What `gravmap train` says: before it begins, and when it is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravmap.progress import describe_time
from gravmap.units import format_angle

from .session import Session

if TYPE_CHECKING:
    from gravmap.learning import RegionDataset, TrainConfig
    from gravmap.learning.data.splits import DatasetSplits
    from gravmap.tiling import TileDataset

LONG_S = 3600.0


def _describe(ground: RegionDataset | DatasetSplits, config: TrainConfig, processes: int) -> str:
    from gravmap.learning.data.outcrop_context import measured_names
    from gravmap.learning.data.splits import DatasetSplits

    grounds = DatasetSplits.of(ground)
    scales = sorted(set(config.scales_deg or grounds.scales_deg))
    where = "the CPU" if config.device == "cpu" else f"{processes} GPU(s)"
    size = config.tile_size_px or grounds.meta["tile_size_px"]
    read = ", ".join(measured_names(config.inputs or grounds.first.channels))
    windows = "windows" if grounds.simulated else f"{len(grounds.first.windows)} windows"
    told = (
        f"{config.model} on {where}: {read}{' and mapped outcrop' if config.context else ''}; {windows} of "
        f"{', '.join(format_angle(scale) for scale in scales)}, {size} pixels a window, {len(grounds.classes)} classes."
    )
    return " ".join([told, *_describe_ground(grounds, config)])


def _describe_ground(grounds: DatasetSplits, config: TrainConfig) -> list[str]:
    """Crusts, cuts and another run's weights, in sentences."""
    told = []
    if grounds.simulated:
        record, seeds = grounds.record, grounds.record["seeds"]
        rows, columns = record["shape"]
        told.append(
            f"{record['count']} crusts of {rows} x {columns} cells drawn from the prior {record['prior']['name']}, "
            f"{len(seeds['tune'])} more to tune and {len(seeds['test'])} to test on; scored under cover alone."
        )
    elif config.context:
        told.append(f"{config.cuts} covers at a time are cut into the outcrop, one new each epoch.")
    if config.init:
        told.append(f"It begins with the weights of {config.init['run']}.")
    return told


def _describe_course(config: TrainConfig) -> str:
    """The recipe in words."""
    steps = f"At most {config.epochs} epochs, {config.batch_size} crops a step"
    if config.schedule == "cosine":
        return f"Recipe {config.recipe}: Adam, its rate falling from {config.lr:g} with the run. {steps}."
    when = f"at a plateau, between epochs {config.switch_from} and {config.switch_by}"
    if config.switch != "plateau":
        when = f"after epoch {config.switch.removeprefix('epoch:')}"
    return f"Recipe {config.recipe}: Adam at {config.lr:g}, then SGD {when}. {steps}."


def tell_start(
    session: Session,
    ground: RegionDataset | DatasetSplits,
    config: TrainConfig,
    run_dir: Path,
    processes: int,
) -> None:
    from gravmap.learning.data.splits import DatasetSplits

    session.say(_describe(ground, config, processes))
    if (tiles := DatasetSplits.of(ground).tiles) is not None:
        session.say(_describe_tiles(tiles))
    session.say(_describe_course(config))
    if config.device == "cpu" and session.verbosity >= 0 and processes == 1:
        session.say(_estimate(ground, config)[0])
    session.say(f"Writing {run_dir}.")


def _describe_tiles(tiles: TileDataset) -> str:
    files = tiles.record["files"]
    if not tiles.edited:
        return (
            f"Crops are cut from tiles; all {files} files are as `gravmap tile` wrote them: without --from-tiles the "
            "same crops come sooner."
        )
    return f"Crops are cut from tiles; {len(tiles.edited)} of {files} files differ from what `gravmap tile` wrote."


def _estimate(ground: RegionDataset | DatasetSplits, config: TrainConfig) -> tuple[str, float]:
    """How long it will take, in words and in seconds."""
    from gravmap.learning.training.trainer import measure_step

    step_s, steps = measure_step(ground, config)
    total_s = step_s * steps * config.epochs
    told = f"One step takes {step_s:.2f} s here; {config.epochs} epochs of {steps} steps: "
    if config.time_limit_s and config.time_limit_s < total_s:
        return told + f"cut short after {describe_time(config.time_limit_s)}.", config.time_limit_s
    told += f"about {describe_time(total_s)} and the scoring."
    if total_s > LONG_S:
        told += " Shorter: --time-limit 15min, a smaller --size, --model ggmnet-small."
    return told, total_s


def tell_plan(
    session: Session,
    ground: RegionDataset | DatasetSplits,
    config: TrainConfig,
    run_dir: Path,
    processes: int,
) -> None:
    from gravmap.learning.data.splits import DatasetSplits

    told, seconds = _estimate(ground, config)
    held = _bytes(DatasetSplits.of(ground), config)
    session.say(_describe(ground, config, processes))
    if (tiles := DatasetSplits.of(ground).tiles) is not None:
        session.say(_describe_tiles(tiles))
    session.say(_describe_course(config))
    session.say(told)
    session.say(f"Would write {run_dir}, and hold {held / 1e6:.0f} MB of fields and labels beside the network.")
    session.result({"would_write": str(run_dir), "seconds": round(seconds, 1), "config": dataclasses.asdict(config)})


def _bytes(grounds: DatasetSplits, config: TrainConfig) -> int:
    """Fields and labels in memory, of all grounds; of a dry run on crusts one stands for all."""
    first = grounds.first
    one = first.fields.nbytes + first.labels.nbytes
    if grounds.simulated:
        return one * sum(len(seeds) for seeds in grounds.record["seeds"].values())
    planes = len(first.classes) + 2
    context = 4 * planes * first.field_valid.size
    return one + (config.cuts * (one + context) + context if config.context else 0)


def tell_result(session: Session, run_dir: Path, result: dict[str, Any]) -> None:
    kept = f"Kept epoch {result['best_epoch']} of {result['epochs']}."
    for name in ("tune", "test"):
        scores, ground = result[name], _ground(result, name)
        if scores["fwiou"] is None:
            session.say(f"No labelled node in the {ground}: no score.")
        else:
            session.say(
                f"On {scores['places']} nodes of the {ground}: accuracy {scores['pa']:.3f}, "
                f"mean accuracy {scores['mpa']:.3f}, mIoU {scores['miou']:.3f}, FWIoU {scores['fwiou']:.3f}."
            )
    for line in [*_class_table(result), *_under_cover(result), _calibrated(result), *_calibrated_strata(result)]:
        session.say(line)
    session.say(f"{kept} Wrote {run_dir}; `gravmap predict` takes it.")
    session.result({"run": str(run_dir), **result})


def _ground(result: dict[str, Any], role: str) -> str:
    """What was held out: blocks, crusts, or windows under the random split, whose ground training has seen."""
    ground = {"random": "windows", "crusts": "crusts"}.get(str(result["split"].get("name")), "blocks")
    return f"{'tuning' if role == 'tune' else 'test'} {ground}"


def _calibrated(result: dict[str, Any]) -> str:
    """Expected calibration error of a map's probabilities before and after the temperature, in one line."""
    short = result["calibration"]
    for name in ("test", "tune"):
        before, after = (short[f"{name}_ece_{when}"] for when in ("before", "after"))
        if before is not None:
            return (
                f"Expected calibration error on the {_ground(result, name)}: {before:.3f} as the network says it, "
                f"{after:.3f} with the {describe_temperature(short)} of the {_ground(result, 'tune')} "
                "(reliability.png)."
            )
    return "No labelled held-out node: how far the probabilities can be believed is not known."


def describe_temperature(short: Mapping[str, Any]) -> str:
    """One temperature, or those by distance to mapped outcrop."""
    curve = short.get("by_distance")
    if not curve:
        return f"temperature {short['temperature']:.3g}"
    ends = [f"{curve['temperature'][place]:.3g} at {curve['km'][place]:g} km" for place in (0, -1)]
    return f"temperatures by distance from outcrop ({' to '.join(ends)})"


def _calibrated_strata(result: dict[str, Any]) -> list[str]:
    """Calibration error and coverage before and after, by distance from outcrop and by thickness of cover."""
    tables = result["calibration"].get("test_strata", {})
    heads = {"distance": "by distance from outcrop", "cover": "by thickness of cover"}
    rows: list[str] = []
    for kind, table in tables.items():
        for name, row in table.items():
            if row["nodes"] and not (name == "all" and rows):
                told = [f"{row[when]['ece']:.3f}" for when in ("before", "after")]
                told += [f"{100 * row[when]['coverage']:.1f}" for when in ("before", "after")]
                label = name if name == "all" else f"{name} {'away' if kind == 'distance' else 'of cover'}"
                rows.append(f"  {label:<27}{row['nodes']:>9}" + "".join(f"{each:>10}" for each in told))
    if not rows:
        return []
    parts = " and ".join(heads[kind] for kind in tables)
    return [
        f"Calibration {parts}: its error, and how often the classes that hold 80 % of the probability hold",
        "the true one, in percent, as the network says it and with the temperatures:",
        f"  {'':<27}{'nodes':>9}{'error':>10}{'with':>10}{'80 %':>10}{'with':>10}",
        *rows,
    ]


def _class_table(result: dict[str, Any]) -> list[str]:
    """Scores of each class on the test ground, or on the tuning ground where that has no label."""
    role = "test" if result["test"]["places"] else "tune"
    if not result[role]["places"]:
        return []
    rows = [("", "nodes", "found", "right", "IoU")]
    for name, each in result[role]["per_class"].items():
        shares = [each["recall"], each["precision"], each["iou"]]
        rows.append((name, str(each["places"]), *("-" if share is None else f"{share:.3f}" for share in shares)))
    wide = max(len(row[0]) for row in rows)
    ground = _ground(result, role)
    lines = [f"Class by class on the {ground} (found: share of its nodes; right: share of what was named so):"]
    return lines + [f"  {row[0]:<{wide}}" + "".join(f"{value:>8}" for value in row[1:]) for row in rows]


_PREDICTORS = {
    "network": "network",
    "nearest_outcrop": "nearest outcrop",
    "label_diffusion": "label diffusion",
    "foreign_gravity": "network on foreign gravity",
}


def _under_cover(result: dict[str, Any]) -> list[str]:
    """On test crusts: the network beside the null models, by distance from outcrop."""
    found = result["test"].get("under_cover")
    if found is None:
        return []
    strata = {name: row for name, row in found["strata"].items() if row["nodes"]}
    lines = ["Under cover, by distance from mapped outcrop (accuracy, mean accuracy, FWIoU, percent):"]
    lines.append(f"  {'':<27}" + "".join(f"{name:>20}" for name in strata))
    lines.append(f"  {'cells':<27}" + "".join(f"{row['nodes']:>20}" for row in strata.values()))
    for key, title in _PREDICTORS.items():
        cells = [row[key] for row in strata.values()]
        told = ["".join(f"{100 * each[name]:>7.1f}" for name in ("pa", "mpa", "fwiou")).strip() for each in cells]
        lines.append(f"  {title:<27}" + "".join(f"{each:>20}" for each in told))
    gains = [found["gain"][name] for name in strata]
    told = ["".join(f"{100 * each[name]:>+7.1f}" for name in ("pa", "mpa", "fwiou")).strip() for each in gains]
    lines.append(f"  {'gain on the better null':<27}" + "".join(f"{each:>20}" for each in told))
    lines.append("Test crusts are drawn like those it learnt from: on real ground expect less.")
    return lines
