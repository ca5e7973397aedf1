"""The errors of calls to Label Studio: each says what was expected, what came and what to do."""

from __future__ import annotations

import json
from typing import Any

import httpx

from job_queue.errors import LabelStudioFailed, LabelStudioRefused
from worker.label_studio.credentials import TokenKind

_MAX_SHOWN = 300  # characters of an answer

_CHECK_ADDRESS = "is it a Label Studio? Check OSPREY_LABEL_STUDIO_URL"
_NOT_VISIBLE = "no such project or task, or the user of the token may not see or change it; check number and user"
_OTHER_ADVICE = "check OSPREY_LABEL_STUDIO_URL and the log of Label Studio"


def no_answer(request: httpx.Request, timeout_s: float, error: httpx.HTTPError) -> LabelStudioFailed:
    """Return the error of a request that was not answered."""
    return LabelStudioFailed(
        f"expected an answer of Label Studio to {_name(request)} within {timeout_s:.0f} s, "
        f"got {type(error).__name__}: {error}; check OSPREY_LABEL_STUDIO_URL and whether the server runs"
    )


def too_long(request: httpx.Request, max_bytes: int) -> LabelStudioFailed:
    """Return the error of an answer above the limit."""
    return LabelStudioFailed(f"expected at most {max_bytes} bytes for {_name(request)}, got more; split the task")


def refused(request: httpx.Request, status: int, body: bytes, kind: TokenKind) -> LabelStudioRefused:
    """Return the error of a refused token; `kind` is what was sent. Short, because the labeling page shows it."""
    host = request.url.netloc.decode()
    return LabelStudioRefused(
        f"expected Label Studio at {host} to accept a request with {kind}, got {status} {shown(body)[:60]!r}; put a "
        "valid personal access token (from Account & Settings) into OSPREY_LABEL_STUDIO_TOKEN",
        status,
    )


def not_successful(request: httpx.Request, status: int, body: bytes) -> LabelStudioFailed:
    """Return the error of a status outside 2xx."""
    advice = _NOT_VISIBLE if status in (403, 404) else _OTHER_ADVICE
    got = f"got {status} {shown(body)!r}"
    return LabelStudioFailed(f"expected 2xx from Label Studio for {_name(request)}, {got}; {advice}", status)


def unexpected(url: str, expected: str, got: Any) -> LabelStudioFailed:
    """Return the error of an answer that does not look like Label Studio's."""
    return LabelStudioFailed(f"expected {expected} from {url}, got {str(got)[:_MAX_SHOWN]!r}; {_CHECK_ADDRESS}")


def shown(body: bytes) -> str:
    """Return as one line what Label Studio says about an error, or the start of another answer."""
    text = body.decode(errors="replace")
    try:
        error = json.loads(text)
        text = f"{error['detail']} {error.get('validation_errors') or ''}"
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # not Label Studio's form of an error
    return " ".join(text.split())[:_MAX_SHOWN]


def plain_url(request: httpx.Request) -> str:
    """Return the URL of a request without query and password."""
    return str(request.url.copy_with(query=None, userinfo=b""))


def _name(request: httpx.Request) -> str:
    return f"{request.method} {plain_url(request)}"
