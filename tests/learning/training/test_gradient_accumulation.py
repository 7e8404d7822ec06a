import dataclasses
import functools
import json
from functools import partial

import pytest
import torch

import gravmap.network
from gravmap.errors import DeviceError, out_of_memory
from gravmap.learning import TrainConfig, load_model
from gravmap.learning import train as train_and_draw
from gravmap.learning.sampling.augmentation import Augmentation
from gravmap.learning.training import launch
from gravmap.learning.training.checkpoint import read_pair
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.gradient_accumulation import GradientAccumulation
from gravmap.learning.training.state import TrainingState
from gravmap.learning.training.trainer import NonFiniteLoss, Trainer
from toys.processes import forked, in_group

train = functools.partial(train_and_draw, pictures=False)  # drawing takes longer than a few steps

SHORT = TrainConfig(model="ggmnet-tiny", epochs=1, steps=2, batch_size=4, seed=1)
BUILD = gravmap.network.build


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
BESIDE_TORCH = [
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at another call."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]
"""Errors of the libraries that allocate GPU memory beside torch."""


def with_memory_for(crops, calls=0, error=CUDA):
    """Return a `build` whose networks run out of memory above so many crops, after so many calls in training."""

    def build(*args, **options):
        network = BUILD(*args, **options)
        counted = []

        def hook(module, inputs):
            if module.training:
                counted.append(0)
                if len(counted) > calls and len(inputs[0]) > crops:
                    raise error

        network.register_forward_pre_hook(hook)
        return network

    return build


def state_of(folder):
    tensors, record = read_pair(folder, "last")
    return {name: value.numpy().tobytes() for name, value in tensors.items()}, record


# When the second micro-batch of a step fails, the first has updated the running statistics already.
@pytest.mark.parametrize(("batch", "calls"), [(4, 0), (8, 1)])
def test_out_of_memory_halves_the_micro_batch_and_repeats_the_step(area, tmp_path, monkeypatch, caplog, batch, calls):
    config = dataclasses.replace(SHORT, batch_size=batch, steps=1 + 4 // batch)
    train(area, tmp_path / "small", dataclasses.replace(config, micro_batch=2))
    monkeypatch.setattr(gravmap.network, "build", with_memory_for(3, calls))
    train(area, tmp_path / "short", dataclasses.replace(config, micro_batch=4))
    small, short = state_of(tmp_path / "small"), state_of(tmp_path / "short")
    assert small[0] == short[0]
    assert short[1]["step"] == config.steps
    assert short[1]["at_once"] == 2
    assert "Out of memory with a micro-batch of 4 crops; continuing with 2" in caplog.text


@pytest.mark.parametrize("error", BESIDE_TORCH)
@pytest.mark.parametrize("place", ["forward", "backward"])
def test_libraries_out_of_memory_halve_the_micro_batch(area, tmp_path, monkeypatch, place, error):
    trainer = Trainer(area, tmp_path, SHORT, Group())
    trainer.start_epoch()
    calls = []

    def fail_once(*arguments):
        calls.append(0)
        if len(calls) == 1:
            raise error

    if place == "forward":
        trainer.network.register_forward_pre_hook(fail_once)
    else:
        next(trainer.network.parameters()).register_hook(fail_once)
    trainer.train_step(0)
    assert (trainer.accumulation.micro_batch, len(calls)) == (2, 3)


@pytest.mark.parametrize("error", BESIDE_TORCH)
@pytest.mark.parametrize("place", ["optimizer", "all_reduce"])
def test_out_of_memory_outside_the_passes_ends_the_run_in_words(area, tmp_path, monkeypatch, place, error):
    def fail(*arguments, **options):
        raise error

    trainer = Trainer(area, tmp_path, SHORT, Group(size=1 if place == "optimizer" else 2))
    trainer.start_epoch()
    if place == "optimizer":
        monkeypatch.setattr(trainer.state.schedule.optimizer, "step", fail)
    else:
        monkeypatch.setattr(torch.distributed, "all_reduce", fail)  # within the backward pass
    with pytest.raises((RuntimeError, DeviceError)) as caught:
        trainer.train_step(0)
    assert trainer.accumulation.steps == 1
    described = launch._describe(caught.value)  # of a process of several; of a single one see tests/cli/test_session.py
    assert described["type"] == "DeviceError"
    assert described["message"].startswith("Not enough memory: CU") or "cuDNN" in described["message"]
    assert "--micro-batch" in described["hint"]


def test_a_resumed_run_keeps_the_micro_batch_that_fitted(area, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(gravmap.network, "build", with_memory_for(3))
    train(area, tmp_path / "run", SHORT)
    assert "Out of memory" in caplog.text
    caplog.clear()
    train(area, tmp_path / "run", dataclasses.replace(SHORT, epochs=2), resume=True)
    assert "Out of memory" not in caplog.text


def test_memory_for_less_than_two_crops_is_refused(area, tmp_path, monkeypatch):
    monkeypatch.setattr(gravmap.network, "build", with_memory_for(1))
    with pytest.raises(DeviceError, match="2 crops of 32 x 32 pixels") as caught:
        train(area, tmp_path / "run", SHORT)
    assert "--size" in caught.value.hint


def test_finding_the_micro_batch_leaves_the_network_unchanged(area, tmp_path, monkeypatch):
    monkeypatch.setattr(gravmap.network, "build", with_memory_for(3))
    trainer = Trainer(area, tmp_path, SHORT, Group())
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.accumulation.find_micro_batch(partial(trainer.backward, 0, 0.15))
    assert trainer.accumulation.micro_batch == 2
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in trainer.network.parameters())


@dataclasses.dataclass(frozen=True)
class Pair(Group):
    """The first of two processes, the other of which does the same; `others` run out of memory at their first calls."""

    size: int = 2
    others: list = dataclasses.field(default_factory=list)

    def sum(self, tensor):
        return tensor.mul_(2) + (self.others.pop() if self.others else 0)

    def broadcast(self, value):
        return value


def test_running_statistics_are_restored_if_only_another_process_ran_out_of_memory(area, tmp_path):
    trainer = Trainer(area, tmp_path, dataclasses.replace(SHORT, batch_size=8), Pair(others=[1.0]))
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.accumulation.find_micro_batch(partial(trainer.backward, 0, 0.15))
    assert trainer.accumulation.micro_batch == 2
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_one_crop_per_process_is_tried_before_statistics_are_synchronised(area, tmp_path, monkeypatch):
    """Also by a network that normalises one value per channel and crop."""
    monkeypatch.setattr(GradientAccumulation, "synchronised", True)
    trainer = Trainer(area, tmp_path, dataclasses.replace(SHORT, model="ggmnet-small", batch_size=2), Pair())
    assert trainer.accumulation.micro_batch == 1
    layers = [each for each in trainer.network.modules() if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)]
    assert layers
    assert all(isinstance(each, torch.nn.SyncBatchNorm) and each.training for each in layers)
    assert not any(each.num_batches_tracked for each in layers)
    # Cards that hold one crop.
    monkeypatch.setattr(gravmap.network, "build", with_memory_for(1))
    trainer = Trainer(area, tmp_path, dataclasses.replace(SHORT, model="ggmnet-small", batch_size=8), Pair())
    assert trainer.accumulation.micro_batch == 1


def test_the_memory_probe_leaves_room_for_the_optimizer_and_empties_the_cache(area, tmp_path, monkeypatch):
    trainer = Trainer(area, tmp_path, SHORT, Group())
    allocated, emptied, sizes = [], [], []

    def empty_like(tensor, **options):
        allocated.append(tensor.numel())
        if sum(allocated) > 3 * parameters and len(sizes) < 1:
            sizes.append(trainer.accumulation.micro_batch)
            raise BESIDE_TORCH[0]
        return torch.empty(0)

    parameters = sum(each.numel() for each in trainer.network.parameters())
    monkeypatch.setattr(torch, "empty_like", empty_like)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(len(allocated)))
    trainer.accumulation.find_micro_batch(partial(trainer.backward, 0, 0.15))
    assert (sizes, trainer.accumulation.micro_batch) == ([4], 2)
    assert emptied[-1] == len(allocated)
    assert len(emptied) == 2  # after the failure, and at the end


