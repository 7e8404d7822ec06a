"""Architecture of a GGMNet as a frozen dataclass that can be saved as JSON.

A network is rebuilt from this record alone, and its weights can then be loaded. Cells are numbered from 0; the scales
0, 1, 2 are 1/8, 1/16, 1/32 of the input size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar

from gravmap.errors import OptionError
from gravmap.network.operators import OPERATORS

MAX_INTERPOLATE = 8
"""Most pixels per cell and axis."""

Names = tuple[tuple[str, ...], ...]
Numbers = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Architecture:
    """Architecture of a GGMNet.

    Parameters
    ----------
    depth : int
        Cells per branch, including down-sampling cells.
    paths : tuple of tuple of int
        For each branch, the down-sampling cells: none keeps the map at 1/8, one ends at 1/16, two end at 1/32.
    ops : tuple of tuple of str
        For each branch, the operator of every cell, from `operators.OPERATORS`.
    chis : tuple of tuple of int
        For each branch, the expansion ratio of every cell: its width is chi * 8 * 2^scale channels.
    encoder : tuple of int
        Channels at 1/2, 1/4 and 1/8. The last is also the width of the fusion of the branches.
    head : tuple of int
        Channels of the head at 1/4, 1/2 and full size.
    share_prefix : bool
        Branches that start with the same cells share these cells and their weights.
    cell_residual : bool
        Residual connection around every cell that keeps the size (ablation e).
    encoder_skip : bool
        The output of the encoder is another input of the fusion (part of ablation c).
    arm : bool
        Attention refinement of the output of each branch (ablation b); otherwise only a convolution to the width of
        the fusion.
    ffm : bool
        Feature fusion with attention (ablation c); otherwise the branches are summed.
    deform : bool
        Deformable convolutions in the head (ablation d), otherwise ordinary ones.
    full_res_stage : bool
        The third stage of the head works at full size, with the input as skip connection; otherwise the logits are
        upsampled from half size.
    half_res_stage : bool
        The second stage of the head works at half size; otherwise the logits are upsampled from quarter size, and
        there is no third stage either. Not the paper's.
    arm_norm : str
        "batch": batch normalisation of the pooled 1 x 1 map, which needs at least two images per training step.
        "none": a bias instead.
    interpolate : (int, int)
        Rows and columns of pixels to which a cell of the input is interpolated before the encoder, at most 8 each. The
        paper interpolates before the network.
    attention : bool
        Self-attention over the output of the last branch, the coarsest: every pixel then depends on all others. Not
        the paper's.

    Raises
    ------
    OptionError
        The values are inconsistent.

    Examples
    --------
    >>> from gravmap.network import GGMNet
    >>> from gravmap.network.architecture import Architecture
    >>> architecture = Architecture(
    ...     depth=2, paths=((), (1,)), ops=(("conv", "conv"), ("conv", "zoom")), chis=((1, 1), (1, 1)),
    ...     encoder=(4, 4, 8), head=(4, 4, 4),
    ... )
    >>> Architecture.from_dict(architecture.to_dict()) == architecture
    True
    """

    KIND: ClassVar[str] = "ggmnet"

    depth: int
    paths: Numbers
    ops: Names
    chis: Numbers
    encoder: tuple[int, ...] = (48, 96, 96)
    head: tuple[int, ...] = (64, 32, 16)
    share_prefix: bool = True
    cell_residual: bool = True
    encoder_skip: bool = True
    arm: bool = True
    ffm: bool = True
    deform: bool = True
    full_res_stage: bool = True
    half_res_stage: bool = True
    arm_norm: str = "batch"
    interpolate: tuple[int, int] = (1, 1)
    attention: bool = False

    def __post_init__(self) -> None:
        branches = len(self.paths)
        if not 1 <= branches <= 3:
            raise _fault(f"it has {branches} branches, not one to three")
        if not len(self.ops) == len(self.chis) == branches:
            raise _fault(f"{branches} paths, {len(self.ops)} lists of operators and {len(self.chis)} of widths")
        if self.depth < 1 or any(len(row) != self.depth for row in (*self.ops, *self.chis)):
            raise _fault(f"every branch must name {self.depth} (at least one) operators and widths")
        for name, widths in (("encoder", self.encoder), ("head", self.head), *(("chis", row) for row in self.chis)):
            if any(isinstance(width, bool) or not isinstance(width, int) or width < 1 for width in widths):
                raise _fault(f"{name} holds {list(widths)}, not whole numbers of at least 1")
        if len(self.encoder) != 3 or len(self.head) != 3:
            raise _fault("encoder and head are three widths each")
        for path, row in zip(self.paths, self.ops, strict=True):
            self._check_branch(path, row)
        if self.arm_norm not in ("batch", "none"):
            raise _fault(f"arm_norm is {self.arm_norm!r}, not batch or none")
        pair = self.interpolate
        if len(pair) != 2 or any(isinstance(n, bool) or not 1 <= n <= MAX_INTERPOLATE for n in pair):
            raise _fault(f"interpolate is {list(pair)}, not two whole numbers from 1 to {MAX_INTERPOLATE}")
        if self.full_res_stage and not self.half_res_stage:
            raise _fault("a stage at full size needs one at half size")

    def _check_branch(self, path: tuple[int, ...], row: tuple[str, ...]) -> None:
        """Refuse an invalid path, and cells at one scale that are all skips."""
        if len(path) > 2 or any(not 0 <= cell < self.depth for cell in path) or any(a >= b for a, b in pairwise(path)):
            raise _fault(f"the path {list(path)} is not up to two rising cell numbers below {self.depth}")
        if unknown := sorted(set(row) - set(OPERATORS)):
            raise _fault(f"unknown operators {', '.join(unknown)} (known: {', '.join(OPERATORS)})")
        edges = (0, *path, self.depth)
        for first, end in pairwise(edges):
            if first < end and set(row[first:end]) == {"skip"}:
                raise _fault(f"cells {first} to {end - 1} of a branch are all skips")

    def scale(self, branch: int, cell: int) -> int:
        """Return the scale of a cell's output: 0, 1, 2 for 1/8, 1/16, 1/32."""
        return sum(down <= cell for down in self.paths[branch])

    def width(self, branch: int, cell: int) -> int:
        """Return the number of output channels of a cell."""
        return self.chis[branch][cell] * (8 << self.scale(branch, cell))

    def shared_cells(self, branch: int, other: int) -> int:
        """Count the leading cells that two branches have in common (0 if prefixes are not shared)."""
        if not self.share_prefix:
            return 0
        for cell in range(self.depth):
            mine, theirs = (
                (self.ops[b][cell], self.chis[b][cell], self.scale(b, cell), cell in self.paths[b])
                for b in (branch, other)
            )
            if mine != theirs:
                return cell
        return self.depth

    def to_dict(self) -> dict[str, Any]:
        """Return the architecture as a JSON-able record."""
        return {"kind": self.KIND} | {name: _listed(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Architecture:
        """Read the record that :meth:`to_dict` returns.

        Raises
        ------
        OptionError
            A field is missing, unknown or has an invalid value; the message names it.
        """
        known = [field.name for field in fields(cls)]
        given = {name: value for name, value in record.items() if name != "kind"}
        if unknown := sorted(set(given) - set(known)):
            raise _fault(f"unknown fields {', '.join(unknown)} (known: {', '.join(known)})")
        if missing := sorted({"depth", "paths", "ops", "chis"} - set(given)):
            raise _fault(f"missing fields {', '.join(missing)}")
        for name, value in given.items():
            words, fits = _TYPES.get(name, _SWITCH)
            if not fits(value):
                raise _fault(f"{name} is {value!r}, not {words}")
        return cls(**{name: _tupled(value) for name, value in given.items()})


def _fault(what: str) -> OptionError:
    return OptionError(f"The network's architecture is invalid: {what}.", "Correct the record.")


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list | tuple) else value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _word(value: Any) -> bool:
    return isinstance(value, str)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(fits(item) for item in value)


# Type of each field of a record: description for messages, and test.
_SWITCH: tuple[str, Callable[[Any], bool]] = ("true or false", lambda value: isinstance(value, bool))
_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "depth": ("a whole number", _whole),
    "paths": ("a list of lists of cell numbers", _list_of(_list_of(_whole))),
    "ops": ("a list of lists of operators", _list_of(_list_of(_word))),
    "chis": ("a list of lists of whole numbers", _list_of(_list_of(_whole))),
    "encoder": ("three whole numbers", _list_of(_whole)),
    "head": ("three whole numbers", _list_of(_whole)),
    "arm_norm": ("batch or none", _word),
    "interpolate": ("two whole numbers", _list_of(_whole)),
}
