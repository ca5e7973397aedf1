"""What a worker of the `data` queue holds: the correction store and the way to Label Studio. No model, no torch.

`worker/queue_worker.py` runs it as it runs a model worker; `learning/jobs.py` finds it with `current`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from redis import Redis

from job_queue.errors import OspreyError
from job_queue.job_kinds import DATA_QUEUE, TRAIN_QUEUE
from learning.corrections.collect import Collector
from learning.corrections.schema import SCHEMA_VERSION
from learning.corrections.store import Store
from learning.settings import Settings
from learning.training.options import FineTuneOptions
from worker.images.resolver import ImageResolver
from worker.label_studio.annotations import AnnotationSource, annotation_source

_LOG = logging.getLogger(__name__)
_DECODED_BYTES = 1  # images are looked at once: none is kept decoded


class DataRuntime:
    """One process's store and connections. Opened late, and again while the database is away."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self.queues: tuple[str, ...] = (DATA_QUEUE,)
        self.device = "none"
        self.settings = settings
        self.redis = redis
        self._images = ImageResolver(settings, decoded_bytes=_DECODED_BYTES)
        self._store: Store | None = None
        self.problem: str | None = None
        self.serving: str | None = None
        self.on_change: Callable[[], None] = lambda: None

    @property
    def model_versions(self) -> dict[str, str]:
        """Under which version the queue is served; nothing while the store cannot be opened."""
        return {DATA_QUEUE: f"store-{SCHEMA_VERSION}"} if self._store is not None else {}

    def load_missing(self) -> None:
        """Open the store unless it is open; what is wrong is in `problem` and tried again later."""
        if self._store is not None:
            return
        try:
            self._store = Store.open(self.settings.database_url)
            self.problem = None
        except OspreyError as error:
            self.problem = str(error)
            _LOG.error("%s", error)

    def champion_moved(self) -> bool:
        """Never: no model is served here."""
        return False

    def follow_champion(self) -> None:
        """Nothing: see `champion_moved`."""

    def close(self) -> None:
        """Close the store and kept connections."""
        if self._store is not None:
            self._store.close()
        self._images.close()

    @property
    def store(self) -> Store:
        """The open store.

        Raises:
            OspreyError: it cannot be opened.
        """
        self.load_missing()
        if self._store is None:
            raise OspreyError(self.problem or "the correction store is not open")
        return self._store

    def source(self) -> AbstractContextManager[AnnotationSource]:
        """A connection to Label Studio."""
        return annotation_source(self.settings)

    @contextmanager
    def collector(self) -> Iterator[Collector]:
        """A collector over the store, with a connection of its own."""
        with self.source() as source:
            yield Collector(self.store, source, self.settings.shares, self._images)


class TrainRuntime(DataRuntime):
    """What a worker of the `train` queue holds besides: how to train, and on which device."""

    def __init__(self, settings: Settings, redis: Redis, options: FineTuneOptions) -> None:
        super().__init__(settings, redis)
        self.queues = (TRAIN_QUEUE,)
        self.device = settings.device
        self.options = options

    @property
    def model_versions(self) -> dict[str, str]:
        """Under which version the queue is served; nothing while the store cannot be opened."""
        served = super().model_versions
        return {TRAIN_QUEUE: served[DATA_QUEUE]} if served else {}

    def claim_device(self) -> str:
        """`auto` is the GPU where there is one. Torch is loaded now, and keeps to its share of the cores."""
        from worker.processor import default_threads, limit_threads, pick_device

        limit_threads(self.settings.threads or default_threads())
        return pick_device() if self.device == "auto" else self.device
