"""Claims about the commands of docker compose's own services."""

from __future__ import annotations

import importlib.util
import re

import pytest

from stack.settings import CHECKOUT

COMPOSE_FILE = CHECKOUT / "docker-compose.yml"
MODULES = sorted(set(re.findall(r'"python", "-m", "([\w.]+)"', COMPOSE_FILE.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_a_service_runs_exists(module):
    """A service of docker-compose.yml that runs a module of this checkout names one that exists."""
    assert "stack.compose_secrets" in MODULES, "the commands were not found"
    assert importlib.util.find_spec(module) is not None
