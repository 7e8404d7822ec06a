"""The supernet: every architecture of a space in one network, and one of them taken out of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gravmap.errors import OptionError
from gravmap.network.architecture import Architecture
from gravmap.network.ggmnet import MULTIPLE, GGMNet, make_encoder, pad_to_multiple
from gravmap.network.operators import OPERATORS, upsample
from gravmap.search.cost_table import CostTable
from gravmap.search.slimmable import SlimCell, SlimConv
from gravmap.search.space import DOWN, KEEP, SCALES, ArchitectureLogits, SearchSpace


def recompute_batch_norm_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Forget what the normalisations have seen, and take the plain mean over these batches.

    Parameters
    ----------
    network : nn.Module
        Its weights stay; it is left in training or evaluation mode as it was.
    batches : iterable of Tensor
        Inputs of the network, on its device.

    Raises
    ------
    OptionError
        There is no batch.
    """
    norms = _norms(network)
    before = [norm.momentum for norm in norms]
    training = network.training
    seen = 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean, not one that fades
        network.train()
        with torch.no_grad():
            for batch in batches:
                network(batch)
                seen += 1
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        network.train(training)
    if not seen:
        raise OptionError("Statistics cannot be taken over no batch at all.", "Give one batch or more.")


@contextmanager
def frozen_batch_norm_statistics(network: nn.Module) -> Iterator[None]:
    """Within it a network that trains normalises by its batch, and what it has seen before stays bit for bit."""
    norms = [norm for norm in _norms(network) if norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]


WIDTHS = ("sampled", "largest", "smallest", "random")
START_NOISE = 1e-3
"""Spread of the first preferences: none is preferred, and no tie is left to the order of a list."""


class SearchHeads(nn.Module):
    """Class scores at 1/8 from the branches' ends, whatever their widths: from each alone, and from all together."""

    def __init__(self, space: SearchSpace, classes: int) -> None:
        super().__init__()
        fused = space.encoder[-1]
        widest = [max(space.widths(scale)) for scale in SCALES]
        self.alone = nn.ModuleList(SlimConv(width, classes, 1, bias=True) for width in widest)
        self.joined = nn.ModuleList(SlimConv(width, fused, 1) for width in widest)
        self.norm = nn.BatchNorm2d(fused)
        self.classify = nn.Conv2d(fused, classes, 1)
        self.classes, self.fused = classes, fused

    def forward(self, ends: Sequence[Tensor]) -> list[Tensor]:
        """Turn the ends (B, c, h/2^s, w/2^s), s = 0, 1, 2, into four (B, K, h, w): scale 0, 1, 2, and fused."""
        scores = [upsample(self.alone[s](ends[s], self.classes), 2**s) for s in SCALES]
        # One 1 x 1 convolution of all ends side by side is the sum of one of each.
        joined = sum(upsample(self.joined[s](ends[s], self.fused), 2**s) for s in SCALES)  # (B, E, h, w)
        return [*scores, self.classify(functional.relu(self.norm(joined)))]


