"""What every command of `osprey` does first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app

CONFIG = Path(__file__).parents[2] / "label_config" / "bitmask.xml"


@pytest.fixture
def _no_settings(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OSPREY_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("_no_settings")
def test_a_misspelled_variable_is_reported_once_on_standard_error():
    """The command runs all the same, and its output stays as it was."""
    command = ["config", "check", str(CONFIG)]
    without = CliRunner().invoke(app, command)
    misspelled = CliRunner().invoke(app, command, env={"OSPREY_MODLE": "/m", "OSPREY_STATE_DIR": "/known"})
    assert without.exit_code == misspelled.exit_code == 0
    assert without.stderr == ""
    assert misspelled.stderr == "OSPREY_MODLE is not a setting and has no effect; did you mean OSPREY_MODEL?\n"
    assert misspelled.stdout == without.stdout
