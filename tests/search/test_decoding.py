"""Decoding of paths, operators and widths, against enumeration of all walks."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from gravmap.errors import OptionError
from gravmap.network.operators import OPERATORS
from gravmap.search.decoding import architecture_on, best_paths, candidates, decode, sample_paths
from gravmap.search.space import ArchitectureLogits, SearchSpace

SKIP, CONV, CONV2, ZOOM, ZOOM2 = (OPERATORS.index(name) for name in ("skip", "conv", "conv2", "zoom", "zoom2"))


def architecture_logits(depth, beta=None, alpha=None, ratio=None):
    """Even ones, where nothing else is given: conv, the narrowest, no way in before the other."""
    if alpha is None:
        alpha = np.zeros((3, depth, 5))
        alpha[..., CONV] = 1.0
    made = [
        alpha,
        np.zeros((3, depth, 2)) if beta is None else beta,
        np.zeros((3, depth, 4)) if ratio is None else ratio,
    ]
    made = [np.array(array, dtype=float) for array in made]
    made[0][2, 0] = made[2][2, 0] = np.nan
    made[1][0] = made[1][1, 0] = made[1][2, :2] = np.nan
    return ArchitectureLogits(*made)


def random_beta(depth, seed):
    return 2 * np.random.default_rng(seed).normal(size=(3, depth, 2))


def walks(depth, branch):
    """Every walk of a branch as the scales it passes, by trying all moves; nothing of the code's own way."""
    for moves in itertools.product((0, 1), repeat=depth):
        if sum(moves) == branch:
            yield moves


def chance(beta, scale, cell, move):
    """How likely the map (scale, cell) takes this way in: certain where its scale begins."""
    if scale == 0 or cell < scale:
        return 1.0
    odds = math.exp(beta[scale, cell, move] - beta[scale, cell, 1 - move])
    return odds / (1 + odds)


def chance_of_walk(beta, moves):
    product, scale = 1.0, 0
    for cell, move in enumerate(moves):
        scale += move
        product *= chance(beta, scale, cell, move)
    return product


def odds_of_walk(beta, moves):
    product, scale = 1.0, 0
    for cell, move in enumerate(moves):
        scale += move
        p = chance(beta, scale, cell, move)
        product *= p / (1 - p) if p < 1 else 1.0
    return product


def downs_of_walk(beta, moves):
    """The ways down alone; 0 where one of them was the only way in."""
    product, scale = 1.0, 0
    for cell, move in enumerate(moves):
        scale += move
        if move:
            product *= chance(beta, scale, cell, 1) if cell >= scale else 0.0
    return product


def best_by_brute_force(beta, depth, branch, value):
    """The best walk, as the cells that go down; of equals the first in the order of these cells."""
    scored = [(value(beta, moves), tuple(c for c, move in enumerate(moves) if move)) for moves in walks(depth, branch)]
    most = max(score for score, _ in scored)
    return min(path for score, path in scored if score >= most * (1 - 1e-9))


RULES = [("downs", downs_of_walk), ("viterbi", chance_of_walk), ("log-odds", odds_of_walk)]


@pytest.mark.parametrize(("rule", "value"), RULES)
@pytest.mark.parametrize("depth", [3, 4, 7])
def test_paths_are_the_best_of_all_walks(rule, value, depth):
    space = SearchSpace(depth=depth)
    for seed in range(12):
        beta = random_beta(depth, seed)
        expected = tuple(best_by_brute_force(beta, depth, branch, value) for branch in range(3))
        assert best_paths(architecture_logits(depth, beta), space, rule) == expected


@pytest.mark.parametrize(("rule", "value"), RULES)
def test_tied_paths_go_down_first(rule, value):
    even = np.zeros((3, 5, 2))
    # Whole steps in beta: many walks with equal products.
    stepped = np.round(np.random.default_rng(1).normal(size=(3, 5, 2)))
    for beta in (even, stepped):
        expected = tuple(best_by_brute_force(beta, 5, branch, value) for branch in range(3))
        assert best_paths(architecture_logits(5, beta), SearchSpace(depth=5), rule) == expected


