"""Claims about the registered versions in the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from learning.gate.evaluate import FieldOutcome, Latency
from learning.gate.gate import Paired, judge
from learning.report.version_history import Compared, examined_versions
from registry.versions import Base, Registry


def outcomes(right: int, total: int = 40) -> tuple[FieldOutcome, ...]:
    """Return outcomes, each on its own image; the first `right` of them are correct."""
    return tuple(
        FieldOutcome(f"i{idx}", idx, idx, "r", "Object", "category", "category", (f"w{idx}",), (f"w{idx}",), 0.9,
                idx < right, float(idx < right), True, False)
        for idx in range(total)
    )  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Return a registry of three versions: passed and promoted, failed, without a verdict."""
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "adapter_config.json").write_text("{}")
    registry = Registry(tmp_path / "registry")
    for data in ("d1", "d2", None):
        registry.add(trained, "adapter", base=Base("/base", "f" * 40), data_version=data)
    base, fast = Paired(outcomes(40), outcomes(40)), Latency(1.0, 1.0, 8, 3, "cpu")
    better, worse = (Paired(outcomes(right), outcomes(20)) for right in (38, 10))
    for name, paired in (("v1", better), ("v2", worse)):
        verdict = judge(paired, base, fast).to_json()
        registry.record_gate(name, {"champion": "base", **verdict})
    registry.promote("v1")
    return registry


def test_versions_with_their_gate(registry: Registry) -> None:
    """Each version has its scores, failed criteria and time of promotion; without a verdict they are empty."""
    first, second, third = examined_versions(registry)
    assert (first.name, first.passed, first.failed, first.data_version) == ("v1", True, (), "d1")
    assert first.held_out == Compared(0.95, 0.5)
    assert first.base_set == Compared(1.0, 1.0)
    assert first.promoted is not None
    assert second.passed is False
    assert {"better", "field category"} <= set(second.failed)
    assert second.promoted is None
    assert (third.passed, third.held_out, third.champion) == (None, None, None)


def test_an_empty_registry_has_no_versions(tmp_path: Path) -> None:
    """A registry that does not exist yet has no versions."""
    assert examined_versions(Registry(tmp_path / "none")) == ()
