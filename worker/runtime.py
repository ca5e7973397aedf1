"""The objects of one worker process: its models, loaded once, its image resolver and its stores.

Each queue has a model. One that does not load is reported in the heartbeat and tried again later, so that a repaired
checkpoint is served without a restart. With a registry, the describer is the champion's model; between jobs it is
replaced when the champion changes (`registry/champion_watch.py`, `worker/load_version.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image
from redis import Redis

from job_queue.contracts import DescribeAnswer
from job_queue.errors import ModelTooLarge, ModelUnavailable
from job_queue.job_kinds import QUEUE_NAMES
from registry.versions import BASE, ModelVersion, RegistryError
from worker.images.resolver import ImageResolver, ResolvedImage
from worker.load_version import WARM_UP_WH, ChampionLoader, load_base, load_version
from worker.model_protocols import Describer, Segmenter
from worker.processor import free_memory, pick_device
from worker.sam.embedding_store import EmbeddingStore
from worker.sam.logits_store import LogitsStore
from worker.settings import Settings
from worker.shared_embedding import embed_shared

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaders:
    """Functions that load the models; tests pass their own."""

    segmenter: Callable[[Settings, str], Segmenter]
    describer: Callable[[Settings, str], Describer] = load_base
    version: Callable[[Settings, str, ModelVersion], Describer] = load_version


class ModelRuntime:
    """The models and stores of one worker process."""

    def __init__(self, settings: Settings, queues: Sequence[str], redis: Redis, loaders: Loaders | None = None) -> None:
        """Prepare the runtime; `load_missing` loads the models.

        Raises:
            ValueError: a queue does not exist, or there is none.
        """
        unknown = sorted(set(queues) - set(QUEUE_NAMES))
        if unknown or not queues:
            raise ValueError(f"queues must be some of {', '.join(QUEUE_NAMES)}, got {', '.join(queues) or 'none'}")
        self.settings = settings
        self.queues = tuple(queues)
        self.redis = redis
        self.images = ImageResolver(settings)
        self.logits = LogitsStore(redis)
        self.embeddings = EmbeddingStore(redis, settings.embedding_ttl_s, settings.embeddings_max_bytes)
        self.device = settings.device
        self._loaders = loaders or default_loaders()
        self._segmenter: Segmenter | None = None
        self._describer: Describer | None = None
        self._problems: dict[str, str] = {}
        self._champion = ChampionLoader(settings, self._loaders.describer, self._loaders.version)
        self.serving: str | None = None  # the describer's name in the registry
        self.ready: dict[str, Callable[[], DescribeAnswer]] = {}  # complete answers by job id, from the batch
        self.on_change: Callable[[], None] = lambda: None  # called when the served model or the problem changes

    @property
    def segmenter(self) -> Segmenter:
        """The SAM of the queue `masks`.

        Raises:
            ModelUnavailable: the model is not loaded.
        """
        if self._segmenter is None:
            raise ModelUnavailable(self._problems.get("masks", "this worker has not loaded a SAM"))
        return self._segmenter

    @property
    def describer(self) -> Describer:
        """The Osprey of the queue `describe`.

        Raises:
            ModelUnavailable: the model is not loaded.
        """
        if self._describer is None:
            raise ModelUnavailable(self._problems.get("describe", "this worker has not loaded an Osprey"))
        return self._describer

    @property
    def model_versions(self) -> dict[str, str]:
        """Queue -> model version, for the models that are loaded."""
        models = {"masks": self._segmenter, "describe": self._describer}
        return {queue: model.model_version for queue, model in models.items() if model is not None}

    @property
    def problem(self) -> str | None:
        """Why a model does not load, or why an earlier version serves instead of the champion; or None."""
        return "; ".join(self._problems.values()) or None

    def load_missing(self) -> None:
        """Load the queues' models that are missing. A failure is kept as `problem`, not raised."""
        missing = [queue for queue in self.queues if queue not in self.model_versions]
        if missing and self.device == "auto":
            self.device = pick_device()
        for queue in missing:
            try:
                self._load(queue)
            except (ModelUnavailable, RegistryError) as error:
                self._report(queue, str(error))
            else:
                self._problems.pop(queue, None)
                _LOG.info("queue %s serves %s on %s", queue, self.model_versions[queue], self.device)

    def embed(self, resolved: ResolvedImage) -> None:
        """Make the image's embedding available to the SAM: from its memory, from Redis, or by encoding the image.

        Raises:
            ModelUnavailable: no SAM is loaded.
        """
        embed_shared(self.segmenter, self.embeddings, resolved)

    def champion_moved(self) -> bool:
        """Whether the registry has another champion than the one that is served; costs one `os.stat`."""
        return self._describer is not None and self._champion.moved()

    def follow_champion(self) -> None:
        """Serve the registry's current champion. If it does not load, keep the old one and set `problem`.

        Call this between two jobs, in the thread that runs them.
        """
        if not self.champion_moved():
            return
        before = self.serving
        try:
            name = self._champion.read()
            if name != before:
                self._replace_describer(name)
        except (ModelUnavailable, RegistryError) as error:
            self._champion.try_again_later()
            self._report("champion", f"the champion does not load, {before} still serves: {error}")
        else:
            self._problems.pop("champion", None)
            if name != before:
                _LOG.info("queue describe serves %s instead of %s", self.model_versions["describe"], before)
        self.on_change()

    def close(self) -> None:
        """Close connections."""
        self.images.close()

    def _load(self, queue: str) -> None:
        if queue == "masks":
            image = Image.new("RGB", WARM_UP_WH, "gray")
            segmenter = self._loaders.segmenter(self.settings, self.device)
            segmenter.embed(image, "warm-up")
            segmenter.segment("warm-up", [(32.0, 24.0)], [1])
            self._segmenter = segmenter
        else:
            served = self._champion.load_first(self.device)
            self._describer, self.serving = served.describer, served.name
            if served.problem:
                self._report("champion", served.problem)

    def _replace_describer(self, name: str) -> None:
        """Load the new describer, then drop the old one; in the other order if the device has no memory for both."""
        before = self.serving
        try:
            self._serve(name)
        except ModelTooLarge:
            self._describer = None
            free_memory()
            try:
                self._serve(name)
            except (ModelUnavailable, RegistryError):
                free_memory()
                self._serve(before or BASE)
                raise
        free_memory()

    def _serve(self, name: str) -> None:
        self._describer, self.serving = self._champion.load(name, self.device), name

    def _report(self, key: str, problem: str) -> None:
        if self._problems.get(key) != problem:
            _LOG.error("%s: %s", key, problem)
        self._problems[key] = problem


def _load_segmenter(settings: Settings, device: str) -> Segmenter:
    from worker.sam.segmenter import SamSegmenter

    return SamSegmenter.load(settings.sam, device, compile_encoder=settings.compile)


def default_loaders() -> Loaders:
    """Return the functions that load the settings' models."""
    return Loaders(_load_segmenter)
