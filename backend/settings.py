"""The settings of the backend, read once by `backend/main.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from job_queue.settings import Count, Positive, PositiveWhole, ProcessSettings, Switch, setting


class Settings(ProcessSettings):
    """The settings of a backend process. Times are in seconds.

    Label Studio's timeouts are 1 s for /health, 3 s for /setup and 100 s for /predict. While a click waits, Label
    Studio merges the next one with it, so the backend answers a click after about `wait_budget_s`.
    """

    describe_floor_s: ClassVar[float] = 0.3  # shortest wait for the description, even if the mask used up the budget

    host: str = setting("127.0.0.1", "address to listen on", variable="OSPREY_BACKEND_HOST", make_up=False)
    port: PositiveWhole = setting(9090, "port to listen on", variable="OSPREY_BACKEND_PORT", make_up=False)
    user: str = setting("osprey", "user name of basic authentication", variable="OSPREY_BACKEND_USER", make_up=False)
    # None: no authentication, only with OSPREY_BACKEND_AUTH=off.
    password: str | None = setting(
        None, "password of basic authentication; without it the backend does not start",
        variable="OSPREY_BACKEND_PASSWORD", make_up=False, secret=True,
    )  # fmt: skip
    auth: Switch = setting(
        True, "`off`: serve without a password; only for a network that you alone use",
        variable="OSPREY_BACKEND_AUTH", make_up=False,
    )  # fmt: skip
    webhook_secret: str | None = setting(
        None, "value that webhooks must send in the header `X-Webhook-Secret`", make_up=False, secret=True
    )
    wait_budget_s: Positive = setting(1.2, "longest wait of a click for its answers, in seconds", compose=True)
    # Longer than wait_budget_s: an answer without a mask is useless, and a cold SAM is slow.
    mask_wait_s: Positive = setting(8.0, "longest wait of a click for its mask, in seconds")
    look_ahead: Count = setting(3, "number of next tasks to prepare when a task is opened; 0: none")
    model_version: str | None = setting(None, "answer only with this model version", shown="what the workers serve")
    session_ttl_s: PositiveWhole = setting(86400, "seconds for which the backend remembers a task's regions")
    threads: PositiveWhole = setting(32, "clicks answered at the same time, at most", variable="OSPREY_BACKEND_THREADS")
    max_body_bytes: PositiveWhole = setting(
        256 * 1024**2, "largest accepted request, in bytes", variable="OSPREY_BACKEND_MAX_BODY_BYTES"
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the variables; a missing or empty one keeps its default.

        Raises:
            ValueError: a value is invalid, or the password is missing and `OSPREY_BACKEND_AUTH` is not `off`.
        """
        settings = super().from_env(environ)
        if not settings.auth:
            return settings.model_copy(update={"password": None})
        if settings.password is None:
            raise ValueError(
                "OSPREY_BACKEND_PASSWORD is not set; give the backend a password and enter it in Label Studio's model "
                "connection, or set OSPREY_BACKEND_AUTH=off on a network that you alone use"
            )
        return settings

    @property
    def predict_deadline_s(self) -> float:
        """The time after which a click is answered even if a step hangs. The waits for mask and answers end earlier."""
        return max(self.wait_budget_s, self.mask_wait_s) + 5.0
