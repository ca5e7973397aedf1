"""Which tasks are blind and which are in the random arm of the queue: decided by a hash, so every process agrees.

A blind task is answered without words (`backend/click/describer.py`), so that accuracy is measured on people who do not
just nod. A task of the random arm gets a place in the queue that says nothing about its content, so that ordering by
uncertainty can be compared with not ordering. Both are kept with every record (`learning/corrections/collect.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Arm = Literal["uncertainty", "random"]

BLIND_SHARE = 0.05
RANDOM_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Shares:
    """Which share of a project's tasks is blind, and which share is queued at random; each from 0 to 1."""

    blind: float = BLIND_SHARE
    random: float = RANDOM_SHARE

    def is_blind(self, project_id: int | None, task_id: int | None) -> bool:
        """Whether the task is shown without suggested words. Never without a task's number."""
        return task_id is not None and _place("blind", project_id, task_id) < self.blind

    def arm(self, project_id: int | None, task_id: int) -> Arm:
        """Which arm of the queue the task is in."""
        return "random" if _place("random", project_id, task_id) < self.random else "uncertainty"


NO_SHARES = Shares(blind=0.0, random=0.0)


@dataclass(frozen=True, slots=True)
class QueueScore:
    """The score that a task's prediction is stored with: Label Studio shows the lowest first."""

    score: float
    arm: Arm


def queue_score(
    shares: Shares, project_id: int | None, task_id: int, own: float, others: Sequence[float]
) -> QueueScore:
    """A task's place in Label Studio's uncertainty order.

    A task counts with its own score. One of the random arm takes the score of some other task: the arm then spreads
    over the queue exactly as the other one does, whatever the model's scores look like.

    Args:
        own: how sure the model is of its prediction for the task, 0 to 1.
        others: scores of other tasks of the project, in a fixed order; while there is none, the own one counts.
    """
    arm = shares.arm(project_id, task_id)
    if arm == "random" and others:
        return QueueScore(others[int(_place("draw", project_id, task_id) * len(others))], arm)
    return QueueScore(own, arm)


def _place(purpose: str, project_id: int | None, task_id: int) -> float:
    """A number from 0 to below 1 that depends on nothing but its arguments; purposes are independent of each other."""
    digest = hashlib.sha256(f"{purpose}:{project_id}:{task_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