@pytest.mark.slow
def test_one_process_out_of_memory_does_not_block_the_others(area, tmp_path, monkeypatch):
    config = dataclasses.replace(SHORT, steps=1, batch_size=16)

    def short(group):
        # Only the second process has little memory, and fails in the second of its two micro-batches.
        gravmap.network.build = with_memory_for(2, calls=1) if group.rank else BUILD
        train(area, tmp_path / "short", dataclasses.replace(config, micro_batch=4), group=group)

    def small(group):
        train(area, tmp_path / "small", dataclasses.replace(config, micro_batch=2), group=group)

    assert forked(*in_group(short)) == [None, None]
    assert forked(*in_group(small)) == [None, None]
    one, other = state_of(tmp_path / "short"), state_of(tmp_path / "small")
    assert one[0] == other[0]
    assert one[1]["at_once"] == 2


def test_out_of_memory_errors_are_recognised():
    with pytest.raises(RuntimeError) as full:
        torch.empty(1 << 50)
    assert isinstance(out_of_memory(full.value), DeviceError)
    assert "CUDA out of memory" in out_of_memory(torch.OutOfMemoryError("CUDA out of memory")).message
    assert out_of_memory(MemoryError(), "Wait.").hint == "Wait."
    assert out_of_memory(RuntimeError("shapes do not match")) is None
    assert out_of_memory(DeviceError("Out of memory with a micro-batch of 2 crops.")) is None


