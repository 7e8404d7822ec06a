"""The sum of the gradients over processes, which overlaps the backward pass."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from gravmap.learning import TrainConfig
from gravmap.learning.training import gradient_accumulation
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.gradient_accumulation import GradientAccumulation, GradientSum
from gravmap.learning.training.trainer import Trainer
from toys.processes import forked, in_group

SHORT = TrainConfig(model="ggmnet-tiny", epochs=1, steps=4, batch_size=8, lr=3e-3, seed=1, freeze_statistics=True)
COMPILE = torch.compile


class SumAfterwards:
    """The sum once the backward pass has ended."""

    def __init__(self, parameters, group):
        self.parameters = parameters

    def start(self):
        pass

    def finish(self):
        gradients = [each.grad for each in self.parameters]
        flat = torch.cat([each.flatten() for each in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


class Recorded(GradientSum):
    """Notes in `events` when a bucket is launched, and when the last gradient of a backward pass is computed."""

    def __init__(self, parameters, group):
        super().__init__(parameters, group)
        self.events = []
        parameters[0].register_hook(lambda gradient: self.events.append("last gradient"))

    def _launch(self):
        self.events.append(len(self._waits))
        super()._launch()


@pytest.fixture(autouse=True)
def several_buckets(monkeypatch):
    monkeypatch.setattr(gradient_accumulation, "BUCKET_BYTES", 2**16)


def four_steps(area, folder, group, prepare=lambda trainer: None, before_step=lambda trainer, index: None, **change):
    """Losses and weights of four steps, and the trainer."""
    trainer = Trainer(area, folder, dataclasses.replace(SHORT, **change), group)
    prepare(trainer)
    trainer.start_epoch()
    losses = []
    for index in range(4):
        before_step(trainer, index)
        result = trainer.train_step(index)
        losses.append(result.loss / result.weight)
    return losses, torch.cat([each.detach().flatten() for each in trainer.network.parameters()]).numpy(), trainer


def use(kind):
    """Return what makes a trainer sum its gradients so."""

    def prepare(trainer):
        trainer.accumulation._gradients = kind(list(trainer.network.parameters()), trainer.group)

    return prepare


@pytest.mark.parametrize(("size", "micro_batch"), [(2, None), (2, 2), pytest.param(4, None, marks=pytest.mark.slow)])
def test_all_processes_have_the_weights_of_one(area, tmp_path, size, micro_batch):
    """And with two processes, bit for bit those of a sum after the backward pass."""

    def run(group):
        losses, weights, _ = four_steps(area, tmp_path, group, micro_batch=micro_batch)
        return losses, weights, four_steps(area, tmp_path, group, use(SumAfterwards), micro_batch=micro_batch)[1]

    expected, alone, _ = four_steps(area, tmp_path, Group())
    results = forked(*in_group(run, size))
    for losses, weights, afterwards in results:
        assert losses == pytest.approx(expected, rel=1e-4)
        np.testing.assert_allclose(weights, alone, atol=1e-4)
        assert np.array_equal(weights, results[0][1])
        assert size > 2 or np.array_equal(weights, afterwards)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_buckets_are_summed_within_the_last_backward_pass(area, tmp_path, monkeypatch, compiled):
    monkeypatch.setattr(torch, "compile", partial(COMPILE, backend="aot_eager"))

    def run(group):
        _, weights, trainer = four_steps(area, tmp_path, group, use(Recorded), micro_batch=2, compile=compiled)
        sums = trainer.accumulation._gradients
        return sums.events, len(sums._buckets), weights

    expected = four_steps(area, tmp_path, Group())[1]
    for events, buckets, weights in forked(*in_group(run)):
        np.testing.assert_allclose(weights, expected, atol=1e-4)
        assert buckets > 4
        numbers = list(range(buckets))
        if compiled:  # its backward pass is one operation, which ends before the first gradient is passed on
            assert [each for each in events if each != "last gradient"] == 4 * numbers
        else:
            # The first bucket waits for the last layer, and the last bucket for the first one.
            assert events == 4 * ["last gradient", *numbers[:-1], "last gradient", numbers[-1]]


@pytest.mark.parametrize("step", [0, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2)), 3])
@pytest.mark.parametrize("place", ["forward", "backward"])
def test_a_process_out_of_memory_takes_part_in_the_sums(area, tmp_path, place, step):
    """The step is repeated in both, with micro-batches of half the size."""

    def fail(group, launched, trainer, index):
        if group.rank == 0 or index != step:
            return

        def raise_once(*arguments):
            handle.remove()
            launched.append(len(trainer.accumulation._gradients._waits))
            raise torch.OutOfMemoryError("CUDA out of memory")

        parameters = list(trainer.network.parameters())
        if place == "forward":
            handle = trainer.network.register_forward_pre_hook(raise_once)
        else:
            handle = parameters[len(parameters) // 3].register_hook(raise_once)

    def halve(trainer, index):
        if index == step:
            trainer.accumulation.halve_micro_batch()

    def run(group):
        launched = []
        weights = four_steps(area, tmp_path, group, before_step=partial(fail, group, launched))[1]
        return weights, four_steps(area, tmp_path, group, before_step=halve)[1], launched

    (weights, _, _), (same, expected, (launched,)) = forked(*in_group(run))
    assert np.array_equal(weights, expected)
    assert np.array_equal(same, expected)
    assert (launched > 0) is (place == "backward")


def test_gradients_keep_their_layout_and_a_parameter_without_one_stays_so():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 64, 3)
            self.unused = nn.Conv2d(64, 64, 3)
            self.frozen = nn.Conv2d(64, 64, 1).requires_grad_(False)
            self.last = nn.Conv2d(64, 64, 3)

        def forward(self, x):
            return self.last(self.frozen(self.first(x)).tanh())

    def run(group):
        network = Network().to(memory_format=torch.channels_last)
        accumulation = GradientAccumulation(network, SHORT, group, 8)
        crops = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))

        def backward(samples):
            network(crops[samples]).square().sum().backward()
            return torch.ones(2).double(), torch.zeros(1, dtype=torch.int64)

        for _ in range(2):
            network.zero_grad()
            accumulation.run(backward, 0, lambda: 0.0)
        layout = [each.grad.stride() == each.stride() for each in network.parameters() if each.grad is not None]
        gradients = {name: each.grad for name, each in network.named_parameters()}
        return {name: None if each is None else each.numpy() for name, each in gradients.items()}, layout

    alone, _ = run(Group())
    for gradients, layout in forked(*in_group(run)):
        assert all(layout)
        for name, gradient in gradients.items():
            if name.startswith(("unused", "frozen")):
                assert gradient is None, name
            else:
                np.testing.assert_allclose(2 * gradient, alone[name], rtol=1e-4, atol=1e-3, err_msg=name)
