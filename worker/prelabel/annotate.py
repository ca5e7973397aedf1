"""One image -> all of its regions with all of their fields: SAM once, then one engine call."""

from __future__ import annotations

from dataclasses import dataclass

from job_queue.contracts import FieldAnswer, Question, RegionQuery, Rle
from job_queue.field_answers import Filled, fill, label_question, questions_for
from label_config.labels import classes, object_label, part_label
from label_config.reader import LabelConfig
from label_config.results import region_score
from worker.images.resolver import ResolvedImage
from worker.model_protocols import Describer, Segmenter
from worker.prelabel.regions import FoundRegion, find_regions, root_of
from worker.sam.embedding_store import EmbeddingStore
from worker.shared_embedding import embed_shared


@dataclass(frozen=True, slots=True)
class AnnotateOptions:
    """Which regions are kept. `min_score` is a bound of the mask's score and of the whole region's score."""

    max_regions: int = 50
    min_score: float = 0.0

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: `max_regions` is below 1, or `min_score` outside 0 to 1.
        """
        if self.max_regions < 1 or not 0 <= self.min_score <= 1:
            raise ValueError(f"expected at least one region and a score of 0 to 1, got {self}")


@dataclass(frozen=True, slots=True)
class DescribedRegion:
    """A region with its field values. `parent` is the index of the region that it is a part of."""

    rle: Rle
    area_px: int
    label: str | None
    filled: Filled
    score: float
    mask_score: float
    parent: int | None
    questions: tuple[Question, ...]
    answers: tuple[FieldAnswer, ...]


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """All regions of an image, parents before their parts."""

    image_wh: tuple[int, int]
    sha256: str
    regions: tuple[DescribedRegion, ...]
    model_version: str
    segmenter_version: str

    @property
    def score(self) -> float:
        """The mean score of the regions; 0 for an image without regions, which a person should see first."""
        return sum(region.score for region in self.regions) / len(self.regions) if self.regions else 0.0


class ImageAnnotator:
    """The two models with the options of a run. Not thread-safe, because the models are not."""

    def __init__(
        self,
        segmenter: Segmenter,
        describer: Describer,
        options: AnnotateOptions,
        embeddings: EmbeddingStore | None = None,
    ) -> None:
        """With `embeddings`, this process and the workers of clicks share their embeddings."""
        self._segmenter = segmenter
        self._embeddings = embeddings
        self._describer = describer
        self._options = options

    @property
    def model_version(self) -> str:
        """Osprey's version, which predictions are attributed to."""
        return self._describer.model_version

    def annotate(self, resolved: ResolvedImage, config: LabelConfig) -> AnnotatedImage:
        """Find, nest and describe the regions of an image.

        Raises:
            OspreyError, ValueError: the image cannot be segmented or described.
            RedisError: Redis, where embeddings are shared, is down.
        """
        if self._embeddings is None:
            self._segmenter.embed(resolved.image, resolved.sha256)
        else:
            embed_shared(self._segmenter, self._embeddings, resolved)
        found = find_regions(self._segmenter, resolved.sha256, self._options.max_regions, self._options.min_score)
        labels = _labels(config, found)
        asked = classes(config, None)
        queries = [_query(config, found, idx, labels[idx], asked) for idx in range(len(found))]
        answers: list[list[FieldAnswer]] = [[] for _ in found]
        if any(query.questions for query in queries):
            self._describer.describe(
                resolved.image, queries, resolved.sha256, lambda idx, answer: answers[idx].append(answer)
            )
        regions = [
            _described(config, region, labels[idx], queries[idx].questions, tuple(answers[idx]))
            for idx, region in enumerate(found)
        ]
        return AnnotatedImage(
            resolved.image.size,
            resolved.sha256,
            _good_enough(regions, self._options.min_score),
            self._describer.model_version,
            self._segmenter.model_version,
        )


def _labels(config: LabelConfig, found: list[FoundRegion]) -> list[str | None]:
    labels: list[str | None] = []
    for region in found:  # parents first
        if region.parent is None:
            labels.append(object_label(config, None))
        else:
            labels.append(part_label(config, None, labels[region.parent]))
    return labels


def _query(
    config: LabelConfig, found: list[FoundRegion], idx: int, label: str | None, asked: tuple[str, ...]
) -> RegionQuery:
    """Ask the questions that a click would ask: the category of an object, the part's name of a part."""
    region = found[idx]
    is_part = region.parent is not None
    masks = (region.rle, found[root_of(found, idx)].rle) if is_part else (region.rle,)
    questions = questions_for(config, label, part=is_part)
    if asked and not is_part:
        questions = (label_question(config, asked), *questions)
    return RegionQuery(f"r{idx}", masks, questions)


def _described(
    config: LabelConfig,
    region: FoundRegion,
    label: str | None,
    questions: tuple[Question, ...],
    answers: tuple[FieldAnswer, ...],
) -> DescribedRegion:
    filled = fill(config, label, questions, answers, part=region.parent is not None)
    return DescribedRegion(
        rle=region.rle,
        area_px=region.area_px,
        label=filled.class_label or label,
        filled=filled,
        score=region_score(region.mask_score, filled.confidence),
        mask_score=region.mask_score,
        parent=region.parent,
        questions=questions,
        answers=tuple(sorted(answers, key=lambda answer: answer.question_idx)),
    )


def _good_enough(regions: list[DescribedRegion], min_score: float) -> tuple[DescribedRegion, ...]:
    """Keep the regions of at least that score; parts of a dropped region move to the region around it."""
    place: dict[int, int | None] = {}
    kept: list[DescribedRegion] = []
    for idx, region in enumerate(regions):
        parent = None if region.parent is None else place[region.parent]
        if region.score < min_score:
            place[idx] = parent
            continue
        place[idx] = len(kept)
        kept.append(
            DescribedRegion(
                region.rle,
                region.area_px,
                region.label,
                region.filled,
                region.score,
                region.mask_score,
                parent,
                region.questions,
                region.answers,
            )
        )
    return tuple(kept)
