"""The roles of ground and of windows: what may be learned from, what is tuned on, what is scored on."""

from __future__ import annotations

TRAIN, TUNE, TEST, IGNORED = 0, 1, 2, 3
