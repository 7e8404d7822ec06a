"""Architecture search: finds a planted operator, uses no held-out label, and resumes after an interruption."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch

from gravmap.errors import GravmapError, InputError, OptionError
from gravmap.lattice import TRAIN
from gravmap.learning import RegionDataset
from gravmap.learning.sampling.sampler import Sampler
from gravmap.learning.training.checkpoint import read_pair
from gravmap.network.architecture import Architecture
from gravmap.network.operators import OPERATORS
from gravmap.network.registry import read_architecture
from gravmap.search.config import SearchConfig
from gravmap.search.decoding import candidates
from gravmap.search.loop import read_search, score_candidates, search
from gravmap.search.state import SearchState
from gravmap.search.steps import downsample_targets, heads_loss
from toys.dataset import make_arrays
from toys.processes import forked

SHORT = SearchConfig(
    depth=3, chis=(1, 2), thin=True, pretrain_epochs=1, epochs=2, steps=2, batch_size=2, tile_size_px=64, seed=5,
    sampled_paths=2, calibration_batches=1, score_batches=2, architecture_lr=0.01,
)  # fmt: skip


def text(folder):
    """All that a search found and is, without times: its state, its course, its candidates."""
    tensors, state = read_pair(folder, "last")
    record = json.loads((folder / "search.json").read_text())
    del record["seconds"]
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in state["history"]]
    return {name: value.numpy().tobytes() for name, value in tensors.items()}, rows, record


def leave_out_pictures(patch):
    """Counting and drawing an architecture takes as long as searching for it here; the command's test looks at them."""
    for name in ("draw_architecture", "draw_entropies"):
        patch.setattr(f"gravmap.search.loop.{name}", lambda *args, **options: None)
    patch.setattr("gravmap.search.loop.cost_by_part", lambda *args, **options: [])


@pytest.fixture
def unpainted(monkeypatch):
    leave_out_pictures(monkeypatch)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "run"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch)
        search(RegionDataset.from_arrays(make_arrays()), folder, SHORT)
    return folder


def test_what_a_search_leaves(unbroken):
    record = read_search(unbroken)
    assert (
        read_architecture(unbroken / "architecture.json")
        == record["architecture"]
        == record["candidates"][0]["architecture"]
    )
    assert record["precision"] == "float32"  # what "auto" is on a CPU
    scores = [(-each["fwiou"], each["loss"]) for each in record["candidates"]]
    assert scores == sorted(scores)
    assert {"downs", "viterbi", "log-odds"} & {each["rule"] for each in record["candidates"]}
    assert [row["phase"] for row in record["entropies"]] == ["pretrain", "search", "search"]
    for name, most in (("alpha", np.log(5)), ("beta", np.log(2)), ("ratio", np.log(2))):
        values = [row[f"entropy_{name}"] for row in record["entropies"]]
        assert values[0] == pytest.approx(most, abs=1e-5)  # nothing was chosen while weights were taught alone
        assert values[2] < values[1] < values[0] <= most
    rows = (unbroken / "metrics.csv").read_text().splitlines()
    assert len(rows) == 4
    history = read_pair(unbroken, "last")[1]["history"]
    assert [row["lr"] for row in history] == pytest.approx([2e-2, 1e-2, 0.978e-2])
    assert [row["temperature"] for row in history] == pytest.approx([1.0, 0.775, 0.325])


def test_no_label_of_tuning_test_or_buffer_cells_changes_anything(unbroken, tmp_path, unpainted):
    arrays = make_arrays()
    held_out = arrays["role"] != TRAIN
    assert {1, 2, 3} <= set(np.unique(arrays["role"][held_out]))
    arrays["labels"] = np.where(held_out, 2 - arrays["labels"] % 2, arrays["labels"]).astype(np.uint8)
    arrays["small"] = np.where(held_out, 1 - arrays["small"], arrays["small"]).astype(np.uint8)
    dataset = RegionDataset.from_arrays(arrays)
    # And had anything looked them up in the arrays, a class that is none would have stopped it.
    dataset.labels[held_out] = 77
    search(dataset, tmp_path / "run", SHORT)
    assert text(tmp_path / "run") == text(unbroken)


def test_a_training_label_changes_it(unbroken):
    arrays = make_arrays()
    training = arrays["role"] == TRAIN
    arrays["labels"][training] = np.where(arrays["labels"] == 1, 2, arrays["labels"])[training]
    state = SearchState(RegionDataset.from_arrays(arrays), SHORT)
    assert state.fingerprint != read_search(unbroken)["area_sha256"]
    state.start_epoch()
    trained_on, _ = state.step(0, 0.0)
    other = SearchState(RegionDataset.from_arrays(make_arrays()), SHORT)
    other.start_epoch()
    assert trained_on != other.step(0, 0.0)[0]


