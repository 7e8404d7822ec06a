"""Parameters and multiply-adds of all architectures of a search space, computed cell by cell without building them."""

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
    """Parameters of a cell, and its multiply-adds for an input map of size x size.

    Examples
    --------
    >>> cell_cost("conv", 16, 16, stride=1, size=8)
    (2336, 147456)
    """
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
    """Parameters and multiply-adds of every architecture of a space for one image size.

    Parameters
    ----------
    space : SearchSpace
        The search space.
    in_channels, classes : int
        Of the network.
    size : int
        Pixels per side; padded as in the network.
    """

    def __init__(self, space: SearchSpace, in_channels: int, classes: int, size: int = MULTIPLE) -> None:
        self.space, self.in_channels, self.size = space, in_channels, size
        self.eighth = -(-size // MULTIPLE) * MULTIPLE // 8
        example = space.architecture(
            ((), (0,), (0, 1)), [["conv"] * space.depth] * 3, [[space.chis[0]] * space.depth] * 3
        )
        with torch.device("meta"):
            self._example = GGMNet(example, in_channels, classes)
        self._tables: dict[tuple[int, int, bool], Tensor] = {}

    @cached_property
    def fixed_parameters(self) -> int:
        """Parameters of encoder, attention, fusion and head, without the convolutions on the branches' outputs."""
        total = count_parameters(self._example) - count_parameters(self._example.cells)
        return total - sum(self._output_convolution(scale, self.space.widths(scale)[0])[0] for scale in SCALES)

    @cached_property
    def fixed_macs(self) -> int:
        """Multiply-adds of the same parts."""
        layers = macs_by_layer(self._example, self.in_channels, self.size)
        total = sum(macs for name, macs in layers.items() if not name.startswith("cells."))
        return total - sum(self._output_convolution(scale, self.space.widths(scale)[0])[1] for scale in SCALES)

    def parameters(self, architecture: Architecture) -> int:
        """Parameters of the GGMNet of an architecture of this space."""
        return self.fixed_parameters + sum(part[0] for part in self._parts(architecture))

    def macs(self, architecture: Architecture) -> int:
        """Multiply-adds of the GGMNet of an architecture of this space."""
        return self.fixed_macs + sum(part[1] for part in self._parts(architecture))

    def _parts(self, a: Architecture) -> Iterator[tuple[int, int]]:
        """Parameters and multiply-adds of the cells, and of the convolutions on the branches' outputs."""
        for branch in SCALES:
            shared = max((a.shared_cells(branch, earlier) for earlier in range(branch)), default=0)
            c_in = a.width(branch, shared - 1) if shared else self.space.encoder[-1]
            for cell in range(shared, a.depth):
                transition = DOWN if cell in a.paths[branch] else KEEP
                c_out = a.width(branch, cell)
                yield self._cell(a.ops[branch][cell], a.scale(branch, cell), transition, c_in, c_out)
                c_in = c_out
            yield self._output_convolution(branch, c_in)

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Expected multiply-adds if every map samples its transition, operator and width independently.

        The maps on the branches' paths are followed from the ends back to the encoder: maps (1, 2) of a cell have
        probabilities that both, one or none is on a path; branches that have met stay together.

        Parameters
        ----------
        probabilities : mapping of str to Tensor
            Probabilities ``alpha_s``, ``beta_s``, ``ratio_s``, named as the supernet's logits.
        """
        space = self.space
        total = torch.as_tensor(float(self.fixed_macs), dtype=torch.float64, device=probabilities["alpha_0"].device)
        for scale in SCALES:
            ends = total.new_tensor([self._output_convolution(scale, width)[1] for width in space.widths(scale)])
            total = total + probabilities[f"ratio_{scale}"][-1] @ ends
        one, none = total.new_ones(()), total.new_zeros(())
        both, first, second = one, none, none  # probabilities of maps 1 and 2, only 1, only 2
        for cell in reversed(range(space.depth)):
            into = [self._transition_probabilities(probabilities, scale, cell) for scale in SCALES]
            for scale, passed in enumerate((one, both + first, both + second)):
                for transition in space.transitions(scale, cell):
                    total = total + passed * into[scale][transition] * self._cell_on_average(
                        probabilities, scale, cell, transition
                    )
            (keep_1, down_1), (keep_2, down_2) = into[1], into[2]
            both, first, second = (
                both * keep_1 * keep_2,
                both * down_2 + first * keep_1 + second * down_2,
                both * down_1 * keep_2 + second * keep_2,
            )
        return total

    def _transition_probabilities(self, probabilities: Mapping[str, Tensor], scale: int, cell: int) -> Tensor:
        """Probabilities of the two transitions into a map, (2,)."""
        transitions = self.space.transitions(scale, cell)
        if len(transitions) == 2:
            return probabilities[f"beta_{scale}"][cell - self.space.first_choice(scale)]
        return probabilities["alpha_0"].new_tensor([float(transition in transitions) for transition in (KEEP, DOWN)])

    def _cell_on_average(self, probabilities: Mapping[str, Tensor], scale: int, cell: int, transition: int) -> Tensor:
        """Expected multiply-adds of the cell of a transition, over its operators and its input and output widths."""
        space = self.space
        key = (scale, transition, cell == 0)
        if key not in self._tables:
            before = space.input_widths(scale, cell, transition)
            rows = [
                [
                    [self._cell(op, scale, transition, c_in, c_out)[1] for c_out in space.widths(scale)]
                    for c_in in before
                ]
                for op in OPERATORS
            ]
            self._tables[key] = probabilities["alpha_0"].new_tensor(rows)  # (5, widths in, widths out)
        row = cell - space.first_map(scale)
        operators, after = probabilities[f"alpha_{scale}"][row], probabilities[f"ratio_{scale}"][row]
        before_row = cell - 1 - space.first_map(scale - transition)
        width_in = probabilities[f"ratio_{scale - transition}"][before_row] if cell else after.new_ones(1)
        return torch.einsum("o,i,w,oiw->", operators, width_in, after, self._tables[key].to(after))

    def _cell(self, operator: str, scale: int, transition: int, c_in: int, c_out: int) -> tuple[int, int]:
        return cell_cost(operator, c_in, c_out, 1 + transition, self.eighth >> (scale - transition))

    def _output_convolution(self, scale: int, width: int) -> tuple[int, int]:
        """Weights and multiply-adds of the 3 x 3 convolution from a branch's output to the fusion's width."""
        weights = 9 * width * self.space.encoder[-1]
        return weights, weights * (self.eighth >> scale) ** 2
