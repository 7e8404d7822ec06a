"""Supernet: every architecture of a search space in one network with shared weights, and extraction of one of them."""

from __future__ import annotations

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
from gravmap.network.ggmnet import MULTIPLE, GGMNet, crop, make_encoder, pad_to_multiple
from gravmap.network.operators import OPERATORS, upsample
from gravmap.search.cost_table import CostTable
from gravmap.search.slimmable import SlimCell, SlimConv
from gravmap.search.space import DOWN, KEEP, SCALES, ArchitectureLogits, SearchSpace


def recompute_batch_norm_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of all batch normalisations by the mean over these batches.

    Parameters
    ----------
    network : nn.Module
        Its weights and its mode (training or evaluation) are not changed.
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
    count = 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative mean instead of an exponential one
        network.train()
        with torch.no_grad():
            for batch in batches:
                network(batch)
                count += 1
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        network.train(training)
    if not count:
        raise OptionError("Batch normalisation statistics need at least one batch.", "Give one batch or more.")


@contextmanager
def frozen_batch_norm_statistics(network: nn.Module) -> Iterator[None]:
    """Context in which a network in training mode normalises by its batch, without updating running statistics."""
    norms = [norm for norm in _norms(network) if norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Batch normalisations, synchronised or not."""
    return [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


WIDTHS = ("sampled", "largest", "smallest", "random")
INITIAL_STD = 1e-3
"""Standard deviation of the initial logits: nearly uniform, without ties that depend on the order of a list."""


class SearchHeads(nn.Module):
    """Class logits at 1/8 from the branches' outputs of any width: from each branch, and from all of them."""

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
        """From outputs (B, c, h/2^s, w/2^s), s = 0, 1, 2, to four (B, K, h, w): scales 0, 1, 2, and fused."""
        scores = [upsample(self.alone[s](ends[s], self.classes), 2**s) for s in SCALES]
        # A 1 x 1 convolution of the concatenated outputs is the sum of one convolution of each.
        joined = sum(upsample(self.joined[s](ends[s], self.fused), 2**s) for s in SCALES)  # (B, E, h, w)
        return [*scores, self.classify(functional.relu(self.norm(joined)))]


class Supernet(nn.Module):
    """Every architecture of a search space, with shared weights.

    Parameters
    ----------
    space : SearchSpace
        The search space.
    in_channels, classes : int
        Input channels, output classes.

    Attributes
    ----------
    temperature : float
        Of the Gumbel softmax of the widths; set by the search.
    arch : nn.ParameterDict
        Architecture parameters ``alpha_s``, ``beta_s``, ``ratio_s``: logits of the maps of scale s, in the order of
        cells.

    Examples
    --------
    >>> import torch
    >>> from gravmap.search.space import SearchSpace
    >>> space = SearchSpace(depth=3, chis=(1, 2), encoder=(8, 8, 8), head=(8, 8, 8))
    >>> supernet = Supernet(space, in_channels=1, classes=4)
    >>> [tuple(each.shape) for each in supernet(torch.zeros(2, 1, 32, 32), widths="smallest")]
    [(2, 4, 4, 4), (2, 4, 4, 4), (2, 4, 4, 4), (2, 4, 4, 4)]
    """

    def __init__(self, space: SearchSpace, in_channels: int, classes: int) -> None:
        super().__init__()
        self.space, self.in_channels, self.classes = space, in_channels, classes
        self.temperature = 1.0
        self.encoder = make_encoder(in_channels, space.encoder)
        self.cells = nn.ModuleDict()
        for cell in range(space.depth):
            for scale in SCALES:
                for transition in space.transitions(scale, cell):
                    before = space.input_widths(scale, cell, transition)
                    self.cells[_name(scale, cell, transition)] = SlimCell(before, space.widths(scale), 1 + transition)
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
                    self.arch[f"{kind}_{scale}"] = nn.Parameter(INITIAL_STD * torch.randn(rows, choices))
        self._costs: dict[int, CostTable] = {}

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Architecture parameters: alpha, beta and ratio of every scale (named ``arch.*``)."""
        return list(self.arch.values())

    def weight_parameters(self) -> list[nn.Parameter]:
        """All other parameters."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("arch.")]

    def forward(self, x: Tensor, widths: str = "sampled") -> list[Tensor]:
        """Logits of the mixture of all architectures.

        Parameters
        ----------
        x : Tensor
            (B, C, H, W), any H and W of at least 1.
        widths : str
            "sampled": one sample per map from softmax(ratio), with a gradient for ratio; "random": uniform samples;
            "largest"; "smallest". Samples use torch's global generator of the CPU, whatever the device.

        Returns
        -------
        list of Tensor
            Logits (B, K, H/8, W/8), rounded up: from the outputs at 1/8, 1/16, 1/32, and from all three.

        Raises
        ------
        OptionError
            `widths` is unknown.
        """
        chosen, scores = self._choose_widths(widths)
        probabilities = {name: logits.softmax(-1) for name, logits in self.arch.items() if not name.startswith("ratio")}
        maps = {0: self._encode(x)}  # scale: the map after the last cell, at first the encoder's (B, E, h, w)
        for cell in range(self.space.depth):
            after: dict[int, Tensor] = {}
            for scale in SCALES:
                transitions = self.space.transitions(scale, cell)
                if not transitions:
                    continue
                width = chosen[scale][cell]
                operators = probabilities[f"alpha_{scale}"][cell - self.space.first_map(scale)]  # (5,)
                parts = [
                    self._cell(scale, cell, transition)(maps[scale - transition], width, operators)
                    for transition in transitions
                ]
                if len(parts) == 2:
                    keep, down = probabilities[f"beta_{scale}"][cell - self.space.first_choice(scale)]
                    parts = [keep * parts[KEEP] + down * parts[DOWN]]
                after[scale] = parts[0] if scores is None else parts[0] * scores[scale][cell]  # (B, c, h/2^s, w/2^s)
            maps = after
        return self._score([maps[scale] for scale in SCALES], x)

    def forward_path(self, x: Tensor, architecture: Architecture) -> list[Tensor]:
        """Logits of a single architecture, with the supernet's weights and heads; otherwise as `forward`.

        In evaluation mode the batch normalisations use running statistics of mixtures: to score an architecture, see
        `recalibrate`.

        Raises
        ------
        OptionError
            The architecture is not in this space.
        """
        return self._score(self.branches_of(self._encode(x), architecture), x)

    def branches_of(self, x: Tensor, architecture: Architecture) -> list[Tensor]:
        """Outputs of the three branches of an architecture for the encoder's output; shared cells run once."""
        self.space.check(architecture)
        a = architecture
        outputs: dict[tuple[tuple[int, int, str, int], ...], Tensor] = {(): x}
        ends = []
        for branch in SCALES:
            route: tuple[tuple[int, int, str, int], ...] = ()
            for cell in range(a.depth):
                scale, transition = a.scale(branch, cell), DOWN if cell in a.paths[branch] else KEEP
                before, route = route, (*route, (scale, transition, a.ops[branch][cell], a.width(branch, cell)))
                if route not in outputs:
                    name, width = route[-1][2:]
                    outputs[route] = self._cell(scale, cell, transition).forward_single(name, outputs[before], width)
            ends.append(outputs[route])
        return ends

    def extract_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        """Copy the weights of an architecture, named as in ``GGMNet(architecture, ...)``.

        Encoder and cells only; attention, fusion and head are not in the supernet. Load with ``strict=False``.

        Raises
        ------
        OptionError
            The architecture is not in this space.
        """
        self.space.check(architecture)
        a = architecture
        with torch.device("meta"):
            routes = GGMNet(a, self.in_channels, self.classes).routes
        weights = {f"encoder.{key}": value.clone() for key, value in self.encoder.state_dict().items()}
        for branch, route in enumerate(routes):
            widths = [self.space.encoder[-1], *(a.width(branch, cell) for cell in range(a.depth))]
            for cell, (number, (c_in, width)) in enumerate(zip(route, pairwise(widths), strict=True)):
                transition = DOWN if cell in a.paths[branch] else KEEP
                cut = self._cell(a.scale(branch, cell), cell, transition).extract_weights(
                    a.ops[branch][cell], c_in, width
                )
                weights |= {f"cells.{number}.{key}": value for key, value in cut.items()}
        return weights

    def architecture_logits(self) -> ArchitectureLogits:
        """Current architecture parameters as arrays."""
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
        """Mean entropy of each kind of architecture parameter, nats, and that of uniform probabilities.

        Returns
        -------
        dict
            alpha, beta, ratio, and alpha_uniform, beta_uniform, ratio_uniform (ln 5, ln 2, ln of the number of ratios).
        """
        found = {}
        for kind, choices in (("alpha", len(OPERATORS)), ("beta", 2), ("ratio", len(self.space.chis))):
            rows = torch.cat([p.detach().cpu().double() for name, p in self.arch.items() if name.startswith(kind)])
            logs = rows.log_softmax(-1)
            found[kind] = float(-(logs.exp() * logs).sum(-1).mean())
            found[f"{kind}_uniform"] = math.log(choices)
        return found

    def expected_macs(self, size: int) -> Tensor:
        """Expected multiply-adds, for one size x size image, of a network sampled from the architecture parameters.

        Every map samples its transition, operator and width; counted is the whole GGMNet, each shared cell once.
        Stretches of skips alone, which an architecture may not have, are not excluded.

        Returns
        -------
        Tensor
            A float64 scalar on the CPU, differentiable with respect to alpha, beta and ratio.
        """
        probabilities = {name: logits.cpu().double().softmax(-1) for name, logits in self.arch.items()}
        return self._cost(size).expected(probabilities)

    def _cost(self, size: int) -> CostTable:
        if size not in self._costs:
            self._costs[size] = CostTable(self.space, self.in_channels, self.classes, size)
        return self._costs[size]

    def _first(self, kind: str, scale: int) -> int:
        return self.space.first_choice(scale) if kind == "beta" else self.space.first_map(scale)

    def _cell(self, scale: int, cell: int, transition: int) -> SlimCell:
        found = self.cells[_name(scale, cell, transition)]
        assert isinstance(found, SlimCell)
        return found

    def _encode(self, x: Tensor) -> Tensor:
        """The encoder's output for the padded input, (B, E, h, w) with h and w multiples of 8."""
        x = pad_to_multiple(x, MULTIPLE)
        for stage in self.encoder:
            x = stage(x)
        return x

    def _score(self, ends: list[Tensor], x: Tensor) -> list[Tensor]:
        height, width = (-(-length // 8) for length in x.shape[-2:])
        return [crop(scores, height, width) for scores in self.heads(ends)]

    def _choose_widths(self, widths: str) -> tuple[list[list[int]], list[Tensor] | None]:
        """Channels of every map, ``[scale][cell]``, and factors of 1 that carry the gradient of sampled widths."""
        space = self.space
        count = len(space.chis)
        if widths not in WIDTHS:
            raise OptionError(f"Unknown widths {widths!r}.", f"Choose one of {', '.join(WIDTHS)}.")
        if widths in ("largest", "smallest"):
            index = torch.full((len(SCALES), space.depth), count - 1 if widths == "largest" else 0)
            return self._channels(index), None
        if widths == "random":
            return self._channels(torch.randint(count, (len(SCALES), space.depth))), None
        # On the CPU: the sample selects the kernels, and is the same on every device.
        uniform = torch.rand(len(SCALES), space.depth, count).clamp_(1e-20, 1 - 2**-24)
        logits = torch.stack(
            [functional.pad(self.arch[f"ratio_{s}"], (0, 0, space.first_map(s), 0)) for s in SCALES]
        )  # (3, depth, ratios)
        noisy = logits + (-(-uniform.log()).log()).to(logits.device)
        index = noisy.detach().argmax(-1)  # (3, depth)
        soft = (noisy / self.temperature).softmax(-1).gather(-1, index[..., None])[..., 0]
        # Exactly 1 in the forward pass, so that the output is that of the sampled width (straight-through estimator).
        return self._channels(index.cpu()), list(1 + (soft - soft.detach()))

    def _channels(self, index: Tensor) -> list[list[int]]:
        return [[self.space.width(s, self.space.chis[i]) for i in row] for s, row in enumerate(index.tolist())]


def _name(scale: int, cell: int, transition: int) -> str:
    """Key of a cell of the supernet: its output map, and the transition into it."""
    return f"map_{scale}_{cell}_{'down' if transition == DOWN else 'keep'}"


class SubNetwork(nn.Module):
    """One architecture with copies of a supernet's weights and heads.

    Parameters
    ----------
    supernet : Supernet
        Trained; is not changed.
    architecture : Architecture
        In its space.
    """

    def __init__(self, supernet: Supernet, architecture: Architecture) -> None:
        super().__init__()
        weights = supernet.extract_weights(architecture)
        # Its fusion and head are not used: the heads of the search replace them.
        self.body = GGMNet(architecture, supernet.in_channels, supernet.classes)
        self.body.load_state_dict(weights, strict=False)
        # Not a copy: the processes of a group score other networks each, so none may synchronise its statistics.
        self.heads = SearchHeads(supernet.space, supernet.classes)
        self.heads.load_state_dict(supernet.heads.state_dict())
        self.to(next(supernet.parameters()).device)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits: four (B, K, H/8, W/8), as `Supernet.forward_path`."""
        height, width = (-(-length // 8) for length in x.shape[-2:])
        x = pad_to_multiple(x, MULTIPLE)
        for stage in self.body.encoder:
            x = stage(x)
        return [crop(scores, height, width) for scores in self.heads(self.body.branches(x))]


def recalibrate(supernet: Supernet, architecture: Architecture, batches: Iterable[Tensor]) -> SubNetwork:
    """Extract an architecture from the supernet, with its own batch normalisation statistics.

    The supernet's running statistics are those of mixtures of operators and widths; a single architecture has other
    feature maps, and two branches that use the same cell differ. So the statistics of each cell are recomputed (Guo et
    al. 2020, Single path one-shot neural architecture search, arXiv:1904.00420, section 3.3).

    Parameters
    ----------
    supernet : Supernet
        Is not changed.
    architecture : Architecture
        In its space.
    batches : iterable of Tensor
        A few inputs (B, C, H, W), on the supernet's device; no labels are needed.

    Returns
    -------
    SubNetwork
        In evaluation mode.

    Raises
    ------
    OptionError
        The architecture is not in the supernet's space, or there is no batch.
    """
    network = SubNetwork(supernet, architecture)
    recompute_batch_norm_statistics(network, batches)
    return network.eval()
