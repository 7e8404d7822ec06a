"""Costs of architectures against counts on the networks; random architectures under a budget."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch

from gravmap.errors import OptionError
from gravmap.network.cost import count_macs, count_parameters
from gravmap.network.ggmnet import GGMNet
from gravmap.network.operators import OPERATORS, Cell
from gravmap.search.comparison import random_architecture, random_architectures
from gravmap.search.cost_table import CostTable, cell_cost
from gravmap.search.space import SearchSpace
from gravmap.search.supernet import Supernet

SPACE = SearchSpace(depth=3, chis=(2, 4), encoder=(4, 6, 24), head=(8, 8, 8))


@pytest.fixture(scope="module")
def supernet():
    return Supernet(SPACE, 2, 3)


@functools.cache
def macs_counted(architecture, size=100):
    """On a network that runs: at these sizes that is sooner done than its shapes are followed on the meta device."""
    return count_macs(GGMNet(architecture, 2, 3), 2, size)


def parameters_counted(architecture, in_channels, classes):
    with torch.device("meta"):
        return count_parameters(GGMNet(architecture, in_channels, classes))


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_cell_costs_what_is_counted_on_it(operator):
    for c_in, c_out, stride in ((16, 16, 1), (16, 24, 1), (24, 16, 1), (16, 32, 2), (16, 16, 2)):
        with torch.device("meta"):
            cell = Cell(operator, c_in, c_out, stride, residual=True)
        parameters = count_parameters(cell)
        macs = count_macs(cell, c_in, 8) if parameters else 0
        assert cell_cost(operator, c_in, c_out, stride, 8) == (parameters, macs)


def test_a_network_costs_what_is_counted_on_it():
    rng = np.random.default_rng(0)
    costs = CostTable(SPACE, 2, 3, size=100)
    for _ in range(5):
        architecture = random_architecture(SPACE, rng)
        assert costs.macs(architecture) == macs_counted(architecture)
        assert costs.parameters(architecture) == parameters_counted(architecture, 2, 3)
    most_expensive = SPACE.architecture(((), (0,), (1, 2)), [["conv2"] * 3] * 3, [[4] * 3] * 3)
    assert costs.macs(most_expensive) == macs_counted(most_expensive)


SOFT = {("alpha_1", 1): {1: 0.3, 2: 0.7}, ("ratio_0", 0): {0: 0.6, 1: 0.4}, ("ratio_1", 1): {0: 0.2, 1: 0.8}}
WAYS = {("beta_1", 0): {0: 0.35, 1: 0.65}, ("beta_1", 1): {0: 0.9, 1: 0.1}, ("beta_2", 0): {0: 0.45, 1: 0.55}}


def certain(supernet):
    """Every operator, width and way in is sure, none the same everywhere."""
    with torch.no_grad():
        for name, logits in supernet.arch.items():
            logits.fill_(-60)
            for row in range(len(logits)):
                pick = row + int(name[-1])
                # No skips: three cells leave no room for one beside another operator on every path.
                logits[row, 1 + pick % 4 if name.startswith("alpha") else pick % 2] = 60


def sampled(supernet):
    """The architecture that certain logits leave, read off by following each branch back from its end."""
    best = {name: logits.argmax(-1).tolist() for name, logits in supernet.arch.items()}
    paths = []
    for branch in range(3):
        scale, path = branch, []
        for cell in (2, 1, 0):
            forced = scale and cell < scale
            if scale and (forced or best[f"beta_{scale}"][cell - scale] == 1):
                path.insert(0, cell)
                scale -= 1
        paths.append(tuple(path))
    ops = [[OPERATORS[i] for i in best[f"alpha_{s}"]] for s in range(3)]
    chis = [[SPACE.chis[i] for i in best[f"ratio_{s}"]] for s in range(3)]
    ops[2].insert(0, "conv")  # there is no map at 1/32 after cell 0
    chis[2].insert(0, 2)
    return SPACE.architecture(tuple(paths), ops, chis)


def test_certain_logits_cost_what_their_network_costs(supernet):
    certain(supernet)
    assert supernet.expected_macs(100).item() == pytest.approx(macs_counted(sampled(supernet)), rel=1e-12)


def test_uncertain_ones_cost_the_mean_over_all_networks_they_may_become(supernet):
    certain(supernet)
    soft = SOFT | WAYS
    mean, total = 0.0, 0.0
    for picks in itertools.product(*(chances.items() for chances in soft.values())):
        with torch.no_grad():
            for (name, row), (index, _) in zip(soft, picks, strict=True):
                supernet.arch[name][row] = -60
                supernet.arch[name][row, index] = 60
        p = float(np.prod([chance for _, chance in picks]))
        mean += p * macs_counted(sampled(supernet))
        total += p
    assert total == pytest.approx(1)
    with torch.no_grad():
        for (name, row), chances in soft.items():
            supernet.arch[name][row] = -60
            for index, p in chances.items():
                supernet.arch[name][row, index] = float(np.log(p))
    expected = supernet.expected_macs(100)
    assert expected.item() == pytest.approx(mean, rel=1e-6)  # logits are float32
    grads = torch.autograd.grad(expected, supernet.architecture_parameters())
    for (name, row), chances in soft.items():
        grad = grads[list(supernet.arch).index(name)][row]
        assert all(grad[index] != 0 for index in chances)


def test_random_architectures_keep_the_budget():
    space = SearchSpace(depth=5, encoder=(16, 24, 32), head=(8, 8, 8))
    budget = 900_000
    found = random_architectures(space, 6, budget, np.random.default_rng(1), in_channels=1, classes=4)
    assert len(set(found)) == 6
    for architecture in found:
        assert abs(parameters_counted(architecture, 1, 4) - budget) <= 0.1 * budget
        space.check(architecture)
    assert found == random_architectures(space, 6, budget, np.random.default_rng(1), in_channels=1, classes=4)
    # Every operator, ratio and more than one path come up.
    assert {op for a in found for row in a.ops for op in row} == set(OPERATORS)
    assert {chi for a in found for row in a.chis for chi in row} == set(space.chis)
    assert len({a.paths for a in found}) > 2


def test_a_draw_that_came_before_is_drawn_anew(monkeypatch):
    first, second = random_architectures(SPACE, 2, 300_000, np.random.default_rng(1), 1, 4)
    draws = iter([first, first, second])
    monkeypatch.setattr("gravmap.search.comparison.random_architecture", lambda space, rng: next(draws))
    assert random_architectures(SPACE, 2, 300_000, np.random.default_rng(1), 1, 4) == [first, second]


def test_impossible_budget_reports_the_range_of_samples(monkeypatch):
    monkeypatch.setattr("gravmap.search.comparison.MAX_DRAWS", 50)
    with pytest.raises(OptionError, match=r"Only 0 of 2 .* 500.00 million parameters .* had 0\.\d\d to \d"):
        random_architectures(SPACE, 2, 500_000_000, np.random.default_rng(0), 1, 4)
