"""Networks and their peers in one run: `python benchmarks/network.py`.

Three tables: the deformable convolutions of gravmap and torchvision, forward and backward; a step of each network;
parameters and multiply-adds. Needs torch; without torchvision its column is empty. Times are the best of a few repeats,
which other load on the machine affects least. On a CUDA machine the script measures that device.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from gravmap.network import build
from gravmap.network.cost import count_macs, count_parameters
from gravmap.network.deform import deform_conv3x3, torchvision_available


def best_seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Time `work`, the best of some repeats after one warm-up.

    A single thread on a CPU is timed in processor seconds, which other load on the machine affects least.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    times = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return min(times[1:])


SHAPES = ((144, 48, 512), (192, 64, 256), (33, 16, 512))
"""Channels in and out, and width, of the deformable convolutions that are compared."""


def deformable_times(
    device: torch.device, repeats: int, shapes: Sequence[tuple[int, int, int]] = SHAPES
) -> Iterator[dict[str, Any]]:
    """Time the two deformable convolutions, float32, one image, offsets of 0.5 px rms.

    Yields
    ------
    dict
        `channels` (in, out), `size_px`, `implementation`, and seconds: `forward_s`, and `both_s` with backward.
    """
    for c_in, c_out, size in shapes:
        torch.manual_seed(0)
        x = torch.randn(1, c_in, size, size, device=device, requires_grad=True)
        offset = (0.5 * torch.randn(1, 18, size, size, device=device)).requires_grad_()
        weight = torch.randn(c_out, c_in, 3, 3, device=device, requires_grad=True)
        rows: dict[str, Callable[[], torch.Tensor]] = {
            "gravmap": lambda x=x, o=offset, w=weight: deform_conv3x3(x, o, w)
        }
        if torchvision_available(device.type):
            from torchvision.ops import deform_conv2d

            rows["torchvision"] = lambda x=x, o=offset, w=weight: deform_conv2d(x, o, w, padding=1)
        for name, work in rows.items():
            with torch.no_grad():
                forward = best_seconds(work, repeats, device)
            tensors = (x, offset, weight)
            both = best_seconds(lambda w=work, t=tensors: torch.autograd.grad(w().sum(), t), repeats, device)
            shape = {"channels": [c_in, c_out], "size_px": size}
            yield {**shape, "implementation": name, "forward_s": forward, "both_s": both}


def deformable(device: torch.device, repeats: int) -> None:
    """Compare the two deformable convolutions, forward and forward with backward."""
    print("deformable 3x3 convolution, float32, one image, offsets of 0.5 px rms: seconds")
    print(f"{'channels':>12} {'size':>5} {'':>13} {'forward':>8} {'with backward':>14}")
    ours = 0.0
    for row in deformable_times(device, repeats):
        (c_in, c_out), name, both = row["channels"], row["implementation"], row["both_s"]
        print(
            f"{c_in:>6} ->{c_out:>3} {row['size_px']:>6} {name:>13} {row['forward_s']:>8.3f} {both:>14.3f}", flush=True
        )
        if name == "gravmap":
            ours = both
        else:
            print(f"{'':>32} torchvision / gravmap {both / ours:.1f}", flush=True)


def score(network: torch.nn.Module, x: torch.Tensor) -> None:
    """Run forward only."""
    with torch.no_grad():
        network(x)


def step(network: torch.nn.Module, x: torch.Tensor, target: torch.Tensor) -> None:
    """Run forward and backward, as training does."""
    network.zero_grad()
    cross_entropy(network(x), target).backward()


def networks(device: torch.device, repeats: int, size: int) -> None:
    """Time scoring and a training step, and count what each network costs."""
    print(f"\nnetworks: seconds at two images of {size} x {size}; GMAC for one image of 1024 x 1024, one channel")
    print(f"{'model':>13} {'scoring':>8} {'with backward':>14} {'M parameters':>13} {'GMAC':>6}")
    for name in ("ggmnet", "ggmnet-small", "ggmnet-tiny", "unet"):
        torch.manual_seed(0)
        network = build(name).to(device)
        x = torch.randn(2, 1, size, size, device=device)
        target = torch.randint(0, 10, (2, size, size), device=device)
        scoring = best_seconds(partial(score, network.eval(), x), repeats, device)
        training = best_seconds(partial(step, network.train(), x, target), repeats, device)
        with torch.device("meta"):
            paper = build(name)
        print(
            f"{name:>13} {scoring:>8.3f} {training:>14.3f} {count_parameters(paper) / 1e6:>13.2f} "
            f"{count_macs(paper, 1) / 1e9:>6.1f}",
            flush=True,
        )


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    print(f"torch {torch.__version__}, {device}, {options.threads} threads, best of {options.repeats}\n")
    deformable(device, options.repeats)
    networks(device, options.repeats, options.size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
