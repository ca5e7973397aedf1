"""What can go wrong between the backend and the workers, by who acts on it.

Every message reaches an annotator's page or an operator's log, so it says what was expected,
what came and what to do next.
"""

from __future__ import annotations


class OspreyError(Exception):
    """Base of everything the queue and the workers report on purpose."""


class QueueUnavailable(OspreyError):
    """Redis does not answer. The caller tells the annotator; nothing was enqueued."""


class NoWorker(OspreyError):
    """Redis answers, but no live worker listens on the queue the job needs."""


class QueueBusy(OspreyError):
    """The queue is at its bound; `retry_after_s` says when to ask again."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class JobTimedOut(OspreyError):
    """The job is still waiting or running at the deadline. Its result will be kept."""


class JobFailed(OspreyError):
    """The job ended in an error. `kind` is the class name of the worker's error, for the log."""

    def __init__(self, message: str, kind: str = "JobFailed") -> None:
        super().__init__(message)
        self.kind = kind


class UnknownJob(OspreyError):
    """The job names a function that this release does not have: sender and worker are of different releases."""


class ImageUnavailable(OspreyError):
    """The task's image cannot be fetched (gone, refused, too large, timed out)."""


class ImageCorrupt(OspreyError):
    """The bytes behind the task's image are not an image that can be decoded."""


class LabelStudioFailed(OspreyError):
    """Label Studio does not answer, or not with what was asked for. `status` is the HTTP status; None: no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class LabelStudioRefused(LabelStudioFailed):
    """Label Studio refuses the token."""


class ModelUnavailable(OspreyError):
    """The checkpoint or model version a job asks for is not there or does not load."""


class ModelTooLarge(ModelUnavailable):
    """The device has no room for the model beside what it holds; without the old one there may be."""
