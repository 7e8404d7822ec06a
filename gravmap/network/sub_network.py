"""One architecture out of a supernet, as a network of its own that can be judged."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from torch import Tensor, nn

from gravmap.network.architecture import Architecture
from gravmap.network.ggmnet import MULTIPLE, GGMNet, pad_to_multiple
from gravmap.network.norm_statistics import average_statistics
from gravmap.network.supernet import Supernet


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
        weights = supernet.weights_for(architecture)
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
    average_statistics(network, batches)
    return network.eval()
