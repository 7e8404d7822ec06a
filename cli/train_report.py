"""What `gravmap train` says: before it begins, and when it is done."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravmap.progress import describe_time
from gravmap.units import format_angle

from .session import Session

if TYPE_CHECKING:
    from gravmap.learning import Area, TrainConfig
    from gravmap.tiling import TileReader

LONG_S = 3600.0


def _describe(area: Area, config: TrainConfig, processes: int) -> str:
    scales = sorted(set(config.scales_deg or area.window_scale_deg.tolist()))
    where = "the CPU" if config.device == "cpu" else f"{processes} GPU(s)"
    size = config.tile_size_px or area.meta["tile_size_px"]
    return (
        f"{config.model} on {where}: {', '.join(config.inputs or area.channels)}; {len(area.windows)} windows of "
        f"{', '.join(format_angle(scale) for scale in scales)}, {size} pixels a window, {len(area.classes)} classes."
    )


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
    session: Session, area: Area, config: TrainConfig, run_dir: Path, processes: int, tiles: TileReader | None
) -> None:
    session.say(_describe(area, config, processes))
    if tiles is not None:
        session.say(_describe_tiles(tiles))
    session.say(_describe_course(config))
    if config.device == "cpu" and session.verbosity >= 0 and processes == 1:
        session.say(_estimate(area, config, tiles)[0])
    session.say(f"Writing {run_dir}.")


def _describe_tiles(tiles: TileReader) -> str:
    files = tiles.record["files"]
    if not tiles.changed:
        return (
            f"Crops are cut from tiles; all {files} files are as `gravmap tile` wrote them: without --from-tiles the "
            "same crops come sooner."
        )
    return f"Crops are cut from tiles; {len(tiles.changed)} of {files} files differ from what `gravmap tile` wrote."


def _estimate(area: Area, config: TrainConfig, tiles: TileReader | None) -> tuple[str, float]:
    """How long it will take, in words and in seconds."""
    from gravmap.learning.trainer import measure_step

    step_s, steps = measure_step(area, config, tiles)
    total_s = step_s * steps * config.epochs
    told = f"One step takes {step_s:.2f} s here; {config.epochs} epochs of {steps} steps: "
    if config.time_limit_s and config.time_limit_s < total_s:
        return told + f"cut short after {describe_time(config.time_limit_s)}.", config.time_limit_s
    told += f"about {describe_time(total_s)} and the scoring."
    if total_s > LONG_S:
        told += " Shorter: --time-limit 15min, a smaller --size, --model ggmnet-small."
    return told, total_s


def tell_plan(
    session: Session, area: Area, config: TrainConfig, run_dir: Path, processes: int, tiles: TileReader | None
) -> None:
    told, seconds = _estimate(area, config, tiles)
    held = sum(array.nbytes for array in (area.fields, area.labels))
    session.say(_describe(area, config, processes))
    if tiles is not None:
        session.say(_describe_tiles(tiles))
    session.say(_describe_course(config))
    session.say(told)
    session.say(f"Would write {run_dir}, and hold {held / 1e6:.0f} MB of fields and labels beside the network.")
    session.result({"would_write": str(run_dir), "seconds": round(seconds, 1), "config": dataclasses.asdict(config)})


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
    for line in _class_table(result):
        session.say(line)
    session.say(_calibrated(result))
    session.say(f"{kept} Wrote {run_dir}; `gravmap predict` takes it.")
    session.result({"run": str(run_dir), **result})


def _ground(result: dict[str, Any], role: str) -> str:
    """What was held out: blocks, or windows under the random split, whose ground training has seen."""
    ground = "windows" if result["split"].get("name") == "random" else "blocks"
    return f"{'tuning' if role == 'tune' else 'test'} {ground}"


def _calibrated(result: dict[str, Any]) -> str:
    """Expected calibration error of a map's probabilities before and after the temperature, in one line."""
    short = result["calibration"]
    for name in ("test", "tune"):
        before, after = (short[f"{name}_ece_{when}"] for when in ("before", "after"))
        if before is not None:
            return (
                f"Expected calibration error on the {_ground(result, name)}: {before:.3f} as the network says it, "
                f"{after:.3f} with the temperature {short['temperature']:.3g} of the {_ground(result, 'tune')} "
                "(reliability.png)."
            )
    return "No labelled held-out node: how far the probabilities can be believed is not known."


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
