"""The errors that cross the queue between backend and workers, one class per reaction of the caller.

Every message reaches an annotator's page or an operator's log, so it says what was expected, what was found and what
to do next.
"""

from __future__ import annotations


class OspreyError(Exception):
    """Base class of all errors that the queue and the workers report on purpose."""


class QueueUnavailable(OspreyError):
    """Redis does not answer, so nothing was enqueued. The caller shows this to the annotator."""


class NoWorker(OspreyError):
    """Redis answers, but no live worker serves the queue of the job."""


class QueueBusy(OspreyError):
    """The queue is full. `retry_after_s` is the time after which the caller may try again."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class JobTimedOut(OspreyError):
    """The job still waits or runs at the deadline. Its result will be kept."""


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
    """Label Studio does not answer, or answers with an error. `status` is the HTTP status; None: no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class LabelStudioRefused(LabelStudioFailed):
    """Label Studio refuses the token."""


class ModelUnavailable(OspreyError):
    """The checkpoint or model version that a job asks for does not exist or does not load."""


class ModelTooLarge(ModelUnavailable):
    """The device has no memory for the model beside what it holds. Without the old model, there may be enough."""