def test_three_rules_differ_for_uniform_logits():
    """By hand: all downs weigh 1/2; staying at 1/8 costs nothing; and odds of 1 make every path alike."""
    space, none = SearchSpace(depth=5), architecture_logits(5)
    assert best_paths(none, space, "downs") == ((), (1,), (1, 2))
    # Every map below 1/8 asks a half more, so the branches stay at 1/8 as long as they can.
    assert best_paths(none, space, "viterbi") == ((), (4,), (3, 4))
    assert best_paths(none, space, "log-odds") == ((), (0,), (0, 1))


def test_downs_rule_uses_beta_of_the_target_map():
    """FasterSeg writes its best way down to 1/16 one cell too early; ours is where beta has it."""
    beta = np.zeros((3, 6, 2))
    beta[1, 3, 1] = 5.0
    beta[2, 4, 1] = 5.0
    found = best_paths(architecture_logits(6, beta), SearchSpace(depth=6), "downs")
    assert found == ((), (3,), (3, 4))


def test_paths_are_drawn_as_often_as_they_are_likely():
    depth, n = 4, 4000
    beta = random_beta(depth, 8) / 2
    sampled = sample_paths(architecture_logits(depth, beta), SearchSpace(depth=depth), n, np.random.default_rng(0))
    for branch in (1, 2):
        counts = Counter(paths[branch] for paths in sampled)
        chances = {
            tuple(c for c, move in enumerate(moves) if move): chance_of_walk(beta, moves)
            for moves in walks(depth, branch)
        }
        assert sum(chances.values()) == pytest.approx(1)
        assert set(counts) <= set(chances)
        for path, p in chances.items():
            assert abs(counts[path] / n - p) < 4.5 * math.sqrt(p * (1 - p) / n) + 1e-9
    assert {paths[0] for paths in sampled} == {()}


def test_operators_and_widths_are_those_of_the_map_a_cell_gives():
    depth = 4
    alpha, ratio = np.zeros((3, depth, 5)), np.zeros((3, depth, 4))
    best = np.array([[CONV, ZOOM, CONV2, SKIP], [ZOOM2, CONV, ZOOM, CONV2], [0, CONV2, ZOOM2, ZOOM]])
    chosen = np.array([[3, 2, 1, 0], [0, 1, 2, 3], [0, 2, 1, 3]])
    for scale, cell in itertools.product(range(3), range(depth)):
        alpha[scale, cell, best[scale, cell]] = 0.1
        ratio[scale, cell, chosen[scale, cell]] = 0.1
    found = architecture_on(
        ((), (2,), (1, 2)), architecture_logits(depth, None, alpha, ratio), SearchSpace(depth=depth)
    )
    assert found.ops == (
        ("conv", "zoom", "conv2", "skip"),
        ("conv", "zoom", "zoom", "conv2"),  # 1/16 from cell 2 on
        ("conv", "conv", "zoom2", "zoom"),  # 1/16 at cell 1, 1/32 from cell 2 on
    )
    assert found.chis == ((8, 6, 4, 2), (8, 6, 6, 8), (8, 4, 4, 8))


def test_equals_take_the_first_of_the_list():
    alpha, ratio = np.zeros((3, 3, 5)), np.zeros((3, 3, 4))
    alpha[..., SKIP] = -1  # conv, conv2, zoom and zoom2 are equal
    ratio[..., 0] = -1
    found = architecture_on(((), (1,), (1, 2)), architecture_logits(3, None, alpha, ratio), SearchSpace(depth=3))
    assert set(itertools.chain(*found.ops)) == {"conv"}
    assert set(itertools.chain(*found.chis)) == {4}


