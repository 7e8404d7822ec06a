"""Precision by device: bfloat16 only where a GPU computes in it, TF32 in convolutions alone."""

import logging

import pytest
import torch
from torch import nn

from gravmap.learning.training.checkpoint import ModelSpec
from gravmap.network import precision
from gravmap.network.outcrop_start import AllOutputs
from gravmap.network.precision import autocast, choose_precision, scoring_precision, set_scoring_precision


@pytest.fixture
def gpu(monkeypatch):
    """Pretend a GPU before Ampere, which emulates bfloat16 ("old"), or a newer one ("new")."""

    def pretend(kind):
        supported = {"old": lambda including_emulation=True: including_emulation, "new": lambda **options: True}[kind]
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)

    precision._warn_of_emulation.cache_clear()
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield pretend
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_auto_is_bfloat16_on_gpus_that_have_it(gpu):
    assert choose_precision("auto", "cpu") == "float32"
    gpu("new")
    assert choose_precision("auto", "cuda") == "bfloat16"
    assert choose_precision("auto", torch.device("cuda", 1)) == "bfloat16"
    assert choose_precision("float32", "cuda") == "float32"


def test_gpus_before_ampere_compute_in_float32(gpu, caplog):
    gpu("old")
    assert choose_precision("auto", "cuda") == "float32"
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert choose_precision("bfloat16", "cuda") == "float32"
    assert "older than Ampere" in caplog.text
    assert choose_precision("bfloat16", "cpu") == "bfloat16"


def test_convolutions_alone_use_tf32(gpu):
    gpu("new")
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = False, True
    choose_precision("float32", "cuda")
    assert torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("kind", "trained", "device", "scored"),
    [
        ("new", "bfloat16", "cuda", "bfloat16"),
        ("new", "float32", "cuda", "float32"),
        ("old", "bfloat16", "cuda", "float32"),
        ("new", "bfloat16", "cpu", "float32"),
    ],
)
def test_scores_have_the_precision_of_the_training_on_a_gpu(gpu, kind, trained, device, scored):
    gpu(kind)
    network = nn.Identity()
    assert scoring_precision(network) == "float32"
    set_scoring_precision(network, trained, device)
    assert scoring_precision(network) == scoring_precision(AllOutputs(network)) == scored


@pytest.mark.parametrize(
    ("recipe", "trained"),
    [
        ({"precision": "bfloat16", "device": "cpu"}, "bfloat16"),
        ({"precision": "auto", "device": "cuda"}, "bfloat16"),  # runs of earlier versions
        ({"precision": "auto", "device": "cpu"}, "float32"),
        ({}, "float32"),
    ],
)
def test_a_run_says_what_it_was_trained_in(recipe, trained):
    spec = ModelSpec("unet", {}, [], [], 64, [5.0], {}, {}, 0, recipe=recipe)
    assert spec.precision == trained


def test_autocast_is_on_in_bfloat16_alone():
    for name, on in (("bfloat16", True), ("float32", False)):
        with autocast(name, "cpu"):
            assert torch.is_autocast_enabled("cpu") is on
