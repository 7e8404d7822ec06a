import pytest
import torch
from torch import nn

from gravmap.learning import TrainConfig
from gravmap.learning.training.optimizer import OptimizerSchedule

TWO = TrainConfig(schedule="adam-sgd", epochs=600, topk_warmup=0.0)


def change(config, losses):
    """Epochs done when SGD takes over, if it does."""
    phases = OptimizerSchedule(nn.Linear(2, 1), config, steps=4)
    return next((done for done in range(1, len(losses) + 1) if phases.due(losses[:done])), None)


def test_a_plateau_counts_from_epoch_50_on_and_300_is_the_end():
    assert change(TWO, [1.0] * 400) == 50
    assert change(TWO, [0.99**epoch for epoch in range(400)]) == 300
    # Falls by 1 % an epoch for 100 epochs, then stands: the average needs some epochs to know.
    bent = [0.99 ** min(epoch, 100) for epoch in range(400)]
    assert 120 < change(TWO, bent) < 160
    assert change(TrainConfig(), [1.0] * 400) is None


def test_an_epoch_can_be_named():
    config = TrainConfig(schedule="adam-sgd", switch="epoch:3")
    assert change(config, [0.5**epoch for epoch in range(10)]) == 3


def test_a_loss_that_rises_because_fewer_pixels_teach_is_no_plateau():
    # All pixels at first: the loss of the worst rises for 100 epochs while the network learns, then falls.
    losses = [1.0 + 0.02 * min(epoch, 100) for epoch in range(100)] + [3 * 0.99**epoch for epoch in range(250)]
    config = TrainConfig(schedule="adam-sgd", epochs=600, topk_warmup=100 / 600)
    assert change(config, losses) == 300
    assert change(TWO, losses) == 50


def test_adams_rate_stays_and_sgd_begins_with_a_tenth():
    phases = OptimizerSchedule(nn.Linear(2, 1), TWO, steps=4)
    rates = []
    for epoch, index in ((0, 0), (6, 3), (200, 0)):
        phases.set_rate(0.5, epoch, index)
        rates.append(phases.optimiser.param_groups[0]["lr"])
    assert rates == [1e-3] * 3
    phases.switch(200)
    for epoch, index in ((200, 0), (200, 2), (205, 0), (250, 0), (400, 0)):
        phases.set_rate(0.5, epoch, index)
        rates.append(phases.optimiser.param_groups[0]["lr"])
    assert rates[3:] == pytest.approx([1e-4, 1e-4 + 9e-4 * 0.1, 1e-3, 1e-4, 1e-6])
    settings = phases.optimiser.param_groups[0]
    assert (settings["momentum"], settings["weight_decay"]) == (0.9, 5e-4)


def test_each_optimiser_is_torchs():
    torch.manual_seed(0)
    x = torch.randn(8, 2)
    for name in ("adam", "sgd"):
        networks = [nn.Linear(2, 1) for _ in range(2)]
        networks[1].load_state_dict(networks[0].state_dict())
        phases = OptimizerSchedule(networks[0], TWO, steps=1)
        theirs = torch.optim.Adam(networks[1].parameters(), lr=1e-3)
        if name == "sgd":
            phases.switch(0)
            theirs = torch.optim.SGD(networks[1].parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
        for step in range(3):
            phases.set_rate(0.0, 5 + step, 0)  # after the warm-up of SGD
            for network, optimiser in zip(networks, (phases.optimiser, theirs), strict=True):
                optimiser.zero_grad()
                network(x).square().mean().backward()
                optimiser.step()
        assert torch.equal(networks[0].weight, networks[1].weight)
        tensors, record = phases.state()
        assert record["phase"] == name
        again = OptimizerSchedule(networks[0], TWO, steps=1)
        again.restore({key: value.clone() for key, value in tensors.items()}, record)
        assert again.name == name
        assert type(again.optimiser) is type(phases.optimiser)
        back = again.state()[0]
        assert back.keys() == tensors.keys()
        assert all(torch.equal(back[key], tensors[key]) for key in tensors)
        assert len(tensors) == (6 if name == "adam" else 2)
