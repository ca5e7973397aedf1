"""Stand-ins for SAM and Osprey that need no checkpoint: masks are discs, answers name their question."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from worker.contracts import FieldAnswer, RegionQuery
from worker.embedding_store import Embedding
from worker.models import OnAnswer
from worker.runtime import Loaders
from worker.sam_masks import Candidate


class FakeSegmenter:
    """Discs of radius 4, 8 and 16 around the first point; one of radius 20 when it refines."""

    def __init__(self, delay_s: float = 0.0, model_version: str = "sam-fake-1") -> None:
        self.model_version = model_version
        self.embedded: dict[str, tuple[int, int]] = {}
        self.num_encoded = 0
        self.adopted: dict[str, Embedding] = {}
        self.previous: list[np.ndarray | None] = []
        self._delay_s = delay_s

    def is_embedded(self, image_key: str) -> bool:
        return image_key in self.embedded

    def embed(self, image: Image.Image, image_key: str) -> None:
        if image_key not in self.embedded:
            self.num_encoded += 1
        self.embedded[image_key] = image.size

    def embedding(self, image_key: str) -> Embedding:
        width, height = self.embedded[image_key]
        return Embedding({"features": np.zeros((1, 2, 2), np.float16)}, (height, width))

    def adopt(self, image_key: str, embedding: Embedding) -> None:
        if set(embedding.arrays) != {"features"}:
            raise ValueError(f"expected an embedding with features, got {sorted(embedding.arrays)}")
        self.adopted[image_key] = embedding
        self.embedded[image_key] = (embedding.image_hw[1], embedding.image_hw[0])

    def segment(self, image_key, points_px=(), labels=(), box_px_xyxy=None, previous_logits=None, on_step=None):
        if image_key != "warm-up":
            time.sleep(self._delay_s)
        width, height = self.embedded[image_key]
        x_px, y_px = points_px[0] if points_px else box_px_xyxy[:2]
        ys, xs = np.mgrid[:height, :width]
        self.previous.append(previous_logits)
        found = []
        for radius in (4, 8, 16) if previous_logits is None else (20,):
            mask = (xs - x_px) ** 2 + (ys - y_px) ** 2 <= radius**2
            found.append(Candidate.of_mask(mask, 0.9, 0.8, np.full((8, 8), radius, np.float32)))
        return found

    def everything(self, image_key, *, max_regions=None, **_):
        """The discs around the image's middle, largest first."""
        width, height = self.embedded[image_key]
        return self.segment(image_key, [(width / 2, height / 2)], [1])[::-1][:max_regions]


class FakeDescriber:
    """Answers `<field> of <region size>` with a pause before each answer."""

    def __init__(self, delay_s: float = 0.0, model_version: str = "osprey-fake-1") -> None:
        self.model_version = model_version
        self.num_asked = 0
        self.warmed: list[str] = []
        self._delay_s = delay_s

    def describe(self, image: Image.Image, regions: Sequence[RegionQuery], image_key: str, on_answer: OnAnswer) -> None:
        for region_idx, region in enumerate(regions):
            for question_idx, question in enumerate(region.questions):
                time.sleep(self._delay_s)
                self.num_asked += 1
                value = f"{question.field} {question.text}"
                on_answer(region_idx, FieldAnswer(region.region_id, question_idx, question.field, (value,), 0.5))

    def warm(self, image: Image.Image, image_key: str) -> None:
        self.warmed.append(image_key)


def fake_loaders(segment_delay_s: float = 0.0, describe_delay_s: float = 0.0) -> Loaders:
    """Loaders for a worker process of fakes."""
    return Loaders(
        segmenter=lambda settings, device: FakeSegmenter(segment_delay_s),
        describer=lambda settings, device: FakeDescriber(describe_delay_s),
    )
