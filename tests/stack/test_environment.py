"""Claims about `make env` after a move, a copy or an interruption, with real environments without packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stack import environment as environment_module
from stack.environment import PACKAGES, EnvironmentFailed, make_ready
from stack.settings import CHECKOUT

SCRIPT = b"import sys\nprint(sys.prefix, sys.argv[1:])\n"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Change to a checkout whose name contains a blank and an umlaut, with the files an environment is made from."""
    folder = tmp_path / "a checkout mit Umläut"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[project]")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(environment_module, "_VENV", (*environment_module._VENV, "--without-pip"))  # saves seconds
    return folder


def environment(**changed):
    """Return an environment without packages."""
    return replace(PACKAGES, made_from=(Path("pyproject.toml"),), installs=(), editable=False, **changed)


def moved(folder: Path, name: str, monkeypatch) -> Path:
    """Rename the folder, and change to it."""
    there = folder.rename(folder.with_name(name))
    monkeypatch.chdir(there)
    return there


def ran(script: Path) -> str:
    """Run a script by its path, and return what it prints."""
    return subprocess.run([script, "x"], capture_output=True, text=True, check=True).stdout


def test_it_is_built_once(checkout):
    assert "built" in make_ready(environment())
    assert make_ready(environment()) is None
    (checkout / "pyproject.toml").touch()
    assert make_ready(environment()) is None, "a newer file with the same content is no change"
    (checkout / "pyproject.toml").write_text("[project.other]")
    assert "brought up to date" in make_ready(environment())
    assert make_ready(environment()) is None


def test_a_folder_that_was_moved_is_repaired(checkout, monkeypatch):
    """Scripts start after a move to a path with special characters, or one that is too long for a first line."""
    make_ready(environment())
    script = Path(".venv/bin/osprey")
    script.write_bytes(f"#!{checkout}/.venv/bin/python\n".encode() + SCRIPT)
    script.chmod(0o755)
    other = Path(".venv/bin/other")
    other.write_text("#!/bin/sh\necho unchanged\n")
    for name in ("plain", 'with "quotes" and $HOME', "long" * 40, "b"):
        before, checkout = checkout, moved(checkout, name, monkeypatch)
        line = make_ready(environment())
        assert "repaired" in line
        assert str(before) in line
        assert str(before) not in script.read_text()
        assert ran(script.absolute()) == f"{checkout / '.venv'} ['x']\n"
        assert other.read_text() == "#!/bin/sh\necho unchanged\n"
        assert str(checkout) in Path(".venv/bin/activate").read_text()
        assert make_ready(environment()) is None


def test_what_was_interrupted_or_made_by_an_earlier_release_is_finished(checkout):
    make_ready(environment())
    for content in (None, "", "[]"):
        stamp = Path(".venv/.ready")
        stamp.unlink() if content is None else stamp.write_text(content)
        assert "brought up to date" in make_ready(environment())
        assert make_ready(environment()) is None


def test_an_environment_whose_python_is_gone_is_built_again(checkout):
    make_ready(environment())
    for name in ("python", "python3", Path(sys.executable).resolve().name):
        Path(".venv/bin", name).unlink(missing_ok=True)
    assert "built" in make_ready(environment())


def test_another_python_that_was_asked_for_is_taken(checkout):
    make_ready(environment())
    present = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert make_ready(environment(), present) is None
    assert "built" in make_ready(environment(), "3.1")


def test_a_failed_installation_is_an_error_and_is_tried_again(checkout):
    """A failure leaves no stamp, so the next run installs again."""
    broken = replace(environment(), installs=(("--no-index", "no-such-package-here"),))
    with pytest.raises(EnvironmentFailed, match="pip could not install Python packages"):
        make_ready(broken)
    assert not Path(".venv/.ready").exists()
    assert "brought up to date" in make_ready(environment())


def test_make_works_in_a_folder_with_blanks(checkout):
    """The Makefile calls its Pythons correctly in a folder with blanks; both Pythons only print their arguments."""
    shutil.copy(CHECKOUT / "Makefile", checkout)
    for python in (checkout / "my python", checkout / ".venv" / "bin" / "python"):
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text('#!/bin/sh\necho "$0 $*"\n')
        python.chmod(0o755)
    command = ["make", f"PYTHON={checkout / 'my python'}", "up"]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    calls = done.stdout.splitlines()
    assert calls[-2].startswith(f"{checkout / 'my python'} -m stack.environment .venv .venv-label-studio")
    assert calls[-2].endswith("--this-python")
    assert calls[-1] == ".venv/bin/python -m stack up"