def test_a_stretch_of_skips_wakes_where_it_loses_least():
    depth = 5
    alpha = np.zeros((3, depth, 5))
    alpha[..., SKIP] = 3.0
    alpha[0, 3, ZOOM] = 2.5  # the nearest to its skip at 1/8: of all five cells, and not of the first two
    alpha[0, 1, CONV2] = 1.0
    alpha[1, 4, ZOOM2] = 2.0  # at 1/16; on the third branch's way only up to cell 3
    alpha[1, 3, CONV] = 1.5
    space = SearchSpace(depth=depth)
    found = architecture_on(((), (2,), (2, 4)), architecture_logits(depth, None, alpha), space)
    skip = "skip"
    assert found.ops == (
        # Cell 1 wakes for the other two branches, which leave 1/8 after it: a map has one operator for all.
        (skip, "conv2", skip, "zoom", skip),
        (skip, "conv2", skip, "conv", "zoom2"),
        (skip, "conv2", skip, "conv", "conv"),  # 1/32 has one cell, whose four others are equal
    )


def test_equal_losses_wake_the_first_map():
    alpha = np.zeros((3, 4, 5))
    alpha[..., SKIP] = 1.0
    found = architecture_on(((), (2,), (1, 2)), architecture_logits(4, None, alpha), SearchSpace(depth=4))
    assert found.ops[0] == ("conv", "skip", "skip", "skip")
    assert found.ops[1] == ("conv", "skip", "conv", "skip")
    assert found.ops[2] == ("conv", "conv", "conv", "skip")


@pytest.mark.parametrize("rule", [rule for rule, _ in RULES])
def test_all_skip_everywhere_still_gives_a_network_at_every_depth(rule):
    for depth in (3, 4, 9, 22):
        alpha = np.zeros((3, depth, 5))
        alpha[..., SKIP] = 5.0
        for seed in range(4):
            found = decode(architecture_logits(depth, random_beta(depth, seed), alpha), SearchSpace(depth=depth), rule)
            assert [len(path) for path in found.paths] == [0, 1, 2]


def test_candidates_are_all_different_and_named_by_their_first_rule():
    space = SearchSpace(depth=5)
    beta = random_beta(5, 2) / 3
    found = candidates(architecture_logits(5, beta), space, np.random.default_rng(0), samples=30)
    rules = [rule for rule, _ in found]
    architectures = [architecture for _, architecture in found]
    assert len(set(architectures)) == len(architectures) > 5
    assert rules[0] == "downs"
    assert rules.index("sample") == len(rules) - rules.count("sample")
    again = candidates(architecture_logits(5, beta), space, np.random.default_rng(0), samples=30)
    assert again == found
    # Where beta is certain, every rule and every draw says the same.
    certain = np.zeros((3, 5, 2))
    certain[..., 0] = 50
    certain[1, 2] = certain[2, 3] = (0, 50)
    confident = candidates(architecture_logits(5, certain), space, np.random.default_rng(0))
    assert [(rule, architecture.paths) for rule, architecture in confident] == [("downs", ((), (2,), (2, 3)))]


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(OptionError, match="'best'"):
        best_paths(architecture_logits(4), SearchSpace(depth=4), "best")
    with pytest.raises(OptionError, match="4 cells"):
        decode(architecture_logits(4), SearchSpace(depth=5), "downs")
    with pytest.raises(OptionError, match="shapes"):
        ArchitectureLogits(np.zeros((3, 4, 5)), np.zeros((3, 5, 2)), np.zeros((3, 4, 4)))


def test_non_finite_logits_are_refused():
    for kind in ("alpha", "beta", "ratio"):
        broken = architecture_logits(4)
        getattr(broken, kind)[1, 2, 0] = np.inf if kind == "beta" else np.nan
        with pytest.raises(OptionError, match="cell 2 at 1/16 are not finite"):
            decode(broken, SearchSpace(depth=4), "downs")
