import dataclasses
import functools

import pytest
import torch
from torch import nn

from gravmap.errors import OptionError
from gravmap.learning import TrainConfig
from gravmap.learning import train as train_and_draw
from gravmap.learning.training.checkpoint import read_pair
from gravmap.learning.training.distributed import ALONE
from gravmap.learning.training.weight_averaging import ExponentialMovingAverage

train = functools.partial(train_and_draw, pictures=False)  # drawing takes longer than a few steps

SHORT = TrainConfig(model="small", architecture={"kind": "unet", "widths": [4, 8]}, epochs=1, steps=4, batch_size=4)


def test_it_is_the_exponential_moving_average_of_the_weights():
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    weight = network[0].weight
    weight.data.fill_(1.0)
    average, by_hand = ExponentialMovingAverage(network, 0.9), 1.0
    for step in range(1, 200):
        weight.data.fill_(float(step % 7))
        network[1].num_batches_tracked.fill_(step)
        average.update(step)
        kept = min(0.9, (step + 1) / (step + 10))
        by_hand = kept * by_hand + (1 - kept) * (step % 7)
    assert float(average.state["0.weight"]) == pytest.approx(by_hand, rel=1e-5)
    assert int(average.state["1.num_batches_tracked"]) == 199
    with average.applied(ALONE):
        assert float(weight.detach()) == pytest.approx(by_hand, rel=1e-5)
    assert float(weight.detach()) == 199 % 7


def test_the_average_is_saved_and_does_not_affect_training(area, tmp_path):
    train(area, tmp_path / "plain", dataclasses.replace(SHORT, average=0.0))
    train(area, tmp_path / "calm", dataclasses.replace(SHORT, average=0.99))
    (plain, _), (calm, _) = (read_pair(tmp_path / name, "last") for name in ("plain", "calm"))
    network = {name for name in calm if name.startswith("network/")}
    assert all(torch.equal(plain[name], calm[name]) for name in network)
    assert {name for name in calm if name.startswith("average/")} == {f"average/{name[8:]}" for name in network}
    kept, _ = read_pair(tmp_path / "calm", "model")
    assert all(torch.equal(value, calm[f"average/{name}"]) for name, value in kept.items())
    assert any(not torch.equal(value, calm[f"network/{name}"]) for name, value in kept.items())


def test_a_decay_of_one_is_refused():
    with pytest.raises(OptionError, match="average = 1 is out of range"):
        dataclasses.replace(SHORT, average=1.0)
