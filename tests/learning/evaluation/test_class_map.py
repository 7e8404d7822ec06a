"""What a network says is asked once, and anew when anything it depends on changes."""

from dataclasses import replace

import numpy as np
import pytest

from gravmap.lattice import TEST
from gravmap.learning import TrainConfig, scores, train
from gravmap.learning.data.dataset import IGNORE, to_target
from gravmap.learning.evaluation import class_map
from gravmap.learning.evaluation.metrics import confusion

SHORT = TrainConfig(model="ggmnet-tiny", epochs=2, steps=4, batch_size=4, lr=3e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from gravmap.learning import RegionDataset
    from toy_area import make_arrays

    area = RegionDataset.from_arrays(make_arrays())
    folder = tmp_path_factory.mktemp("runs") / "one"
    return folder, area, train(area, folder, SHORT)


@pytest.fixture
def fresh(run, tmp_path):
    """The run in a folder of its own; a count of how often its network was asked."""
    import shutil

    folder, area, result = run
    shutil.copytree(folder, tmp_path / "run")
    return tmp_path / "run", area, result


@pytest.fixture
def asked(monkeypatch):
    found = []
    original = class_map.Reading.map

    def spy(self, area, wanted, *args):
        found.append(int(wanted.sum()))
        return original(self, area, wanted, *args)

    monkeypatch.setattr(class_map.Reading, "map", spy)
    return found


def scored_nodes(area, role=TEST):
    labels, roles = area.node_truth()
    return (to_target(labels) != IGNORE) & (roles == role)


def test_it_is_what_training_found_in_the_end(fresh, asked):
    folder, area, result = fresh
    wanted = scored_nodes(area)
    named = class_map.class_map(folder, area, wanted)
    truth = to_target(area.node_truth()[0][wanted])
    matrix = confusion(truth, to_target(named[wanted]), 2)
    assert matrix.tolist() == result["test"]["confusion"]
    assert scores(matrix)["fwiou"] == pytest.approx(result["test"]["fwiou"])
    assert (named[~wanted] == class_map.UNNAMED).all()
    again = class_map.class_map(folder, area, wanted)
    assert (again == named).all()
    assert len(asked) == 1


def test_more_places_are_asked_for_and_the_old_ones_stay(fresh, asked):
    folder, area, _ = fresh
    wanted = scored_nodes(area)
    first = class_map.class_map(folder, area, wanted)
    corner = np.zeros_like(wanted)
    corner[0, :3] = True
    both = class_map.class_map(folder, area, corner)
    assert (both[0, :3] > 0).all()
    assert (both[wanted] == first[wanted]).all()
    assert asked == [wanted.sum(), wanted.sum() + 3]
    class_map.class_map(folder, area, wanted)
    assert len(asked) == 2


@pytest.mark.parametrize("what", ["weights", "ground", "damage"])
def test_what_has_changed_is_asked_anew(fresh, asked, what):
    folder, area, _ = fresh
    wanted = scored_nodes(area)
    class_map.class_map(folder, area, wanted)
    if what == "weights":
        text = (folder / "model.json").read_text()
        named = class_map.read_json(folder / "model.json", "")["weights_sha256"]
        (folder / "model.json").write_text(text.replace(named, "0" * 64))
    elif what == "ground":
        area = replace(area, fields=area.fields[:, ::-1].copy())
    else:
        kept = folder / class_map.FILE
        kept.write_bytes(kept.read_bytes()[:-40])
    class_map.class_map(folder, area, wanted)
    assert len(asked) == 2


def test_nothing_asked_is_nothing_named(fresh, asked):
    folder, area, _ = fresh
    none = np.zeros(area.field_valid.shape, bool)
    assert (class_map.class_map(folder, area, none) == class_map.UNNAMED).all()
    assert not asked
