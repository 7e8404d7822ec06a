"""The page of a reproduction: the tables and figures of the paper, as far as the data allow, for each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from gravmap.errors import InputError
from gravmap.files import write_json, write_text
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.evaluation.null_models import unavailable_null_models
from gravmap.mapping.page.words import count, percent
from gravmap.mapping.scoring.under_cover import ALL, FAR, score_under_cover
from gravmap.progress import Progress, silent
from gravmap.records import read_record
from gravmap.reproduce.dataset import class_table, draw_annotation, draw_gravity, reading_table, window_table
from gravmap.reproduce.held_out import HeldOutMaps, predict_held_out
from gravmap.reproduce.outcome import Outcome, Trained, gather, with_learned_baselines
from gravmap.reproduce.page import Bullets, Document, Heading, Part, Picture, Section, Table, Text, to_html, to_markdown
from gravmap.reproduce.pictures import draw_comparison, draw_curves, draw_held_out_windows, draw_test_windows
from gravmap.reproduce.plan import PROTOCOLS, Plan
from gravmap.reproduce.protocols import TITLES, protocol_parts, verdict
from gravmap.tiling import load_arrays
from gravmap.workspace import Workspace

PAGE, MARKDOWN, NUMBERS = "liu2024.html", "liu2024.md", "liu2024.json"

RGB_PLANES = 3
"""Channels of the input: the residual as a colour image."""

_WORDS = (
    "MPA: fraction of the nodes of a class that are correct, averaged over the classes that occur, or over all classes,"
    " with 0 for one that does not occur. IoU: of the nodes that are or were predicted as a class, the fraction where"
    " both agree; averaged over the classes (mIoU), or weighted by class frequency (FWIoU). PA: fraction of all nodes"
    " that are correct. Every node of the gravity grid counts once. With one seed and one fold, differences of a few"
    " points are not significant."
)


@dataclass(frozen=True)
class Made:
    """A finished or partial reproduction: its data, plan and files.

    Attributes
    ----------
    place : Workspace
        Fields, labels, tiles, runs and map.
    plan : Plan
        The plan of runs.
    data : str
        Description of the data.
    seed : int
        Seed of crust, split, weights and crops.
    region : str
        Folder of the map under ``maps/``.
    truth : Path, optional
        Index raster of the bedrock below the cover, at the nodes of the fields.
    command : str
        The command line.
    maps : sequence of (Path, str)
        The geological maps and their legends, by name or file; none for a crust, whose map knows one reading only.
    """

    place: Workspace
    plan: Plan
    data: str
    seed: int
    region: str
    truth: Path | None = None
    command: str = ""
    maps: Sequence[tuple[Path, str]] = ()


def write_results(made: Made, *, device: str = "cpu", progress: Progress = silent) -> dict[str, Path]:
    """Write the page as HTML and Markdown, its numbers as JSON, and its figures.

    Networks that were not trained are marked; numbers that the text of the paper does not give are left blank.

    Parameters
    ----------
    made : Made
        The reproduction; its tile set must exist.
    device : str
        Device for the predictions on held-out nodes and in windows.
    progress : Progress
        Called with the number of finished networks.

    Returns
    -------
    dict of str to Path
        ``html``, ``markdown`` and ``json``.

    Raises
    ------
    InputError
        The tile set or the files of a run are missing or damaged.
    """
    root = made.place.root
    dataset = RegionDataset.from_arrays(load_arrays(made.place.tiles))
    outcome = gather(made.place, made.plan, RGB_PLANES, len(dataset.classes))
    predicted = {}
    for name in PROTOCOLS:
        finished = _compared(outcome, name)
        if finished:
            predicted[name] = predict_held_out(made.place, finished, device=device, progress=progress)
            outcome = with_learned_baselines(outcome, name, predicted[name].dataset)
    document = _document(made, outcome, dataset, predicted)
    paths = {"html": root / PAGE, "markdown": root / MARKDOWN, "json": root / NUMBERS}
    write_json(paths["json"], numbers(made, outcome))
    write_text(paths["markdown"], to_markdown(document, root))
    write_text(paths["html"], to_html(document))
    return paths


def numbers(made: Made, outcome: Outcome) -> dict[str, Any]:
    """All scores, JSON-serialisable, as fractions of one; None for a network that was not trained."""
    protocols: dict[str, Any] = {}
    for name in PROTOCOLS:
        found = outcome.protocols.get(name)
        rows = [each for each in outcome.trained if each.run.protocol == name]
        protocols[name] = {
            "leak": found.leak if found else None,
            "networks": {
                each.run.name.removeprefix(f"{name}-"): {
                    "parameters": each.parameters,
                    "seconds": each.seconds,
                    "scores": each.test,
                }
                if each.done
                else None
                for each in rows
            },
            "null_models": found.baselines if found else {},
        }
    return {
        "paper": made.plan.paper,
        "profile": made.plan.profile,
        "data": made.data,
        "seed": made.seed,
        "protocols": protocols,
    }


def _document(made: Made, outcome: Outcome, dataset: RegionDataset, predicted: Mapping[str, HeldOutMaps]) -> Document:
    plan, figures = made.plan, made.place.root / "figures"
    paper = plan.paper
    sections = [
        Section(
            "Results",
            (
                Text(verdict(outcome, predicted.get("blocks")), "strong"),
                Text(_WORDS, "soft"),
                *_map_verdict(made, dataset),
            ),
        ),
        Section(
            "The data",
            (
                class_table(made.place),
                window_table(made.place, paper),
                reading_table(made.place, made.maps, paper),
                draw_gravity(made.place, figures / "figure_1.png", "Gravity"),
                draw_annotation(made.place, dataset, figures / "figure_2.png", "Annotation"),
            ),
        ),
        *(
            Section(TITLES[name], tuple(protocol_parts(outcome, name, unavailable_null_models(dataset))))
            for name in PROTOCOLS
        ),
        Section("Training curves and held-out predictions", tuple(_pictures(made, outcome, predicted))),
        Section("The map", tuple(_map(made))),
        Section("Departures from the paper", (Bullets(tuple(_departures(made))),)),
        Section("How it was made", tuple(_how(made, outcome))),
    ]
    return Document(
        f"Profile {plan.profile} · data: {made.data}",
        f"{paper['authors']} {paper['year']}, reproduced",
        f"Profile {plan.profile}, data: {made.data}, seed {made.seed}. After {paper['authors']} {paper['year']},"
        f" {paper['title']}, doi {paper['doi']}.",
        str(plan.settings["note"]),
        tuple(sections),
    )


def _compared(outcome: Outcome, protocol: str) -> list[Trained]:
    """The networks of Table 6 that were trained and scored under a split."""
    found = [outcome.of(run.network, protocol) for run in outcome.plan.networks("comparison")]
    return [each for each in found if each is not None and each.test]


def _pictures(made: Made, outcome: Outcome, predicted: Mapping[str, HeldOutMaps]) -> list[Part]:
    parts: list[Part] = []
    figures = made.place.root / "figures"
    for name in PROTOCOLS:
        parts.append(Heading(TITLES[name]))
        if name not in predicted:
            parts.append(Text("No network of the comparison was trained under this split.", "missing"))
            continue
        found, under = predicted[name], TITLES[name].lower()
        parts.append(draw_curves(_compared(outcome, name), figures / f"figure_4_{name}.png", "Training", under))
        if found.held_out is None or found.little_bedrock is None:
            parts.append(Text("GGMNet was not trained under this split: no Figure 5 and no test windows.", "missing"))
        else:
            if len(found.held_out.boxes_wsen):
                parts.append(draw_held_out_windows(made.place, found, figures / f"figure_5_{name}.png"))
            if len(found.little_bedrock.boxes_wsen):
                truth = None if made.truth is None else _band(made.truth)
                parts.append(draw_test_windows(made.place, found, figures / f"test_windows_{name}.png", truth))
            else:
                parts.append(
                    Text("No window of this tile set has bedrock on less than a tenth of its area.", "missing")
                )
        parts.append(draw_comparison(made.place, found, figures / f"comparison_{name}.png", "Held-out outcrop"))
    return parts


def _map_file(made: Made) -> Path:
    return made.place.maps / made.region / "map.png"


def _map(made: Made) -> list[Part]:
    picture = _map_file(made)
    if not picture.exists():
        return [Text("No map was made.", "missing")]
    words = (
        f"Figure 6. Map of {made.region} by GGMNet, trained under the block split: outcrop as mapped, and under cover,"
        f" ruled in white, as predicted. Its report is maps/{made.region}/report.html."
    )
    return [Picture(picture, words)]


def _map_verdict(made: Made, dataset: RegionDataset) -> list[Part]:
    """Scores under cover, if the bedrock there is known."""
    mapped = made.place.maps / made.region / "lithology.tif"
    if made.truth is None or not mapped.exists():
        return []
    try:
        found = score_under_cover(dataset, _band(mapped), _band(made.truth))
    except InputError as error:
        return [Text(error.message, "missing")]
    parts = (ALL, FAR)
    head = ("Predictor", *(f"{label}, {part}" for part in parts for label in ("PA", "MPA", "FWIoU")))
    rows = tuple(
        (name, *(percent(row[part][key], 1) for part in parts for key in ("pa", "mpa", "fwiou")))
        for name, row in found.scores.items()
    )
    words = (
        "Under the cover of the synthetic crust the bedrock is known: scores on all"
        f" {count(found.cells[ALL])} hidden cells, and on the {count(found.cells[FAR])} of them {FAR} from known"
        " outcrop."
    )
    return [Table(words, head, rows)]


def _band(path: Path) -> Any:
    with rasterio.open(path) as raster:
        return raster.read(1)


def _departures(made: Made) -> list[str]:
    general = [f"Paper: {row['open']}. Here: {row['here']}." for row in made.plan.departures]
    record = made.place.maps / made.region / "provenance.json"
    shown = read_record(record, dict[str, Any], "gravmap predict").get("deviations", []) if record.exists() else []
    return [*general, *(f"In this map: {each}" for each in shown)]


def _how(made: Made, outcome: Outcome) -> list[Part]:
    done = [each for each in outcome.trained if each.done]
    seconds = sum(each.seconds for each in done)
    duration = f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
    words = (
        f"`{made.command}` trained {len(done)} of {len(made.plan.runs)} planned networks in {duration} of training. The"
        " weights, curves and scores of every run are in runs/; the same command resumes an interrupted reproduction."
    )
    options = " ".join(made.plan.settings["train"])
    return [
        Text(words),
        Text(
            f"Options of all training runs: {options}; windows of {made.plan.settings['size_px']} pixels, crops of half"
            " that width."
        ),
    ]
