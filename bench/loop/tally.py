"""Corrected fields per 100 regions, for the team's own terms and for the rest. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Seen:
    """One submitted region.

    `is_changed`: the team's own terms affect it. Of `fields` those in `corrected` were wrong. `model_version` is the
    model that answered, from the region's own record.
    """

    seed: int
    task: int
    region: str
    is_changed: bool
    fields: tuple[str, ...]
    corrected: tuple[str, ...]
    model_version: str

    def to_json(self) -> dict[str, Any]:
        """Return a line of the round's journal."""
        return asdict(self)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Read a line that `to_json` made."""
        lists = ("fields", "corrected")
        values: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in line.items()}
        return cls(**values)


@dataclass(frozen=True)
class Tally:
    """Counts over regions. `fields` and `corrected` are by control."""

    regions: int
    fields: Mapping[str, int]
    corrected: Mapping[str, int]

    @property
    def per_100(self) -> float:
        """Corrected fields per 100 regions."""
        return 100 * sum(self.corrected.values()) / self.regions if self.regions else 0.0

    def field_per_100(self, name: str) -> float:
        """Return the corrections of one field per 100 regions that have it."""
        return 100 * self.corrected.get(name, 0) / self.fields[name] if self.fields.get(name) else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return rounded figures for the result's JSON line."""
        return {
            "regions": self.regions,
            "corrections_per_100": round(self.per_100, 2),
            "by_field_per_100": {name: round(self.field_per_100(name), 2) for name in self.fields},
        }


def tally(seen: Iterable[Seen]) -> Tally:
    """Count regions, fields and corrected fields."""
    regions, fields, corrected = 0, Counter[str](), Counter[str]()
    for each in seen:
        regions += 1
        fields.update(each.fields)
        corrected.update(each.corrected)
    return Tally(regions, dict(sorted(fields.items())), dict(corrected))


def split_tally(seen: Sequence[Seen]) -> tuple[Tally, Tally]:
    """Count the regions that the team's terms affect, and the others."""
    return tally(each for each in seen if each.is_changed), tally(each for each in seen if not each.is_changed)


def reduction(before: Tally, after: Tally) -> float:
    """Return by which share corrections per 100 regions fell; 0 if there were none before."""
    return 1 - after.per_100 / before.per_100 if before.per_100 else 0.0
