"""The routes that Label Studio 1.23 calls, with auth, size limits and deadlines. No answer holds a traceback.

GET  / /health          1 s in Label Studio; open, so it holds nothing secret
POST /setup             3 s
POST /predict           a click, or an opened task
POST /webhook           1 s
GET  POST /versions, POST /train, GET /metrics
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from backend.auth import may_call, may_notify
from backend.ml_backend import OspreyBackend, Reply
from backend.ports import ClickQueue
from backend.settings import Settings
from backend.webhook import WebhookError, WebhookInbox
from job_queue.errors import QueueBusy, QueueUnavailable
from label_config.reader import ConfigError, read_label_config

logger = logging.getLogger(__name__)

T = TypeVar("T")

HEALTH_DEADLINE_S = 0.7  # Label Studio gives up after 1 s
SETUP_DEADLINE_S = 2.0  # after 3 s
WEBHOOK_DEADLINE_S = 0.8  # after 1 s
_RETRY_AFTER_S = 5
_SMALL_BODY_BYTES = 16 * 1024**2
_AT_ONCE_BYTES = 64 * 1024  # parsed in a millisecond at most; a thread costs as much on a busy machine


class Api:
    """Handles the routes. Blocking work runs in threads, so that several annotators are served at once."""

    def __init__(self, backend: OspreyBackend, queue: ClickQueue, inbox: WebhookInbox, settings: Settings) -> None:
        self._backend = backend
        self._queue = queue
        self._inbox = inbox
        self._settings = settings
        self._clicks = anyio.CapacityLimiter(settings.threads)
        # Separate threads, so that a page still loads while every click waits for a slow worker.
        self._short = anyio.CapacityLimiter(8)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/", self.health),
            Route("/health", self.health),
            Route("/setup", self._authorized(self.setup), methods=["POST"]),
            Route("/predict", self._authorized(self.predict), methods=["POST"]),
            Route("/webhook", self.webhook, methods=["POST"]),
            Route("/versions", self._authorized(self.versions), methods=["GET", "POST"]),
            Route("/train", self._authorized(self.train), methods=["POST"]),
            Route("/metrics", self._authorized(self.metrics)),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Exception: _server_error})

    async def health(self, request: Request) -> Response:
        """Report UP as soon as this process answers; a click reports to the annotator what else is missing."""
        body: dict[str, Any] = {"status": "UP", "model_class": "OspreyBackend"}
        if may_call(self._settings, request.headers.get("authorization")):
            health = await self._within(HEALTH_DEADLINE_S, self._queue.health)
            if health is None or not health.redis_ok:
                body |= {"redis": "down"}
            else:
                body |= {"redis": "up", "workers": {name: state.workers for name, state in health.queues.items()}}
        return JSONResponse(body)

    async def setup(self, request: Request) -> Response:
        """Return the served model version. Refuse a config that cannot be served, with the markup to add."""
        body = await self._json(request, _SMALL_BODY_BYTES)
        xml = body.get("schema")
        if isinstance(xml, str) and xml.strip():
            try:
                read_label_config(xml)
            except ConfigError as error:
                logger.warning("project %s cannot be served: %s", body.get("project"), error)
                return _error(400, f"This labeling config cannot be served: {error}")
        version = await self._within(SETUP_DEADLINE_S, self._backend.service.model_version)
        return JSONResponse({"model_version": version or "osprey"})

    async def predict(self, request: Request) -> Response:
        """Answer a click with 200 and one well-formed result, also after a failure."""
        body = await self._json(request, self._settings.max_body_bytes)
        tasks, params = body.get("tasks"), body.get("params")
        if not isinstance(tasks, list) or not all(isinstance(task, Mapping) for task in tasks):
            return _error(400, "expected a JSON object with tasks, a list of task objects")
        context = params.get("context") if isinstance(params, Mapping) else None
        context = context if isinstance(context, Mapping) else None
        xml = body.get("label_config")
        work = partial(self._backend.reply, tasks, context, xml if isinstance(xml, str) else None)
        reply = await self._within(self._settings.predict_deadline_s, work, self._clicks)
        if reply is None:
            logger.error("predict gave up after %.1f s", self._settings.predict_deadline_s)
            reply = Reply([] if context is None else [{"result": []}])
        return JSONResponse({"results": reply.predictions}, headers={"Server-Timing": reply.timings.header()})

    async def webhook(self, request: Request) -> Response:
        """Store a hint and answer at once: Label Studio waits up to 1 s during the annotator's submit."""
        headers = request.headers
        if not may_notify(self._settings, headers.get("authorization"), headers.get("x-webhook-secret")):
            return _unauthorized()
        body = await self._json(request, self._settings.max_body_bytes)
        try:
            action = await self._within(WEBHOOK_DEADLINE_S, partial(self._inbox.take, body))
        except WebhookError as error:
            return _error(400, str(error))
        except QueueUnavailable as error:
            logger.warning("webhook lost: %s", error)
            return _later("the webhook was not stored: Redis does not answer")
        except QueueBusy as error:
            logger.warning("webhook lost: %s", error)
            return _later("the webhook was not stored: too many jobs are waiting")
        if action is None:
            return _later("the webhook was not stored in time")
        return JSONResponse({"status": "ok", "action": action})

    async def versions(self, request: Request) -> Response:
        """Return the model versions that can be chosen: only the served one."""
        del request
        version = await self._within(SETUP_DEADLINE_S, self._backend.service.model_version)
        return JSONResponse({"versions": [version or "osprey"]})

    async def train(self, request: Request) -> Response:
        """Accept the training request of Label Studio before 1.4.1 and do nothing: fine-tuning is a separate job."""
        await self._json(request, self._settings.max_body_bytes)
        return JSONResponse({"status": "ok", "message": "Corrections are collected; fine-tuning runs as its own job."})

    async def metrics(self, request: Request) -> Response:
        """Return the workers and the depth of each queue in Prometheus' text format."""
        del request
        health = await self._within(SETUP_DEADLINE_S, self._queue.health)
        lines = [f"osprey_redis_up {int(health is not None and health.redis_ok)}"]
        for name, state in (health.queues if health else {}).items():
            lines.append(f'osprey_workers{{queue="{name}"}} {state.workers}')
            lines.append(f'osprey_queue_depth{{queue="{name}"}} {state.depth}')
            lines.append(f'osprey_queue_background_depth{{queue="{name}"}} {state.background_depth}')
        return PlainTextResponse("\n".join(lines) + "\n")

    def _authorized(
        self, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            if not may_call(self._settings, request.headers.get("authorization")):
                return _unauthorized()
            return await handler(request)

        return checked

    async def _within(
        self, deadline_s: float, work: Callable[[], T], limiter: anyio.CapacityLimiter | None = None
    ) -> T | None:
        """Return the result of blocking work, or None at the deadline (the thread then ends by its own timeouts)."""
        with anyio.move_on_after(deadline_s):
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=limiter or self._short)
        return None

    async def _json(self, request: Request, limit_bytes: int) -> dict[str, Any]:
        """Read the request's JSON object.

        Raises:
            HTTPException: 413 above the limit, 400 for a body that is not a JSON object.
        """
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit_bytes:
                raise HTTPException(413, f"the request is larger than {limit_bytes} bytes")
        try:
            if len(body) <= _AT_ONCE_BYTES:
                parsed = json.loads(bytes(body))
            else:  # megabytes of drafts: in a thread, so that other requests are not blocked
                parsed = await anyio.to_thread.run_sync(json.loads, bytes(body), limiter=self._short)
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, "the request is not valid JSON, or its nesting is too deep") from error
        if not isinstance(parsed, dict):
            raise HTTPException(400, f"expected a JSON object, got {type(parsed).__name__}")
        return parsed


def _error(status: int, reason: str) -> JSONResponse:
    # Label Studio shows the text under "error" when a connection is refused.
    return JSONResponse({"error": reason}, status_code=status)


def _later(reason: str) -> JSONResponse:
    response = _error(503, reason)
    response.headers["Retry-After"] = str(_RETRY_AFTER_S)
    return response


def _unauthorized() -> JSONResponse:
    response = _error(401, "user or password is wrong; enter both in the model connection of the project")
    response.headers["WWW-Authenticate"] = 'Basic realm="osprey"'
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail)


async def _server_error(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _error(500, "internal error; the backend's log has the cause")
