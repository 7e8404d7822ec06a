"""Cache of class maps: reused, and invalidated when anything it depends on changes."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest

from gravmap.lattice import TEST
from gravmap.learning import TrainConfig, scores
from gravmap.learning import train as train_and_draw
from gravmap.learning.data.dataset import IGNORE, to_target
from gravmap.learning.evaluation import node_predictor
from gravmap.learning.evaluation.metrics import confusion

train = functools.partial(train_and_draw, pictures=False)  # drawing takes longer than a few steps

SHORT = TrainConfig(model="ggmnet-tiny", epochs=2, steps=4, batch_size=4, lr=3e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from gravmap.learning import RegionDataset
    from toys.dataset import make_arrays

    dataset = RegionDataset.from_arrays(make_arrays())
    folder = tmp_path_factory.mktemp("runs") / "one"
    return folder, dataset, train(dataset, folder, SHORT)


@pytest.fixture
def fresh(run, tmp_path):
    """The run in a folder of its own; a count of the calls of its network."""
    import shutil

    folder, dataset, result = run
    shutil.copytree(folder, tmp_path / "run")
    return tmp_path / "run", dataset, result


@pytest.fixture
def calls(monkeypatch):
    found = []
    original = node_predictor.NodePredictor.predict

    def spy(self, dataset, expected, *args):
        found.append(int(expected.sum()))
        return original(self, dataset, expected, *args)

    monkeypatch.setattr(node_predictor.NodePredictor, "predict", spy)
    return found


def scored_nodes(dataset, role=TEST):
    labels, roles = dataset.node_truth()
    return (to_target(labels) != IGNORE) & (roles == role)


def test_it_is_what_training_found_in_the_end(fresh, calls):
    folder, dataset, result = fresh
    expected = scored_nodes(dataset)
    predicted = node_predictor.predict_class_map(folder, dataset, expected)
    truth = to_target(dataset.node_truth()[0][expected])
    matrix = confusion(truth, to_target(predicted[expected]), 2)
    assert matrix.tolist() == result["test"]["confusion"]
    assert scores(matrix)["fwiou"] == pytest.approx(result["test"]["fwiou"])
    assert (predicted[~expected] == node_predictor.UNLABELLED).all()
    again = node_predictor.predict_class_map(folder, dataset, expected)
    assert (again == predicted).all()
    assert len(calls) == 1


def test_new_nodes_are_added_to_the_cache(fresh, calls):
    folder, dataset, _ = fresh
    expected = scored_nodes(dataset)
    first = node_predictor.predict_class_map(folder, dataset, expected)
    corner = np.zeros_like(expected)
    corner[0, :3] = True
    both = node_predictor.predict_class_map(folder, dataset, corner)
    assert (both[0, :3] > 0).all()
    assert (both[expected] == first[expected]).all()
    assert calls == [expected.sum(), expected.sum() + 3]
    node_predictor.predict_class_map(folder, dataset, expected)
    assert len(calls) == 2


@pytest.mark.parametrize("what", ["weights", "ground", "damage"])
def test_changed_inputs_invalidate_the_cache(fresh, calls, what):
    folder, dataset, _ = fresh
    expected = scored_nodes(dataset)
    node_predictor.predict_class_map(folder, dataset, expected)
    if what == "weights":
        text = (folder / "model.json").read_text()
        predicted = json.loads(text)["weights_sha256"]
        (folder / "model.json").write_text(text.replace(predicted, "0" * 64))
    elif what == "ground":
        dataset = replace(dataset, fields=dataset.fields[:, ::-1].copy())
    else:
        kept = folder / node_predictor.FILE
        kept.write_bytes(kept.read_bytes()[:-40])
    node_predictor.predict_class_map(folder, dataset, expected)
    assert len(calls) == 2


def test_empty_mask_gives_no_classes(fresh, calls):
    folder, dataset, _ = fresh
    none = np.zeros(dataset.field_valid.shape, bool)
    assert (node_predictor.predict_class_map(folder, dataset, none) == node_predictor.UNLABELLED).all()
    assert not calls
