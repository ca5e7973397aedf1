"""SAM as one small class: embed an image once, then turn clicks and boxes into masks.

Only this file, `presets.py` and `device.py` use segment_anything. Callers use the protocol
`worker.model_protocols.Segmenter`. Images are upright PIL images; points and boxes are pixels of exactly those images.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from job_queue.errors import OspreyError
from osprey_model.byte_lru import ByteLru
from worker.sam.device import decode_batch, encoder_dtype_of
from worker.sam.embedding_store import Embedding
from worker.sam.everything import SMALL_SAM, PointDecoder, PointGrid, RegionFilter, find_regions
from worker.sam.masks import Frame, Logits, MaskWithLogits, full_size_rle, stability, without_duplicates
from worker.sam.presets import PRESETS, load_sam
from worker.sam.prompts import BoxPx, InvalidPrompt, checked_box, checked_points, refuse_without_inclusion

__all__ = ["ImageNotEmbedded", "ImageTooNarrow", "InvalidPrompt", "MaskWithLogits", "SamSegmenter"]

DEFAULT_CACHE_BYTES = 512 * 1024**2
_FEATURES = "features"


class ImageNotEmbedded(OspreyError, LookupError):
    """The image is not, or no longer, in the embedding cache; call `embed`."""


class ImageTooNarrow(OspreyError, ValueError):
    """At SAM's input size the image's short side would be below one pixel."""


@dataclass(frozen=True, slots=True)
class _Embedded:
    """The encoder's output for one image, in float16, so that all workers decode the same numbers."""

    features_1CHW: torch.Tensor
    frame: Frame

    @property
    def num_bytes(self) -> int:
        """Memory of the features."""
        return self.features_1CHW.numel() * self.features_1CHW.element_size()


