"""Image -> the tower's input, exactly as for the training of the released checkpoints.

There are two resizes, in this order: PIL bicubic, so that the short side is S; then torch bilinear to S x S, which does
not keep the aspect ratio. A single direct resize differs by 0.2 to 0.7 and torchvision's bicubic by one grey level, so
neither can replace them. EXIF orientation is not applied; masks must match the pixels given here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class ImagePreprocessor:
    """PIL image -> float32 tensor (3, S, S), S = `image_size`."""

    image_size: int

    def __call__(self, image: Image.Image) -> Tensor:
        """Resize in both steps; return (3, S, S)."""
        step1_13hw = self.shortest_edge(image)[None]
        size = (self.image_size, self.image_size)
        return functional.interpolate(step1_13hw, size=size, mode="bilinear", align_corners=False)[0]

    def shortest_edge(self, image: Image.Image) -> Tensor:
        """Do the first step: short side S, long side floor(S * long / short), normalised; return (3, h, w).

        Raises:
            ValueError: the image has no pixels.
        """
        width, height = image.size
        if not width or not height:
            raise ValueError(f"expected an image with pixels, got size {width}x{height}")
        if width <= height:
            target_wh = (self.image_size, int(self.image_size * height / width))
        else:
            target_wh = (int(self.image_size * width / height), self.image_size)
        resized = image.convert("RGB").resize(target_wh, Image.Resampling.BICUBIC)
        values_HW3 = np.asarray(resized, dtype=np.float32) * np.float32(1 / 255)
        values_HW3 = (values_HW3 - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)
        return torch.from_numpy(np.ascontiguousarray(values_HW3.transpose(2, 0, 1)))
