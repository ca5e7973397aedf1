"""The frozen tower's output kept per image: it is the same in every epoch, because no stage trains the tower.

Neighbour: `osprey_model/data/mixture.py` reads images through a `ReadImage`, which this is.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.modeling.vision_encoder import VisionEncoder


class FeatureCache:
    """Image file -> the tower's four levels, each (C, h, w) on the CPU; the oldest go when the bytes run out.

    Attributes:
        hits: images that were there.
        misses: images that the tower was run on.
    """

    def __init__(
        self, tower: VisionEncoder, preprocess: ImagePreprocessor, *, max_bytes: int, dtype: torch.dtype
    ) -> None:
        """Serve `tower`'s features, computed under autocast in `dtype` (float32: without)."""
        self._tower, self._preprocess, self._max_bytes, self._dtype = tower, preprocess, max_bytes, dtype
        self._kept: OrderedDict[bytes, dict[str, Tensor]] = OrderedDict()
        self._num_bytes = 0
        self.hits = self.misses = 0

    def __call__(self, path: Path) -> dict[str, Tensor]:
        """The levels of the image; its key is the file's content, so a replaced picture is encoded again.

        Raises:
            OSError: missing, or it cannot be decoded.
        """
        data = path.read_bytes()
        key = hashlib.blake2b(data, digest_size=20).digest()
        levels = self._kept.get(key)
        if levels is not None:
            self.hits += 1
            self._kept.move_to_end(key)
            return levels
        self.misses += 1
        with Image.open(io.BytesIO(data)) as image:
            pixels_3SS = self._preprocess(image)
        levels = self._encode(pixels_3SS)
        self._kept[key] = levels
        self._num_bytes += _size(levels)
        while self._num_bytes > self._max_bytes and len(self._kept) > 1:
            self._num_bytes -= _size(self._kept.popitem(last=False)[1])
        return levels

    def _encode(self, pixels_3SS: Tensor) -> dict[str, Tensor]:
        device = next(self._tower.parameters()).device
        low = self._dtype != torch.float32
        with torch.no_grad(), torch.autocast(device.type, self._dtype if low else torch.bfloat16, enabled=low):
            levels = self._tower(pixels_3SS[None].to(device))
        return {name: level[0].cpu() for name, level in levels.items()}


def _size(levels: dict[str, Tensor]) -> int:
    return sum(level.nbytes for level in levels.values())
