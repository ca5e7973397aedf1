"""Entry of a worker process: `osprey worker`, or `python -m worker.main`."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rq.exceptions import StopRequested

from job_queue.queue import DATA_QUEUE, PRELABEL_QUEUE, QUEUE_NAMES, TRAIN_QUEUE, connect
from worker.queue_worker import QueueWorker, handle_early_signal
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.runtime import Loaders


def main(
    environ: Mapping[str, str] = os.environ,
    queues: Sequence[str] = QUEUE_NAMES,
    device: str | None = None,
    loaders: Loaders | None = None,
) -> None:
    """Work until SIGTERM or SIGINT.

    Args:
        environ: where the settings are read from.
        queues: which queues to serve, the most urgent first.
        device: overrides OSPREY_DEVICE.
        loaders: other models than the configured ones.

    Raises:
        ValueError: a setting or a queue name that makes no sense.
    """
    settings = Settings.from_env(environ)
    if device is not None:
        settings = dataclasses.replace(settings, device=device)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("httpcore", "httpx", "PIL", "rq.cron"):
        logging.getLogger(name).setLevel(logging.WARNING)
    works: dict[str, Callable[[Settings, Mapping[str, str]], None]] = {
        DATA_QUEUE: _work_on_data,
        TRAIN_QUEUE: _work_on_training,
        PRELABEL_QUEUE: partial(_work_on_projects, loaders=loaders),
    }
    for alone, work in works.items():
        if alone in queues:
            if set(queues) != {alone}:
                raise ValueError(f"the queue {alone!r} needs a worker of its own: osprey worker --queues {alone}")
            for stop_signal in (signal.SIGTERM, signal.SIGINT):
                signal.signal(stop_signal, handle_early_signal)
            work(settings, environ)
            return
    # Here, so that a worker without models needs none of their libraries.
    from worker.processor import default_threads, limit_threads
    from worker.runtime import ModelRuntime

    runtime = ModelRuntime(settings, queues, connect(settings.redis_url, settings.queue.redis_timeout_s), loaders)
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop_signal, handle_early_signal)
    if loaders is None:
        limit_threads(settings.threads or default_threads())
    with contextlib.suppress(StopRequested):
        QueueWorker(runtime, settings.redis_url).work()


def _work_on_projects(settings: Settings, _environ: Mapping[str, str], loaders: Loaders | None) -> None:
    """A worker that pre-annotates projects in the time that others leave."""
    from worker.prelabel.local_models import limit_to_spare_time
    from worker.prelabel.prelabel_runtime import PrelabelRuntime

    if loaders is None:
        limit_to_spare_time(settings)
    redis = connect(settings.redis_url, settings.queue.redis_timeout_s)
    with contextlib.suppress(StopRequested):
        QueueWorker(PrelabelRuntime(settings, redis, loaders), settings.redis_url).work()


def _work_on_training(settings: Settings, environ: Mapping[str, str]) -> None:
    """A worker that fine-tunes, in a process of its own so that those that serve stay up."""
    from learning.runtime import TrainRuntime
    from learning.training.options import FineTuneOptions
    from worker.processor import give_way

    give_way()
    options = FineTuneOptions.for_checkpoint(settings.model, environ)
    runtime = TrainRuntime(settings, connect(settings.redis_url, settings.queue.redis_timeout_s), options)
    with contextlib.suppress(StopRequested):
        QueueWorker(runtime, settings.redis_url).work()


def _work_on_data(settings: Settings, _environ: Mapping[str, str]) -> None:
    """A worker without models, with the schedule beside it."""
    # Here, so that workers with models need no database library.
    from learning.runtime import DataRuntime
    from learning.schedule import Schedule, periodic_work

    timeout_s = settings.queue.redis_timeout_s
    runtime = DataRuntime(settings, connect(settings.redis_url, timeout_s))
    worker = QueueWorker(runtime, settings.redis_url)
    schedule = Schedule(connect(settings.redis_url, timeout_s), worker.name, periodic_work(settings))
    schedule.start()
    try:
        with contextlib.suppress(StopRequested):
            worker.work()
    finally:
        schedule.stop()


if __name__ == "__main__":
    main()
