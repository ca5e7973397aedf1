"""A cache of the vision tower's output per image. No stage trains the tower, so its output is the same in every epoch.

A `FeatureCache` is a `ReadImage` of `osprey_model/data/records.py`: it replaces the reader that returns pixels.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from osprey_model.byte_lru import ByteLru
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.modeling.vision_encoder import VisionEncoder


@dataclass(frozen=True, slots=True)
class _Levels:
    """The tower's four levels of one image, each (C, h, w) on the CPU."""

    by_name: Mapping[str, Tensor]

    @property
    def num_bytes(self) -> int:
        return sum(level.nbytes for level in self.by_name.values())


class FeatureCache:
    """Image file -> the tower's four levels, each (C, h, w) on the CPU; the least recently used are removed first."""

    def __init__(
        self, tower: VisionEncoder, preprocess: ImagePreprocessor, *, max_bytes: int, dtype: torch.dtype
    ) -> None:
        """Create an empty cache.

        Args:
            tower: computes the levels.
            preprocess: PIL image -> the tower's input.
            max_bytes: limit of all kept levels.
            dtype: of autocast while the tower runs; float32 runs it without autocast.
        """
        self._tower, self._preprocess, self._dtype = tower, preprocess, dtype
        self._kept: ByteLru[_Levels] = ByteLru(max_bytes)

    @property
    def hits(self) -> int:
        """Number of calls whose image was in the cache."""
        return self._kept.stats().hits

    @property
    def misses(self) -> int:
        """Number of calls that ran the tower."""
        return self._kept.stats().misses

    def __call__(self, path: Path) -> Mapping[str, Tensor]:
        """Return the levels of an image file. The key is the file's content, so a replaced image is encoded again.

        Raises:
            OSError: the file is missing or cannot be decoded.
        """
        data = path.read_bytes()
        key = hashlib.blake2b(data, digest_size=20).hexdigest()
        kept = self._kept.get(key)
        if kept is None:
            with Image.open(io.BytesIO(data)) as image:
                pixels_3SS = self._preprocess(image)
            kept = _Levels(self._encode(pixels_3SS))
            self._kept.put(key, kept)
        return kept.by_name

    def _encode(self, pixels_3SS: Tensor) -> dict[str, Tensor]:
        device = next(self._tower.parameters()).device
        low = self._dtype != torch.float32
        with torch.no_grad(), torch.autocast(device.type, self._dtype if low else torch.bfloat16, enabled=low):
            levels = self._tower(pixels_3SS[None].to(device))
        return {name: level[0].cpu() for name, level in levels.items()}
