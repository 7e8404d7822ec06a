"""The parts of benchmarks/gpu.py: each yields rows of a table. A row with a note has no numbers.

They load no raster package, and read no file that is checked with pydantic.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import network
import numpy as np
import torch
import training

from gravmap.errors import GravmapError, out_of_memory
from gravmap.lattice import TEST, TRAIN, TUNE
from gravmap.learning import gpu_check
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.evaluation.held_out import evaluate, scoring_scale
from gravmap.learning.training.distributed import Group, process_group
from gravmap.learning.training.recipes import PAPER_EPOCHS, make_config
from gravmap.learning.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
CRUST = ROOT / "benchmarks" / "gpu_crust.npz"
PEERS = ("smp:Unet:resnet34", "smp:Segformer:mit_b0")
PRECISIONS = ("bfloat16", "float32")
Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how long."""

    device: str
    tiny: bool = False
    model: str = "ggmnet"
    crop_px: int = 1024
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    crops: int = 4  # in a batch of the paper for each GPU
    warm_up: int = 2
    steps: int = 4
    epoch_s: float = 40.0
    train_s: float | None = 120.0  # None: two epochs
    train_px: int = 512
    compiled: str = "ggmnet"
    compiler: str = "inductor"
    shapes: tuple[tuple[int, int, int], ...] = network.SHAPES

    @classmethod
    def small(cls, device: str) -> Sizes:
        """Everything small, to try the script."""
        model = {"model": "ggmnet-tiny", "crop_px": 64, "batches": (1, 2), "crops": 2}
        times = {"warm_up": 1, "steps": 1, "epoch_s": 1.0, "train_s": None, "train_px": 128}
        return cls(device, True, **model, **times, compiled="unet", compiler="eager", shapes=((4, 2, 16),))

    def dataset(self) -> RegionDataset:
        """Return the data of the steps, a region of the paper's size."""
        return load_crust() if self.tiny else training.synthetic_dataset()

    def step_options(self, batch: int, compiler: str | None = None) -> argparse.Namespace:
        """Return options for :func:`training.measure`."""
        return argparse.Namespace(
            device=self.device,
            crop=self.crop_px,
            batch=batch,
            micro_batch=batch,
            warm_up=self.warm_up,
            steps=self.steps,
            channels_last=False,
            compile=compiler,
        )


def describe(error: Exception) -> str:
    """Describe an error in a line."""
    if out_of_memory(error) is not None:
        return "out of memory"
    first = next(iter(str(error).strip().splitlines()), "")
    return first if isinstance(error, GravmapError) else f"{type(error).__name__}: {first}"[:300]


def check_device(_: Sizes) -> Iterator[Row]:
    """Compute on every GPU, as `gravmap doctor` does."""
    found = gpu_check.check()
    facts = {key: found[key] for key in ("driver", "cuda", "nccl", "deformable")}
    for each in found["gpus"] or [{"name": f"CPU, {platform.machine()}"}]:
        yield {"name": each.pop("name"), **facts, **each}


def run_tests(_: Sizes) -> Iterator[Row]:
    """Run the tests marked `gpu`: only files that have some, because others import packages that may be missing."""
    if importlib.util.find_spec("pytest") is None:
        yield {"note": "pytest is not installed"}
        return
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
    words = [sys.executable, "-m", "pytest", *options, *files]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|error)", lines[-1])}
    yield {**dict.fromkeys(("passed", "failed", "skipped"), 0), **counts}
    if done.returncode:
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR", "E "))]
        raise GravmapError("; ".join(failed or lines[-1:]))


def time_steps(names: Sequence[str], sizes: Sizes) -> Iterator[Row]:
    """Time training steps, forward to optimizer, for each number of crops in a batch."""
    dataset = sizes.dataset()
    for name, precision, batch in itertools.product(names, PRECISIONS, sizes.batches):
        row = {"network": name, "precision": precision, "batch": batch}
        try:
            found = training.measure(name, dataset, sizes.step_options(batch), precision, parts=False)
            yield {**row, **found, "crops_per_s": batch / found["step_s"]}
        except (GravmapError, RuntimeError, MemoryError, ValueError) as error:
            yield {**row, "note": describe(error)}


