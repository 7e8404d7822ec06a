"""Score a network that was not trained on a region at the region's own outcrop: blocks of it are hidden in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.labels import LabelFile
from gravmap.gravity.field_reader import FieldReader
from gravmap.lattice import TEST, TRAIN
from gravmap.learning.calibration.by_distance import DistanceTemperature
from gravmap.learning.calibration.class_offsets import predict_class
from gravmap.learning.calibration.temperature import Calibration, read_calibration
from gravmap.learning.data.dataset import RegionDataset, known_labels, to_label, to_target
from gravmap.learning.data.outcrop_context import with_context
from gravmap.learning.evaluation.comparison import ScoredNodes, block_numbers, compare_with_null_models
from gravmap.learning.evaluation.held_out import node_logits, scoring_scale
from gravmap.learning.evaluation.metrics import confusion, scores
from gravmap.learning.evaluation.node_predictor import UNLABELLED
from gravmap.learning.evaluation.null_models import labelled_mask, null_maps
from gravmap.learning.evaluation.under_cover import distance_km
from gravmap.learning.training.checkpoint import ModelSpec, load_model
from gravmap.mapping.blend import softmax
from gravmap.mapping.compatibility import check_fields, check_labels
from gravmap.network.outcrop_start import AllOutputs
from gravmap.progress import Progress, silent
from gravmap.records import read_model
from gravmap.regions import Region
from gravmap.tiling.blocks import BlockSplit, split_blocks

NULLS = ("nearest_outcrop", "label_diffusion")
MEASURES = ("pa", "mpa", "fwiou")


def score_hidden_outcrop(
    fields_path: Path,
    labels_path: Path,
    runs: Sequence[Path],
    region: Region,
    *,
    device: str = "cpu",
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Hide the mapped outcrop of a region block by block, predict it from the rest, and compare with null models.

    The blocks, their five folds and the buffer are those of the split ``blocks`` that :func:`split_blocks` makes of
    the region by default: in each fold the test blocks, the tuning blocks and what lies nearer than 0.25 degrees to
    them are hidden, and the test blocks are scored. A network trained on the region under that split saw the same
    outcrop, so scores can be compared.

    Parameters
    ----------
    fields_path, labels_path : Path
        ``data/fields.nc`` and ``data/labels.tif``.
    runs : sequence of Path
        Networks that start from outcrop and were not trained on this region.
    region : Region
        The part of the fields whose outcrop is used.
    device : str
        ``cpu`` or ``cuda``.
    progress : Progress
        Called after each fold.

    Returns
    -------
    list of dict
        For each run: ``run``, ``weights_sha256``, ``places`` (scored nodes), ``blocks`` (number of blocks that hold
        some), ``block_deg`` (height, width), ``buffer_deg``, ``folds``, ``scores`` and ``baselines`` (of each null
        model) with ``pa``, ``mpa`` and ``fwiou``, and ``gravity_adds``, the differences with their intervals
        (:func:`gravmap.learning.evaluation.comparison.compare_with_null_models`).

    Raises
    ------
    InputError
        The labels have other classes than a network, or the fields another recipe; the region holds too little outcrop
        for five folds, or all of it is of one class.

    Examples
    --------
    >>> from pathlib import Path
    >>> from gravmap.mapping.scoring.hidden_outcrop import score_hidden_outcrop
    >>> from gravmap.regions import Region
    >>> from gravmap.workspace import Workspace
    >>> fields, labels = Path("data/fields.nc"), Path("data/labels.tif")
    >>> shipped = Workspace(Path(".")).run("crusts-central-asia")  # it reads more residuals than this file has
    >>> (found,) = score_hidden_outcrop(fields, labels, [shipped], Region(80, 43, 88, 48))  # doctest: +SKIP
    >>> sorted(found["baselines"])  # doctest: +SKIP
    ['label_diffusion', 'nearest_outcrop']
    """
    networks = [(folder, *load_model(folder, device)) for folder in runs]
    channels = dict.fromkeys(name for _, _, spec in networks for name in spec.input.measured)
    with LabelFile(labels_path) as labels:
        for folder, _, spec in networks:
            check_labels(labels.legend, spec, labels_path, folder)
    with FieldReader(fields_path) as fields:
        for _, _, spec in networks:
            check_fields(fields, spec)
        dataset, split = _dataset(fields, labels_path, list(channels), networks[0][2], region)
    nodes: list[list[ScoredNodes]] = [[] for _ in networks]
    done, total = 0, split.folds * len(networks)
    west, south, east, north = (float(side) for side in dataset.label_bounds_wsen)
    for fold in range(split.folds):
        roles = split.roles(fold, dataset.labels.shape, (west, south, east, north))
        folded = RegionDataset(
            **{
                **vars(dataset),
                "role": roles,
                "meta": {**dataset.meta, "split": {**split.to_dict(), "fold": fold}},
            }
        )
        wanted = labelled_mask(folded, TEST)
        if not wanted.any():
            done += len(networks)
            continue
        seen = with_context(folded, known_labels(folded))
        nulls = null_maps(folded, TEST, which=NULLS)
        truth = to_target(folded.node_truth()[0])
        for number, (folder, network, spec) in enumerate(networks):
            outputs = node_logits(
                AllOutputs(network), seen, wanted, inputs=spec.input, tile_size_px=spec.tile_size_px,
                scale_deg=scoring_scale(spec.scales_deg), device=device,
            )  # fmt: skip
            named = class_of_outputs(outputs, seen, spec, read_calibration(folder))
            counted = wanted & (named != UNLABELLED)
            nodes[number].append(
                ScoredNodes(
                    truth[counted],
                    to_target(named[counted]),
                    {name: to_target(values[counted]) for name, values in nulls.items()},
                    block_numbers(folded)[counted],
                )
            )
            done += 1
            progress(done, total, "predicting hidden outcrop")
    described = {
        "block_deg": [round(side, 4) for side in split.block_deg],
        "buffer_deg": split.buffer_deg,
        "folds": split.folds,
    }
    return [
        {
            "run": folder.name,
            "weights_sha256": read_model(folder)["weights_sha256"],
            **described,
            **_scores(each, [str(entry["name"]) for entry in spec.classes]),
        }
        for (folder, _, spec), each in zip(networks, nodes, strict=True)
    ]


