"""Start the backend: read the settings, wire the parts, serve (`osprey backend`, `python -m backend.main`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette

from backend.app import Api
from backend.click.session import SessionStore
from backend.ml_backend import OspreyBackend, backend_class
from backend.predict import ClickService
from backend.served_version import ServedVersion
from backend.settings import Settings
from backend.webhook import WebhookInbox
from job_queue.queue import JobQueue, connect
from job_queue.settings import QueueSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The parts of a backend process. None of them has opened a connection yet."""

    queue: JobQueue
    sessions: SessionStore
    clicks: ClickService


def build_parts(settings: Settings) -> Parts:
    """Wire the parts."""
    queue_settings = QueueSettings()
    redis = connect(settings.redis_url, queue_settings.redis_timeout_s)
    queue = JobQueue(redis, queue_settings)
    sessions = SessionStore(redis, settings.session_ttl_s)
    return Parts(queue, sessions, ClickService(queue, sessions, ServedVersion(queue, redis), settings))


def build_app(settings: Settings) -> Starlette:
    """Build the application with all its parts."""
    parts = build_parts(settings)
    inbox = WebhookInbox(parts.queue, parts.sessions, parts.clicks)
    return Api(backend_class(parts.clicks)(), parts.queue, inbox, settings).app()


def model_class(environ: Mapping[str, str]) -> type[OspreyBackend]:
    """Build the model class for another host of label-studio-ml, such as `label-studio-ml start` (docs/backend.md)."""
    return backend_class(build_parts(Settings.from_env(environ)).clicks)


def main(environ: Mapping[str, str] = os.environ) -> None:
    """Serve until a signal ends the process."""
    settings = Settings.from_env(environ)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if settings.password is None:
        logger.warning("auth is off: every client that reaches port %d can ask for predictions", settings.port)
    app = build_app(settings)
    logger.info("listening on http://%s:%d", settings.host, settings.port)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,  # a waiting click must not delay a stop
    )


if __name__ == "__main__":
    main()
