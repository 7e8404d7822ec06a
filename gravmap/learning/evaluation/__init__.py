"""Evaluation: metrics, predictions on held-out nodes, null models, comparisons and attributions."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gravmap.learning.evaluation.attribution import Attribution, integrated_gradients
    from gravmap.learning.evaluation.comparison import Difference, block_numbers, paired_bootstrap
    from gravmap.learning.evaluation.held_out import HeldOutPredictions, evaluate, predict_held_out
    from gravmap.learning.evaluation.importance import Importance, importance_table, permutation_importance
    from gravmap.learning.evaluation.metrics import confusion, scores, scores_by_distance
    from gravmap.learning.evaluation.mosaic import covering_windows, predict_logits
    from gravmap.learning.evaluation.node_predictor import NodePredictor, load_node_predictor
    from gravmap.learning.evaluation.null_models import (
        NULL_MODELS,
        known_labels,
        null_maps,
        null_scores,
        unavailable_null_models,
    )
    from gravmap.learning.evaluation.under_cover import scores_under_cover

__all__ = [
    "NULL_MODELS",
    "Attribution",
    "Difference",
    "HeldOutPredictions",
    "Importance",
    "NodePredictor",
    "block_numbers",
    "confusion",
    "covering_windows",
    "evaluate",
    "importance_table",
    "integrated_gradients",
    "known_labels",
    "load_node_predictor",
    "null_maps",
    "null_scores",
    "paired_bootstrap",
    "permutation_importance",
    "predict_held_out",
    "predict_logits",
    "scores",
    "scores_by_distance",
    "scores_under_cover",
    "unavailable_null_models",
]

_MODULES = (
    "metrics",
    "mosaic",
    "null_models",
    "held_out",
    "comparison",
    "node_predictor",
    "importance",
    "attribution",
    "under_cover",
)


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562): gravmap.learning.data uses the null models, which this package imports."""
    if name in __all__:
        for module in map(import_module, (f"{__name__}.{each}" for each in _MODULES)):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
