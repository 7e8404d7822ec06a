"""Supernet: equals the architectures it contains, and gives gradients for every architecture parameter."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from gravmap.errors import OptionError
from gravmap.network.ggmnet import GGMNet
from gravmap.network.operators import OPERATORS, Cell
from gravmap.search.comparison import random_architecture
from gravmap.search.decoding import decode
from gravmap.search.slimmable import SlimCell
from gravmap.search.space import SearchSpace
from gravmap.search.supernet import Supernet, frozen_batch_norm_statistics, recalibrate

SPACE = SearchSpace(depth=4, chis=(2, 4), encoder=(4, 6, 24), head=(8, 8, 8), arm_norm="none")


@pytest.fixture(scope="module")
def trained():
    """A supernet whose normalisations, weights and preferences are nowhere at their start; not to be changed."""
    torch.manual_seed(3)
    supernet = Supernet(SPACE, in_channels=2, classes=3)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if "norm" in name or ".of_width." in name or name.startswith("arch"):
                parameter.add_(0.3 * torch.randn_like(parameter))
        for widths in ("largest", "smallest", "random"):
            supernet(torch.randn(2, 2, 64, 64), widths)
    return supernet


@pytest.fixture
def x():
    return torch.randn(2, 2, 64, 64, generator=torch.Generator().manual_seed(11))


def same_state(network, before):
    return all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def state_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def in_branches(ops, chis=2, paths=((), (1,), (1, 2))):
    rows = tuple(tuple(row) for row in ops)
    widths = tuple((chis,) * 4 if isinstance(chis, int) else tuple(chis) for _ in rows)
    return dataclasses.replace(SPACE.architecture(paths, [["conv"] * 4] * 3, [[2] * 4] * 3), ops=rows, chis=widths)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_slimmable_cell_is_the_cell_at_every_width(name, stride):
    torch.manual_seed(0)
    slim = SlimCell((8, 16, 24), (16, 32), stride)
    for c_in, width in ((8, 16), (16, 16), (24, 16), (8, 32), (24, 32)):
        cell = Cell(name, c_in, width, stride, residual=True)
        cell.load_state_dict(slim.extract_weights(name, c_in, width))
        x = torch.randn(2, c_in, 8, 8)
        assert torch.equal(slim.forward_single(name, x, width), cell(x))
        # What they have seen by now is the same, too, and evaluation uses it.
        assert torch.equal(slim.eval().forward_single(name, x, width), cell.eval()(x))
        slim.train()


def test_a_skip_is_nothing_where_the_width_stays():
    slim = SlimCell((16, 32), (16, 32), stride=1)
    x = torch.randn(1, 16, 4, 4)
    assert slim.forward_single("skip", x, 16) is x
    assert slim.forward_single("skip", x, 32).shape == (1, 32, 4, 4)
    only_skip = torch.tensor([1.0, 0, 0, 0, 0])
    assert torch.equal(slim(x, 16, only_skip), x)


def test_a_mixture_is_the_weighed_sum_of_cells():
    torch.manual_seed(1)
    for stride in (1, 2):
        slim = SlimCell((8, 16), (16, 32), stride).eval()
        x, fractions = torch.randn(2, 8, 8, 8), torch.tensor([0.1, 0.3, 0.2, 0.15, 0.25])
        expected = sum(
            fraction * slim.forward_single(name, x, 16) for fraction, name in zip(fractions, OPERATORS, strict=True)
        )
        torch.testing.assert_close(slim(x, 16, fractions), expected)


def test_each_width_is_normalised_by_itself():
    slim = SlimCell((8,), (16, 32), stride=1)
    before = state_of(slim)
    slim.forward_single("conv2", torch.randn(2, 8, 8, 8) + 3, 16)
    changed = {name for name, value in slim.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(".of_width.16." in name and ("running" in name or "num_batches" in name) for name in changed)
    assert not any(".of_width.32." in name for name in changed)


def test_a_derived_network_is_the_supernets_sub_network(trained, x):
    rng = np.random.default_rng(5)
    architectures = [random_architecture(SPACE, rng) for _ in range(6)]
    # Branches that share a prefix; and two that pass the same map after they have parted.
    architectures.append(in_branches([["conv", "zoom", "zoom2", "conv"]] * 3))
    architectures.append(in_branches([["conv2", "zoom", "skip", "conv"]] * 3, (4, 2, 2, 4), ((), (2,), (1, 3))))
    before = state_of(trained)
    for architecture in architectures:
        network = GGMNet(architecture, 2, 3)
        kept = network.load_state_dict(trained.extract_weights(architecture), strict=False)
        assert not kept.unexpected_keys
        assert not [name for name in kept.missing_keys if name.startswith(("encoder.", "cells."))]
        for training in (True, False):
            network.train(training)
            trained.train(training)
            with torch.no_grad(), frozen_batch_norm_statistics(trained), frozen_batch_norm_statistics(network):
                eighth = x
                for stage in network.encoder:
                    eighth = stage(eighth)
                ours = trained.branches_of(eighth, architecture)
                assert all(map(torch.equal, ours, network.branches(eighth)))
                scores = trained.forward_path(x, architecture)
                assert all(map(torch.equal, scores, trained.heads(ours)))
    trained.train()
    assert same_state(trained, before)


def prefer(supernet, architecture):
    """Make an architecture certain: its operators, widths and ways in at logit 60, the others at -60."""
    with torch.no_grad():
        for logits in supernet.arch.values():
            logits.fill_(-60)
        for branch, path in enumerate(architecture.paths):
            for cell in range(SPACE.depth):
                scale = architecture.scale(branch, cell)
                row = cell - (scale == 2)
                supernet.arch[f"alpha_{scale}"][row, OPERATORS.index(architecture.ops[branch][cell])] = 60
                supernet.arch[f"ratio_{scale}"][row, SPACE.chis.index(architecture.chis[branch][cell])] = 60
                if scale and cell >= scale:  # the first map of scale 1 is after cell 0, of scale 2 after cell 1
                    supernet.arch[f"beta_{scale}"][cell - scale, int(cell in path)] = 60


@pytest.mark.parametrize("paths", [((), (1,), (1, 2)), ((), (0,), (0, 3)), ((), (3,), (1, 3))])
def test_certain_logits_select_one_architecture(trained, x, paths):
    supernet = Supernet(SPACE, 2, 3)
    supernet.load_state_dict(trained.state_dict())
    table = [["conv2", "zoom", "skip", "conv"], ["zoom2", "conv", "conv2", "zoom"], ["conv", "zoom", "zoom2", "conv2"]]
    architecture = SPACE.architecture(paths, table, [[2, 4, 4, 2], [4, 2, 2, 4], [2, 2, 4, 4]])
    prefer(supernet, architecture)
    assert decode(supernet.architecture_logits(), SPACE, "viterbi") == architecture
    for training in (True, False):
        supernet.train(training)
        with frozen_batch_norm_statistics(supernet):
            mixed, single = supernet(x), supernet.forward_path(x, architecture)
        for ours, theirs in zip(mixed, single, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_reach_every_preference_and_only_weights_that_were_used(trained, x):
    supernet = Supernet(SPACE, 2, 3)
    supernet.load_state_dict(trained.state_dict())
    torch.manual_seed(2)
    scores = supernet(x, "sampled")
    loss = sum((score * torch.randn_like(score)).mean() for score in scores)
    grads = torch.autograd.grad(loss, supernet.architecture_parameters())
    assert [tuple(g.shape) for g in grads] == [(4, 5), (4, 5), (3, 5), (3, 2), (2, 2), (4, 2), (4, 2), (3, 2)]
    assert all((grad != 0).all() for grad in grads)
    # The choices of a map add up to 1, so its gradients add up to nothing.
    assert all(grad.sum(-1).abs().max() < 1e-5 * grad.abs().max() for grad in grads)


def test_fixed_widths_have_no_gradient_for_ratio(trained, x):
    for widths in ("largest", "smallest", "random"):
        with frozen_batch_norm_statistics(trained):
            loss = sum(score.square().mean() for score in trained(x, widths))
        grads = torch.autograd.grad(loss, trained.architecture_parameters(), allow_unused=True)
        names = list(trained.arch)
        assert {name for name, grad in zip(names, grads, strict=True) if grad is None} == {
            "ratio_0",
            "ratio_1",
            "ratio_2",
        }


def test_parameters_are_architecture_parameters_or_weights(trained):
    ids = [id(p) for p in (*trained.architecture_parameters(), *trained.weight_parameters())]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {id(p) for p in trained.parameters()}


def test_sampled_widths_follow_ratio():
    supernet = Supernet(SPACE, 1, 2)
    torch.manual_seed(4)
    with torch.no_grad():
        supernet.arch["ratio_1"][2] = torch.tensor([0.0, math.log(3)])  # a quarter, three quarters
    supernet.temperature = 0.1  # sharpens the gradient, not the draw
    wide = sum(supernet._choose_widths("sampled")[0][1][2] == 4 * 16 for _ in range(2000))
    assert abs(wide / 2000 - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 2000)


def test_a_draw_of_width_is_multiplied_by_one_with_the_gradient_of_its_chance():
    supernet = Supernet(SPACE, 1, 2)
    supernet.temperature = 0.5
    with torch.no_grad():
        supernet.arch["ratio_0"].copy_(torch.tensor([[0.0, 0.4]]).expand(4, 2))
    torch.manual_seed(9)
    chosen, scores = supernet._choose_widths("sampled")
    torch.manual_seed(9)
    uniform = torch.rand(3, 4, 2)[0, 2].double()  # the noise of the map (0, 2)
    noisy = torch.tensor([0.0, 0.4]).double() - (-uniform.log()).log()
    index = int(noisy.argmax())
    assert chosen[0][2] == (16, 32)[index]
    assert all(torch.equal(row, torch.ones(4)) for row in scores)
    soft = torch.softmax(noisy / 0.5, 0)
    expected = soft[index] * (torch.eye(2)[index] - soft) / 0.5  # derivative of a softmax
    grad = torch.autograd.grad(scores[0][2], supernet.arch["ratio_0"])[0][2]
    torch.testing.assert_close(grad.double(), expected, rtol=1e-4, atol=1e-6)


def test_entropies_of_certain_even_and_uneven_choices():
    supernet = Supernet(SPACE, 1, 2)
    with torch.no_grad():
        for name, logits in supernet.arch.items():
            logits.zero_()
            if name.startswith("beta"):
                logits[:, 0] = 60
            if name.startswith("ratio"):
                logits[:, 1] = math.log(3)
    found = supernet.entropies()
    assert found["alpha"] == pytest.approx(math.log(5))
    assert found["alpha_uniform"] == pytest.approx(math.log(5))
    assert found["beta"] == pytest.approx(0, abs=1e-12)
    assert found["beta_uniform"] == pytest.approx(math.log(2))
    assert found["ratio"] == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))


def test_scores_have_an_eighth_of_any_size(trained):
    with torch.no_grad(), frozen_batch_norm_statistics(trained):
        scores = trained(torch.randn(2, 2, 72, 50), "smallest")
    assert [tuple(score.shape) for score in scores] == [(2, 3, 9, 7)] * 4


def test_what_is_not_of_the_search_is_refused(trained, x):
    with pytest.raises(OptionError, match="'wide'"):
        trained(x, "wide")
    with pytest.raises(OptionError, match="at least 3 cells"):
        SearchSpace(depth=2)
    with pytest.raises(OptionError, match="increasing"):
        SearchSpace(chis=(4, 2))
    other = in_branches([["conv"] * 4] * 3, chis=6)
    with pytest.raises(OptionError, match="ratios"):
        trained.forward_path(x, other)
    with pytest.raises(OptionError, match="5 cells"):
        trained.extract_weights(SPACE_OF_FIVE.architecture(((), (1,), (1, 2)), [["conv"] * 5] * 3, [[2] * 5] * 3))


SPACE_OF_FIVE = dataclasses.replace(SPACE, depth=5)


def test_recalibrated_architecture_has_its_own_statistics(trained, x):
    before = state_of(trained)
    # Branches 1 and 2 pass the maps of 1/16 after cells 2 and 3 apart, by the same cells of the supernet.
    architecture = in_branches([["conv2", "zoom", "conv", "conv"]] * 3, paths=((), (1,), (0, 3)))
    other = 2 * x.flip(0) + 1
    network = recalibrate(trained, architecture, [x, other])
    assert not network.training
    assert same_state(trained, before)
    with torch.no_grad():
        convolved = [network.body.encoder[0][0](batch) for batch in (x, other)]
    norm = network.body.encoder[0][1]
    torch.testing.assert_close(norm.running_mean, sum(y.mean((0, 2, 3)) for y in convolved) / 2)
    torch.testing.assert_close(norm.running_var, sum(y.var((0, 2, 3)) for y in convolved) / 2)
    routes = network.body.routes
    first, second = (network.body.cells[routes[branch][2]].operator[1] for branch in (1, 2))
    assert torch.equal(first.weight, second.weight)
    assert not torch.allclose(first.running_mean, second.running_mean)
    # On one batch alone it scores as a network that normalises by this batch (variances over n - 1 instead of n).
    once = recalibrate(trained, architecture, [x])
    with torch.no_grad(), frozen_batch_norm_statistics(trained):
        for evaluated, seen in zip(once(x), trained.forward_path(x, architecture), strict=True):
            assert (evaluated - seen).std() < 0.15 * seen.std()
    with pytest.raises(OptionError, match="at least one batch"):
        recalibrate(trained, architecture, [])


def test_statistics_stay_where_they_are_to(trained, x):
    before = state_of(trained)
    with frozen_batch_norm_statistics(trained):
        within = trained(x, "largest")
    assert same_state(trained, before)
    again = Supernet(SPACE, 2, 3)
    again.load_state_dict(before)
    assert all(map(torch.equal, within, again(x, "largest")))
    assert not same_state(again, before)
