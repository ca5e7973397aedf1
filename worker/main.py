"""Entry of a worker process that holds models: `osprey worker`, or `python -m worker.main`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from rq.exceptions import StopRequested

from job_queue.job_kinds import PRELABEL_QUEUE, QUEUE_NAMES
from job_queue.queue import connect
from worker.queue_worker import QueueWorker, Runtime, handle_early_signal
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.runtime import Loaders

S = TypeVar("S", bound=Settings)


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
        ValueError: a setting cannot be read, or a queue does not exist or needs a worker of its own.
    """
    settings = start(Settings, environ, device)
    refuse_company(PRELABEL_QUEUE, queues)
    redis = connect(settings.redis_url, settings.queue.redis_timeout_s)
    if PRELABEL_QUEUE in queues:
        from worker.prelabel.local_models import limit_to_spare_time
        from worker.prelabel.prelabel_runtime import PrelabelRuntime

        if loaders is None:
            limit_to_spare_time(settings)
        work(PrelabelRuntime(settings, redis, loaders))
    else:
        from worker.processor import default_threads, limit_threads
        from worker.runtime import ModelRuntime

        runtime = ModelRuntime(settings, queues, redis, loaders)
        if loaders is None:
            limit_threads(settings.threads or default_threads())
        work(runtime)


def start(kind: type[S], environ: Mapping[str, str], device: str | None) -> S:
    """Read the settings, configure the log, and let a signal stop the process from now on.

    Raises:
        ValueError: a setting cannot be read.
    """
    settings = kind.from_env(environ)
    if device is not None:
        settings = settings.model_copy(update={"device": device})
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("httpcore", "httpx", "PIL", "rq.cron"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop_signal, handle_early_signal)
    return settings


def refuse_company(alone: str, queues: Sequence[str]) -> None:
    """Check that a queue with a process of its own is not served together with others.

    Raises:
        ValueError: it is.
    """
    if alone in queues and set(queues) != {alone}:
        raise ValueError(f"the queue {alone!r} needs a worker of its own: osprey worker --queues {alone}")


def work(runtime: Runtime) -> None:
    """Serve the runtime's queues until a signal comes."""
    with contextlib.suppress(StopRequested):
        QueueWorker(runtime, runtime.settings.redis_url).work()


if __name__ == "__main__":
    main()
