"""Named GGMNets: the reference, other depths, the five networks of the paper's ablation, and two smaller ones.

The ablation adds one part at a time to a bare network of encoder, branches, decoder and classifier:

| name        | attention (ARM) | fusion (FFM), encoder skip | deformable head | residual cells |
|-------------|-----------------|----------------------------|-----------------|----------------|
| `ggmnet-a`  |                 |                            |                 |                |
| `ggmnet-b`  | yes             |                            |                 |                |
| `ggmnet-c`  | yes             | yes                        |                 |                |
| `ggmnet-d`  | yes             | yes                        | yes             |                |
| `ggmnet-e`  | yes             | yes                        | yes             | yes            |

`ggmnet-e` and `ggmnet-22` are `ggmnet` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from gravmap.errors import OptionError
from gravmap.network.architecture import Architecture, Numbers

ABLATIONS = "abcde"
DEPTHS = (16, 18, 20, 22, 24)


def cycle(depth: int, paths: Numbers, ops: Sequence[str], chis: Sequence[int], **switches: Any) -> Architecture:
    """Make an architecture whose branches all repeat the same sequence of operators and widths."""
    row = tuple(ops[cell % len(ops)] for cell in range(depth))
    widths = tuple(chis[cell % len(chis)] for cell in range(depth))
    branches = len(paths)
    return Architecture(depth, paths, (row,) * branches, (widths,) * branches, **switches)


def reference(depth: int = 22, paths: Numbers = ((), (8,), (4, 12)), **switches: Any) -> Architecture:
    """Return the architecture named `ggmnet`; the operators are gravmap's choice, the paper gives them in a figure.

    9.6 million parameters with shared prefixes, 64.6 GMAC at 1024 x 1024.
    """
    return cycle(depth, paths, ("conv", "zoom2", "conv2", "zoom"), (4, 6, 8, 6), **switches)


def small(depth: int = 20, paths: Numbers = ((), (8,), (4, 12)), **switches: Any) -> Architecture:
    """Return the architecture named `ggmnet-small`: the reference with half the width or less."""
    return cycle(depth, paths, ("conv", "zoom2", "conv2", "zoom"), (2, 4, 4, 4), **switches)


def tiny(**switches: Any) -> Architecture:
    """Return the architecture named `ggmnet-tiny`: every part of GGMNet, narrow and shallow, for a CPU.

    Five cells per branch, and a bias instead of batch normalisation in the ARM, so that a batch may be one image.
    """
    narrow = {"encoder": (16, 24, 32), "head": (24, 16, 8), "arm_norm": "none"}
    return cycle(5, ((), (2,), (1, 3)), ("conv", "zoom", "conv"), (2, 4, 2), **(narrow | switches))


def grid() -> Architecture:
    """Return the architecture named `ggmnet-grid`: for fields at the resolution of their grid, as on simulated crusts.

    The paper interpolates a field of 2 arc-minutes to tiles of 2048 pixels, 68 to a cell in a window of 1 degree; here
    a cell becomes two pixels. The branches then see about 15, 30 and 60 km to a pixel, with 48, 64 and 64 channels; the
    head ends at quarter size, two cells high and four wide. Self-attention over the coarsest branch connects all
    pixels.
    """
    depth, paths = 8, ((), (3,), (2, 5))
    row = tuple(("conv2", "conv2", "zoom2", "conv2")[cell % 4] for cell in range(depth))
    chis = tuple(tuple((6, 4, 2)[sum(down <= cell for down in path)] for cell in range(depth)) for path in paths)
    return Architecture(
        depth,
        paths,
        (row,) * 3,
        chis,
        encoder=(32, 64, 96),
        head=(48, 32, 16),
        full_res_stage=False,
        half_res_stage=False,
        arm_norm="none",
        interpolate=(2, 1),
        attention=True,
    )


def ablation_switches(letter: str) -> dict[str, Any]:
    """Return the parts of a network of the paper's ablation, `a` (none) to `e` (all).

    Raises
    ------
    OptionError
        `letter` is none of them.
    """
    if len(letter) != 1 or letter not in ABLATIONS:
        raise OptionError(f"The ablation has no network {letter!r}.", f"Choose one of {', '.join(ABLATIONS)}.")
    return {
        "arm": letter >= "b",
        "ffm": letter >= "c",
        "encoder_skip": letter >= "c",
        "deform": letter >= "d",
        "cell_residual": letter >= "e",
    }


def ablation(letter: str) -> Architecture:
    """Return the architecture of a network of the paper's ablation, `a` (none) to `e` (the reference).

    Raises
    ------
    OptionError
        `letter` is none of them.
    """
    return reference(**ablation_switches(letter))


PRESETS: dict[str, Callable[[], Architecture]] = {
    "ggmnet": reference,
    "ggmnet-small": small,
    "ggmnet-tiny": tiny,
    "ggmnet-grid": grid,
    **{f"ggmnet-{letter}": partial(ablation, letter) for letter in ABLATIONS},
    **{f"ggmnet-{depth}": partial(reference, depth) for depth in DEPTHS},
}
"""Architectures by name."""
