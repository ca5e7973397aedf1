"""Settings are read from a mapping, and an invalid one is named."""

from __future__ import annotations

import pytest

from backend.settings import Settings


def test_defaults_need_only_a_password() -> None:
    settings = Settings.from_env({"OSPREY_BACKEND_PASSWORD": "p"})
    assert (settings.user, settings.password, settings.host, settings.port) == ("osprey", "p", "127.0.0.1", 9090)
    assert settings.wait_budget_s == 1.2
    assert settings.model_version is None


def test_auth_is_on_unless_it_is_turned_off() -> None:
    with pytest.raises(ValueError, match="OSPREY_BACKEND_PASSWORD"):
        Settings.from_env({})
    assert Settings.from_env({"OSPREY_BACKEND_AUTH": "off", "OSPREY_BACKEND_PASSWORD": "p"}).password is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OSPREY_BACKEND_AUTH", "maybe"),
        ("OSPREY_BACKEND_PORT", "high"),
        ("OSPREY_WAIT_BUDGET_S", "-1"),
        ("OSPREY_WAIT_BUDGET_S", "nan"),
        ("OSPREY_BACKEND_THREADS", "0"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        Settings.from_env({"OSPREY_BACKEND_PASSWORD": "p", name: value})


def test_secrets_are_not_printed() -> None:
    settings = Settings.from_env({"OSPREY_BACKEND_PASSWORD": "hush", "OSPREY_WEBHOOK_SECRET": "hush"})
    assert "hush" not in repr(settings)