def time_parts(sizes: Sizes) -> Iterator[Row]:
    """Measure what part of a step each of its parts takes."""
    dataset = sizes.dataset()
    for precision in PRECISIONS:
        found = training.measure(sizes.model, dataset, sizes.step_options(sizes.crops), precision)
        yield {"precision": precision, "batch": sizes.crops, **found["parts"]}


def time_deformable(sizes: Sizes) -> Iterator[Row]:
    """Compare torchvision's deformable convolution with gravmap's."""
    rows = list(network.deformable_times(torch.device(sizes.device), 3, sizes.shapes))
    yield from rows
    if not any(row["implementation"] == "torchvision" for row in rows):
        yield {"implementation": "torchvision", "note": f"not installed, or without its kernel for {sizes.device}"}


def time_compiled(sizes: Sizes) -> Iterator[Row]:
    """Time steps with and without torch.compile."""
    dataset = sizes.dataset()
    for precision, compiler in itertools.product(PRECISIONS[:1], (None, sizes.compiler)):
        options = sizes.step_options(sizes.crops, compiler)
        found = training.measure(sizes.compiled, dataset, options, precision, parts=False)
        yield {"network": sizes.compiled, "compiler": compiler, "precision": precision, "batch": sizes.crops, **found}


def time_epoch(sizes: Sizes) -> Iterator[Row]:
    """Measure an epoch of the paper's recipe, or as many steps of it as there is time for, and its scores."""
    dataset = sizes.dataset()
    # As many windows as the paper's; labels of the east are kept for the scores.
    role, window_role = np.zeros_like(dataset.role), np.zeros_like(dataset.window_role)
    role[:, -role.shape[1] // 10 :] = TUNE
    window_role[np.random.default_rng(0).permutation(len(window_role))[training.PAPER_WINDOWS :]] = TUNE
    dataset = replace(dataset, role=role, window_role=window_role)
    inputs = [f"rgb:{dataset.channels[0]}"]
    for precision in PRECISIONS[::-1]:
        config = make_config(
            "paper", model=sizes.model, device=sizes.device, inputs=inputs, precision=precision,
            tile_size_px=2 * sizes.crop_px,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(dataset, Path(folder), config, Group(device=torch.device(sizes.device)))
            trainer.start_epoch()
            begin, done = time.monotonic(), 0
            seconds = 0.0
            while done < trainer.steps_per_epoch and (done < 2 or seconds < sizes.epoch_s):
                trainer.train_step(done)
                done += 1
                seconds = _since(begin, sizes.device)
                if done == 1:
                    first_s = seconds  # also allocates memory and chooses kernels
            step_s = (seconds - first_s) / (done - 1) if done > 1 else first_s
            epoch_s = first_s + step_s * (trainer.steps_per_epoch - 1)
            begin = time.monotonic()
            trainer.end_epoch(begin, score=True)
            score_s = _since(begin, sizes.device)
            yield {
                "precision": precision,
                "batch": config.batch_size,
                "steps_measured": done,
                "steps": trainer.steps_per_epoch,
                "epoch_s": epoch_s,
                "score_s": score_s,
                "window_s": trainer.scorer.window_s,
                "hours": PAPER_EPOCHS * (step_s * trainer.steps_per_epoch + score_s) / 3600,
            }


def train_on_crust(sizes: Sizes) -> Iterator[Row]:
    """Train on the west of a simulated crust for a given time, and score on its east, beside the commonest class."""
    dataset = load_crust()
    config = make_config(
        "default",
        model=sizes.model,
        device=sizes.device,
        time_limit_s=sizes.train_s,
        epochs=2 if sizes.train_s is None else None,
        tile_size_px=sizes.train_px,
        batch_size=2 if sizes.tiny else 16,
        steps=2 if sizes.tiny else 25,
        topk_share=1.0,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(dataset, Path(folder), config, Group(device=torch.device(sizes.device)))
        begin = time.monotonic()
        trainer.fit()
        data, seconds = trainer.data, _since(begin, sizes.device)
        options = {"inputs": data.inputs, "tile_size_px": data.tile_size_px, "device": sizes.device}
        found = evaluate(trainer.network, dataset, TEST, scale_deg=scoring_scale(data.scales_deg), **options)
    cells = np.array(found["confusion"]).sum(axis=1)
    commonest = data.class_cells.argmax()
    fraction = cells[commonest] / cells.sum()
    yield {
        "network": sizes.model,
        "precision": trainer.precision,
        "seconds": seconds,
        "steps": trainer.state.step,
        "first_loss": trainer.state.history[0]["loss"],
        "last_loss": trainer.state.history[-1]["loss"],
        **{name: found[name] for name in ("pa", "miou", "fwiou")},
        "commonest_pa": fraction,
        "commonest_fwiou": fraction**2,
    }


def time_group(sizes: Sizes, rank: int, size: int, port: int) -> Iterator[Row]:
    """Time steps of one of several processes that train together, with as many crops each whatever their number."""
    if size > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
            "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
        }  # fmt: skip
    config = make_config(
        "default", model=sizes.model, device=sizes.device, batch_size=sizes.crops * size,
        tile_size_px=2 * sizes.crop_px,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, process_group(sizes.device) as group:
        trainer = Trainer(sizes.dataset(), Path(folder), config, group)
        trainer.start_epoch()
        for index in range(sizes.warm_up):
            trainer.train_step(index)
        begin = _since(0, sizes.device)
        for index in range(3 * sizes.steps):
            trainer.train_step(sizes.warm_up + index)
        step_s = (_since(0, sizes.device) - begin) / (3 * sizes.steps)
        if rank == 0:
            yield {"gpus": size, "crops": config.batch_size, "precision": trainer.precision, "step_s": step_s}


def _since(begin: float, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - begin


def load_crust() -> RegionDataset:
    """Return the packed crust as a region: bedrock everywhere, its west to train on, its east to tune and test on."""
    # Not by RegionDataset.load, which checks the record with pydantic.
    with np.load(CRUST, allow_pickle=False) as stored:
        arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
    labels = arrays["labels"]
    role = np.full(labels.shape, TRAIN, np.uint8)
    role[:, labels.shape[1] * 3 // 5 :], role[:, labels.shape[1] * 4 // 5 :] = TUNE, TEST
    return RegionDataset.from_arrays(
        {
            **arrays,
            "meta": json.loads(str(arrays["meta"])),
            "field_valid": np.ones(labels.shape, bool),
            "small": np.zeros_like(labels),
            "role": role,
            "windows": arrays["label_bounds_wsen"][None],
            "window_scale_deg": np.array([5.0]),
            "window_role": np.zeros(1, np.uint8),
        }
    )


def pack_crust() -> None:
    """Simulate the crust that is trained on; its gravity is rounded to 0.1 mGal, so that the file is small."""
    from gravmap.synthetic import draw_crust, load_prior
    from gravmap.synthetic.pool import crust_arrays

    made = crust_arrays(draw_crust(load_prior(), 3, (160, 240)), ["residual_10km"])
    meta = {"channels": made["meta"]["channels"], "classes": made["meta"]["classes"], "tile_size_px": 512}
    np.savez_compressed(
        CRUST,
        fields=np.round(made["fields"], 1),
        field_nodes_wsen=made["field_nodes_wsen"],
        labels=made["truth"],
        label_bounds_wsen=made["label_bounds_wsen"],
        meta=np.array(json.dumps(meta)),
    )
