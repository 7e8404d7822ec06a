"""Training steps of GGMNet and its peers: speed, memory and time per part.

    python benchmarks/training.py [DATASET.npz] [--device cuda] [--crop 1024] [--batch 16] [--micro-batch 4]
    python benchmarks/training.py --memory [--models ggmnet]

A step is that of training: crops cut from the native grids, forward, bootstrapped loss, backward, gradient clipping,
Adam. Steps per second and peak memory are measured first, without synchronisation in between; the percentages are of
further steps that synchronise the device after each part. Those of the deformable convolutions are contained in those
of the network and of the backward pass. With a micro-batch of one crop, which has no variance, batch normalisation uses
its running statistics. DATASET.npz is what `RegionDataset.save` writes; without it a
synthetic region of the paper's size is used (451 x 901 nodes, 3600 x 7200 label cells, 536 windows). The script needs
torch, numpy and scipy; the peers (U-Net resnet34, Segformer-b0, HRNet-W32) also need `gravmap[peers]` and are skipped
without it.

With --memory nothing is run: the GPU memory of a training step and of a window is estimated with meta tensors.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional

from gravmap.errors import GravmapError
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.sampling.sampler import Sampler
from gravmap.learning.training.loss import class_counts, class_weights, loss_terms
from gravmap.network import build
from gravmap.network.cost import count_parameters, peak_bytes
from gravmap.network.deform import DeformConv3x3
from gravmap.network.registry import MODELS as REGISTERED

MODELS = ("ggmnet", "ggmnet-small", "unet", "smp:Unet:resnet34", "smp:Segformer:mit_b0", "smp:Unet:tu-hrnet_w32")
PAPER_WINDOWS = 404
PAPER_STEPS = 600 * PAPER_WINDOWS // 16
PARTS = ("sampler", "network", "loss", "backward", "optimizer")
DEFORMABLE = ("deform_fwd", "deform_bwd")
"""Parts of "network" and of "backward"."""


def synthetic_dataset(seed: int = 0) -> RegionDataset:
    """Make a region of the paper's size: a rough field, irregular bodies of ten classes, half of them under cover."""
    rng = np.random.default_rng(seed)
    field = sum(gaussian_filter(rng.standard_normal((451, 901)), size) * size**1.5 for size in (2, 6, 20))
    centres = rng.uniform((0, 0), (450, 900), (1200, 2))
    rows, columns = np.meshgrid(np.arange(450), np.arange(900), indexing="ij")
    wobble = 6 * gaussian_filter(rng.standard_normal((2, 450, 900)), (0, 4, 4)) * 15
    owner = cKDTree(centres).query(np.stack([rows + wobble[0], columns + wobble[1]], axis=-1))[1]
    classes = rng.integers(1, 11, len(centres)).astype(np.uint8)[owner]
    classes[gaussian_filter(rng.standard_normal((450, 900)), 25) > 0] = 0
    labels = zoom(classes, 8, order=0)
    windows: list[tuple[float, float, float, float]] = []
    sizes: list[float] = []
    for size, stride in ((1.0, 1.0), (5.0, 2.5), (10.0, 2.5), (15.0, 5.0)):
        for south in np.arange(40, 55 - size + 1e-6, stride):
            for west in np.arange(65, 95 - size + 1e-6, stride):
                windows.append((west, south, west + size, south + size))
                sizes.append(size)
    return RegionDataset.from_arrays(
        {
            "fields": field[None].astype(np.float32),
            "field_valid": np.ones(field.shape, bool),
            "field_nodes_wsen": np.array([65.0, 40.0, 95.0, 55.0]),
            "labels": labels,
            "label_bounds_wsen": np.array([65.0, 40.0, 95.0, 55.0]),
            "small": np.zeros_like(labels),
            "role": np.zeros_like(labels),
            "windows": np.array(windows),
            "window_scale_deg": np.array(sizes),
            "window_role": np.zeros(len(windows), np.uint8),
            "meta": {
                "channels": ["residual_10km"],
                "classes": [
                    {"index": k, "name": f"class {k}", "colour": "#000000", "age": "any"} for k in range(1, 11)
                ],
                "tile_size_px": 2048,
            },
        }
    )