class SamSegmenter:
    """A SAM with the embeddings of the images used last, bounded by bytes."""

    def __init__(
        self,
        sam: Sam,
        model_version: str,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        encoder_dtype: torch.dtype = torch.float32,
        compile_encoder: bool = False,
        region_filter: RegionFilter = SMALL_SAM,
    ) -> None:
        """Wrap a SAM that is on its device.

        Args:
            sam: the model, in float32.
            model_version: its name and content hash.
            cache_bytes: memory limit of all cached embeddings together.
            encoder_dtype: type of the image encoder and of `everything`; the decoder of clicks stays float32.
            compile_encoder: compile the encoder at the first image, for its one input shape; later images are faster.
            region_filter: default filter of `everything`.
        """
        self.model_version = model_version
        self._sam = sam
        self._encoder = torch.compile(sam.image_encoder, dynamic=False) if compile_encoder else sam.image_encoder
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)
        self._encoder_dtype = encoder_dtype
        self._region_filter = region_filter
        self._cache: ByteLru[_Embedded] = ByteLru(cache_bytes)
        self._cache_lock = threading.Lock()

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        compile_encoder: bool = False,
    ) -> Self:
        """Load a checkpoint folder or an official `.pth` onto `device`.

        The encoder uses the type that is fast on the device: bfloat16 on a GPU that supports it, else float16;
        bfloat16 on a CPU that supports it (sam-nano takes 57 ms instead of 168 ms), else float32.

        Raises:
            ModelUnavailable: there is no usable checkpoint, or its weights do not fit.
        """
        sam, model_version = load_sam(Path(path))
        dtype = encoder_dtype_of(torch.device(device))
        is_official = model_version.rpartition("-")[0] in PRESETS
        region_filter = RegionFilter() if is_official else SMALL_SAM
        return cls(sam.to(device), model_version, cache_bytes, dtype, compile_encoder, region_filter)

    def is_embedded(self, image_key: str) -> bool:
        """Whether the image's embedding is in the cache; marks it as used."""
        return self._lookup(image_key) is not None

    def embed(self, image: Image.Image, image_key: str) -> None:
        """Encode `image` once; further calls with the same key only mark it as used.

        Raises:
            ImageTooNarrow: the image's short side would be below one pixel at SAM's input size.
        """
        if self._lookup(image_key) is not None:
            return
        frame = self._frame((image.height, image.width), image_key)
        input_wh = (frame.input_hw[1], frame.input_hw[0])
        # Pillow's resize gives the same pixels as ResizeLongestSide, without two copies of a large image.
        small = image.convert("RGB").resize(input_wh, Image.Resampling.BILINEAR)
        pixels_13HW = torch.as_tensor(np.array(small), device=self._sam.device).permute(2, 0, 1).contiguous()[None]
        with torch.inference_mode(), self._in_encoder_dtype():
            features_1CHW = self._encoder(self._sam.preprocess(pixels_13HW))
        self._store(image_key, _Embedded(features_1CHW.half(), frame))

    def embedding(self, image_key: str) -> Embedding:
        """Return the result of `embed`, for another process to `adopt`.

        Raises:
            ImageNotEmbedded: `embed` the image first.
        """
        embedded = self._required(image_key)
        return Embedding({_FEATURES: embedded.features_1CHW[0].cpu().numpy()}, embedded.frame.image_hw)

    def adopt(self, image_key: str, embedding: Embedding) -> None:
        """Use an embedding that another process with the same model version computed, instead of `embed`.

        Raises:
            ValueError: it is not an embedding of this model.
        """
        side = self._sam.image_encoder.img_size // self._sam.image_encoder.patch_embed.proj.kernel_size[0]
        expected = {_FEATURES: (self._sam.prompt_encoder.embed_dim, side, side)}
        found = {name: array.shape for name, array in embedding.arrays.items()}
        if found != expected:
            raise ValueError(f"expected an embedding of arrays {expected}, got {found}")
        # Copy, because torch warns about arrays that are not writable, such as those of a received message.
        features_CHW = torch.from_numpy(embedding.arrays[_FEATURES].astype(np.float16)).to(self._sam.device)
        self._store(image_key, _Embedded(features_CHW[None], self._frame(embedding.image_hw, image_key)))

    def segment(
        self,
        image_key: str,
        points_px: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] = (),
        box_px_xyxy: BoxPx | None = None,
        previous_logits: Logits | None = None,
        on_step: Callable[[str], object] | None = None,
    ) -> list[MaskWithLogits]:
        """Compute the masks of a prompt on an embedded image, smallest first; empty when SAM finds none.

        A single click is ambiguous and has up to three masks (sub-part, part, whole). Several points, a box or the
        logits of an earlier mask are not ambiguous: they have one mask, that of SAM's single-mask token. Of a
        positive and a negative point on one pixel the later one counts. If no positive point is left, the result is
        empty.

        Args:
            image_key: the key that `embed` was called with.
            points_px: clicks (x, y) in pixels of the image.
            labels: one per point, 1 to include and 0 to exclude.
            box_px_xyxy: a box in pixels of the image, in any corner order.
            previous_logits: `MaskWithLogits.logits` of the mask to refine.
            on_step: called with "decode" after the network, so that the caller can time the steps.

        Raises:
            ImageNotEmbedded: `embed` the image first.
            InvalidPrompt: the prompt is outside the image, of the wrong form, or includes nothing.
        """
        embedded = self._required(image_key)
        image_hw, has_logits = embedded.frame.image_hw, previous_logits is not None
        points_N2, kept_labels = checked_points(points_px, labels, image_hw)
        refuse_without_inclusion(labels, box_px_xyxy is not None, has_logits)
        box_4 = None if box_px_xyxy is None else checked_box(box_px_xyxy, image_hw)
        logits_HW = None if previous_logits is None else self._checked_logits(previous_logits)
        if 1 not in kept_labels and box_4 is None and logits_HW is None:
            return []
        is_ambiguous = len(points_N2) == 1 and box_4 is None and logits_HW is None
        with torch.inference_mode():
            logits_1KHW, ious_1K = self._decode(
                embedded, points_N2[None], [kept_labels], box_4, logits_HW, multimask=is_ambiguous
            )
            found = logits_1KHW[0].float().cpu().numpy()
        if on_step is not None:
            on_step("decode")
        threshold = self._sam.mask_threshold
        candidates = [
            MaskWithLogits(*full, min(max(iou, 0.0), 1.0), stability(logits, embedded.frame, threshold), logits)
            for logits, iou in zip(found, ious_1K[0].tolist(), strict=True)
            if (full := full_size_rle(logits, embedded.frame, threshold)) is not None
        ]
        return sorted(without_duplicates(candidates), key=lambda candidate: candidate.area_px)

    def everything(
        self,
        image_key: str,
        *,
        points_per_side: int = 32,
        keep: RegionFilter | None = None,
        max_regions: int | None = None,
    ) -> list[MaskWithLogits]:
        """Find the regions of an embedded image without a prompt, best first (predicted IoU times stability).

        Parts and their wholes are both regions. Of duplicates only the best mask is.

        Args:
            image_key: the key that `embed` was called with.
            points_per_side: number of points along the longer side; along the other they are equally dense.
            keep: which masks are regions; None: this model's default.
            max_regions: the largest number of regions; None: 1000.

        Raises:
            ImageNotEmbedded: `embed` the image first.
            ValueError: `points_per_side` is below 1, or `max_regions` is negative.
        """
        embedded = self._required(image_key)
        if max_regions is not None and max_regions < 0:
            raise ValueError(f"max_regions must not be negative, got {max_regions}")
        grid = PointGrid.of_image(embedded.frame.image_hw, points_per_side)
        decoder = PointDecoder(
            partial(self._decode_grid, embedded), decode_batch(self._sam), embedded.frame, self._sam.mask_threshold
        )
        with torch.inference_mode():
            return find_regions(decoder, grid, keep or self._region_filter, max_regions)

    def _decode_grid(self, embedded: _Embedded, points_N2: NDArray[np.float64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode prompts of one point each, in the encoder's type (docs/develop/decisions/segmentation.md)."""
        with self._in_encoder_dtype():
            return self._decode(embedded, points_N2[:, None], [[1]] * len(points_N2), None, None, multimask=True)

    def _in_encoder_dtype(self) -> torch.autocast:
        is_half = self._encoder_dtype != torch.float32
        return torch.autocast(self._sam.device.type, self._encoder_dtype, enabled=is_half)

    def _decode(
        self,
        embedded: _Embedded,
        points_BN2: NDArray[np.float64],
        labels: Sequence[Sequence[int]],
        box_4: NDArray[np.float64] | None,
        previous_logits: Logits | None,
        *,
        multimask: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute low-resolution logits (B, K, h, w) and predicted IoUs (B, K) of B prompts on one image."""
        device, image_hw = self._sam.device, embedded.frame.image_hw
        points = boxes_14 = masks_11HW = None
        if points_BN2.shape[1]:
            coords_BN2 = self._resize.apply_coords(points_BN2, image_hw)
            points = (
                torch.as_tensor(coords_BN2, dtype=torch.float32, device=device),
                torch.as_tensor(labels, dtype=torch.int32, device=device),
            )
        if box_4 is not None:
            boxes_14 = torch.as_tensor(self._resize.apply_boxes(box_4, image_hw), dtype=torch.float32, device=device)
        if previous_logits is not None:
            masks_11HW = torch.as_tensor(previous_logits, dtype=torch.float32, device=device)[None, None]
        sparse_BND, dense_BDHW = self._sam.prompt_encoder(points=points, boxes=boxes_14, masks=masks_11HW)
        logits_BKHW, ious_BK = self._sam.mask_decoder(
            image_embeddings=embedded.features_1CHW.float(),
            image_pe=self._sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse_BND,
            dense_prompt_embeddings=dense_BDHW,
            multimask_output=multimask,
        )
        return logits_BKHW, ious_BK

    def _checked_logits(self, previous_logits: Logits) -> Logits:
        expected = tuple(self._sam.prompt_encoder.mask_input_size)
        if previous_logits.shape != expected:
            raise InvalidPrompt(
                f"expected previous logits of shape {expected}, got {previous_logits.shape}; "
                "they are another model's, so click again without them"
            )
        return previous_logits

    def _frame(self, image_hw: tuple[int, int], image_key: str) -> Frame:
        side = self._resize.target_length
        input_hw = self._resize.get_preprocess_shape(*image_hw, side)
        if min(input_hw) < 1:
            raise ImageTooNarrow(
                f"image {image_key!r} of {image_hw[1]}x{image_hw[0]} px is too narrow to segment: "
                f"its short side is below one pixel when the long one is scaled to {side} px"
            )
        return Frame(image_hw, input_hw, side, self._sam.prompt_encoder.mask_input_size[0])

    def _required(self, image_key: str) -> _Embedded:
        embedded = self._lookup(image_key)
        if embedded is None:
            raise ImageNotEmbedded(f"image {image_key!r} is not in the embedding cache; call embed(image, key) first")
        return embedded

    def _lookup(self, image_key: str) -> _Embedded | None:
        with self._cache_lock:
            return self._cache.get(image_key)

    def _store(self, image_key: str, embedded: _Embedded) -> None:
        # The cache always keeps its newest entry, so that a limit below one embedding does not make every click fail.
        with self._cache_lock:
            self._cache.put(image_key, embedded)
