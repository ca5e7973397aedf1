"""Image embeddings in Redis, float16, so that a worker can decode what another one has encoded.

A value is a digest of its key and its content, followed by the content as safetensors. A value that is damaged, cut
off or stored under another key is therefore detected; it is logged and encoded again. There are two limits: a value
expires `ttl_s` after its last use, and all values together have at most `max_bytes`. Those used longest ago are
removed first.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from redis import Redis
from redis.exceptions import ResponseError
from safetensors import SafetensorError
from safetensors.numpy import load, save

_LOG = logging.getLogger(__name__)

_PREFIX = "osprey:embedding:"
_BY_USE = "osprey:embeddings:by-use"  # sorted set: key -> time of its last use
_SIZES = "osprey:embeddings:sizes"  # hash: key -> bytes
_IMAGE_HW = "image_hw"
_DIGEST_BYTES = 32

# One atomic step, so that the sums are right when several workers store at the same time. Returns an existing value.
_PUT = """
local key, by_use, sizes = KEYS[1], KEYS[2], KEYS[3]
local value, ttl_s, max_bytes, now, replace = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local there = redis.call('GET', key)
if there and replace == '0' then return there end
-- SET comes first, because a Redis at its memory limit refuses it before anything else is changed.
redis.call('SET', key, value, 'EX', ttl_s)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', by_use, '-inf', now - ttl_s)) do
  redis.call('ZREM', by_use, gone)
  redis.call('HDEL', sizes, gone)
end
redis.call('ZREM', by_use, key)
redis.call('HDEL', sizes, key)
local total = #value
for _, size in ipairs(redis.call('HVALS', sizes)) do total = total + tonumber(size) end
while total > max_bytes do
  local oldest = redis.call('ZPOPMIN', by_use)
  if #oldest == 0 then break end
  total = total - tonumber(redis.call('HGET', sizes, oldest[1]) or '0')
  redis.call('HDEL', sizes, oldest[1])
  redis.call('DEL', oldest[1])
end
redis.call('ZADD', by_use, now, key)
redis.call('HSET', sizes, key, #value)
redis.call('EXPIRE', by_use, 2 * ttl_s)
redis.call('EXPIRE', sizes, 2 * ttl_s)
return false
"""


@dataclass(frozen=True, slots=True)
class Embedding:
    """An image encoder's output for an image of `image_hw` pixels: named float16 arrays."""

    arrays: Mapping[str, NDArray[np.float16]]
    image_hw: tuple[int, int]


class EmbeddingStore:
    """Embeddings by model version and hash of the image's bytes. Methods raise `RedisError` if Redis is down."""

    def __init__(self, redis: Redis, ttl_s: int, max_bytes: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._put = redis.register_script(_PUT)

    def get(self, model_version: str, image_sha256: str) -> Embedding | None:
        """Return the embedding and mark it as used; None when it is missing or damaged."""
        key = _key(model_version, image_sha256)
        value = self._redis.get(key)
        if not isinstance(value, bytes):
            return None
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.expire(key, self._ttl_s)
        pipeline.zadd(_BY_USE, {key: time.time()}, xx=True)
        pipeline.execute()
        return self._read(key, value)

    def put(self, model_version: str, image_sha256: str, embedding: Embedding) -> Embedding:
        """Store an embedding and return the one that every worker must use.

        Another worker may have encoded the same image in the meantime, on another device with other rounding. Then
        the first embedding is kept and returned. An embedding larger than `max_bytes` is not stored.
        """
        key = _key(model_version, image_sha256)
        value = _to_bytes(key, embedding)
        if len(value) > self._max_bytes:
            _LOG.warning("%s of %d bytes is not shared: the limit for all is %d", key, len(value), self._max_bytes)
            return embedding
        there = self._store(key, value, replace=False)
        first = self._read(key, there) if there is not None else None
        if there is not None and first is None:
            self._store(key, value, replace=True)
        return first or embedding

    def num_bytes(self) -> int:
        """Return the number of bytes of all values."""
        return sum(int(size) for size in self._redis.hvals(_SIZES))

    def _store(self, key: str, value: bytes, *, replace: bool) -> bytes | None:
        arguments: list[bytes | int | float] = [value, self._ttl_s, self._max_bytes, time.time(), int(replace)]
        try:
            there = self._put(keys=[key, _BY_USE, _SIZES], args=arguments)
        except ResponseError as error:  # Redis is full or forbids scripts; clicks are slower, but do not fail
            _LOG.warning("%s is not shared: %s", key, error)
            return None
        return there if isinstance(there, bytes) else None

    def _read(self, key: str, value: bytes) -> Embedding | None:
        try:
            return _from_bytes(key, value)
        except ValueError as error:
            _LOG.warning("%s in Redis is ignored and encoded again: %s", key, error)
            return None


def _key(model_version: str, image_sha256: str) -> str:
    return f"{_PREFIX}{model_version}:{image_sha256}"


def _to_bytes(key: str, embedding: Embedding) -> bytes:
    arrays: dict[str, NDArray[np.generic]] = {
        name: np.ascontiguousarray(array) for name, array in embedding.arrays.items()
    }
    content = save({**arrays, _IMAGE_HW: np.asarray(embedding.image_hw, dtype=np.int64)})
    return _digest(key, content) + content


def _from_bytes(key: str, value: bytes) -> Embedding:
    """Read what `_to_bytes` wrote.

    Raises:
        ValueError: the bytes are not those that were written under `key`.
    """
    digest, content = value[:_DIGEST_BYTES], value[_DIGEST_BYTES:]
    if digest != _digest(key, content):
        raise ValueError(f"its {len(value)} bytes are damaged, or were not written for this image and model")
    try:
        arrays = load(content)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    image_hw = arrays.pop(_IMAGE_HW, np.zeros(0))
    if image_hw.shape != (2,) or any(array.dtype != np.float16 for array in arrays.values()):
        raise ValueError("it was written by another release")
    return Embedding(arrays, (int(image_hw[0]), int(image_hw[1])))


def _digest(key: str, content: bytes) -> bytes:
    hasher = hashlib.sha256(key.encode())
    hasher.update(b"\0")
    hasher.update(content)
    return hasher.digest()
