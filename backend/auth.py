"""Check HTTP basic auth, and the shared secret of webhooks, in constant time."""

from __future__ import annotations

import base64
import binascii
import hmac

from backend.settings import Settings


def may_call(settings: Settings, authorization: str | None) -> bool:
    """Return whether an `Authorization` header holds the backend's user and password (always True without auth)."""
    if settings.password is None:
        return True
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, f"{settings.user}:{settings.password}".encode())


def may_notify(settings: Settings, authorization: str | None, webhook_secret: str | None) -> bool:
    """Return whether a webhook holds the shared secret in `X-Webhook-Secret`, or the password as basic auth.

    Label Studio adds a webhook without credentials for every model connection: that one is refused.
    """
    if settings.webhook_secret is not None and webhook_secret is not None:
        return hmac.compare_digest(webhook_secret.encode(), settings.webhook_secret.encode())
    return may_call(settings, authorization)
