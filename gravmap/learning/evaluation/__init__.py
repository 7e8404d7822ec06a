"""Evaluation: metrics, predictions on held-out nodes, null models, comparisons and attributions."""
