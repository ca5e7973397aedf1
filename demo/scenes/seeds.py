"""The ranges of seeds by purpose. They do not overlap."""

from __future__ import annotations

TRAIN_SEEDS = range(0, 1_000_000)
EVAL_SEEDS = range(10_000_000, 10_000_200)
DEMO_SEEDS = range(20_000_000, 20_000_012)
# The simulation of the learning loop: the team's pictures, replay data, and the frozen base set.
TEAM_SEEDS = range(40_000_000, 50_000_000)
REPLAY_SEEDS = range(50_000_000, 60_000_000)
BASE_SEEDS = range(60_000_000, 70_000_000)
