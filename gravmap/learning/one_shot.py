"""Which candidate a search keeps: each is scored with the weights that all of them share.

A candidate's normalisation is measured anew first: the supernet's running statistics are those of mixtures. Then it is
asked on unchanged crops of the half that chooses. FWIoU of the fused head decides, as when `gravmap train` keeps
weights; between equals the cross-entropy over all labelled pixels. The loss of the worst pixels, which the search
minimised, would be least for a network that says nothing.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from gravmap.learning import metrics
from gravmap.learning.search_state import SearchState
from gravmap.learning.search_steps import Batch, at_eighth, bootstrapped_terms
from gravmap.network.architecture import Architecture
from gravmap.network.search_cost import CostTable
from gravmap.network.search_space import SupernetSpace
from gravmap.network.sub_network import recalibrate
from gravmap.progress import Progress, silent

COSTED_PX = 1024
"""Multiply-adds are those of one image of so many pixels a side."""


@functools.cache
def cost_table(space: SupernetSpace, in_channels: int, classes: int) -> CostTable:
    """What architectures of a space cost on one 1024 x 1024 image."""
    return CostTable(space, in_channels, classes, COSTED_PX)


def cost_of(architecture: Architecture, table: CostTable) -> dict[str, float]:
    """Parameters, and GMAC, of the network an architecture makes."""
    return {"parameters": table.parameters(architecture), "gmac": table.macs(architecture) / 1e9}


def score_candidates(
    state: SearchState, candidates: list[tuple[str, Architecture]], progress: Progress = silent
) -> list[dict[str, Any]]:
    """Score candidates with the supernet's weights, on the half that chooses.

    Parameters
    ----------
    state : SearchState
        After its last epoch.
    candidates : list of (str, Architecture)
        The rule each came from, and what it gave.
    progress : Progress
        Told the candidates done.

    Returns
    -------
    list of dict
        One per candidate, best first (of equals the earlier): `rule`, `fwiou`, `loss` and `pa` (None where no crop has
        a label), `parameters`, `gmac` and `architecture`.
    """
    config = state.config
    fields = [batch[0] for batch in state.batches(state.teaching, config.calibration_batches)]
    asked = state.batches(state.asked, config.score_batches)
    table = cost_table(config.space, state.inputs.width, len(state.area.classes))
    found = []
    for number, (rule, architecture) in enumerate(candidates):
        progress(number, len(candidates), "candidates")
        with torch.autocast(state.device.type, torch.bfloat16, enabled=config.half):
            network = recalibrate(state.supernet, architecture, fields)
        scored = _score(state, network, asked)
        found.append({"rule": rule, **scored, **cost_of(architecture, table), "architecture": architecture.to_dict()})
    progress(len(candidates), len(candidates), "candidates")
    return sorted(found, key=lambda row: (0.0, 0.0) if row["fwiou"] is None else (-row["fwiou"], row["loss"]))


@torch.no_grad()
def _score(state: SearchState, network: nn.Module, asked: list[Batch]) -> dict[str, Any]:
    """Loss and scores of the fused head at 1/8."""
    classes = len(state.area.classes)
    terms = bootstrapped_terms(state.class_weight, topk_share=1.0, small_weight=1.0)
    sums = torch.zeros(2, dtype=torch.float64)
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    for values, target, small in asked:
        with torch.autocast(state.device.type, torch.bfloat16, enabled=state.config.half):
            fused = network(values)[-1]
        truth, small = at_eighth(target), at_eighth(small)
        logits = fused[..., : truth.shape[-2], : truth.shape[-1]].float()
        sums += torch.stack(terms(logits, truth, small)).cpu()
        matrix += torch.from_numpy(metrics.confusion(truth.cpu().numpy(), logits.argmax(1).cpu().numpy(), classes))
    told = metrics.scores(matrix.numpy())
    loss = float(sums[0] / sums[1]) if float(sums[1]) else None
    return {"loss": loss, "fwiou": told["fwiou"], "pa": told["pa"]}
