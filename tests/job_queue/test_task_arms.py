"""Claims about blind tasks and the random arm: fixed shares of the tasks, the same ones in every process."""

from __future__ import annotations

import random

import pytest

from job_queue.settings import ProcessSettings
from job_queue.task_arms import Shares, queue_score

TASKS = range(1, 20_001)


def test_share_is_a_fixed_part_of_the_tasks():
    """About the given share of the tasks is blind, always the same ones; a larger share adds tasks and removes none."""
    blind = [task for task in TASKS if Shares(blind=0.05).is_blind(3, task)]
    assert 0.045 < len(blind) / len(TASKS) < 0.055
    assert blind == [task for task in TASKS if Shares(blind=0.05).is_blind(3, task)]
    assert not any(Shares(blind=0.0).is_blind(3, task) for task in TASKS)
    assert all(Shares(blind=1.0).is_blind(3, task) for task in TASKS)
    assert set(blind) <= {task for task in TASKS if Shares(blind=0.2).is_blind(3, task)}
    assert not Shares(blind=1.0).is_blind(3, None)


def test_blind_and_random_are_independent():
    """The random arm has the same share of the blind tasks as of all tasks."""
    shares = Shares(blind=0.2, random=0.2)
    blind = [task for task in TASKS if shares.is_blind(3, task)]
    assert 0.17 < sum(shares.arm(3, task) == "random" for task in blind) / len(blind) < 0.23


def test_random_arm_says_nothing_about_a_task_but_spreads_as_the_other_arm():
    """With scores around 0.9, a tenth of the first tasks are random ones, whose mean score is that of all tasks."""
    chance, shares, others, queue = random.Random(7), Shares(random=0.1), [], []
    for task in TASKS:
        own = chance.betavariate(9, 1)
        placed = queue_score(shares, 3, task, own, others)
        others.append(own)
        queue.append((placed.score, own, placed.arm))
    first = sorted(queue)[:2000]
    drawn = [own for _, own, arm in first if arm == "random"]
    assert 0.07 < len(drawn) / len(first) < 0.13
    assert 0.85 < sum(drawn) / len(drawn) < 0.95  # the mean of all tasks, 0.9
    assert max(own for _, own, arm in first if arm == "uncertainty") < 0.85


@pytest.mark.parametrize("text", ["5", "-0.1", "x", "nan"])
def test_share_that_is_none_is_refused(text):
    """The message names the variable."""
    with pytest.raises(ValueError, match=f"OSPREY_BLIND_SHARE must be a number from 0 to 1, got '{text}'"):
        ProcessSettings.from_env({"OSPREY_BLIND_SHARE": text})
