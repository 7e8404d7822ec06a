import dataclasses
import functools
import json
from functools import partial

import pytest
import torch

import gravmap.network
from gravmap.errors import DeviceError, out_of_memory_message
from gravmap.learning import TrainConfig
from gravmap.learning import train as train_and_draw
from gravmap.learning.sampling.augmentation import Augmentation
from gravmap.learning.training.checkpoint import read_pair
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.trainer import NonFiniteLoss, Trainer
from toys.processes import forked, in_group

train = functools.partial(train_and_draw, pictures=False)  # drawing takes longer than a few steps

SHORT = TrainConfig(model="ggmnet-tiny", epochs=1, steps=2, batch_size=4, seed=1)
BUILD = gravmap.network.build


def with_memory_for(crops, calls=0):
    """Return a `build` whose networks run out of memory above so many crops, after so many calls in training."""

    def build(*args, **options):
        network = BUILD(*args, **options)
        counted = []

        def hook(module, inputs):
            if module.training:
                counted.append(0)
                if len(counted) > calls and len(inputs[0]) > crops:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

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
    assert out_of_memory_message(full.value)
    assert out_of_memory_message(torch.OutOfMemoryError("CUDA out of memory")) == "CUDA out of memory"
    assert out_of_memory_message(MemoryError()) == "allocation failed"
    assert out_of_memory_message(RuntimeError("shapes do not match")) is None


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


def test_precision_auto_is_bfloat16_on_a_gpu_only():
    assert not TrainConfig(device="cpu").half
    assert TrainConfig(device="cuda").half
    assert not TrainConfig(device="cuda", precision="float32").half
