"""Encode an image at most once among all workers: look in SAM's memory, then in Redis, then encode it."""

from __future__ import annotations

import logging

from worker.images.resolver import ResolvedImage
from worker.model_protocols import Segmenter
from worker.sam.embedding_store import EmbeddingStore

_LOG = logging.getLogger(__name__)


def embed_shared(sam: Segmenter, embeddings: EmbeddingStore, resolved: ResolvedImage) -> None:
    """Make the image's embedding available to the SAM: from its memory, from Redis, or by encoding the image.

    Raises:
        ValueError: the image cannot be encoded.
        RedisError: Redis is down.
    """
    key = resolved.sha256
    if sam.is_embedded(key):
        sam.embed(resolved.image, key)  # marks it as used
        return
    stored = embeddings.get(sam.model_version, key)
    if stored is not None:
        try:
            sam.adopt(key, stored)
        except ValueError as error:
            _LOG.warning("the embedding of image %s in Redis is encoded again: %s", key, error)
        else:
            return
    sam.embed(resolved.image, key)
    mine = sam.embedding(key)
    first = embeddings.put(sam.model_version, key, mine)
    if first is not mine and stored is None:
        sam.adopt(key, first)  # another worker stored it first; all workers must decode the same numbers
