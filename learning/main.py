"""Entry of a worker process of the queues `data` and `train`: corrections, exports and fine-tunes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence

from rq.exceptions import StopRequested

from job_queue.job_kinds import DATA_QUEUE, TRAIN_QUEUE
from job_queue.queue import connect
from learning.settings import Settings
from worker.main import refuse_company, start, work
from worker.queue_worker import QueueWorker

LEARNING_QUEUES = (DATA_QUEUE, TRAIN_QUEUE)


def main(
    environ: Mapping[str, str] = os.environ, queues: Sequence[str] = (DATA_QUEUE,), device: str | None = None
) -> None:
    """Work on one of the two queues until SIGTERM or SIGINT.

    Args:
        environ: where the settings are read from.
        queues: `data` or `train`, each in a process of its own.
        device: overrides OSPREY_DEVICE.

    Raises:
        ValueError: a setting cannot be read, or the queue is served together with others.
    """
    settings = start(Settings, environ, device)
    for queue in LEARNING_QUEUES:
        refuse_company(queue, queues)
    if DATA_QUEUE in queues:
        _work_on_data(settings)
    else:
        _work_on_training(settings, environ)


def _work_on_training(settings: Settings, environ: Mapping[str, str]) -> None:
    """Fine-tune in a process of its own with the lowest priority, so that it does not slow down clicks."""
    from learning.runtime import TrainRuntime
    from learning.training.options import FineTuneOptions
    from worker.processor import give_way

    give_way()
    options = FineTuneOptions.for_checkpoint(settings.model, environ)
    work(TrainRuntime(settings, connect(settings.redis_url, settings.queue.redis_timeout_s), options))


def _work_on_data(settings: Settings) -> None:
    """Collect corrections without a model, and run the schedule in a second thread."""
    # Imported here, because a process that fine-tunes needs no scheduler.
    from learning.runtime import DataRuntime
    from learning.schedule import Schedule, periodic_work

    timeout_s = settings.queue.redis_timeout_s
    worker = QueueWorker(DataRuntime(settings, connect(settings.redis_url, timeout_s)), settings.redis_url)
    schedule = Schedule(connect(settings.redis_url, timeout_s), worker.name, periodic_work(settings))
    schedule.start()
    try:
        with contextlib.suppress(StopRequested):
            worker.work()
    finally:
        schedule.stop()
