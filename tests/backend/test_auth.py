"""Which requests are let in."""

from __future__ import annotations

import base64

import pytest

from backend.auth import may_call, may_notify
from backend.settings import Settings

SETTINGS = Settings(user="osprey", password="päss", webhook_secret="hook")
OPEN = Settings(password=None)


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def test_the_right_user_and_password_may_call() -> None:
    assert may_call(SETTINGS, basic("osprey:päss"))
    assert may_call(OPEN, None)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic !!!",
        "Basic ÄÄ",
        "Bearer x",
        basic("osprey:other"),
        basic("other:päss"),
        basic("osprey"),
    ],
)
def test_anything_else_may_not(header: str | None) -> None:
    assert not may_call(SETTINGS, header)


def test_a_webhook_shows_the_secret_or_the_password() -> None:
    assert may_notify(SETTINGS, None, "hook")
    assert may_notify(SETTINGS, basic("osprey:päss"), None)
    assert not may_notify(SETTINGS, None, None)
    assert not may_notify(SETTINGS, None, "other")
    assert not may_notify(SETTINGS, basic("osprey:päss"), "other")


def test_a_secret_counts_only_where_one_is_set() -> None:
    without = Settings(user="osprey", password="p")
    assert not may_notify(without, None, "anything")
