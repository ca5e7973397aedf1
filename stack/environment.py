"""`make env` (`python -m stack.environment`): build the two Python environments, or repair them.

Each environment holds a stamp: its folder, its Python version, and a hash of the files that it was made from. After a
checkout was moved or copied, the packages stay; only the paths that pip wrote into scripts and into the editable
install are rewritten. Only the standard library is needed, because this runs before any environment exists.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STAMP = ".ready"
_EXTRAS = "backend,worker,store,train,eval,stack,dev"
_PIP = ("-m", "pip", "install", "--disable-pip-version-check", "-q")
_VENV = ("-m", "venv", "--clear")
_REPORT_EVERY_S = 15
_LONGEST_SHEBANG = 127  # bytes of a script's first line that Linux reads before 5.1


class EnvironmentFailed(Exception):
    """An environment cannot be made; the message says what to do."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment of this checkout: its folder, the files it is made from, and the calls of pip."""

    folder: Path
    title: str
    size: str
    made_from: tuple[Path, ...]
    installs: tuple[tuple[str, ...], ...]
    editable: bool  # whether it holds links to this checkout

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def digest(self) -> str:
        """Return a hash of the files and calls of pip that it is made from."""
        contents = [file.read_bytes().hex() for file in self.made_from]
        return hashlib.sha256(json.dumps([contents, self.installs]).encode()).hexdigest()


PACKAGES = Environment(
    folder=Path(".venv"),
    title="Python packages",
    size="about 6 GB with torch, some minutes",
    made_from=(Path("pyproject.toml"), Path("constraints.txt")),
    installs=(
        ("-c", "constraints.txt", "-e", f".[{_EXTRAS}]"),
        # Without its dependencies: they are pinned to old releases (Flask 1.1, Jinja 3.0, ...) without security fixes,
        # and the part that we use imports none of them.
        ("--no-deps", "label-studio-ml==1.0.9", "label-studio-tools==0.0.4"),
    ),
    editable=True,
)
LABEL_STUDIO = Environment(
    folder=Path(".venv-label-studio"),
    title="Label Studio",
    size="about 1 GB, a minute or two",
    made_from=(Path("constraints-label-studio.txt"),),
    installs=(("-c", "constraints-label-studio.txt", "label-studio==1.23.2"),),
    editable=False,
)
BY_FOLDER = {str(each.folder): each for each in (PACKAGES, LABEL_STUDIO)}


def make_ready(environment: Environment, wanted_python: str | None = None) -> str | None:
    """Build or repair an environment where that is necessary.

    Args:
        environment: its folder is relative to the working folder, which is the checkout.
        wanted_python: the version that a person asked for, such as "3.12"; None: any version.

    Returns:
        A line that says what was done; None: the environment was ready.

    Raises:
        EnvironmentFailed: a package cannot be installed, or the folder cannot be written.
    """
    stamp_file = environment.folder / STAMP
    stamp = _read_stamp(stamp_file)
    present = _version_of(environment.python)
    here, began = str(environment.folder.absolute()), time.monotonic()
    is_other = bool(wanted_python and present and not present.startswith(wanted_python + "."))
    if present is None or is_other:
        was_there = environment.folder.exists()
        why = f"its Python was {present}" if is_other else "its Python is gone" if was_there else "it did not exist"
    elif stamp.get("made_from") != environment.digest():
        why = "its list of packages has changed" if stamp else "an earlier release made it, or it was not finished"
    elif stamp.get("folder") != here or stamp.get("python") != present:
        why = ""
    else:
        return None
    stamp_file.unlink(missing_ok=True)
    if present is None or is_other:
        _say(f"{environment.title} into {environment.folder} ({why}): {environment.size}. The next run does nothing.")
        _run([sys.executable, *_VENV, str(environment.folder)], "make the environment")
        _install(environment)
        done = "built"
    elif why:
        _say(f"{environment.title} into {environment.folder} again ({why}).")
        _rewrite_paths(environment)
        _install(environment)
        done = "brought up to date"
    else:
        _rewrite_paths(environment)
        if environment.editable:
            _link_checkout(environment)
        done = f"repaired: this folder was moved or copied from {Path(stamp.get('folder', '?')).parent}"
    record = {"folder": here, "python": _version_of(environment.python), "made_from": environment.digest()}
    stamp_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return f"{environment.title}: {done} ({time.monotonic() - began:.0f} s)"


