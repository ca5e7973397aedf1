"""SAM behind one small class: embed an image once, then turn clicks and boxes into masks.

With `worker/sam_presets.py` the only place that knows segment_anything. Called by `worker/jobs.py`
(through `worker/runtime.py`), which passes upright PIL images and pixels of exactly those images.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from worker.errors import WorkerError
from worker.sam_presets import load_sam

DEFAULT_CACHE_BYTES = 512 * 1024**2
STABILITY_OFFSET = 1.0  # logits; as segment_anything's automatic mask generator
DUPLICATE_IOU = 0.95

BoolMask = NDArray[np.bool_]
Logits = NDArray[np.float32]


class ImageNotEmbedded(WorkerError, LookupError):
    """`segment` was asked about an image that is not, or no longer, in the cache: call `embed`."""


class InvalidPrompt(WorkerError, ValueError):
    """The points, the box or the previous logits cannot be a prompt on this image."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One mask for a prompt: `mask` bool (H, W) of the image, `logits` float32 at SAM's low resolution.

    `predicted_iou` is SAM's own guess in 0..1; `stability` the IoU of the mask cut at logit +1 and -1.
    """

    mask: BoolMask
    predicted_iou: float
    stability: float
    logits: Logits

    @property
    def area_px(self) -> int:
        """Number of pixels in the mask."""
        return int(self.mask.sum())


@dataclass(frozen=True, slots=True)
class _Embedding:
    """What the encoder said about one image. `input_hw`: size inside the padded square."""

    features: torch.Tensor  # (1, C, h, w)
    input_hw: tuple[int, int]
    image_hw: tuple[int, int]

    @property
    def num_bytes(self) -> int:
        return self.features.numel() * self.features.element_size()


class Segmenter:
    """A SAM and the embeddings of the images seen last, bounded by bytes."""

    def __init__(
        self,
        sam: Sam,
        model_version: str,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        encoder_dtype: torch.dtype = torch.float32,
    ) -> None:
        """`encoder_dtype`: what the image encoder computes in; embeddings and decoder stay float32."""
        self.model_version = model_version
        self._sam = sam
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)
        self._encoder_dtype = encoder_dtype
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[str, _Embedding] = OrderedDict()
        self._cache_lock = threading.Lock()

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu", cache_bytes: int = DEFAULT_CACHE_BYTES) -> Self:
        """Load a checkpoint folder or an official `.pth` onto `device`.

        A CPU that computes in bfloat16 encodes in it: sam-nano in 57 ms instead of 168 ms.

        Raises:
            ModelUnavailable: see `worker.sam_presets.load_sam`.
        """
        sam, model_version = load_sam(Path(path))
        return cls(sam.to(device), model_version, cache_bytes, _encoder_dtype(torch.device(device)))

    def is_embedded(self, image_key: str) -> bool:
        """Whether `segment` would find the image."""
        with self._cache_lock:
            return image_key in self._cache

    def embed(self, image: Image.Image, image_key: str) -> None:
        """Encode `image` once; further calls with the same key only mark it as used.

        Raises:
            ValueError: the image is so narrow that nothing is left of it at SAM's input size.
        """
        if self._lookup(image_key) is not None:
            return
        width, height = image.size
        input_hw = self._resize.get_preprocess_shape(height, width, self._resize.target_length)
        if min(input_hw) < 1:
            raise ValueError(
                f"image {image_key!r} of {width}x{height} px is too narrow to segment: "
                f"its short side vanishes when the long one becomes {self._resize.target_length} px"
            )
        pixels_HW3 = self._resize.apply_image(np.asarray(image.convert("RGB")))
        pixels_13HW = torch.as_tensor(pixels_HW3, device=self._sam.device).permute(2, 0, 1).contiguous()[None]
        is_half = self._encoder_dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self._sam.device.type, self._encoder_dtype, enabled=is_half):
            features_1CHW = self._sam.image_encoder(self._sam.preprocess(pixels_13HW))
        self._store(image_key, _Embedding(features_1CHW.float(), input_hw, (height, width)))

    def segment(
        self,
        image_key: str,
        points_px: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] = (),
        box_px_xyxy: tuple[float, float, float, float] | None = None,
        previous_logits: Logits | None = None,
    ) -> list[Candidate]:
        """Masks for a prompt on an embedded image, smallest first; empty when SAM sees nothing there.

        A single click is ambiguous and gives up to three masks (sub-part, part, whole). Several
        points, a box or the logits of an earlier mask say what is meant: SAM's single-mask token
        answers, with one mask.

        Args:
            image_key: the key `embed` was called with.
            points_px: clicks (x, y) in pixels of the image.
            labels: one per point, 1 to include and 0 to exclude.
            box_px_xyxy: a box in pixels of the image, in any corner order.
            previous_logits: `Candidate.logits` of the mask to refine.

        Raises:
            ImageNotEmbedded: `embed` the image first.
            InvalidPrompt: a prompt outside the image, of the wrong form, or that includes nothing.
        """
        embedding = self._lookup(image_key)
        if embedding is None:
            raise ImageNotEmbedded(f"image {image_key!r} is not in the embedding cache; call embed(image, key) first")
        points_N2 = self._checked_points(points_px, labels, embedding, box_px_xyxy, previous_logits)
        is_ambiguous = len(points_N2) == 1 and box_px_xyxy is None and previous_logits is None
        with torch.inference_mode():
            logits_KHW, ious_K = self._decode(
                embedding,
                points_N2,
                labels,
                None if box_px_xyxy is None else _checked_box(box_px_xyxy, embedding.image_hw),
                None if previous_logits is None else self._checked_logits(previous_logits),
                is_ambiguous,
            )
            full_KHW = self._sam.postprocess_masks(logits_KHW[None], embedding.input_hw, embedding.image_hw)[0]
            candidates = self._candidates(full_KHW, ious_K, logits_KHW)
        return sorted(_without_duplicates(candidates), key=lambda candidate: candidate.area_px)

    def _decode(
        self,
        embedding: _Embedding,
        points_N2: NDArray[np.float64],
        labels: Sequence[int],
        box_4: NDArray[np.float64] | None,
        previous_logits: Logits | None,
        multimask: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Low-resolution logits (K, h, w) and predicted IoUs (K,)."""
        device, image_hw = self._sam.device, embedding.image_hw
        points = boxes_14 = masks_11HW = None
        if len(points_N2):
            coords_N2 = self._resize.apply_coords(points_N2, image_hw)
            points = (
                torch.as_tensor(coords_N2, dtype=torch.float32, device=device)[None],
                torch.as_tensor(list(labels), dtype=torch.int32, device=device)[None],
            )
        if box_4 is not None:
            boxes_14 = torch.as_tensor(self._resize.apply_boxes(box_4, image_hw), dtype=torch.float32, device=device)
        if previous_logits is not None:
            masks_11HW = torch.as_tensor(previous_logits, dtype=torch.float32, device=device)[None, None]
        sparse_1ND, dense_1DHW = self._sam.prompt_encoder(points=points, boxes=boxes_14, masks=masks_11HW)
        logits_1KHW, ious_1K = self._sam.mask_decoder(
            image_embeddings=embedding.features,
            image_pe=self._sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse_1ND,
            dense_prompt_embeddings=dense_1DHW,
            multimask_output=multimask,
        )
        return logits_1KHW[0], ious_1K[0]

    def _candidates(self, full_KHW: torch.Tensor, ious_K: torch.Tensor, logits_KHW: torch.Tensor) -> list[Candidate]:
        """One per non-empty mask, in the decoder's order."""
        threshold = self._sam.mask_threshold
        found = []
        for full_HW, iou, logits_HW in zip(full_KHW, ious_K.tolist(), logits_KHW, strict=True):
            mask_HW = (full_HW > threshold).cpu().numpy()
            if not mask_HW.any():
                continue
            inner = int((full_HW > threshold + STABILITY_OFFSET).sum())
            outer = int((full_HW > threshold - STABILITY_OFFSET).sum())
            logits = np.asarray(logits_HW.float().cpu().numpy(), dtype=np.float32)
            found.append(Candidate(mask_HW, min(max(iou, 0.0), 1.0), inner / outer, logits))
        return found

    def _checked_points(
        self,
        points_px: Sequence[tuple[float, float]],
        labels: Sequence[int],
        embedding: _Embedding,
        box_px_xyxy: tuple[float, float, float, float] | None,
        previous_logits: Logits | None,
    ) -> NDArray[np.float64]:
        """The points as (N, 2), on pixels of the image."""
        if len(points_px) != len(labels):
            raise InvalidPrompt(f"expected one label per point, got {len(points_px)} points and {len(labels)} labels")
        if any(label not in (0, 1) for label in labels):
            raise InvalidPrompt(f"point labels are 1 (include) or 0 (exclude), got {list(labels)}")
        if 1 not in labels and box_px_xyxy is None and previous_logits is None:
            came = f"{len(points_px)} negative point(s) alone" if points_px else "no prompt at all"
            raise InvalidPrompt(f"expected a positive point, a box or the logits of an earlier mask, got {came}")
        points_N2 = np.asarray(points_px, dtype=np.float64).reshape(-1, 2)
        height, width = embedding.image_hw
        # A click on the far edge arrives as 100 %: that is one past the last pixel, and meant as it.
        inside_N = ((points_N2 >= 0) & (points_N2 <= (width, height))).all(axis=1)
        if not inside_N.all():
            x_px, y_px = points_N2[~inside_N][0]
            raise InvalidPrompt(f"the click at ({x_px:g}, {y_px:g}) is outside the {width}x{height} px image")
        return np.minimum(points_N2, (width - 1, height - 1))

    def _checked_logits(self, previous_logits: Logits) -> Logits:
        expected = tuple(self._sam.prompt_encoder.mask_input_size)
        if previous_logits.shape != expected:
            raise InvalidPrompt(
                f"previous logits have shape {previous_logits.shape}, this SAM takes {expected}; "
                "they are another model's: click again without them"
            )
        return previous_logits

    def _lookup(self, image_key: str) -> _Embedding | None:
        with self._cache_lock:
            embedding = self._cache.get(image_key)
            if embedding is not None:
                self._cache.move_to_end(image_key)
            return embedding

    def _store(self, image_key: str, embedding: _Embedding) -> None:
        with self._cache_lock:
            self._cache[image_key] = embedding
            # The newest always stays: a bound below one embedding must not make every click fail.
            while len(self._cache) > 1 and sum(e.num_bytes for e in self._cache.values()) > self._cache_bytes:
                self._cache.popitem(last=False)


