"""The runtimes of the workers for the queues `data` and `train`: correction store, Label Studio, settings of training.

`worker/queue_worker.py` runs them as it runs a worker with models; `learning/jobs.py` gets them with `current`. No
model and no torch is loaded here until a fine-tune begins.
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
_DECODED_BYTES = 1  # each image is read only once, so no decoded image is kept


class DataRuntime:
    """The correction store and connections of one process. If the database does not answer, it is opened later."""

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
        """The version under which the queue is served; empty while the store cannot be opened."""
        return {DATA_QUEUE: f"store-{SCHEMA_VERSION}"} if self._store is not None else {}

    def load_missing(self) -> None:
        """Open the store unless it is open. The reason of a failure is in `problem`; the worker calls this again."""
        if self._store is not None:
            return
        try:
            self._store = Store.open(self.settings.database_url)
            self.problem = None
        except OspreyError as error:
            self.problem = str(error)
            _LOG.error("%s", error)

    def champion_moved(self) -> bool:
        """Return False: no model is served here."""
        return False

    def follow_champion(self) -> None:
        """Do nothing; see `champion_moved`."""

    def close(self) -> None:
        """Close the store and the connections for images."""
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
        """Return a connection to Label Studio, as a context manager."""
        return annotation_source(self.settings)

    @contextmanager
    def collector(self) -> Iterator[Collector]:
        """Provide a collector that writes to the store, with its own connection to Label Studio."""
        with self.source() as source:
            yield Collector(self.store, source, self.settings.shares, self._images)


class TrainRuntime(DataRuntime):
    """The runtime of a worker for the queue `train`: also the settings of training, and the device."""

    def __init__(self, settings: Settings, redis: Redis, options: FineTuneOptions) -> None:
        super().__init__(settings, redis)
        self.queues = (TRAIN_QUEUE,)
        self.device = settings.device
        self.options = options

    @property
    def model_versions(self) -> dict[str, str]:
        """The version under which the queue is served; empty while the store cannot be opened."""
        served = super().model_versions
        return {TRAIN_QUEUE: served[DATA_QUEUE]} if served else {}

    def claim_device(self) -> str:
        """Load torch, limit its threads to this process's share of the cores, and return the device to train on."""
        from worker.processor import default_threads, limit_threads, pick_device

        limit_threads(self.settings.threads or default_threads())
        return pick_device() if self.device == "auto" else self.device
