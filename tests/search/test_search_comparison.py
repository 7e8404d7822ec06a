"""The searched architecture beside random ones: their budget, real short trainings, and what is done only once."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from gravmap.errors import InputError, OptionError
from gravmap.files import write_json
from gravmap.lattice import TEST
from gravmap.learning import RegionDataset
from gravmap.learning.training.trainer import Trainer
from gravmap.network.cost import count_parameters
from gravmap.network.registry import build_from_dict, read_architecture
from gravmap.search.comparison import (
    MEASURES,
    ComparisonConfig,
    _summarise,
    compare_with_random,
    comparison_table,
    launch_comparison,
    without_test_labels,
    write_random_architectures,
)
from gravmap.search.config import SearchConfig
from gravmap.search.data_split import without_held_out_labels
from toys.dataset import make_arrays
from toys.processes import forked, in_group

CONFIG = SearchConfig(depth=3, chis=(1, 2), thin=True, tile_size_px=64, seed=2)
SCHEDULE = ComparisonConfig(epochs=2, steps=2, batch_size=2, seeds=2)


def searched(folder, config=CONFIG, **changes):
    """The folder of a search that found a network of conv alone."""
    dataset = RegionDataset.from_arrays(make_arrays())
    space = config.space
    found = space.architecture(((), (1,), (0, 2)), [["conv"] * 3] * 3, [[1] * 3] * 3).to_dict()
    parameters = count_parameters(build_from_dict(found, 1, 2))
    record = {
        "finished": True, "options": json.loads(config.to_json()), "seed": config.seed, "inputs": ["residual_10km"],
        "in_channels": 1, "classes": ["high", "low"], "tile_size_px": 64, "parameters": parameters,
        "area_sha256": without_held_out_labels(dataset).fingerprint(), "split": {}, "rule": "largest weight",
        "score": {"miou": 0.5}, "gmac": 0.1, "costed_px": 64, "architecture": found, "candidates": [],
        "entropies": [{"epoch": 0.0, "entropy_operators": 1.0}],
    }  # fmt: skip
    write_json(folder / "search.json", record | changes)
    write_json(folder / "architecture.json", found)
    return dataset, parameters


def test_random_architectures_keep_to_the_budget_and_the_seed(tmp_path):
    _, budget = searched(tmp_path)
    paths = write_random_architectures(tmp_path, 4)
    assert [path.name for path in paths] == ["00.json", "01.json", "02.json", "03.json"]
    read = [read_architecture(path) for path in paths]
    for each in read:
        assert abs(count_parameters(build_from_dict(each, 1, 2)) - budget) <= 0.1 * budget
    assert len({json.dumps(each) for each in read}) == 4
    assert [read_architecture(path) for path in write_random_architectures(tmp_path, 2)] == read[:2]
    assert len(list((tmp_path / "random").iterdir())) == 2


def test_impossible_budget_and_unfinished_search_are_errors(tmp_path, monkeypatch):
    monkeypatch.setattr("gravmap.search.comparison.MAX_DRAWS", 20)
    searched(tmp_path, parameters=10)
    with pytest.raises(OptionError, match="0 of 1 random architectures"):
        write_random_architectures(tmp_path, 1)
    searched(tmp_path, finished=False)
    with pytest.raises(InputError, match="is not finished"):
        write_random_architectures(tmp_path, 1)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trials") / "run"
    dataset, _ = searched(folder)
    write_random_architectures(folder, 1)
    return folder, dataset, compare_with_random(dataset, folder, SCHEDULE)


def test_the_table_is_that_of_real_trainings(compared):
    folder, _, outcome = compared
    assert json.loads((folder / "compare.json").read_text()) == outcome
    names = [row["name"] for row in outcome["architectures"]]
    assert names == ["searched", "random-00"]
    for row in outcome["architectures"]:
        fwiou = row["scores"]["fwiou"]
        # What the training itself wrote down after its last epoch.
        for seed, value in enumerate(fwiou["each"]):
            lines = (folder / "compare" / f"{row['name']}-seed{seed}" / "metrics.csv").read_text().splitlines()
            last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
            assert (last["epoch"], float(last["tune_fwiou"])) == ("2", value)
        assert fwiou["mean"] == pytest.approx(np.mean(fwiou["each"]))
        assert fwiou["sd"] == pytest.approx(np.std(fwiou["each"], ddof=1))
        assert f"| {row['name']} | {row['parameters'] / 1e6:.2f} M |" in (folder / "compare.md").read_text()
    assert len({value for row in outcome["architectures"] for value in row["scores"]["fwiou"]["each"]}) > 1
    # Only curves and scores are kept.
    assert not list(folder.glob("compare/*/*.safetensors"))


def test_finished_trainings_are_reused_and_interrupted_ones_resumed(compared, monkeypatch):
    folder, dataset, outcome = compared
    fit, trained = Trainer.fit, []

    def counted(trainer, progress, *, resume):
        trained.append((trainer.run_dir.name, resume))
        return fit(trainer, progress, resume=resume)

    monkeypatch.setattr(Trainer, "fit", counted)
    assert compare_with_random(dataset, folder, SCHEDULE) == outcome
    assert trained == []

    def stopped(trainer, progress, *, resume):
        def stop(done, total, note=""):
            if done == 3:
                raise KeyboardInterrupt

        fit(trainer, stop, resume=resume)

    (folder / "compare" / "random-00-seed1" / "trial.json").unlink()
    monkeypatch.setattr(Trainer, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare_with_random(dataset, folder, SCHEDULE)
    monkeypatch.setattr(Trainer, "fit", counted)
    assert compare_with_random(dataset, folder, SCHEDULE) == outcome
    assert trained == [("random-00-seed1", True)]


def test_the_processes_of_a_group_share_the_trainings(compared, tmp_path):
    folder, dataset, outcome = compared
    shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("compare*"))

    def run(group):
        trained, fit = [], Trainer.fit

        def counted(trainer, progress, *, resume):
            trained.append(trainer.run_dir.name)
            return fit(trainer, progress, resume=resume)

        Trainer.fit = counted
        return trained, compare_with_random(dataset, tmp_path / "run", SCHEDULE, group=group)

    (first, found), (second, same) = forked(*in_group(run))
    assert found == same == json.loads((tmp_path / "run" / "compare.json").read_text())
    assert first == ["searched-seed0", "random-00-seed0"]
    assert second == ["searched-seed1", "random-00-seed1"]
    for row, alone in zip(found["architectures"], outcome["architectures"], strict=True):
        assert row["scores"]["fwiou"]["each"] == pytest.approx(alone["scores"]["fwiou"]["each"], abs=1e-3)


@pytest.mark.slow
def test_launched_processes_compare_as_one_does(compared, tmp_path):
    folder, dataset, outcome = compared
    shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("compare*"))
    reports = []
    found = launch_comparison(dataset, tmp_path / "run", SCHEDULE, 2, lambda *report: reports.append(report))
    assert found == json.loads((tmp_path / "run" / "compare.json").read_text())
    assert found["searched"] == pytest.approx(outcome["searched"], abs=1e-3)
    assert reports[-1][0] <= reports[-1][1] == 16


def test_labels_of_test_blocks_are_gone_before_anything_is_trained(compared, monkeypatch):
    folder, dataset, outcome = compared
    blind = without_test_labels(dataset)
    assert (blind.labels[dataset.role == TEST] == 255).all()
    assert (blind.labels[dataset.role != TEST] == dataset.labels[dataset.role != TEST]).all()
    labels = np.where(dataset.role == TEST, 3 - np.clip(dataset.labels, 1, 2), dataset.labels).astype(np.uint8)
    other = dataclasses.replace(dataset, labels=labels)
    assert (other.labels != dataset.labels).any()
    # The same ground for all that counts, so nothing is trained anew.
    monkeypatch.setattr(Trainer, "fit", None)
    assert compare_with_random(other, folder, SCHEDULE) == outcome


def test_incomparable_data_are_errors(compared, tmp_path):
    folder, dataset, _ = compared
    with pytest.raises(InputError, match="training data differ"):
        compare_with_random(RegionDataset.from_arrays(make_arrays(seed=3)), folder, SCHEDULE)
    searched(tmp_path)
    with pytest.raises(InputError, match="no architecture to compare with"):
        compare_with_random(dataset, tmp_path, SCHEDULE)
    labels = np.where(dataset.role == 1, 0, dataset.labels).astype(np.uint8)
    with pytest.raises(InputError, match="tuning blocks contain no label"):
        compare_with_random(dataclasses.replace(dataset, labels=labels), folder, SCHEDULE)


@pytest.mark.parametrize(
    ("mine", "others", "verdict", "said"),
    [
        (0.5, (0.3, 0.4), "above", "above all the 2 random ones (30.0 to 40.0 %, mean 35.0 %); 0 of them are better"),
        (0.35, (0.3, 0.4), "inside", "(30.0 to 40.0 %, mean 35.0 %); 1 of them is better"),
        (0.2, (0.3, 0.4), "below", "below all the 2 random ones"),
        (0.3, (0.3, 0.3), "inside", "0 of them are better"),
    ],
)
def test_the_verdict(mine, others, verdict, said):
    rows = [
        {"name": str(number), "parameters": 10**6, "gmac": 1.0, "scores": {
            measure: {"mean": value, "sd": 0.01, "each": [value]} for measure in MEASURES
        }}
        for number, value in enumerate((mine, *others))
    ]  # fmt: skip
    found = _summarise(rows)
    assert found["verdict"] == verdict
    assert said in found["told"]
    assert "varies by 1.0 points" in found["told"]
    table = comparison_table({**found, "architectures": rows, "schedule": {"seeds": 2}})
    assert f"| 0 | 1.00 M | 1.0 | {100 * mine:.1f} ± 1.0 |" in table
