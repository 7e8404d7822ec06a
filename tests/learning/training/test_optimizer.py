import pytest
import torch
from torch import nn

from gravmap.learning import TrainConfig
from gravmap.learning.training.optimizer import OptimizerSchedule

TWO = TrainConfig(schedule="adam-sgd", epochs=600, topk_warmup=0.0)


def switched(config, losses):
    """Epochs completed when SGD takes over, or None."""
    schedule = OptimizerSchedule(nn.Linear(2, 1), config, steps=4)
    return next((done for done in range(1, len(losses) + 1) if schedule.switch_is_due(losses[:done])), None)


def test_a_plateau_counts_from_epoch_50_on_and_300_is_the_end():
    assert switched(TWO, [1.0] * 400) == 50
    assert switched(TWO, [0.99**epoch for epoch in range(400)]) == 300
    # Decreases by 1 % per epoch for 100 epochs, then is constant: the average lags by some epochs.
    bent = [0.99 ** min(epoch, 100) for epoch in range(400)]
    assert 120 < switched(TWO, bent) < 160
    assert switched(TrainConfig(), [1.0] * 400) is None


def test_an_epoch_can_be_named():
    config = TrainConfig(schedule="adam-sgd", switch="epoch:3")
    assert switched(config, [0.5**epoch for epoch in range(10)]) == 3


def test_a_loss_that_rises_while_the_keep_fraction_falls_is_not_a_plateau():
    # All pixels at first: the loss of the hardest rises for 100 epochs while the network learns, then falls.
    losses = [1.0 + 0.02 * min(epoch, 100) for epoch in range(100)] + [3 * 0.99**epoch for epoch in range(250)]
    config = TrainConfig(schedule="adam-sgd", epochs=600, topk_warmup=100 / 600)
    assert switched(config, losses) == 300
    assert switched(TWO, losses) == 50


def test_adam_keeps_its_learning_rate_and_sgd_warms_up_from_a_tenth():
    schedule = OptimizerSchedule(nn.Linear(2, 1), TWO, steps=4)
    rates = []
    for epoch, index in ((0, 0), (6, 3), (200, 0)):
        schedule.set_learning_rate(0.5, epoch, index)
        rates.append(schedule.learning_rate)
    assert rates == [1e-3] * 3
    schedule.switch_to_sgd(200)
    for epoch, index in ((200, 0), (200, 2), (205, 0), (250, 0), (400, 0)):
        schedule.set_learning_rate(0.5, epoch, index)
        rates.append(schedule.learning_rate)
    assert rates[3:] == pytest.approx([1e-4, 1e-4 + 9e-4 * 0.1, 1e-3, 1e-4, 1e-6])
    settings = schedule.optimizer.param_groups[0]
    assert (settings["momentum"], settings["weight_decay"]) == (0.9, 5e-4)


def test_each_optimizer_is_that_of_torch():
    torch.manual_seed(0)
    x = torch.randn(8, 2)
    for name in ("adam", "sgd"):
        networks = [nn.Linear(2, 1) for _ in range(2)]
        networks[1].load_state_dict(networks[0].state_dict())
        schedule = OptimizerSchedule(networks[0], TWO, steps=1)
        theirs = torch.optim.Adam(networks[1].parameters(), lr=1e-3)
        if name == "sgd":
            schedule.switch_to_sgd(0)
            theirs = torch.optim.SGD(networks[1].parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
        for step in range(3):
            schedule.set_learning_rate(0.0, 5 + step, 0)  # after the warm-up of SGD
            for network, optimizer in zip(networks, (schedule.optimizer, theirs), strict=True):
                optimizer.zero_grad()
                network(x).square().mean().backward()
                optimizer.step()
        assert torch.equal(networks[0].weight, networks[1].weight)
        tensors, record = schedule.tensors(), schedule.record()
        assert record["phase"] == name
        again = OptimizerSchedule(networks[0], TWO, steps=1)
        again.load({key: value.clone() for key, value in tensors.items()}, record)
        assert again.name == name
        assert type(again.optimizer) is type(schedule.optimizer)
        back = again.tensors()
        assert back.keys() == tensors.keys()
        assert all(torch.equal(back[key], tensors[key]) for key in tensors)
        assert len(tensors) == (6 if name == "adam" else 2)
