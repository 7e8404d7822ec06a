import math

import numpy as np
import pytest
import torch

from gravmap.learning.data.dataset import IGNORE
from gravmap.learning.training.loss import class_counts, class_weights, loss_terms, make_criterion, pinball_km
from gravmap.network.outcrop_start import THICKNESS_QUANTILES


def make_batch(images=3, classes=4, size=9, seed=0, ignored=0.4):
    torch.manual_seed(seed)
    logits = torch.randn(images, classes, size, size) * 2
    target = torch.randint(classes, (images, size, size))
    target[torch.rand(target.shape) < ignored] = IGNORE
    small = torch.rand(target.shape) < 0.3
    return logits, target, small, torch.tensor([0.5, 1.0, 2.0, 0.7])[:classes]


def mean_loss(*batch, **options):
    """Loss of a batch: numerator over denominator, 0 if every pixel is ignored."""
    numerator, denominator = loss_terms(*batch, **options)
    return numerator / denominator.clamp_min(1e-30)


def by_hand(logits, target, small, weights, fraction, small_weight=3.0):
    """The definition, pixel by pixel, in float64."""
    above = below = 0.0
    for image, classes, bodies in zip(logits.double().numpy(), target.numpy(), small.numpy(), strict=True):
        pixels = []
        for row, column in np.argwhere(classes != IGNORE):
            z, y = image[:, row, column], classes[row, column]
            log_p = z[y] - (z.max() + math.log(np.exp(z - z.max()).sum()))
            pixels.append((-float(weights[y]) * log_p, small_weight if bodies[row, column] else 1.0))
        pixels.sort(reverse=True)
        for loss, weight in pixels[: math.ceil(fraction * len(pixels))]:
            above, below = above + weight * loss, below + weight
    return above / below if below else 0.0


@pytest.mark.parametrize("fraction", [0.15, 0.5, 1.0])
def test_equals_the_definition(fraction):
    batch = make_batch()
    got = mean_loss(*batch, topk_share=fraction)
    assert float(got) == pytest.approx(by_hand(*batch, fraction), rel=1e-5)


def test_only_the_hardest_valid_pixels_get_a_gradient():
    logits, target, small, weights = make_batch()
    logits.requires_grad_()
    mean_loss(logits, target, small, weights, topk_share=0.15).backward()
    kept = (logits.grad != 0).any(1)
    assert not kept[target == IGNORE].any()
    for image in range(3):
        valid = int((target[image] != IGNORE).sum())
        assert int(kept[image].sum()) == math.ceil(0.15 * valid)


def test_the_keep_fraction_is_of_the_valid_pixels():
    logits, target, small, weights = make_batch(images=1, size=20, ignored=0.0)
    target[:, 4:] = IGNORE  # 80 of 400 pixels are left
    _, denominator = loss_terms(logits, target, torch.zeros_like(small), weights, topk_share=0.15)
    assert float(denominator) == 12


def test_ignored_pixels_do_not_count_where_nothing_is_wrong_any_more():
    # Every valid pixel has loss 0, as ignored ones seem to have; ties are kept, but only valid ones.
    target = torch.full((1, 6, 6), IGNORE)
    target[0, 0] = 1
    logits = torch.zeros(1, 3, 6, 6)
    logits[:, 1] = 1e4
    _, denominator = loss_terms(logits, target, torch.zeros(1, 6, 6, dtype=torch.bool), torch.ones(3))
    assert float(denominator) == 6


def test_an_image_without_labels_gives_zero_and_a_zero_gradient():
    logits, target, small, weights = make_batch()
    logits.requires_grad_()
    target[:] = IGNORE
    loss = mean_loss(logits, target, small, weights)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_an_image_without_labels_beside_others_changes_nothing():
    logits, target, small, weights = make_batch()
    target[1] = IGNORE
    alone = mean_loss(logits[[0, 2]], target[[0, 2]], small[[0, 2]], weights)
    assert float(mean_loss(logits, target, small, weights)) == pytest.approx(float(alone), rel=1e-6)


def test_small_bodies_weigh_more_but_are_not_ranked_higher():
    logits, target, small, weights = make_batch(images=1)
    kept = []
    for flags in (small, ~small, torch.zeros_like(small)):
        free = logits.clone().requires_grad_()
        loss_terms(free, target, flags, weights)[0].backward()
        kept.append((free.grad != 0).any(1))
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])


def test_terms_of_parts_add_up_to_the_whole():
    batch = make_batch(images=4)
    whole = loss_terms(*batch)
    halves = [loss_terms(*(part[rows] for part in batch[:3]), batch[3]) for rows in (slice(0, 2), slice(2, 4))]
    for index in range(2):
        torch.testing.assert_close(whole[index], halves[0][index] + halves[1][index])


