import pytest

from gravmap.errors import OptionError
from gravmap.learning.training.schedule import cosine_rate, ohem_keep_fraction, plateaued, sgd_rate, switch_epoch

PAPER = {"warmup_epochs": 5, "warmup_from": 0.1, "milestones": range(50, 600, 50), "decay": 0.1, "floor": 0.0}
OURS = {**PAPER, "milestones": (50, 100, 150), "floor": 1e-6}


def test_cosine_annealing_follows_a_warm_up():
    assert cosine_rate(0.0, 1e-3) == pytest.approx(1e-5)
    assert cosine_rate(0.05, 1e-3) == pytest.approx(1e-3)
    assert cosine_rate(0.525, 1e-3) == pytest.approx(0.505e-3)
    assert cosine_rate(1.0, 1e-3) == pytest.approx(1e-5)
    assert cosine_rate(1.7, 1e-3) == pytest.approx(1e-5)
    falling = [cosine_rate(0.05 + 0.095 * step, 1.0) for step in range(11)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize(
    ("epochs", "rate"),
    [(0, 1e-4), (2.5, 5.5e-4), (5, 1e-3), (49.99, 1e-3), (50, 1e-4), (100, 1e-5), (150, 1e-6), (299, 1e-6)],
)
def test_the_learning_rate_of_sgd_warms_up_and_decays_at_milestones(epochs, rate):
    assert sgd_rate(epochs, 1e-3, **OURS) == pytest.approx(rate)


def test_the_papers_learning_rate_has_no_minimum():
    assert sgd_rate(299, 1e-3, **PAPER) == pytest.approx(1e-8)
    assert sgd_rate(549.9, 1e-3, **PAPER) == pytest.approx(1e-13)


def test_sgds_rate_agrees_with_torchs_schedulers():
    # SequentialLR of LinearLR and MultiStepLR is what others call WarmupMultiStepLR; here 4 steps an epoch.
    import torch

    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    warm = torch.optim.lr_scheduler.LinearLR(optimiser, 0.1, 1.0, total_iters=20)
    steps = torch.optim.lr_scheduler.MultiStepLR(optimiser, [40, 60], 0.1)
    both = torch.optim.lr_scheduler.ChainedScheduler([warm, steps])
    for step in range(80):
        ours = sgd_rate(step / 4, 0.5, warmup_epochs=5, warmup_from=0.1, milestones=(10, 15), decay=0.1, floor=0.0)
        assert ours == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        both.step()


def test_a_plateau_is_a_small_fall_of_the_moving_average():
    flat = {"smoothing": 0.9, "window": 20, "gain": 0.01}
    assert plateaued([1.0] * 21, **flat)
    assert not plateaued([1.0] * 20, **flat)  # nothing to compare with yet
    assert not plateaued([0.99**epoch for epoch in range(100)], **flat)
    # The moving average of a geometric fall falls as fast as the loss, in the end: 0.05 % an epoch is 1 % in 20.
    assert plateaued([0.9996**epoch for epoch in range(200)], **flat)
    assert not plateaued([0.9994**epoch for epoch in range(200)], **flat)
    # A single better epoch is not progress, and a single worse one not a plateau.
    assert plateaued([*[1.0] * 40, 0.95], **flat)
    assert not plateaued([*[0.99**epoch for epoch in range(60)], 0.7], **flat)
    assert plateaued([1.0 + 0.01 * epoch for epoch in range(40)], **flat)


def test_switch_is_parsed():
    assert switch_epoch("plateau") is None
    assert switch_epoch("epoch:120") == 120
    for wrong in ("epoch:0", "epoch", "120", "epoch:-3", "swats"):
        with pytest.raises(OptionError, match="is not valid"):
            switch_epoch(wrong)


def test_the_keep_fraction_starts_at_one():
    assert ohem_keep_fraction(0.0, 0.15, 0.1) == 1.0
    assert ohem_keep_fraction(0.05, 0.15, 0.1) == pytest.approx(0.575)
    assert ohem_keep_fraction(0.1, 0.15, 0.1) == 0.15
    assert ohem_keep_fraction(0.9, 0.15, 0.1) == 0.15
    assert ohem_keep_fraction(0.0, 0.15, 0.0) == 0.15
