"""What the architectures of a search space cost, cell by cell, without building each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor

from gravmap.network.architecture import Architecture
from gravmap.network.cost import count_parameters, macs_by_layer
from gravmap.network.ggmnet import MULTIPLE, GGMNet
from gravmap.network.operators import OPERATORS
from gravmap.search.space import DOWN, KEEP, SCALES, SearchSpace


def cell_cost(operator: str, c_in: int, c_out: int, stride: int, size: int) -> tuple[int, int]:
    """Parameters of a cell, and its multiply-adds over a map of size x size (as it comes in)."""
    if operator == "skip" and stride == 1 and c_in == c_out:
        return 0, 0
    weights = c_in * c_out * (1 if operator == "skip" else 9)
    norms = 2 * c_out
    if operator in ("conv2", "zoom2"):
        weights += 9 * c_out * c_out
        norms *= 2
    halved = stride == 2 or operator in ("zoom", "zoom2")
    return weights + norms, weights * (size // 2 if halved else size) ** 2


class CostTable:
    """Parameters and multiply-adds of every architecture of a space over one size of image.

    Parameters
    ----------
    space : SearchSpace
        What may be chosen.
    in_channels, classes : int
        As of the network.
    size : int
        Pixels a side; counted is what the network pads it to.
    """

    def __init__(self, space: SearchSpace, in_channels: int, classes: int, size: int = MULTIPLE) -> None:
        self.space, self.in_channels, self.size = space, in_channels, size
        self.eighth = -(-size // MULTIPLE) * MULTIPLE // 8
        some = space.architecture(((), (0,), (0, 1)), [["conv"] * space.depth] * 3, [[space.chis[0]] * space.depth] * 3)
        with torch.device("meta"):
            self._some = GGMNet(some, in_channels, classes)
        self._tables: dict[tuple[int, int, bool], Tensor] = {}

    @cached_property
    def fixed_parameters(self) -> int:
        """Of encoder, attention, fusion and head, without the convolutions that read the branches' ends."""
        every = count_parameters(self._some) - count_parameters(self._some.cells)
        return every - sum(self._reads_end(scale, self.space.widths(scale)[0])[0] for scale in SCALES)

    @cached_property
    def fixed_macs(self) -> int:
        """Of the same parts."""
        layers = macs_by_layer(self._some, self.in_channels, self.size)
        every = sum(macs for name, macs in layers.items() if not name.startswith("cells."))
        return every - sum(self._reads_end(scale, self.space.widths(scale)[0])[1] for scale in SCALES)

    def parameters(self, architecture: Architecture) -> int:
        """Count those of the GGMNet of an architecture of this space."""
        return self.fixed_parameters + sum(part[0] for part in self._parts(architecture))

    def macs(self, architecture: Architecture) -> int:
        """Count the multiply-adds of the GGMNet of an architecture of this space."""
        return self.fixed_macs + sum(part[1] for part in self._parts(architecture))

    def _parts(self, a: Architecture) -> Iterator[tuple[int, int]]:
        """Parameters and multiply-adds of what an architecture decides: its cells, and what reads its ends."""
        for branch in SCALES:
            shared = max((a.shared_cells(branch, earlier) for earlier in range(branch)), default=0)
            c_in = a.width(branch, shared - 1) if shared else self.space.encoder[-1]
            for cell in range(shared, a.depth):
                way = DOWN if cell in a.paths[branch] else KEEP
                c_out = a.width(branch, cell)
                yield self._cell(a.ops[branch][cell], a.scale(branch, cell), way, c_in, c_out)
                c_in = c_out
            yield self._reads_end(branch, c_in)

    def expected(self, shares: Mapping[str, Tensor]) -> Tensor:
        """Multiply-adds on average, where every map draws its way in, its operator and its width on its own.

        Which maps the branches pass is followed from the ends back to the encoder: (1, 2) have a chance to be both
        passed, one of them, or none; branches that have met stay together.

        Parameters
        ----------
        shares : mapping of str to Tensor
            Probabilities ``alpha_s``, ``beta_s``, ``ratio_s``, as the supernet names its logits.
        """
        space = self.space
        total = torch.as_tensor(float(self.fixed_macs), dtype=torch.float64, device=shares["alpha_0"].device)
        for scale in SCALES:
            ends = total.new_tensor([self._reads_end(scale, width)[1] for width in space.widths(scale)])
            total = total + shares[f"ratio_{scale}"][-1] @ ends
        one, none = total.new_ones(()), total.new_zeros(())
        both, first, second = one, none, none  # chances that the branches pass maps 1 and 2, 1 alone, 2 alone
        for cell in reversed(range(space.depth)):
            into = [self._ways_in(shares, scale, cell) for scale in SCALES]
            for scale, passed in enumerate((one, both + first, both + second)):
                for way in space.ways(scale, cell):
                    total = total + passed * into[scale][way] * self._cell_on_average(shares, scale, cell, way)
            (keep_1, down_1), (keep_2, down_2) = into[1], into[2]
            both, first, second = (
                both * keep_1 * keep_2,
                both * down_2 + first * keep_1 + second * down_2,
                both * down_1 * keep_2 + second * keep_2,
            )
        return total

    def _ways_in(self, shares: Mapping[str, Tensor], scale: int, cell: int) -> Tensor:
        """Chances of the two ways into a map, (2,)."""
        ways = self.space.ways(scale, cell)
        if len(ways) == 2:
            return shares[f"beta_{scale}"][cell - self.space.first_choice(scale)]
        return shares["alpha_0"].new_tensor([float(way in ways) for way in (KEEP, DOWN)])

    def _cell_on_average(self, shares: Mapping[str, Tensor], scale: int, cell: int, way: int) -> Tensor:
        """Multiply-adds of the cell that goes one way into a map, over its operators and the widths on both sides."""
        space = self.space
        key = (scale, way, cell == 0)
        if key not in self._tables:
            before = space.widths_before(scale, cell, way)
            rows = [
                [[self._cell(op, scale, way, c_in, c_out)[1] for c_out in space.widths(scale)] for c_in in before]
                for op in OPERATORS
            ]
            self._tables[key] = shares["alpha_0"].new_tensor(rows)  # (5, widths in, widths out)
        row = cell - space.first_map(scale)
        operators, after = shares[f"alpha_{scale}"][row], shares[f"ratio_{scale}"][row]
        before_row = cell - 1 - space.first_map(scale - way)
        width_in = shares[f"ratio_{scale - way}"][before_row] if cell else after.new_ones(1)
        return torch.einsum("o,i,w,oiw->", operators, width_in, after, self._tables[key].to(after))

    def _cell(self, operator: str, scale: int, way: int, c_in: int, c_out: int) -> tuple[int, int]:
        return cell_cost(operator, c_in, c_out, 1 + way, self.eighth >> (scale - way))

    def _reads_end(self, scale: int, width: int) -> tuple[int, int]:
        """Weights and multiply-adds of the 3 x 3 convolution that brings a branch's end to the fusion's width."""
        weights = 9 * width * self.space.encoder[-1]
        return weights, weights * (self.eighth >> scale) ** 2
