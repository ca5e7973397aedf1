"""README.md against the code: commands exist, settings are documented, files it names are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cli.main import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTED = README + (ROOT / ".env.example").read_text()
CODE = re.findall(r"`([^`\n]+)`", README) + re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
ROOMS = ("backend", "cli", "demo", "label_config", "osprey_model", "worker")

# Variables of programs that are not a person's settings.
NOT_SETTINGS = {
    "OSPREY_STACK_MARK": "an inner mark of the one-machine stack",
    "OSPREY_BACKEND_URL": "set by docker-compose.yml for its init service",
}


def make_targets() -> set[str]:
    """Targets that `make help` lists."""
    lines = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {match.group(1) for line in lines if (match := re.match(r"\s+make ([a-z-]+)\s", line))}


def test_every_make_target_in_the_readme_exists():
    """`make x` in code style is a target."""
    named = {name for text in CODE for name in re.findall(r"\bmake ([a-z][a-z-]*)", text)}
    assert named
    assert named <= make_targets()


def test_every_osprey_command_in_the_readme_exists():
    """`osprey x` in code style is a sub-command."""
    named = {name for text in CODE for name in re.findall(r"\bosprey ([a-z]+)", text)}
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    known |= {group.name or group.typer_instance.info.name for group in app.registered_groups}
    assert named
    assert named <= known, f"README names commands that `osprey` does not have: {named - known}"


@pytest.mark.parametrize("room", ROOMS)
def test_every_setting_is_documented(room):
    """A variable that the code reads is in the README, or in .env.example for docker-compose."""
    read = {
        name
        for file in (ROOT / room).rglob("*.py")
        for name in re.findall(r"\"(OSPREY_[A-Z0-9_]*[A-Z0-9])\"", file.read_text())
    }
    undocumented = {name for name in read - set(NOT_SETTINGS) if name not in DOCUMENTED}
    assert not undocumented, f"document these settings in README.md or .env.example: {sorted(undocumented)}"


def test_every_documented_setting_is_read_by_the_code():
    """A variable in the README is read somewhere."""
    source = "\n".join(file.read_text() for room in ROOMS for file in (ROOT / room).rglob("*.py"))
    stale = {name for name in re.findall(r"OSPREY_[A-Z0-9_]*[A-Z0-9]", README) if name not in source}
    assert not stale, f"README.md documents settings that nothing reads: {sorted(stale)}"


def test_files_and_folders_named_in_the_readme_exist():
    """Paths in the map, and pictures."""
    folders = re.findall(r"^([a-z_]+)/ +", README, re.MULTILINE)
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    files = re.findall(r"`([a-z_]+/[a-z_./-]+|\.env\.example|[A-Z]+\.md)`", README)
    assert folders
    missing = [name for name in (*folders, *pictures, *files) if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize(
    "page", ["README.md", "bench/README.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_links_lead_to_files(page: str) -> None:
    """Every relative link of a page, kept results among them."""
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text())
    files = [(ROOT / page).parent / link for link in links if "://" not in link]
    missing = [str(file) for file in files if not file.exists()]
    assert not missing, f"{page} links to files that are not there: {sorted(missing)}"
