"""The `osprey` command itself: version, groups, help texts, wrong and misspelled settings."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cli.main import DEVELOP, LABEL, LEARN, MODELS, SERVE, app

ROOT = Path(__file__).parents[2]


def commands(group: click.Command, path: str = "osprey") -> Iterator[tuple[str, click.Command]]:
    """Every command with its path, groups included."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{path} {name}")


COMMANDS = dict(commands(get_command(app)))


def test_version_is_that_of_the_project():
    """`osprey --version` prints the version of pyproject.toml and nothing else."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ran = CliRunner().invoke(app, ["--version"])
    assert (ran.exit_code, ran.output) == (0, f"osprey {version}\n")


def test_commands_are_in_five_groups_and_exit_codes_are_listed():
    """The help of `osprey` shows each group, and what the exit codes mean."""
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).output
    assert all(f"─ {group} ─" in shown for group in (SERVE, LABEL, LEARN, MODELS, DEVELOP))
    assert "Exit codes: 0 done" in " ".join(shown.split())
    assert {command.rich_help_panel for command in app.registered_commands} == {SERVE, LABEL, LEARN, MODELS, DEVELOP}


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_has_a_sentence(path):
    """Help texts begin with a capital letter, end with a full stop, and are there for every option."""
    command = COMMANDS[path]
    assert command.help
    texts = [command.help.split("\n\n")[0], *(getattr(each, "help", None) for each in command.params)]
    names = ["(command)", *(each.name for each in command.params)]
    for name, text in zip(names, texts, strict=True):
        if name == "help":
            continue
        assert text, f"{path} {name} has no help"
        assert text[0].isupper() or text.startswith("osprey-7b"), f"{path} {name}: {text}"
        assert text.rstrip().endswith("."), f"{path} {name}: {text}"


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["collect"],
        ["export", "--project", "1"],
        ["prelabel", "--project", "1"],
        ["report", "--project", "1"],
        ["finetune", "--project", "1"],
        ["models", "list"],
        ["promote", "v1"],
    ],
    ids=" ".join,
)
def test_wrong_setting_ends_a_command_with_its_name(command):
    """A setting that cannot be used gives one line with its name and exit code 2, not a traceback."""
    ran = CliRunner().invoke(app, command, env={"OSPREY_THREADS": "many"})
    assert ran.exit_code == 2
    assert ran.output.strip() == "Wrong setting: OSPREY_THREADS must be a whole number above zero, got 'many'"


@pytest.fixture
def _no_settings(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OSPREY_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("_no_settings")
def test_a_misspelled_variable_is_reported_once_on_standard_error():
    """A variable that nothing reads is reported; the command runs, and its output stays as it was."""
    command = ["config", "check", str(ROOT / "label_config" / "bitmask.xml")]
    without = CliRunner().invoke(app, command)
    misspelled = CliRunner().invoke(app, command, env={"OSPREY_MODLE": "/m", "OSPREY_STATE_DIR": "/known"})
    assert without.exit_code == misspelled.exit_code == 0
    assert without.stderr == ""
    assert misspelled.stderr == "OSPREY_MODLE is not a setting and has no effect; did you mean OSPREY_MODEL?\n"
    assert misspelled.stdout == without.stdout