class Supernet(nn.Module):
    """Every architecture of a space, sharing weights.

    Parameters
    ----------
    space : SearchSpace
        What may be chosen.
    in_channels, classes : int
        Channels in, classes out.

    Attributes
    ----------
    temperature : float
        Of the draw of widths; the lower, the nearer the gradient is to that of the width drawn alone. Set from outside.
    arch : nn.ParameterDict
        ``alpha_s``, ``beta_s``, ``ratio_s``: logits of the maps of scale s, in the order of their cells.
    """

    def __init__(self, space: SearchSpace, in_channels: int, classes: int) -> None:
        super().__init__()
        self.space, self.in_channels, self.classes = space, in_channels, classes
        self.temperature = 1.0
        self.encoder = make_encoder(in_channels, space.encoder)
        self.cells = nn.ModuleDict()
        for cell in range(space.depth):
            for scale in SCALES:
                for way in space.ways(scale, cell):
                    before = space.widths_before(scale, cell, way)
                    self.cells[_name(scale, cell, way)] = SlimCell(before, space.widths(scale), 1 + way)
        self.heads = SearchHeads(space, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

        self.arch = nn.ParameterDict()
        for kind, choices in (("alpha", len(OPERATORS)), ("beta", 2), ("ratio", len(space.chis))):
            for scale in SCALES:
                if kind != "beta" or scale:
                    rows = space.depth - self._first(kind, scale)
                    self.arch[f"{kind}_{scale}"] = nn.Parameter(START_NOISE * torch.randn(rows, choices))
        self._costs: dict[int, CostTable] = {}

    def architecture_parameters(self) -> list[nn.Parameter]:
        """What is preferred: alpha, beta and ratio of every scale (named ``arch.*``)."""
        return list(self.arch.values())

    def weight_parameters(self) -> list[nn.Parameter]:
        """Every other parameter."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("arch.")]

    def forward(self, x: Tensor, widths: str = "sampled") -> list[Tensor]:
        """Score every pixel by the mixture of all architectures.

        Parameters
        ----------
        x : Tensor
            (B, C, H, W), any H and W of at least 1.
        widths : str
            "sampled": one draw per map from softmax(ratio), through which ratio has a gradient; "random": one that
            does not ask ratio; "largest"; "smallest". Draws are from torch's global state of the CPU, whatever the
            device.

        Returns
        -------
        list of Tensor
            Logits (B, K, H/8, W/8), rounded up: from the ends at 1/8, 1/16, 1/32, and from all three.

        Raises
        ------
        OptionError
            `widths` is none of the four.
        """
        chosen, scores = self._choose_widths(widths)
        shares = {name: logits.softmax(-1) for name, logits in self.arch.items() if not name.startswith("ratio")}
        maps = {0: self._encode(x)}  # scale: the map after the last cell, at first the encoder's (B, E, h, w)
        for cell in range(self.space.depth):
            after: dict[int, Tensor] = {}
            for scale in SCALES:
                ways = self.space.ways(scale, cell)
                if not ways:
                    continue
                width = chosen[scale][cell]
                operators = shares[f"alpha_{scale}"][cell - self.space.first_map(scale)]  # (5,)
                parts = [self._cell(scale, cell, way)(maps[scale - way], width, operators) for way in ways]
                if len(parts) == 2:
                    keep, down = shares[f"beta_{scale}"][cell - self.space.first_choice(scale)]
                    parts = [keep * parts[KEEP] + down * parts[DOWN]]
                after[scale] = parts[0] if scores is None else parts[0] * scores[scale][cell]  # (B, c, h/2^s, w/2^s)
            maps = after
        return self._score([maps[scale] for scale in SCALES], x)

    def forward_path(self, x: Tensor, architecture: Architecture) -> list[Tensor]:
        """Score every pixel by one architecture alone, with the supernet's weights and heads; else as `forward`.

        In evaluation mode the batch normalisations use what they have seen of mixtures: to judge an architecture, see
        `recalibrate`.

        Raises
        ------
        OptionError
            The architecture is not of this space.
        """
        return self._score(self.branches_of(self._encode(x), architecture), x)

    def branches_of(self, x: Tensor, architecture: Architecture) -> list[Tensor]:
        """Run the three branches of an architecture over the encoder's output; cells that branches share run once."""
        self.space.check(architecture)
        a = architecture
        kept: dict[tuple[tuple[int, int, str, int], ...], Tensor] = {(): x}
        ends = []
        for branch in SCALES:
            route: tuple[tuple[int, int, str, int], ...] = ()
            for cell in range(a.depth):
                scale, way = a.scale(branch, cell), DOWN if cell in a.paths[branch] else KEEP
                before, route = route, (*route, (scale, way, a.ops[branch][cell], a.width(branch, cell)))
                if route not in kept:
                    name, width = route[-1][2:]
                    kept[route] = self._cell(scale, cell, way).alone(name, kept[before], width)
            ends.append(kept[route])
        return ends

    def extract_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        """Cut out what the supernet knows of an architecture: copies, named as in ``GGMNet(architecture, ...)``.

        Encoder and cells; attention, fusion and head are not in the supernet. Load with ``strict=False``.

        Raises
        ------
        OptionError
            The architecture is not of this space.
        """
        self.space.check(architecture)
        a = architecture
        with torch.device("meta"):
            routes = GGMNet(a, self.in_channels, self.classes).routes
        weights = {f"encoder.{key}": value.clone() for key, value in self.encoder.state_dict().items()}
        for branch, route in enumerate(routes):
            widths = [self.space.encoder[-1], *(a.width(branch, cell) for cell in range(a.depth))]
            for cell, (number, (c_in, width)) in enumerate(zip(route, pairwise(widths), strict=True)):
                way = DOWN if cell in a.paths[branch] else KEEP
                cut = self._cell(a.scale(branch, cell), cell, way).extract_weights(a.ops[branch][cell], c_in, width)
                weights |= {f"cells.{number}.{key}": value for key, value in cut.items()}
        return weights

    def preferences(self) -> ArchitectureLogits:
        """What is preferred by now, as plain numbers."""
        space = self.space
        arrays = []
        for kind, choices in (("alpha", len(OPERATORS)), ("beta", 2), ("ratio", len(space.chis))):
            array = np.full((len(SCALES), space.depth, choices), np.nan)
            for scale in SCALES:
                if (logits := self.arch.get(f"{kind}_{scale}")) is not None:
                    array[scale, self._first(kind, scale) :] = logits.detach().cpu().double().numpy()
            arrays.append(array)
        return ArchitectureLogits(*arrays)

    def entropies(self) -> dict[str, float]:
        """Mean entropy of the choices in nats, by kind, and what it is where nothing is preferred.

        Returns
        -------
        dict
            alpha, beta, ratio, and alpha_uniform, beta_uniform, ratio_uniform (ln 5, ln 2, ln of the ratios).
        """
        found = {}
        for kind, choices in (("alpha", len(OPERATORS)), ("beta", 2), ("ratio", len(self.space.chis))):
            rows = torch.cat([p.detach().cpu().double() for name, p in self.arch.items() if name.startswith(kind)])
            logs = rows.log_softmax(-1)
            found[kind] = float(-(logs.exp() * logs).sum(-1).mean())
            found[f"{kind}_uniform"] = math.log(choices)
        return found

    def expected_macs(self, size: int) -> Tensor:
        """Multiply-adds of one size x size image that a network drawn from the preferences has on average.

        Every map draws its way in, its operator and its width; counted is the whole GGMNet, each cell that branches
        share once. Stretches of skips, which an architecture may not have, are not drawn anew.

        Returns
        -------
        Tensor
            A float64 scalar on the CPU through which alpha, beta and ratio have a gradient.
        """
        shares = {name: logits.cpu().double().softmax(-1) for name, logits in self.arch.items()}
        return self._cost(size).expected(shares)

    def largest_macs(self, size: int) -> int:
        """Multiply-adds of the dearest network: `conv2` and the widest everywhere, branches that part at once."""
        depth, most = self.space.depth, self.space.chis[-1]
        dearest = self.space.architecture(((), (0,), (1, 2)), [["conv2"] * depth] * 3, [[most] * depth] * 3)
        return self._cost(size).macs(dearest)

    def _cost(self, size: int) -> CostTable:
        if size not in self._costs:
            self._costs[size] = CostTable(self.space, self.in_channels, self.classes, size)
        return self._costs[size]

    def _first(self, kind: str, scale: int) -> int:
        return self.space.first_choice(scale) if kind == "beta" else self.space.first_map(scale)

    def _cell(self, scale: int, cell: int, way: int) -> SlimCell:
        found = self.cells[_name(scale, cell, way)]
        assert isinstance(found, SlimCell)
        return found

    def _encode(self, x: Tensor) -> Tensor:
        """Give the encoder's map of the padded input, (B, E, h, w) with h and w in multiples of 8."""
        x = pad_to_multiple(x, MULTIPLE)
        for stage in self.encoder:
            x = stage(x)
        return x

    def _score(self, ends: list[Tensor], x: Tensor) -> list[Tensor]:
        height, width = (-(-length // 8) for length in x.shape[-2:])
        return [scores[:, :, :height, :width] for scores in self.heads(ends)]

    def _choose_widths(self, widths: str) -> tuple[list[list[int]], list[Tensor] | None]:
        """Channels of every map, ``[scale][cell]``, and what to multiply it by: 1, with a gradient (where sampled)."""
        space = self.space
        count = len(space.chis)
        if widths not in WIDTHS:
            raise OptionError(f"There are no {widths!r} widths.", f"Choose one of {', '.join(WIDTHS)}.")
        if widths in ("largest", "smallest"):
            index = torch.full((len(SCALES), space.depth), count - 1 if widths == "largest" else 0)
            return self._channels(index), None
        if widths == "random":
            return self._channels(torch.randint(count, (len(SCALES), space.depth))), None
        # On the CPU: a draw decides which kernels run, and is the same on every device.
        uniform = torch.rand(len(SCALES), space.depth, count).clamp_(1e-20, 1 - 2**-24)
        logits = torch.stack(
            [functional.pad(self.arch[f"ratio_{s}"], (0, 0, space.first_map(s), 0)) for s in SCALES]
        )  # (3, depth, ratios)
        noisy = logits + (-(-uniform.log()).log()).to(logits.device)
        index = noisy.detach().argmax(-1)  # (3, depth)
        soft = (noisy / self.temperature).softmax(-1).gather(-1, index[..., None])[..., 0]
        # Exactly 1, so that what is learnt is what one width alone computes.
        return self._channels(index.cpu()), list(1 + (soft - soft.detach()))

    def _channels(self, index: Tensor) -> list[list[int]]:
        return [[self.space.width(s, self.space.chis[i]) for i in row] for s, row in enumerate(index.tolist())]


def _name(scale: int, cell: int, way: int) -> str:
    """Under which a cell of the supernet is kept: the map it gives, and the way into it."""
    return f"map_{scale}_{cell}_{'down' if way == DOWN else 'keep'}"


class SubNetwork(nn.Module):
    """One architecture with a supernet's weights and heads: copies, so that the supernet stays as it is.

    Parameters
    ----------
    supernet : Supernet
        Trained.
    architecture : Architecture
        Of its space.
    """

    def __init__(self, supernet: Supernet, architecture: Architecture) -> None:
        super().__init__()
        weights = supernet.extract_weights(architecture)
        # Its fusion and head stay idle: those of the search stand in for them.
        self.body = GGMNet(architecture, supernet.in_channels, supernet.classes)
        self.body.load_state_dict(weights, strict=False)
        self.heads = copy.deepcopy(supernet.heads)
        self.to(next(supernet.parameters()).device)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Score every pixel: four (B, K, H/8, W/8), as `Supernet.forward_path`."""
        height, width = (-(-length // 8) for length in x.shape[-2:])
        x = pad_to_multiple(x, MULTIPLE)
        for stage in self.body.encoder:
            x = stage(x)
        return [scores[:, :, :height, :width] for scores in self.heads(self.body.branches(x))]


def recalibrate(supernet: Supernet, architecture: Architecture, batches: Iterable[Tensor]) -> SubNetwork:
    """Take an architecture out of the supernet, with statistics of its own.

    What the supernet's batch normalisations have seen are mixtures of operators and widths; an architecture alone gives
    other maps, and two branches that pass the same cell apart give two kinds of them. So each cell's statistics are
    taken anew (Guo et al. 2020, Single path one-shot neural architecture search, arXiv:1904.00420, section 3.3).

    Parameters
    ----------
    supernet : Supernet
        Stays as it is.
    architecture : Architecture
        Of its space.
    batches : iterable of Tensor
        A few inputs (B, C, H, W), on the supernet's device. No labels are asked for.

    Returns
    -------
    SubNetwork
        In evaluation mode.

    Raises
    ------
    OptionError
        The architecture is not of the supernet's space, or there is no batch.
    """
    network = SubNetwork(supernet, architecture)
    recompute_batch_norm_statistics(network, batches)
    return network.eval()
