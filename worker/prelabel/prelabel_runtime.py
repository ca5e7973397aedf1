"""The runtime of a worker of the queue `prelabel`: both models, loaded once. Between jobs it follows the champion."""

from __future__ import annotations

import logging
from collections.abc import Callable

from redis import Redis

from job_queue.errors import ModelUnavailable
from job_queue.job_kinds import PRELABEL_QUEUE
from registry.versions import RegistryError
from worker.images.resolver import ImageResolver
from worker.load_version import ChampionLoader, Served
from worker.model_protocols import Segmenter
from worker.prelabel.annotate import AnnotateOptions, ImageAnnotator
from worker.processor import pick_device
from worker.runtime import Loaders, default_loaders
from worker.sam.embedding_store import EmbeddingStore
from worker.settings import Settings

_LOG = logging.getLogger(__name__)


class PrelabelRuntime:
    """One process's models and connections."""

    def __init__(self, settings: Settings, redis: Redis, loaders: Loaders | None = None) -> None:
        """Prepare the runtime; `load_missing` loads the models."""
        self.settings = settings
        self.redis = redis
        self.queues: tuple[str, ...] = (PRELABEL_QUEUE,)
        self.device = settings.device
        self.images = ImageResolver(settings)
        self._embeddings = EmbeddingStore(redis, settings.embedding_ttl_s, settings.embeddings_max_bytes)
        self.problem: str | None = None
        self.serving: str | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._loaders = loaders or default_loaders()
        self._champion = ChampionLoader(settings, self._loaders.describer, self._loaders.version)
        self._segmenter: Segmenter | None = None
        self._served: Served | None = None

    @property
    def model_versions(self) -> dict[str, str]:
        """The version that predictions are attributed to; empty while a model is missing."""
        return {} if self._served is None else {PRELABEL_QUEUE: self._served.describer.model_version}

    def annotator(self, options: AnnotateOptions) -> ImageAnnotator:
        """Return the models with a job's options.

        Raises:
            ModelUnavailable: the models are not loaded.
        """
        if self._segmenter is None or self._served is None:
            raise ModelUnavailable(self.problem or "this worker has not loaded its models")
        return ImageAnnotator(self._segmenter, self._served.describer, options, self._embeddings)

    def load_missing(self) -> None:
        """Load missing models; an error is kept in `problem`, and loading is tried again later."""
        if self._served is not None:
            return
        if self.device == "auto":
            self.device = pick_device()
        self._load()

    def champion_moved(self) -> bool:
        """Whether the registry has another champion than the one that is served."""
        return self._served is not None and self._champion.moved()

    def follow_champion(self) -> None:
        """Serve the registry's current champion; if it does not load, keep the old one and set `problem`."""
        if self.champion_moved():
            self._load()
            self.on_change()

    def close(self) -> None:
        """Close open connections."""
        self.images.close()

    def _load(self) -> None:
        try:
            if self._segmenter is None:
                self._segmenter = self._loaders.segmenter(self.settings, self.device)
            self._served = self._champion.load_first(self.device, self._served)
            self.serving, self.problem = self._served.name, self._served.problem
        except (ModelUnavailable, RegistryError) as error:
            self._champion.try_again_later()
            self.problem = str(error)
            _LOG.error("queue %s: %s", PRELABEL_QUEUE, error)
