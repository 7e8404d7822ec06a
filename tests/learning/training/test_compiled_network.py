"""Compiled networks with the operations of a group inside them, and without a compiler that works."""

import dataclasses
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn

from gravmap.learning import TrainConfig
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.gradient_accumulation import GradientAccumulation
from gravmap.learning.training.setup import compile_network
from gravmap.learning.training.trainer import Trainer
from toys.processes import forked, in_group

SHORT = TrainConfig(model="ggmnet-tiny", epochs=1, steps=2, batch_size=4, lr=3e-3, seed=1)
COMPILE = torch.compile


class _SumOverProcesses(torch.autograd.Function):
    """What SyncBatchNorm, which exists on CUDA alone, exchanges: sums forward, gradients of sums backward."""

    @staticmethod
    def forward(ctx, values):
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


class ExchangingNorm(nn.BatchNorm2d):
    def forward(self, x):
        if not self.training:
            return super().forward(x)
        count = torch.full((1,), float(x.numel() // x.shape[1]))
        sums = _SumOverProcesses.apply(torch.cat((x.sum((0, 2, 3)), (x * x).sum((0, 2, 3)), count)))
        mean, square = sums[:-1].view(2, -1) / sums[-1]
        scale = self.weight * torch.rsqrt((square - mean * mean).clamp(min=0) + self.eps)
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


def convert(network):
    """Stands for `SyncBatchNorm.convert_sync_batchnorm`."""
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = ExchangingNorm(child.num_features)
            norm.load_state_dict(child.state_dict())
            setattr(network, name, norm)
        else:
            convert(child)
    return network


def two_steps(area, folder, group, **change):
    trainer = Trainer(area, folder, dataclasses.replace(SHORT, **change), group)
    trainer.start_epoch()
    results = [trainer.train_step(index) for index in range(2)]
    return [result.loss / result.weight for result in results], list(trainer.network.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["aot_eager", "lacking on one", "breaks"])
def test_synchronised_batch_normalisation_is_compiled_or_not_in_all_processes(area, tmp_path, monkeypatch, compiler):
    """And the losses are those of one process with the whole batch."""
    # Synchronised on the CPU too.
    synchronised = property(lambda self: self.group.size > 1, lambda self, value: None)
    monkeypatch.setattr(GradientAccumulation, "synchronised", synchronised, raising=False)
    monkeypatch.setattr(nn.SyncBatchNorm, "convert_sync_batchnorm", convert)
    alone, names = two_steps(area, tmp_path, Group())

    def run(group):
        runs = []

        def fake(function):
            if compiler == "aot_eager":
                compiled = COMPILE(function, backend="aot_eager")
            elif compiler == "lacking on one":
                compiled = breaking if group.rank == 1 else function
            else:
                compiled = breaking if isinstance(function, nn.Module) else function

            def forward(*arguments):
                runs.append(isinstance(function, nn.Module))
                return compiled(*arguments)

            return forward

        torch.compile = fake
        losses, same = two_steps(area, tmp_path, group, compile=True)
        return losses, same, runs.count(True)

    expected = {"aot_eager": 3, "lacking on one": 0, "breaks": 1}[compiler]
    for losses, same, compiled_passes in forked(*in_group(run)):
        assert losses == pytest.approx(alone, rel=1e-3)
        assert same == names
        assert compiled_passes == expected


def breaking(*arguments):
    raise torch._dynamo.exc.InternalTorchDynamoError("no compiler for\nthis machine")


def test_a_network_that_does_not_compile_is_used_as_it_is(area, tmp_path, monkeypatch, caplog):
    plain, _ = two_steps(area, tmp_path, Group())
    monkeypatch.setattr(torch, "compile", lambda network: breaking)
    fallen_back, _ = two_steps(area, tmp_path, Group(), compile=True)
    assert fallen_back == plain
    (line,) = caplog.messages
    assert line.startswith("The network cannot be compiled, and is used as it is (--compile): InternalTorchDynamoError")
    assert "no compiler for this machine" in line


def test_compiling_leaves_statistics_and_gradients(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))

    def attempt(forward):
        forward(torch.ones(2, 1, 4, 4)).sum().backward()
        assert network[1].num_batches_tracked == 1
        if fails:
            raise RuntimeError("backward cannot be compiled")

    for fails in (False, True):
        compiled = compile_network(network, Group(), attempt)
        assert (compiled is network) is fails
        assert network[1].num_batches_tracked == 0
        assert all(parameter.grad is None for parameter in network.parameters())


def test_memory_that_lacks_is_not_taken_for_the_compiler(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: breaking)
    network = nn.Conv2d(1, 2, 3)

    def attempt(forward):
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert compile_network(network, Group(), attempt) is breaking
