"""The protocols of the two models: the methods of a SAM and of an Osprey that jobs call.

With them, jobs and their tests need neither a checkpoint nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from job_queue.contracts import FieldAnswer, RegionQuery

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from worker.sam.embedding_store import Embedding
    from worker.sam.masks import MaskWithLogits

OnAnswer = Callable[[int, FieldAnswer], None]
OnFailure = Callable[[Exception], None]


class Segmenter(Protocol):
    """A SAM as the jobs use it; `worker.sam.segmenter.SamSegmenter` implements it."""

    model_version: str

    def is_embedded(self, image_key: str) -> bool:
        """Whether the image's embedding is in memory."""

    def embed(self, image: Image.Image, image_key: str) -> None:
        """Encode an image; do nothing if the key's embedding is in memory."""

    def embedding(self, image_key: str) -> Embedding:
        """Return the result of `embed`, for another process with the same model."""

    def adopt(self, image_key: str, embedding: Embedding) -> None:
        """Use another process's result of `embed`.

        Raises:
            ValueError: it is not an embedding of this model.
        """

    def segment(
        self,
        image_key: str,
        points_px: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] = (),
        box_px_xyxy: tuple[float, float, float, float] | None = None,
        previous_logits: NDArray[np.floating[Any]] | None = None,
        on_step: Callable[[str], object] | None = None,
    ) -> list[MaskWithLogits]:
        """Compute the masks of a prompt on an embedded image, smallest first; call `on_step` after the network."""

    def everything(self, image_key: str, *, max_regions: int | None = None) -> list[MaskWithLogits]:
        """Find the regions of an embedded image without a prompt, best first."""


class Describer(Protocol):
    """An Osprey as the jobs use it; `worker.osprey_describer.OspreyDescriber` implements it."""

    model_version: str

    def describe(self, image: Image.Image, regions: Sequence[RegionQuery], image_key: str, on_answer: OnAnswer) -> None:
        """Answer every question of every region; call `on_answer` with the region's index for each answer."""

    def warm(self, image: Image.Image, image_key: str) -> None:
        """Encode an image and its prefix in advance, so that its questions are answered sooner."""

    def session(self) -> DescribeSession:
        """Return the session in which several jobs are described together, always the same one."""

    def forget_session(self) -> None:
        """Use a new session from now on, after a step that failed."""


class DescribeSession(Protocol):
    """Questions of several jobs in the engine at once; see `osprey_model.engine.scheduler`."""

    @property
    def is_idle(self) -> bool:
        """Whether no question waits or runs."""

    def add(
        self,
        image: Image.Image,
        regions: Sequence[RegionQuery],
        image_key: str,
        on_answer: OnAnswer,
        on_failure: OnFailure,
        *,
        priority: int,
    ) -> object:
        """Enqueue questions, those of a smaller priority number first; return a handle for `cancel`.

        `step` calls `on_answer` with the region's index and `on_failure`.
        """

    def cancel(self, asked: object) -> None:
        """Drop the questions of a handle; no more of their answers are reported."""

    def step(self) -> None:
        """Decode one token of every active row."""