def test_a_loss_that_is_not_finite_stops_and_saves_its_batch(area, tmp_path):
    config = dataclasses.replace(SHORT, batch_size=2, augmentation=Augmentation(amplitude=(1e38, 1e38)))
    with pytest.raises(NonFiniteLoss, match="The loss is not finite in epoch 1, step 1"):
        train(area, tmp_path / "run", config)
    tensors, record = read_pair(tmp_path / "run", "nonfinite_batch")
    assert (record["epoch"], record["step"], record["samples"], record["phase"]) == (1, 1, [0, 1], "adam")
    assert record["crops"][0]["amplitude"] == 1e38
    assert record["crops"][0]["lat"] != record["crops"][1]["lat"]
    assert tensors["fields"].shape == (2, 1, 32, 32)
    assert not tensors["fields"].isfinite().all()
    assert tensors["target"].shape == tensors["small"].shape == (2, 32, 32)
    assert json.loads((tmp_path / "run" / "nonfinite_batch.json").read_text())["seed"] == 1


def test_a_gradient_that_is_not_finite_stops_before_the_optimizer_step(area, tmp_path):
    trainer = Trainer(area, tmp_path, SHORT, Group())
    trainer.start_epoch()
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    next(trainer.network.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteLoss, match="The gradient"):
        trainer.train_step(0)
    for name, value in trainer.network.named_parameters():
        assert torch.equal(value, before[name])


def first_loss(area, folder, **change):
    trainer = Trainer(area, folder, dataclasses.replace(SHORT, **change), Group())
    trainer.start_epoch()
    result = trainer.train_step(0)
    assert all(parameter.dtype == parameter.grad.dtype == torch.float32 for parameter in trainer.network.parameters())
    return result.loss / result.weight, list(trainer.network.state_dict())


def test_bfloat16_and_channels_last_give_the_same_loss(area, tmp_path):
    eight = {"batch_size": 8}  # with fewer crops the coarsest maps hold too few values for batch norm in 8 bits
    plain, _ = first_loss(area, tmp_path, **eight)
    half, _ = first_loss(area, tmp_path, precision="bfloat16", **eight)
    assert half != plain
    assert half == pytest.approx(plain, rel=0.02)
    assert first_loss(area, tmp_path, channels_last=True, **eight)[0] == pytest.approx(plain, rel=1e-4)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_loss_under_the_same_names(area, tmp_path, monkeypatch):
    # Traced, but not turned into machine code, which takes minutes.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, names = first_loss(area, tmp_path)
    compiled, again = first_loss(area, tmp_path, compile=True)
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert again == names


def test_the_training_confusion_matrix_counts_every_labelled_pixel_once(area, tmp_path):
    trainer = Trainer(area, tmp_path, dataclasses.replace(SHORT, micro_batch=2), Group())
    trainer.start_epoch()
    result = trainer.train_step(0)
    _, target, _ = trainer.sampler.batch(0, [0, 1, 2, 3])
    counted = torch.bincount(target[target >= 0], minlength=2)
    assert torch.equal(result.confusion.sum(1), counted)


def test_a_run_records_the_precision_of_its_training_and_of_its_scores(area, tmp_path):
    scores = train(area, tmp_path / "run", dataclasses.replace(SHORT, precision="bfloat16"))
    assert load_model(tmp_path / "run")[1].recipe["precision"] == "bfloat16"
    assert scores["precision"] == "float32"  # on a CPU
    train(area, tmp_path / "auto", SHORT)
    assert load_model(tmp_path / "auto")[1].recipe["precision"] == "float32"
    assert state_of(tmp_path / "auto")[1]["config"]["precision"] == "auto"  # on another device it is another one


def test_out_of_memory_while_a_checkpoint_is_loaded_is_not_taken_for_damage(area, tmp_path, monkeypatch):
    def fail(*arguments):
        raise CUDA

    train(area, tmp_path / "run", SHORT)
    monkeypatch.setattr(TrainingState, "load", fail)
    with pytest.raises(torch.OutOfMemoryError):
        train(area, tmp_path / "run", dataclasses.replace(SHORT, epochs=2), resume=True)


@pytest.mark.parametrize("error", [CUDA, *BESIDE_TORCH])
def test_scoring_out_of_memory_ends_in_words(area, tmp_path, error):
    def fail(module, inputs):
        raise error

    trainer = Trainer(area, tmp_path, SHORT, Group())
    trainer.network.register_forward_pre_hook(fail)
    for score in (trainer.scorer.score_tuning_blocks, trainer.scorer.predict_held_out, trainer.scorer.measure):
        with pytest.raises(DeviceError, match="Out of memory with one window of 64 x 64 pixels"):
            score()


def test_scoring_takes_one_window_at_a_time(area, tmp_path, monkeypatch):
    sizes = []
    trainer = Trainer(area, tmp_path, SHORT, Group())
    trainer.network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    # Also on a GPU: only what is passed on is looked at.
    monkeypatch.setattr(trainer.scorer, "group", Group(device=torch.device("cuda")))
    options = trainer.scorer._options
    monkeypatch.setattr(type(trainer.scorer), "_options", options | {"device": "cpu", "group": Group()})
    trainer.scorer.score_tuning_blocks()
    assert set(sizes) == {9}  # its crops
