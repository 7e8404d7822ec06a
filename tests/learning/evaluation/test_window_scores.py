"""Scores of whole windows: each counts the same, whatever its side, and overlaps count in both."""

import numpy as np
import pytest
import torch
from torch import nn

from gravmap.lattice import TEST, TRAIN, TUNE
from gravmap.learning import RegionDataset
from gravmap.learning.data.channels import FieldChannel, InputChannels
from gravmap.learning.data.dataset import IGNORE, to_target
from gravmap.learning.evaluation.mosaic import predict_logits
from gravmap.learning.evaluation.window_scores import score_windows
from toys.dataset import make_arrays

INPUTS = InputChannels((FieldChannel("residual_10km", "mGal", 1.0),))


class Threshold(nn.Module):
    """Class 0 where the field is over 8 mGal; the truth is class 0 where it is positive."""

    def forward(self, x):
        return torch.cat((x[:, :1] - 8, 8 - x[:, :1]), dim=1)


@pytest.fixture(scope="module")
def dataset():
    arrays = make_arrays()
    west, _, _, north = arrays["windows"][0]
    boxes = np.array([[west + i, north - 1 - i, west + 1 + i, north - i] for i in range(3)])
    large = [[west, north - 2.5, west + 2.5, north]]
    arrays["windows"] = np.concatenate([boxes, large])
    arrays["window_scale_deg"] = np.array([1.0, 1.0, 1.0, 2.5])
    arrays["window_role"] = np.array([TEST, TRAIN, TEST, TEST], np.uint8)
    return RegionDataset.from_arrays(arrays)


def test_every_window_has_the_same_weight(dataset):
    found = score_windows(Threshold(), dataset, TEST, inputs=INPUTS, tile_size_px=64)
    truth = to_target(dataset.node_truth()[0])
    where = (INPUTS.select(dataset), dataset.field_nodes_wsen)
    right, area = [], []
    for box in dataset.windows[dataset.window_role == TEST]:
        logits = predict_logits(Threshold(), *where, box[None], 64, dataset.node_lat, dataset.node_lon, inputs=INPUTS)
        inside = np.isfinite(logits[0])
        labelled = inside & (truth != IGNORE)
        area.append(labelled.sum() / inside.sum())
        right.append((labelled & (logits.argmax(0) == truth)).sum() / inside.sum())
    assert found["windows"] == 3
    assert found["area"] == pytest.approx(sum(area), rel=1e-5)
    assert 0.5 < found["pa"] < 0.95
    assert found["pa"] == pytest.approx(sum(right) / sum(area), rel=1e-5)


def test_two_processes_share_the_windows(dataset):
    alone = score_windows(Threshold(), dataset, TEST, inputs=INPUTS, tile_size_px=32)
    parts = []

    class Half:
        size = 2

        def __init__(self, rank):
            self.rank = rank

        def sum_array(self, array):
            parts.append(array)
            return sum(parts)

    for rank in range(2):
        shared = score_windows(Threshold(), dataset, TEST, inputs=INPUTS, tile_size_px=32, group=Half(rank))
    assert shared == {**alone, "area": pytest.approx(alone["area"]), "per_class": shared["per_class"]} | {
        key: pytest.approx(alone[key]) for key in ("pa", "mpa", "mpa_all_classes", "miou", "fwiou", "kappa", "macro_f1")
    }


def test_without_such_windows_there_is_no_score(dataset):
    assert score_windows(Threshold(), dataset, TUNE, inputs=INPUTS, tile_size_px=32) is None