def test_half_precision_logits_are_counted_in_float32():
    logits, target, small, weights = make_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        numerator, _ = loss_terms(logits.bfloat16(), target, small, weights)
    assert numerator.dtype == torch.float32
    assert float(numerator) == pytest.approx(float(loss_terms(logits.bfloat16().float(), target, small, weights)[0]))


def test_a_criterion_applies_all_settings_of_the_run():
    logits, target, small, weights = make_batch(ignored=0.9)
    found = []
    for base in ("valid", "all"):
        criterion = make_criterion(weights, topk_base=base, small_weight=2.0)
        found.append(criterion(logits, target, small, topk_share=0.15))
        expected = loss_terms(logits, target, small, weights, topk_share=0.15, topk_base=base, small_weight=2.0)
        assert found[-1] == expected
    assert found[0][1] < found[1][1]


def test_class_weights_have_mean_one_and_none_for_what_is_absent():
    counts = np.array([7000.0, 2500.0, 500.0, 0.0])
    for kind, ratio in {
        "enet": math.log(1.02 + 0.7) / math.log(1.02 + 0.05),
        "inverse": 14,
        "sqrt": math.sqrt(14),
        # Of 7000 cells all but 239 count, of 500 all but one: about the inverse of the counts.
        "effective": (1 - 0.99999**7000) / (1 - 0.99999**500),
        "none": 1,
    }.items():
        weights = class_weights(counts, kind)
        assert weights[3] == 0
        assert weights[:3].mean() == pytest.approx(1)
        assert weights[2] / weights[0] == pytest.approx(ratio), kind


def test_a_fraction_of_all_pixels_keeps_everything_where_little_is_labelled():
    logits, target, small, weights = make_batch(images=1, size=20, ignored=0.0)
    target[:, 2:] = IGNORE  # 40 of 400 pixels are left, fewer than 15 % of all
    kept = [
        float(loss_terms(logits, target, torch.zeros_like(small), weights, topk_share=0.15, topk_base=base)[1])
        for base in ("valid", "all")
    ]
    assert kept == [6, 40]
    target = make_batch(images=1, size=20, ignored=0.0)[1]
    _, kept_of_full = loss_terms(logits, target, torch.zeros_like(small), weights, topk_share=0.15, topk_base="all")
    assert float(kept_of_full) == 60


def test_counts_are_of_training_cells_once_and_only_them(area):
    before = class_counts(area)
    training = area.labels[(area.role == 0) & (area.labels > 0)]
    np.testing.assert_array_equal(before, [(training == 1).sum(), (training == 2).sum()])
    area.labels[area.role != 0] = 2
    np.testing.assert_array_equal(class_counts(area), before)


def test_the_pinball_loss_is_that_of_the_definition_and_of_scikit_learn():
    torch.manual_seed(0)
    quantiles, truth = torch.rand(2, 3, 4, 5) * 3, torch.rand(2, 4, 5) * 3
    found = pinball_km(quantiles, truth).numpy()
    expected = np.mean(
        [
            np.where(truth > q, level * (truth - q), (1 - level) * (q - truth))
            for level, q in zip(THICKNESS_QUANTILES, quantiles.unbind(1), strict=True)
        ],
        axis=0,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    peer = pytest.importorskip("sklearn.metrics").mean_pinball_loss
    losses = [peer(truth.ravel(), quantiles[:, k].ravel(), alpha=p) for k, p in enumerate(THICKNESS_QUANTILES)]
    assert found.mean() == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_pinball_loss_is_smallest_at_the_true_quantiles():
    """Of an exponential distribution, whose quantile at p is -ln(1 - p)."""
    truth = -torch.log(torch.linspace(0.0005, 0.9995, 1000))[None, None]
    best = torch.tensor([-math.log(1 - level) for level in THICKNESS_QUANTILES])

    def loss(quantiles):
        return float(pinball_km(quantiles[None, :, None, None].expand(1, 3, 1, 1000), truth).mean())

    for place in range(3):
        for shift in (-0.1, 0.1):
            changed = best.clone()
            changed[place] += shift
            assert loss(changed) > loss(best) + 1e-5


def test_an_added_loss_counts_at_labelled_pixels_alone_and_in_the_ranking():
    logits, target, small, weights = make_batch()
    added = torch.zeros(target.shape)
    added[target == IGNORE] = 1e6
    assert mean_loss(logits, target, small, weights, added=added) == mean_loss(logits, target, small, weights)
    hardest = (target[0] != IGNORE).nonzero()[0]
    added[0, hardest[0], hardest[1]] = 100.0
    numerator, _ = loss_terms(logits[:1], target[:1], small[:1], weights, topk_share=1e-9, added=added[:1])
    assert float(numerator) > 100
