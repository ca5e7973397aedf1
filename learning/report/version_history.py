"""The registry's versions as the report shows them: what each learned from, how it did in the gate, when it served.

Neighbours: `registry/versions.py` keeps them, `learning/report/page.py` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from learning.gate.gate import share_right
from registry.versions import Registry


@dataclass(frozen=True, slots=True)
class Compared:
    """Shares of right answers of a candidate and of the champion it was held against."""

    candidate: float
    champion: float


@dataclass(frozen=True, slots=True)
class Examined:
    """A version. `passed` None: it has not sat the gate; `failed`: criteria it did not pass; `promoted`: last time."""

    name: str
    created: str
    data_version: str | None
    champion: str | None
    passed: bool | None
    failed: tuple[str, ...]
    held_out: Compared | None
    base_set: Compared | None
    promoted: str | None


def examined_versions(registry: Registry) -> tuple[Examined, ...]:
    """Every complete version, oldest first.

    Raises:
        RegistryError: the pointer with its history cannot be read.
    """
    promoted = {move.target: move.at for move in registry.history() if move.action == "promote"}
    return tuple(
        Examined(
            name=version.name,
            created=version.created,
            data_version=version.data_version,
            champion=None if version.gate is None else version.gate.get("champion"),
            passed=None if version.gate is None else bool(version.gate["passed"]),
            failed=() if version.gate is None else failed_criteria(version.gate),
            held_out=compared(version.gate, "better"),
            base_set=compared(version.gate, "base"),
            promoted=promoted.get(version.name),
        )
        for version in registry.versions()
    )


def failed_criteria(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the criteria that a verdict did not pass, each with its field."""
    return tuple(f"{each['name']} {each['field'] or ''}".strip() for each in verdict["criteria"] if not each["passed"])


def compared(verdict: Mapping[str, Any] | None, criterion: str) -> Compared | None:
    """Of the held-out set ("better") or the base set ("base"); None where there is no verdict, or nothing was asked."""
    if verdict is None:
        return None
    candidate, champion = (share_right(verdict, criterion, side) for side in ("candidate", "champion"))
    return None if candidate is None or champion is None else Compared(candidate, champion)