def _encoder_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the CPU has instructions for it, else float32."""
    capabilities = (
        torch.cpu.get_capabilities() if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities") else {}
    )
    has_bfloat16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if has_bfloat16 else torch.float32


def _checked_box(box_px_xyxy: tuple[float, float, float, float], image_hw: tuple[int, int]) -> NDArray[np.float64]:
    """The box with its corners in order, cut at the image's border."""
    height, width = image_hw
    corners_22 = np.sort(np.asarray(box_px_xyxy, dtype=np.float64).reshape(2, 2), axis=0)
    cut_22 = np.clip(corners_22, 0, (width, height))
    if not np.isfinite(corners_22).all() or not (cut_22[1] > cut_22[0]).all():
        raise InvalidPrompt(
            f"the box {tuple(box_px_xyxy)} (x, y, x, y) covers no pixel of the {width}x{height} px image"
        )
    return cut_22.reshape(4)


def _without_duplicates(candidates: list[Candidate]) -> list[Candidate]:
    """Of masks that nearly agree, the one with the best predicted IoU."""
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: -one.predicted_iou):
        if all(_iou(candidate.mask, other.mask) <= DUPLICATE_IOU for other in kept):
            kept.append(candidate)
    return kept


def _iou(first: BoolMask, second: BoolMask) -> float:
    return float((first & second).sum() / (first | second).sum())
