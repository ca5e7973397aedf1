"""Which seeds are for what. The three ranges never meet."""

from __future__ import annotations

TRAIN_SEEDS = range(0, 1_000_000)
EVAL_SEEDS = range(10_000_000, 10_000_200)
DEMO_SEEDS = range(20_000_000, 20_000_012)
