"""A failure -> the text that the annotator reads, and the result item that shows it. Pure.

The page does not show errors. A text for a per-image control is a well-formed result: it is shown at once, replaces
the one before, and (with auto-accept on) removes the pending point.
"""

from __future__ import annotations

from typing import Any

from backend.click.prompts import PromptError
from job_queue.errors import (
    ImageCorrupt,
    ImageUnavailable,
    JobFailed,
    JobTimedOut,
    LabelStudioFailed,
    LabelStudioRefused,
    ModelUnavailable,
    NoWorker,
    QueueBusy,
    QueueUnavailable,
    UnknownJob,
)
from label_config.reader import ConfigError, LabelConfig

NOTICE_ID = "osprey-notice"

LATE = "The description is not ready yet; it comes with your next click."

BLIND = "This task has no suggested values, so that their accuracy can be measured: please fill in the fields yourself."

_ADVICE: dict[type[Exception], str] = {
    QueueUnavailable: "The assistant's queue does not answer. Ask your administrator; then click again.",
    NoWorker: "No worker of the assistant is running. Ask your administrator to start one; then click again.",
    QueueBusy: "The assistant is overloaded. Click again in a few seconds.",
    JobTimedOut: "The assistant is not ready with this image yet. Click again in a few seconds.",
    ImageUnavailable: "The assistant cannot get this task's image.",
    ImageCorrupt: "The assistant cannot read this task's image: the file is damaged or is not an image.",
    ModelUnavailable: "The assistant's model is not available. Ask your administrator.",
    LabelStudioRefused: "Label Studio refuses the assistant's token. Ask your administrator.",
    LabelStudioFailed: "Label Studio does not answer the assistant. Click again in a few seconds.",
    UnknownJob: "The parts of the assistant are of different releases. Ask your administrator to restart them.",
    ConfigError: "The assistant cannot work with this project's labeling config.",
    PromptError: "The assistant did not understand this click.",
    JobFailed: "The assistant failed on this click.",
}
# Their messages hold addresses or internals: the page gets only the advice, the log has the message.
_LOG_ONLY = (QueueUnavailable, NoWorker, QueueBusy, JobTimedOut, UnknownJob)
_MAX_DETAIL = 300


def failure_text(error: Exception, task_id: object) -> str:
    """Return what the annotator reads about a failure: what is wrong, and what to do. One line, no traceback."""
    advice = next((text for kind, text in _ADVICE.items() if isinstance(error, kind)), None)
    if advice is None:
        return f"The assistant failed on this click (task {task_id}); its log has the cause. Click again, or report it."
    if isinstance(error, _LOG_ONLY):
        return advice
    return f"{advice} {' '.join(str(error).split())[:_MAX_DETAIL]}"


def notice_item(config: LabelConfig, text: str | None) -> dict[str, Any] | None:
    """Return the item that shows `text` (None: removes the notice); None where the config has no control for it."""
    if config.notice is None:
        return None
    return {
        "id": NOTICE_ID,
        "type": "textarea",
        "from_name": config.notice,
        "to_name": config.image_name,
        "value": {"text": [] if text is None else [text]},
    }
