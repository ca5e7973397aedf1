"""The protocols of the two models: what jobs need of a SAM and of an Osprey.

Jobs and their tests need neither a checkpoint nor torch.
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
    from worker.sam.masks import Candidate

OnAnswer = Callable[[int, FieldAnswer], None]
OnFailure = Callable[[Exception], None]


class Segmenter(Protocol):
    """What the jobs need of a SAM, of whatever kind: see `worker.sam.segmenter.SamSegmenter`."""

    model_version: str

    def is_embedded(self, image_key: str) -> bool:
        """Whether `segment` and `everything` would find the image."""

    def embed(self, image: Image.Image, image_key: str) -> None:
        """Encode an image once; a known key costs nothing."""

    def embedding(self, image_key: str) -> Embedding:
        """What `embed` computed, for another process with the same model."""

    def adopt(self, image_key: str, embedding: Embedding) -> None:
        """Take what another process computed instead of `embed`; ValueError when it is not this model's."""

    def segment(
        self,
        image_key: str,
        points_px: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] = (),
        box_px_xyxy: tuple[float, float, float, float] | None = None,
        previous_logits: NDArray[np.floating[Any]] | None = None,
        on_step: Callable[[str], object] | None = None,
    ) -> list[Candidate]:
        """Masks for a prompt on an embedded image, smallest first; `on_step` is told when the network is done."""

    def everything(self, image_key: str, *, max_regions: int | None = None) -> list[Candidate]:
        """The regions of an embedded image without a prompt, best first; a SAM may take more options."""


class Describer(Protocol):
    """What the describe job needs of Osprey."""

    model_version: str

    def describe(self, image: Image.Image, regions: Sequence[RegionQuery], image_key: str, on_answer: OnAnswer) -> None:
        """Answer every question of every region; each answer is handed over with its region's index when ready."""

    def warm(self, image: Image.Image, image_key: str) -> None:
        """Encode an image and its prefix, so that questions about it start at once."""

    def session(self) -> DescribeSession:
        """Where several jobs are described together; always the same one."""

    def forget_session(self) -> None:
        """Begin a new one after a step that failed."""


class DescribeSession(Protocol):
    """Questions of several jobs in the engine at once; see `osprey_model.engine.scheduler`."""

    @property
    def is_idle(self) -> bool:
        """Nothing waits or runs."""

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
        """Let questions wait for their turn, those of a smaller priority first; gives what `cancel` takes.

        Answers and failures are handed over from `step`, answers with their region's index.
        """

    def cancel(self, asked: object) -> None:
        """Forget questions; nothing more of them is handed over."""

    def step(self) -> None:
        """One token for every question whose turn it is."""