def test_interrupted_search_resumes_to_the_same_result(unbroken, tmp_path, unpainted):
    folder, dataset = tmp_path / "run", RegionDataset.from_arrays(make_arrays())

    def until(word, count):
        def die(done, total, note=""):
            if word in note and done == count:
                os.kill(os.getpid(), signal.SIGKILL)

        return lambda: search(dataset, folder, SHORT, die, resume=(folder / "last.json").exists())

    assert forked(until("search", 5)) == [-signal.SIGKILL]
    state = read_pair(folder, "last")[1]
    assert (state["epoch"], state["warm"]) == (2, False)  # the step after was lost
    with pytest.raises(InputError, match="is not finished"):
        read_search(folder)
    assert forked(until("candidates", 1)) == [-signal.SIGKILL]
    assert not (folder / "architecture.json").exists()
    search(dataset, folder, SHORT, resume=True)
    assert text(folder) == text(unbroken)


def test_another_tile_set_or_another_supernet_is_refused(unbroken, tmp_path):
    arrays = make_arrays(seed=1)
    with pytest.raises(InputError, match="training data differ"):
        search(RegionDataset.from_arrays(arrays), unbroken, SHORT, resume=True)
    state = SearchState(RegionDataset.from_arrays(make_arrays()), dataclasses.replace(SHORT, depth=4))
    with pytest.raises(InputError, match="does not fit the supernet"):
        state.restore(unbroken)


@pytest.fixture
def state(dataset):
    state = SearchState(dataset, SHORT)
    state.start_epoch()
    state.end_pretraining()
    return state


