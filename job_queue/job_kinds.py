"""The kinds of jobs: a table with the function, the queue and the time limits of each contract.

Sender (`queue.py`) and worker (`worker/queue_worker.py`) both read this table. A worker refuses a function that it does
not list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from job_queue.contracts import (
    CollectJob,
    DescribeJob,
    ExportJob,
    FineTuneJob,
    LookAheadJob,
    PrelabelJob,
    ReconcileJob,
    SegmentJob,
    TriggerJob,
    WarmJob,
)
from job_queue.settings import QueueSettings

QueueName = Literal["masks", "describe", "data", "train", "prelabel"]
QUEUE_NAMES: tuple[QueueName, ...] = ("masks", "describe")  # the queues of clicks; each needs one model
PRELABEL_QUEUE: QueueName = "prelabel"  # whole projects, by a worker with both models and the lowest priority
DATA_QUEUE: QueueName = "data"  # corrections, exports: no model
TRAIN_QUEUE: QueueName = "train"  # fine-tunes and the gate

ClickJob = SegmentJob | DescribeJob | WarmJob | LookAheadJob
LearningJob = CollectJob | ReconcileJob | ExportJob | TriggerJob | FineTuneJob
AnyJob = ClickJob | LearningJob | PrelabelJob

Seconds = Literal[
    "segment_timeout_s", "describe_timeout_s", "background_timeout_s", "data_timeout_s", "train_timeout_s"
]
Bound = Literal["interactive_bound", "background_bound", "data_bound"]


@dataclass(frozen=True, slots=True)
class JobKind:
    """How jobs of one contract are enqueued.

    Attributes:
        queue: the queue; None: each queue of clicks gets its own job.
        function: the path that RQ calls.
        timeout: the setting that limits how long the job may run.
        bound: the setting that limits how many jobs may wait before it; None: no limit.
        is_background: whether it waits behind every click.
        at_front: whether it goes before other jobs of its queue.
        keeps_result: whether its answer is kept. The same job is not run again while its answer is kept.
    """

    queue: QueueName | None
    function: str
    timeout: Seconds
    bound: Bound | None
    is_background: bool = False
    at_front: bool = False
    keeps_result: bool = True

    @property
    def name(self) -> str:
        """The function's name, for logs and RQ's description."""
        return self.function.rpartition(".")[2]

    def timeout_s(self, settings: QueueSettings) -> int:
        """Return the number of seconds that the job may run."""
        limit: int = getattr(settings, self.timeout)
        return limit

    def most_waiting(self, settings: QueueSettings) -> int | None:
        """Return the number of waiting jobs at which another one is refused; None: no limit."""
        return None if self.bound is None else int(getattr(settings, self.bound))


JOB_KINDS: dict[type[AnyJob], JobKind] = {
    SegmentJob: JobKind("masks", "worker.jobs.segment", "segment_timeout_s", "interactive_bound"),
    DescribeJob: JobKind("describe", "worker.jobs.describe", "describe_timeout_s", "interactive_bound"),
    WarmJob: JobKind(None, "worker.jobs.warm", "background_timeout_s", "background_bound", True, True),
    LookAheadJob: JobKind("masks", "worker.jobs.look_ahead", "background_timeout_s", "background_bound", True, True),
    PrelabelJob: JobKind("prelabel", "worker.prelabel.job.prelabel", "background_timeout_s", None, True),
    # The result of `collect` is kept, so that a webhook that arrives twice runs once. The other jobs of these queues
    # have to run again when an identical one is enqueued later.
    CollectJob: JobKind("data", "learning.jobs.collect", "data_timeout_s", "data_bound"),
    ReconcileJob: JobKind("data", "learning.jobs.reconcile", "data_timeout_s", "data_bound", True, keeps_result=False),
    ExportJob: JobKind("data", "learning.jobs.export", "data_timeout_s", "data_bound", True, keeps_result=False),
    TriggerJob: JobKind("data", "learning.jobs.trigger", "data_timeout_s", "data_bound", True, keeps_result=False),
    FineTuneJob: JobKind("train", "learning.jobs.finetune", "train_timeout_s", "data_bound", True, keeps_result=False),
}
FUNCTIONS = frozenset(kind.function for kind in JOB_KINDS.values())


def rq_queue_name(queue: str, *, background: bool = False) -> str:
    """Return RQ's name of one of our queues. Background jobs (warm-up, bulk) wait behind every click."""
    return f"osprey-{queue}-background" if background else f"osprey-{queue}"
