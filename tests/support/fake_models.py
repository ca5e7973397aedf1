"""Stand-ins for SAM and Osprey that need no checkpoint: masks are discs, answers name their question."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from job_queue.contracts import FieldAnswer, RegionQuery
from worker.model_protocols import OnAnswer
from worker.runtime import Loaders
from worker.sam.embedding_store import Embedding
from worker.sam.masks import MaskWithLogits


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
            found.append(MaskWithLogits.of_mask(mask, 0.9, 0.8, np.full((8, 8), radius, np.float32)))
        return found

    def everything(self, image_key, *, max_regions=None, **_):
        """Return the discs around the centre of the image, largest first."""
        width, height = self.embedded[image_key]
        return self.segment(image_key, [(width / 2, height / 2)], [1])[::-1][:max_regions]


class FakeDescriber:
    """Answers `<field> of <region size>` with a pause before each answer."""

    def __init__(self, delay_s: float = 0.0, model_version: str = "osprey-fake-1") -> None:
        self.model_version = model_version
        self.num_asked = 0
        self.warmed: list[str] = []
        self.delay_s = delay_s
        self._session: FakeSession | None = None

    def describe(self, image: Image.Image, regions: Sequence[RegionQuery], image_key: str, on_answer: OnAnswer) -> None:
        for region_idx, region in enumerate(regions):
            for question_idx in range(len(region.questions)):
                time.sleep(self.delay_s)
                on_answer(region_idx, self.answer(region, question_idx))

    def warm(self, image: Image.Image, image_key: str) -> None:
        self.warmed.append(image_key)

    def session(self) -> FakeSession:
        if self._session is None:
            self._session = FakeSession(self)
        return self._session

    def forget_session(self) -> None:
        self._session = None

    def answer(self, region: RegionQuery, question_idx: int) -> FieldAnswer:
        question = region.questions[question_idx]
        self.num_asked += 1
        value = f"{question.field} {question.text}"
        return FieldAnswer(region.region_id, question_idx, question.field, (value,), 0.5)


@dataclass(eq=False)
class _Asked:
    regions: Sequence[RegionQuery]
    on_answer: OnAnswer
    on_failure: Callable[[Exception], None]
    priority: int
    open: deque[tuple[int, int]]


class FakeSession:
    """An engine that gives one answer to each request of the best priority per step.

    The question "fail" fails alone; the question "explode" makes the whole step fail.
    """

    def __init__(self, describer: FakeDescriber) -> None:
        self._describer = describer
        self._asked: list[_Asked] = []

    @property
    def is_idle(self) -> bool:
        return not self._asked

    def add(self, image, regions, image_key, on_answer, on_failure, *, priority):
        places = deque((r, q) for r, region in enumerate(regions) for q in range(len(region.questions)))
        self._asked.append(_Asked(regions, on_answer, on_failure, priority, places))
        return self._asked[-1]

    def cancel(self, asked: _Asked) -> None:
        if asked in self._asked:
            self._asked.remove(asked)

    def step(self) -> None:
        time.sleep(self._describer.delay_s)
        best = min((asked.priority for asked in self._asked), default=0)
        together = [asked for asked in self._asked if asked.priority == best]
        if any(asked.regions[asked.open[0][0]].questions[asked.open[0][1]].text == "explode" for asked in together):
            raise RuntimeError("out of memory")
        for asked in together:
            region_idx, question_idx = asked.open.popleft()
            if asked.regions[region_idx].questions[question_idx].text == "fail":
                asked.on_failure(ValueError("no such question"))
                continue
            if not asked.open:
                self._asked.remove(asked)
            asked.on_answer(region_idx, self._describer.answer(asked.regions[region_idx], question_idx))


def fake_loaders(segment_delay_s: float = 0.0, describe_delay_s: float = 0.0) -> Loaders:
    """Return loaders that give a worker process fake models."""
    return Loaders(
        segmenter=lambda settings, device: FakeSegmenter(segment_delay_s),
        describer=lambda settings, device: FakeDescriber(describe_delay_s),
    )