def copied(state):
    return {name: value.clone() for name, value in state.supernet.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_supernet_computes_in_the_precision_of_its_device(dataset, monkeypatch, precision):
    """float32 on a GPU before Ampere, for example: `choose_precision` decides."""
    monkeypatch.setattr("gravmap.search.state.choose_precision", lambda given, device: precision)
    state = SearchState(dataset, SHORT)
    seen = set()
    convolution = next(each for each in state.supernet.modules() if isinstance(each, torch.nn.Conv2d))
    convolution.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    state.start_epoch()
    state.step(0, 0.0)
    assert seen == {getattr(torch, precision)}


def test_architecture_steps_and_weight_steps_update_disjoint_parameters(state, monkeypatch):
    from gravmap.search import state as search_state

    supernet = state.supernet
    seen = {}

    def spied(name, original):
        def call(*args, **options):
            before = copied(state)
            result = original(*args, **options)
            seen[name] = changed(before, copied(state))
            assert all(each.grad is None and each.requires_grad for each in supernet.parameters())
            return result

        return call

    for name in ("architecture_step", "weight_step"):
        monkeypatch.setattr(search_state, name, spied(name, getattr(search_state, name)))
    state.step(0, 0.0)
    kinds = {"alpha", "beta", "ratio"}
    # Of the architecture alone: no weight, no running mean, no count of batches.
    assert {name.partition(".")[0] for name in seen["architecture_step"]} == {"arch"}
    assert {name.split(".")[1].split("_")[0] for name in seen["architecture_step"]} == kinds
    assert not any(name.startswith("arch.") for name in seen["weight_step"])
    assert any(name.endswith("running_mean") for name in seen["weight_step"])


def test_architecture_half_does_not_change_weights(dataset):
    """Where nothing can be chosen, the weights are the same whatever the second half's labels say."""
    config = dataclasses.replace(SHORT, architecture_lr=0.0)
    states = [SearchState(dataset, config) for _ in range(2)]
    other = states[1].split.architecture
    swapped = np.where(other.labels == 1, 2, np.where(other.labels == 2, 1, other.labels)).astype(np.uint8)
    assert (swapped != other.labels).any()
    other = dataclasses.replace(other, labels=swapped)
    states[1].architecture_sampler = Sampler(other, states[1].inputs, 64, seed=config.seed)
    losses = []
    for state in states:
        state.start_epoch()
        state.end_pretraining()
        losses.append([state.step(index, 0.0) for index in range(2)])
    assert changed(copied(states[0]), copied(states[1])) == set()
    assert [trained_on for trained_on, _ in losses[0]] == [trained_on for trained_on, _ in losses[1]]
    assert [chosen for _, chosen in losses[0]] != [chosen for _, chosen in losses[1]]


@pytest.mark.slow
@pytest.mark.parametrize("planted", ["zoom2", "conv"])
def test_a_planted_operator_is_found(dataset, tmp_path, monkeypatch, unpainted, planted):
    """All operators but one drown what they read in noise; the search is to name that one wherever it chooses."""
    from gravmap.search import supernet as room

    class Planted(room.Supernet):
        def __init__(self, *args):
            super().__init__(*args)
            for cell in self.cells.values():
                for name, operator in cell.operators.items():
                    if name != planted:
                        operator.register_forward_hook(lambda layer, given, out: 8 * torch.randn_like(out))

    monkeypatch.setattr("gravmap.search.state.Supernet", Planted)
    config = dataclasses.replace(SHORT, steps=8, architecture_lr=0.1, topk_share=1.0, sampled_paths=0)
    found = search(dataset, tmp_path / "run", config)
    predicted = [name for row in found["architecture"]["ops"] for name in row]
    assert predicted.count(planted) >= 5, predicted  # of nine; by chance two
    tensors, _ = read_pair(tmp_path / "run", "last")
    alpha = torch.cat([tensors[f"supernet/arch.alpha_{scale}"] for scale in (0, 1, 2)])
    fraction = dict(zip(OPERATORS, alpha.softmax(-1).mean(0).tolist(), strict=True))
    best = fraction.pop(planted)
    assert best > 0.3 > 0.24 > max(fraction.values()), fraction


def test_multiply_adds_that_weigh_make_it_smaller(dataset):
    config = dataclasses.replace(SHORT, architecture_lr=0.1, flops_weight=1e4)
    state = SearchState(dataset, config)
    space, before = state.supernet.space, float(state.supernet.expected_macs(32).detach())
    state.end_pretraining()
    for index in range(2):
        state.step(index, 0.0)
    assert float(state.supernet.expected_macs(32).detach()) < before
    widths = [state.supernet.arch[f"ratio_{scale}"].detach() for scale in (0, 1, 2)]
    assert all((rows[:, 0] > rows[:, 1]).all() for rows in widths)  # the narrower of the two, everywhere
    assert space.chis == (1, 2)


def test_time_limit_ends_both_phases(dataset, tmp_path, monkeypatch, unpainted):
    """A second goes by at every step: of 30, a third for weights alone, and twelve steps' time for the candidates."""
    seconds = [0.0]

    class Clock:
        @staticmethod
        def monotonic():
            return seconds[0]

    def step(self, index, fraction):
        seconds[0] += 1.0
        fractions.append(fraction)
        return 1.0, None if self.pretraining else 1.0

    fractions = []
    monkeypatch.setattr("gravmap.search.loop.time", Clock)
    monkeypatch.setattr(SearchState, "step", step)
    config = dataclasses.replace(SHORT, steps=100, time_limit_s=30.0)
    found = search(dataset, tmp_path / "run", config)
    assert [row["phase"] for row in found["entropies"]] == ["pretrain", "search"]
    history = read_pair(tmp_path / "run", "last")[1]["history"]
    assert [row["seconds"] for row in history] == [11.0, 8.0]
    assert not found["complete"]
    assert found["finished"]
    assert fractions[-1] == pytest.approx(18 / 30)  # the temperature follows the clock where that is further on
    Architecture.from_dict(found["architecture"])


@pytest.mark.slow
def test_supernet_learns_to_rank_candidates(dataset):
    """The class is the sign of the field: after eighty steps the best candidate knows it on the other half."""
    config = dataclasses.replace(
        SHORT, seed=0, batch_size=4, class_weight="none", score_batches=6, calibration_batches=4
    )
    state = SearchState(dataset, config)
    state.start_epoch()
    best = []
    for steps in (0, 80):
        for index in range(steps):
            state.step(index, 0.0)
        decoded = candidates(state.supernet.architecture_logits(), state.supernet.space, np.random.default_rng(0), 2)
        best.append(score_candidates(state, decoded)[0]["fwiou"])
    assert best[0] < 0.5 < 0.7 < best[1]


def test_non_finite_loss_raises_an_error(state):
    with torch.no_grad():
        state.supernet.heads.classify.bias.fill_(torch.nan)
    with pytest.raises(GravmapError, match="not finite"):
        state.step(0, 0.0)


def test_labels_at_an_eighth_are_those_in_the_middle_of_each_cell():
    target = torch.arange(24 * 20).view(1, 24, 20)
    small = downsample_targets(target)
    assert small.shape == (1, 3, 2)
    assert small[0, 1, 1] == target[0, 12, 12]


def test_the_loss_is_the_sum_over_the_heads():
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(2, 3, 4, 4, generator=generator) for _ in range(4)]
    target = torch.randint(0, 3, (2, 32, 32), generator=generator)
    batch = (torch.zeros(2, 1, 32, 32), target, torch.zeros_like(target, dtype=torch.bool))

    def plain(logits, truth, small):
        return torch.nn.functional.cross_entropy(logits, truth, reduction="sum"), torch.tensor(float(truth.numel()))

    expected = sum(torch.nn.functional.cross_entropy(logits, target[:, 4::8, 4::8]) for logits in outputs)
    assert float(heads_loss(outputs, batch, plain)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "more than one crop"),
        ({"epochs": 0}, "epochs = 0"),
        ({"temperature": (1.0, 0.0)}, "temperature"),
        ({"class_weight": "many"}, "class_weight"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        dataclasses.replace(SHORT, **options)
    assert SearchConfig.from_json(SHORT.to_json()) == SHORT


def test_too_shallow_a_space_and_windows_without_labels_are_refused(dataset):
    with pytest.raises(OptionError, match="2 cells"):
        SearchState(dataset, dataclasses.replace(SHORT, depth=2))
    with pytest.raises(InputError, match="no usable window"):
        SearchState(dataset, dataclasses.replace(SHORT, scales_deg=[9.0]))
