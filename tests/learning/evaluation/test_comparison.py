"""Block bootstrap of the difference of two maps."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import bootstrap

from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.evaluation.comparison import (
    SHIFTED_INPUT,
    Difference,
    ScoredNodes,
    block_numbers,
    compare_with_null_models,
    paired_bootstrap,
)
from gravmap.learning.evaluation.metrics import confusion, scores
from toys.dataset import make_arrays


def maps(blocks=25, seed=0, better=0.1):
    """Two maps of three classes whose share of right nodes differs from block to block."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 60, blocks)
    block = np.repeat(np.arange(blocks), sizes)
    truth = rng.integers(0, 3, block.size)

    def mapped(right):
        return np.where(rng.random(block.size) < right[block], truth, (truth + rng.integers(1, 3, block.size)) % 3)

    skill = rng.uniform(0.2, 0.7, blocks)
    return truth, mapped(skill + better), mapped(skill), block


def test_the_interval_is_that_of_scipy_drawing_the_same_blocks():
    truth, one, other, block = maps()
    found = paired_bootstrap(truth, one, other, block, "pa", draws=4000, seed=1)
    size = np.bincount(block)
    gain = np.bincount(block, (one == truth).astype(float) - (other == truth))
    assert found.mean == pytest.approx(gain.sum() / size.sum())
    theirs = bootstrap(
        (gain, size),
        lambda gain, size, axis: gain.sum(axis) / size.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        vectorized=True,
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=0.08 * width)
    assert found.high == pytest.approx(theirs.high, abs=0.08 * width)
    assert found.blocks == 25


@pytest.mark.parametrize("measure", ["mpa", "miou", "fwiou", "kappa", "macro_f1"])
def test_the_difference_is_that_of_the_scores(measure):
    truth, one, other, block = maps()
    found = paired_bootstrap(truth, one, other, block, measure, draws=200)
    score = [scores(confusion(truth, each, 3))[measure] for each in (one, other)]
    assert found.mean == pytest.approx(score[0] - score[1])
    assert found.low < found.mean < found.high
    back = paired_bootstrap(truth, other, one, block, measure, draws=200)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_identical_maps_differ_by_zero_and_pairing_cancels_common_errors():
    truth, one, other, block = maps()
    same = paired_bootstrap(truth, one, one, block)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    # Blocks differ far more than the two maps: drawn apart, their difference would drown.
    paired = paired_bootstrap(truth, one, other, block, "pa")
    fractions = np.array([(one == truth)[block == b].mean() for b in range(25)])
    assert paired.high - paired.low < 2 * 1.96 * np.sqrt(2) * fractions.std() / 5 * 0.8


def test_nodes_that_go_together_are_not_counted_as_many():
    truth, one, other, block = maps(blocks=8)
    alone = paired_bootstrap(truth, np.where(block < 4, truth, 2 - truth), truth, block, "pa")
    nodes = paired_bootstrap(
        truth, np.where(block < 4, truth, 2 - truth), truth, np.arange(truth.size), "pa", draws=200
    )
    assert alone.high - alone.low > 4 * (nodes.high - nodes.low)
    single = paired_bootstrap(truth, one, other, np.zeros_like(block))
    assert single.low is None
    assert "no interval" in single.sentence("gravity", "nearest outcrop")


@pytest.mark.slow
def test_how_often_the_interval_holds_the_truth():
    """Of two maps equally good, about one comparison in twenty says otherwise."""
    wrong = sum(paired_bootstrap(*maps(60, seed, better=0.0), "pa", draws=300).significant for seed in range(60))
    assert wrong <= 9  # binomial(60, 0.05) exceeds it once in a thousand


def test_sentence():
    confident = Difference(0.031, 0.005, 0.059, 12, "fwiou").sentence("gravity", "nearest outcrop")
    assert confident.startswith("gravity adds 3.1 points of weighted overlap (FWIoU) over nearest outcrop")
    assert confident.endswith("(95 % interval +0.5 to +5.9, 12 blocks)")
    uncertain = Difference(-0.02, -0.06, 0.01, 9, "pa").sentence("gravity", "label diffusion")
    assert uncertain.startswith("gravity loses 2.0 points of accuracy to label diffusion")
    assert uncertain.endswith("not significant")


def test_what_does_not_fit_is_refused():
    truth, one, other, block = maps()
    with pytest.raises(ValueError, match="shape"):
        paired_bootstrap(truth, one[1:], other, block)
    with pytest.raises(ValueError, match="beauty"):
        paired_bootstrap(truth, one, other, block, "beauty")


def test_blocks_are_those_of_the_split():
    arrays = make_arrays()
    arrays["meta"]["split"] |= {"block_deg": [1.0, 1.0], "region_wsen": [80.0, 42.0, 84.0, 46.0]}
    dataset = RegionDataset.from_arrays(arrays)
    block = block_numbers(dataset)
    _, role = dataset.node_truth()
    assert len(np.unique(block[role == 1])) == len(np.unique(block[role == 2])) == 1
    assert block[role == 1][0] == 1 * 5 + 1  # second row and column; nodes on the far sides begin a fifth
    west = replace(dataset, meta={**dataset.meta, "split": {"name": "random"}})
    assert len(np.unique(block_numbers(west))) == 4  # 2.5 degrees over 4 by 4


def test_the_best_null_model_comes_last_even_if_it_is_a_reference():
    truth = np.tile([0, 1, 2], 40)
    ordered = {"nearest_outcrop": truth, "label_diffusion": np.zeros_like(truth), SHIFTED_INPUT: np.ones_like(truth)}
    nodes = ScoredNodes(truth, np.full_like(truth, 2), ordered, np.repeat(np.arange(6), 20))
    names = list(dict.fromkeys(each["null"] for each in compare_with_null_models([nodes])))
    assert names == [SHIFTED_INPUT, "nearest_outcrop"]
