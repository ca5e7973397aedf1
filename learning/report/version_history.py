"""The registry's versions as the report shows them: training data, result in the gate, time of promotion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from learning.gate.gate import share_right
from registry.versions import Registry


@dataclass(frozen=True, slots=True)
class Compared:
    """Shares of correct answers of a candidate and of the champion that it was compared with."""

    candidate: float
    champion: float


@dataclass(frozen=True, slots=True)
class Examined:
    """A version. `passed`: None if the gate has not run; `failed`: criteria not passed; `promoted`: last time."""

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
    """Return every complete version, oldest first.

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
            passed=None if version.gate is None else bool(version.gate.get("passed")),
            failed=() if version.gate is None else failed_criteria(version.gate),
            held_out=compared(version.gate, "better"),
            base_set=compared(version.gate, "base"),
            promoted=promoted.get(version.name),
        )
        for version in registry.versions()
    )


def failed_criteria(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the criteria that a stored verdict did not pass, each with its field."""
    return tuple(
        f"{each.get('name')} {each.get('field') or ''}".strip()
        for each in verdict.get("criteria") or ()
        if not each.get("passed")
    )


def compared(verdict: Mapping[str, Any] | None, criterion: str) -> Compared | None:
    """Return the scores on the held-out set ("better") or the base set ("base"); None if the verdict has none."""
    if verdict is None:
        return None
    candidate, champion = (share_right(verdict, criterion, side) for side in ("candidate", "champion"))
    return None if candidate is None or champion is None else Compared(candidate, champion)