def _read_stamp(file: Path) -> dict[str, str]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is no stamp, or an empty one of an earlier release
        return {}
    return read if isinstance(read, dict) else {}


def _version_of(python: Path) -> str | None:
    """Return the version of an interpreter; None: it does not exist or does not run."""
    try:
        done = subprocess.run(
            [python, "-c", "import platform; print(platform.python_version())"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _install(environment: Environment) -> None:
    for arguments in environment.installs:
        command = [str(environment.python), *_PIP, *arguments]
        child = subprocess.Popen(command)
        began = time.monotonic()
        while True:
            try:
                status = child.wait(_REPORT_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                _say(f"      {time.monotonic() - began:.0f} s, {_megabytes(environment.folder)} MB installed")
        if status:
            raise EnvironmentFailed(
                f"pip could not install {environment.title} (see above); correct the cause and run make env again"
            )


def _link_checkout(environment: Environment) -> None:
    """Install this checkout in editable mode again, without its dependencies, which are already there."""
    command = [str(environment.python), *_PIP, "--no-deps", "-e", "."]
    has_setuptools = subprocess.run([environment.python, "-c", "import setuptools"], capture_output=True, check=False)
    if has_setuptools.returncode == 0:
        command.append("--no-build-isolation")  # so that pip downloads nothing
    _run(command, "link this checkout into it")


def _rewrite_paths(environment: Environment) -> None:
    """Rewrite the scripts of an environment so that they name its present folder.

    `venv` writes its own files (`activate`, ...); the scripts that pip made get a new first line.
    """
    _run([str(environment.python), "-m", "venv", "--without-pip", str(environment.folder)], "rewrite its paths")
    folder = environment.folder.absolute() / "bin"
    for script in sorted(folder.iterdir()):
        if script.is_symlink() or not script.is_file():
            continue
        content = script.read_bytes()
        body = _after_header(content)
        if body is not None and not content.startswith(header := _header(folder / "python")):
            draft = script.with_name(script.name + ".new")
            draft.write_bytes(header + body)
            draft.chmod(script.stat().st_mode)
            draft.replace(script)


def _header(python: Path) -> bytes:
    """Return the first lines of a script that run it with `python`, as pip writes them.

    A path with blanks, or one too long for a first line, needs a detour: a shell that executes the interpreter.
    """
    simple = b"#!" + os.fsencode(python) + b"\n"
    if len(simple) <= _LONGEST_SHEBANG and not any(character.isspace() for character in str(python)):
        return simple
    return b"#!/bin/sh\n'''exec' " + os.fsencode(_quoted(python)) + b" \"$0\" \"$@\"\n' '''\n"


def _quoted(python: Path) -> str:
    """Quote a path for the shell, in a text that is also the inside of a Python string with three apostrophes."""
    return '"' + "".join(f"\\{each}" if each in '"\\$`' else each for each in str(python)) + '"'


def _after_header(content: bytes) -> bytes | None:
    """Return a Python script without the lines that choose its interpreter; None: the file is not such a script."""
    lines = content.split(b"\n", 3)
    if lines[0] == b"#!/bin/sh" and len(lines) == 4 and lines[1].startswith(b"'''exec' ") and lines[2] == b"' '''":
        return lines[3]
    if lines[0].startswith(b"#!/") and b"/bin/python" in lines[0]:
        return content.split(b"\n", 1)[1]
    return None


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise EnvironmentFailed(f"cannot {what}: {shlex.join(command)}\n{done.stdout.strip()}")


def _megabytes(folder: Path) -> int:
    done = subprocess.run(["du", "-sm", str(folder)], stdout=subprocess.PIPE, text=True, check=False)
    return int(done.stdout.split()[0]) if done.returncode == 0 else 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command


def main(arguments: Sequence[str]) -> None:
    """Build or repair the environments that `arguments` name; `--this-python` builds them with the calling Python."""
    wanted = f"{sys.version_info[0]}.{sys.version_info[1]}" if "--this-python" in arguments else None
    for name in (each for each in arguments if each != "--this-python"):
        try:
            line = make_ready(BY_FOLDER[name], wanted)
        except (EnvironmentFailed, OSError) as error:
            sys.exit(f"make env: {error}")
        if line is not None:
            _say(line)


if __name__ == "__main__":
    main(sys.argv[1:])
