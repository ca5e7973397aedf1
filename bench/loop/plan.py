"""The options of a simulation, the scenes that it may use, and the paths in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demo.scenes import BASE_SEEDS, REPLAY_SEEDS, TEAM_SEEDS

MOST_ROUNDS = 9
NUM_SEEDS = 100  # values of `--seed`
_SPAN = 100_000  # scenes of one `--seed` in each range
_ROUND_SPAN = 10_000
_REGIONS_PER_SCENE = 7.5  # about four objects, and a part of nearly every one


@dataclass(frozen=True)
class Plan:
    """One simulation. `steps` are the optimizer steps of each fine-tune (None: the checkpoint's default).

    The frozen base set has `base_scenes` scenes.

    Raises:
        ValueError: a number is out of its range.
    """

    folder: Path
    rounds: int = 3
    regions: int = 300
    seed: int = 0
    steps: int | None = None
    base_scenes: int = 24

    def __post_init__(self) -> None:
        """Check that there are enough seeds."""
        if not 0 <= self.seed < NUM_SEEDS:
            raise ValueError(f"seed must be from 0 to {NUM_SEEDS - 1}, got {self.seed}")
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise ValueError(f"rounds must be from 1 to {MOST_ROUNDS}, got {self.rounds}")
        if not 1 <= self.regions <= _ROUND_SPAN:
            raise ValueError(f"regions must be from 1 to {_ROUND_SPAN}, got {self.regions}")

    def settings(self) -> dict[str, Any]:
        """Return the options that must be the same when a simulation is continued."""
        values = asdict(self)
        del values["folder"]
        return values

    def team_seeds(self, round_idx: int) -> Iterator[int]:
        """Return the seeds of a round, more than it needs. No other round uses them."""
        first = TEAM_SEEDS.start + self.seed * _SPAN + round_idx * _ROUND_SPAN
        return iter(range(first, first + _ROUND_SPAN))

    def replay_seeds(self) -> Sequence[int]:
        """Return seeds for about twice as many regions as all rounds together have."""
        first = REPLAY_SEEDS.start + self.seed * _SPAN
        return range(first, first + max(1, round(2 * self.rounds * self.regions / _REGIONS_PER_SCENE)))

    def base_seeds(self) -> Sequence[int]:
        """Return the seeds of the frozen base set."""
        first = BASE_SEEDS.start + self.seed * _SPAN
        return range(first, first + self.base_scenes)

    @property
    def stack(self) -> Path:
        """The stack's state folder, with Label Studio's data and the correction store."""
        return self.folder / "stack"

    @property
    def registry(self) -> Path:
        """The model registry."""
        return self.folder / "registry"

    @property
    def exports(self) -> Path:
        """Export versions: the project's, the replay data and the base set."""
        return self.folder / "exports"

    @property
    def cache(self) -> Path:
        """The folder of cached image files."""
        return self.folder / "cache"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.folder / "report.html"

    def journal(self, round_idx: int) -> Path:
        """Return the path of a round's journal of submitted regions."""
        return self.folder / f"round-{round_idx}.jsonl"
