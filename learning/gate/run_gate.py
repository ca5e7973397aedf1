"""Run the gate: load candidate and champion, ask both the same questions, store the verdict."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from learning.gate.evaluate import evaluate, measure_latency
from learning.gate.exam import Exam, ExamUnusable, read_base_exam, read_exam
from learning.gate.gate import Bounds, Paired, judge, share_right
from learning.settings import Settings
from registry.sets_in_making import wait_for_sets
from registry.versions import BASE, Registry
from worker.load_version import load_version
from worker.osprey_describer import OspreyDescriber

_LOG = logging.getLogger(__name__)
_LATENCY_IMAGES = 8


def run_gate(
    settings: Settings,
    name: str,
    *,
    data: Path | None = None,
    device: str = "cpu",
    bounds: Bounds | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Compare a registered version with the champion and store the verdict in the version.

    Args:
        settings: registry, base checkpoint, exports and base set.
        name: the candidate.
        data: the export version with the held-out set; None: the candidate's own data version below OSPREY_EXPORTS.
        device: of both models.
        bounds: limits of the criteria.
        on_progress: called as (name of the set, images done, images in total).

    Returns:
        The verdict, as version.json stores it.

    Raises:
        RegistryError: no version has this name.
        ModelUnavailable: one of the two models does not load.
        ExamUnusable, ExportRefused: the held-out set or the base set cannot be used.
        SetNotMade: the base set was planned but could not be made.
    """
    assert settings.registry is not None, "the caller checks OSPREY_REGISTRY"
    registry = Registry(settings.registry)
    candidate = registry.verified(name)
    data = data or _data_folder(settings, candidate.data_version)
    champion = registry.champion()
    wait_for_sets((settings.base_set,), on_progress or _silent)
    base = None if settings.base_set is None else read_base_exam(settings.base_set)
    held_out = read_exam(data, may_be_empty=base is not None)  # a failed verdict is more useful than an error
    challenger = load_version(settings, device, candidate)
    incumbent = (
        OspreyDescriber.load(settings.model, device) if champion is None else load_version(settings, device, champion)
    )

    def both(exam: Exam, what: str) -> Paired:
        done = 0

        def count() -> None:
            nonlocal done
            done += 1
            if on_progress is not None:
                on_progress(what, done, 2 * len(exam.images))

        return Paired(*(evaluate(each.model, exam, on_image=count) for each in (challenger, incumbent)))

    verdict = judge(
        both(held_out, "held-out set"),
        None if base is None else both(base, "base set"),
        # On the base set, where both models give the same answers: a longer correct answer is not a slower model.
        measure_latency(challenger.model, incumbent.model, (base or held_out).images[:_LATENCY_IMAGES]),
        bounds,
        best_before=None if base is None else _best_before(registry, base.name),
    )
    written = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "champion": BASE if champion is None else champion.name,
        "champion_version": incumbent.model_version,
        "data_version": held_out.name,
        "base_set": None if base is None else base.name,
        **verdict.to_json(),
    }
    registry.record_gate(name, written)
    if verdict.passed and settings.auto_promote:
        registry.promote(name, who="gate", why="passed the gate (OSPREY_AUTO_PROMOTE)")
        _LOG.info("%s passed the gate and is the champion now", name)
    return written


def _best_before(registry: Registry, base_set: str) -> float | None:
    """Return the highest score on a base set that a champion had in an earlier verdict."""
    verdicts = (each.gate for each in registry.versions() if each.gate is not None)
    shares = [share_right(verdict, "base", "champion") for verdict in verdicts if verdict.get("base_set") == base_set]
    return max((share for share in shares if share is not None), default=None)


def _data_folder(settings: Settings, data_version: str | None) -> Path:
    if data_version is None:
        raise ExamUnusable("the version names no data version; name an export version to evaluate it on with --data")
    folder = settings.exports / data_version
    if not folder.is_dir():
        raise ExamUnusable(f"no export version at {folder}; set OSPREY_EXPORTS, or name its folder with --data")
    return folder


def _silent(_what: str, _done: int, _total: int) -> None:
    """Do nothing: the progress callback of a caller that passes none."""