def class_of_outputs(
    outputs: NDArray[np.float32], dataset: RegionDataset, spec: ModelSpec, calibration: Calibration | None
) -> NDArray[np.uint8]:
    """The class that a map would show at each node.

    Parameters
    ----------
    outputs : (K or more, ny, nx) float32
        Logits of the K classes first, NaN where no window reaches.
    dataset : RegionDataset
        With outcrop as context where the calibration depends on the distance to it.
    spec : ModelSpec
        Of the network.
    calibration : Calibration, optional
        Its temperature and class offsets.

    Returns
    -------
    (ny, nx) uint8
        1..K; 0 where no window reaches.
    """
    divisor: Any = 1.0 if calibration is None else calibration.divisor([scoring_scale(spec.scales_deg)])
    if isinstance(divisor, DistanceTemperature):
        divisor = divisor.at(distance_km(dataset))
    probability = softmax((outputs[: len(spec.classes)] / divisor).astype(np.float32))
    offsets = None if calibration is None else calibration.offsets
    named = to_label(predict_class(np.nan_to_num(probability), offsets))
    return np.where(np.isfinite(outputs[0]), named, UNLABELLED).astype(np.uint8)


def _dataset(
    fields: FieldReader, labels_path: Path, channels: list[str], spec: ModelSpec, region: Region
) -> tuple[RegionDataset, BlockSplit]:
    """The fields and labels at the nodes of a region, and its split into blocks."""
    rows = np.flatnonzero((fields.lat >= region.south - 1e-9) & (fields.lat <= region.north + 1e-9))
    columns = np.flatnonzero((fields.lon >= region.west - 1e-9) & (fields.lon <= region.east + 1e-9))
    if min(len(rows), len(columns)) < 2:
        raise InputError(f"{region} holds fewer than 2 x 2 nodes of {fields.path}.", "Choose a larger region.")
    lat, lon = fields.lat[rows], fields.lon[columns]
    values = fields.read(channels, slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    units = [fields.unit(name) for name in channels]
    with LabelFile(labels_path) as labels:
        mapped = labels.sample(lat, lon)
    valid: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=0))
    tall, wide = abs(lat[1] - lat[0]) / 2, abs(lon[1] - lon[0]) / 2
    bounds = (lon[0] - wide, lat[-1] - tall, lon[-1] + wide, lat[0] + tall)
    split = split_blocks(mapped, bounds, Region(*bounds))
    dataset = RegionDataset(
        fields=np.where(valid, values, 0).astype(np.float32),
        field_valid=valid,
        field_nodes_wsen=np.array([lon[0], lat[-1], lon[-1], lat[0]]),
        labels=mapped,
        label_bounds_wsen=np.array(bounds),
        small=np.zeros_like(mapped),
        role=np.full_like(mapped, TRAIN),
        windows=np.array([bounds]),
        window_scale_deg=np.array([scoring_scale(spec.scales_deg)]),
        window_role=np.array([TRAIN], np.uint8),
        meta={"channels": channels, "channel_units": units, "classes": spec.classes},
    )
    return dataset, split


def _scores(nodes: Sequence[ScoredNodes], names: list[str]) -> dict[str, Any]:
    """Scores of all folds together, in each of which other nodes were scored."""
    if not nodes:
        raise InputError("No outcrop of this region could be scored.", "Choose a larger region.")
    truth = np.concatenate([each.truth for each in nodes])
    predicted = np.concatenate([each.predicted for each in nodes])
    nulls = {name: np.concatenate([each.nulls[name] for each in nodes]) for name in nodes[0].nulls}

    def score(named: NDArray[np.int64]) -> Mapping[str, float]:
        found = scores(confusion(truth, named, len(names)), names)
        return {measure: found[measure] for measure in MEASURES}

    return {
        "places": len(truth),
        "blocks": len(np.unique(np.concatenate([each.block for each in nodes]))),
        "scores": score(predicted),
        "baselines": {name: score(named) for name, named in nulls.items()},
        "gravity_adds": compare_with_null_models(nodes),
    }