class Steps:
    """Trains one network step by step."""

    def __init__(self, name: str, dataset: RegionDataset, options: argparse.Namespace, precision: str) -> None:
        self.device = torch.device(options.device)
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.batch, self.micro = options.batch, min(options.micro_batch, options.batch)
        inputs = InputChannels.fit(dataset, None)
        self.sampler = Sampler(dataset, inputs, 2 * options.crop, self.device)
        self.weight = torch.as_tensor(class_weights(class_counts(dataset)), dtype=torch.float32, device=self.device)
        torch.manual_seed(0)
        self.network: nn.Module = build(name, in_channels=inputs.width, classes=len(dataset.classes)).to(self.device)
        if options.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        if self.micro == 1:
            for layer in self.network.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        compiles = bool(options.compile)
        self.forward = torch.compile(self.network, backend=options.compile) if compiles else self.network
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def wait(self) -> None:
        """Synchronise the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def step(self, number: int, spent: dict[str, float] | None = None) -> None:
        """Take one optimizer step; with `spent`, synchronise after each part and sum its seconds."""

        def timed(part: str, work: Callable[[], object]) -> object:
            if spent is None:
                return work()
            start = time.perf_counter()
            result = work()
            self.wait()
            spent[part] += time.perf_counter() - start
            return result

        self.optimizer.zero_grad(set_to_none=True)
        first = number * self.batch
        for start in range(first, first + self.batch, self.micro):
            numbers = list(range(start, min(start + self.micro, first + self.batch)))
            values, target, small = timed("sampler", lambda n=numbers: self.sampler.batch(0, n))
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                logits = timed("network", lambda x=values: self.forward(x))
            terms = timed("loss", lambda y=logits, t=target, s=small: loss_terms(y, t, s, self.weight))
            loss = terms[0] / terms[1].clamp_min(1)
            timed("backward", lambda value=loss: value.backward())
        timed("optimizer", self._update)

    @contextmanager
    def deformable_timed(self, spent: dict[str, float]) -> Iterator[None]:
        """Context manager: also sum the seconds of the deformable convolutions, forward and backward."""
        started: dict[tuple[nn.Module, str], float] = {}

        def start(part: str, layer: nn.Module, *_: object) -> None:
            self.wait()
            started[layer, part] = time.perf_counter()

        def stop(part: str, layer: nn.Module, *_: object) -> None:
            self.wait()
            spent[part] += time.perf_counter() - started[layer, part]

        forward, backward = DEFORMABLE
        layers = [each for each in self.network.modules() if isinstance(each, DeformConv3x3)]
        hooks = [
            hook
            for each in layers
            for hook in (
                each.register_forward_pre_hook(partial(start, forward)),
                each.register_forward_hook(partial(stop, forward)),
                each.register_full_backward_pre_hook(partial(start, backward)),
                each.register_full_backward_hook(partial(stop, backward)),
            )
        ]
        yield
        for hook in hooks:
            hook.remove()

    def _update(self) -> None:
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()


def measure(
    name: str, dataset: RegionDataset, options: argparse.Namespace, precision: str, parts: bool = True
) -> dict[str, Any]:
    """Measure the training step of a network.

    Returns
    -------
    dict
        `parameters`, `warm_up_s` (of the steps before the measured ones), `step_s`, `memory_gib` (peak), and with
        `parts` the fraction of the time of a step that each part takes.
    """
    gc.collect()
    if options.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    steps = Steps(name, dataset, options, precision)
    begin = time.perf_counter()
    for number in range(options.warm_up):
        steps.step(number)
    steps.wait()
    start = time.perf_counter()
    for number in range(options.steps):
        steps.step(options.warm_up + number)
    steps.wait()
    found: dict[str, Any] = {
        "parameters": count_parameters(steps.network),
        "warm_up_s": start - begin,
        "step_s": (time.perf_counter() - start) / options.steps,
    }
    if options.device == "cuda":
        found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    else:
        found["memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of the process so far
    if parts:
        spent = dict.fromkeys((*PARTS, *DEFORMABLE), 0.0)
        with steps.deformable_timed(spent):
            for number in range(max(1, options.steps // 2)):
                steps.step(options.warm_up + options.steps + number, spent)
        total = sum(spent[part] for part in PARTS)
        found["parts"] = {part: seconds / total for part, seconds in spent.items()}
    return found


def format_row(name: str, options: argparse.Namespace, precision: str, found: dict[str, Any]) -> str:
    """Format a row of the table."""
    seconds = found["step_s"]
    percentages = "".join(f"{100 * fraction:>11.1f}" for fraction in found["parts"].values())
    return (
        f"{name:<24}{precision:>9}{found['parameters'] / 1e6:>7.1f}{1 / seconds:>9.3f}"
        f"{options.batch / seconds:>9.2f}{found['memory_gib']:>8.2f}{percentages}{PAPER_STEPS * seconds / 3600:>9.1f}"
    )


CARDS_GB = (11, 24, 40, 80, 141)
KEPT_FREE = 0.1, 1e9
"""Part of a card, and bytes, for what the estimate leaves out: the CUDA context, workspaces, fragmentation."""


def cross_entropy(logits: Tensor) -> Tensor:
    """Compute a loss with the memory of that of training."""
    target = torch.empty(len(logits), *logits.shape[2:], dtype=torch.int64, device=logits.device)
    return functional.cross_entropy(logits.float(), target, reduction="none").sum()


def print_memory(names: list[str]) -> None:
    """Estimate the memory of each network, and the crops per pass that fit, as a Markdown table."""
    cards = " / ".join(map(str, CARDS_GB))
    steps = "".join(f" {size} px: first crop, GB | each further | crops that fit {cards} GB |" for size in (1024, 2048))
    print(f"| network | precision |{steps} window of 2048 px, GB | without torchvision |")
    print("|---|---|" + 2 * "---:|---:|---|" + "---:|---:|")
    for name in names:
        try:
            network = build(name, in_channels=1, classes=10)
        except GravmapError as error:
            print(f"| `{name}` | not estimated: {str(error).splitlines()[0]} |")
            continue
        for precision in ("float32", "bfloat16"):
            cells = []
            for size in (1024, 2048):
                options = {"precision": precision, "deformable": "torchvision", "loss": cross_entropy}
                one, two = (peak_bytes(network, 1, size, crops, **options) for crops in (1, 2))
                room = [card * 1e9 * (1 - KEPT_FREE[0]) - KEPT_FREE[1] - one for card in CARDS_GB]
                fits = " / ".join(str(1 + int(free // (two - one)) if free >= 0 else 0) for free in room)
                cells += [f"{one / 1e9:.1f}", f"{(two - one) / 1e9:.1f}", fits]
            for deformable in ("torchvision", "native"):
                window = peak_bytes(network, 1, 2048, precision=precision, deformable=deformable)
                cells.append(f"{window / 1e9:.1f}")
            print(f"| `{name}` | {precision} | " + " | ".join(cells) + " |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+")
    parser.add_argument(
        "--memory", action="store_true", help="estimate the GPU memory of every network; nothing is run"
    )
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--crop", type=int, default=1024, help="pixels across a crop")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=4, help="crops per forward pass")
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_const", const="inductor", help="use torch.compile")
    options = parser.parse_args()
    if options.memory:
        print_memory(options.models or sorted({*REGISTERED, *MODELS}))
        return 0
    dataset = RegionDataset.load(options.dataset) if options.dataset else synthetic_dataset()
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {where}; batch {options.batch} in micro-batches of {options.micro_batch},")
    print(f"crops of {options.crop} x {options.crop}; percent of the time of a step; hours: {PAPER_STEPS} steps")
    heads = "".join(f"{part:>11}" for part in (*PARTS, *DEFORMABLE))
    print(f"{'model':<24}{'':>9}{'M par.':>7}{'steps/s':>9}{'crops/s':>9}{'GiB':>8}{heads}{'hours':>9}")
    for name in options.models or MODELS:
        for precision in options.precisions:
            try:
                found = measure(name, dataset, options, precision)
                print(format_row(name, options, precision, found), flush=True)
            except GravmapError as error:
                print(f"{name:<24}{precision:>9}  not measured: {str(error).splitlines()[0]}", flush=True)
            except torch.OutOfMemoryError:
                print(
                    f"{name:<24}{precision:>9}  not measured: out of memory; a smaller --micro-batch fits", flush=True
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
