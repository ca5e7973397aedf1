"""Who may import whom, and what no module may do. Read from the source, so that nothing has to be installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("backend", "cli", "demo", "label_config", "osprey_model", "worker")

# What a file of a room may import of ours. `worker.queue` allows that module and what lies below it.
MAY_IMPORT = {
    "label_config": ("label_config",),
    "backend": (
        "backend", "label_config",
        "worker.contracts", "worker.errors", "worker.fields", "worker.mask_codec", "worker.queue", "worker.settings",
        "worker.images.task_image", "worker.learning.shares",
    ),
    "worker": ("worker", "label_config", "osprey_model"),
    "osprey_model": ("osprey_model",),
    "demo": ("demo", "backend", "label_config", "osprey_model", "worker"),
    "cli": ("cli", "backend", "demo", "label_config", "osprey_model", "worker"),
}  # fmt: skip

MODEL_LIBRARIES = ("torch", "torchvision", "transformers", "open_clip", "timm", "segment_anything", "safetensors")
SERVICE_LIBRARIES = ("redis", "rq", "starlette", "uvicorn", "httpx", "httpcore", "label_studio_ml", "label_studio_sdk")
MAY_NOT_IMPORT = {
    "label_config": (*MODEL_LIBRARIES, *SERVICE_LIBRARIES),
    "backend": MODEL_LIBRARIES,
    "osprey_model": SERVICE_LIBRARIES,
}
# Libraries that one place alone may import, so that replacing them means editing that place.
ONLY_IN = {
    "label_studio_ml": ("backend/ml_backend.py",),
    "segment_anything": ("worker/sam/segmenter.py", "worker/sam/device.py", "worker/sam/presets.py", "demo/training/"),
}
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py", "misc.py"}
ENTRY_NAMES = {"main.py", "__main__.py"}
HANDS_ENVIRONMENT_ON = {"demo/evaluation/private_service.py"}  # to the processes it starts; reads nothing for itself


def sources() -> list[str]:
    """Every Python file of the rooms, as a path relative to the checkout."""
    return sorted(str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module with its line; `from a import b` counts as `a.b`, which may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level, node.lineno
            else:
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def is_below(module: str, allowed: tuple[str, ...]) -> bool:
    """Whether `module` is one of `allowed` or lies below it."""
    return any(module == name or module.startswith(name + ".") for name in allowed)


def import_violations(path: str, source: str) -> list[str]:
    """What a file imports against the rules."""
    room, found = path.split("/")[0], []
    for module, line in imports(ast.parse(source)):
        top = module.split(".")[0]
        where = f"{path}:{line} imports {module}"
        if not top:
            found.append(f"{where}: relative imports hide which room is meant")
        elif top in ROOMS and not is_below(module, MAY_IMPORT[room]):
            found.append(f"{where}: {room} may import only {', '.join(MAY_IMPORT[room])} of ours")
        elif top in MAY_NOT_IMPORT.get(room, ()):
            found.append(f"{where}: {room} does without {top}")
        elif top in ONLY_IN and not path.startswith(ONLY_IN[top]):
            found.append(f"{where}: only {', '.join(ONLY_IN[top])} may import {top}")
    return found


def environment_violations(path: str, source: str) -> list[str]:
    """Reads of the process environment outside an entry: a command, a `main` file or a file with a `__main__` block."""
    tree = ast.parse(source)
    is_script = any(isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in tree.body)
    if is_script or path.startswith("cli/") or Path(path).name in ENTRY_NAMES or path in HANDS_ENVIRONMENT_ON:
        return []
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.environb", "os.getenv"):
            found.append(f"{path}:{node.lineno} reads the environment; take a Settings or a mapping instead")
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names} & {"environ", "environb", "getenv"}
            found.extend(f"{path}:{node.lineno} imports {name}; take a Settings or a mapping instead" for name in names)
    return found


def eager_violations(path: str, source: str) -> list[str]:
    """Imports of our rooms at the top of a `cli` file: each command imports what it needs when it runs."""
    if not path.startswith("cli/"):
        return []
    top_level = [node for node in ast.parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return [
        f"{path}:{line} imports {module} for every command; import it inside the command"
        for module, line in imports(ast.Module(body=top_level, type_ignores=[]))
        if module.split(".")[0] in ROOMS and not module.startswith("cli")
    ]


def violations(path: str, source: str) -> list[str]:
    """Every broken rule of a file."""
    return [
        *import_violations(path, source),
        *environment_violations(path, source),
        *eager_violations(path, source),
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_room_keeps_the_rules(room):
    """Imports go only the allowed ways, the environment is read only at entries, commands import lazily."""
    paths = [path for path in sources() if path.startswith(room + "/")]
    assert paths
    assert [found for path in paths for found in violations(path, (ROOT / path).read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("backend/app.py", "import torch"),
        ("backend/app.py", "from worker import jobs"),
        ("backend/app.py", "def f():\n    from worker.jobs import segment"),
        ("backend/app.py", "import osprey_model.config"),
        ("backend/app.py", "from label_studio_ml.model import LabelStudioMLBase"),
        ("backend/app.py", "from cli import main"),
        ("label_config/reader.py", "import httpx"),
        ("label_config/reader.py", "from worker.contracts import Rle"),
        ("osprey_model/weights/build.py", "from worker import queue"),
        ("osprey_model/weights/build.py", "import redis"),
        ("worker/jobs.py", "from backend import settings"),
        ("worker/jobs.py", "import demo.scenes"),
        ("worker/jobs.py", "from segment_anything import SamPredictor"),
        ("worker/jobs.py", "from .queue import JobQueue"),
        ("worker/images/resolver.py", "import os\nURL = os.environ['X']"),
        ("worker/images/resolver.py", "import os\ndef url():\n    return os.getenv('X')"),
        ("worker/images/resolver.py", "from os import environ"),
        ("cli/worker.py", "from worker.main import main"),
    ],
)
def test_broken_rule_is_found(path, source):
    """The checks above can fail: each of these lines is found."""
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("backend/app.py", "from worker.queue import JobQueue\nfrom label_config.reader import read_label_config"),
        ("backend/ml_backend.py", "from label_studio_ml.model import LabelStudioMLBase"),
        ("backend/main.py", "import os\nprint(os.environ)"),
        ("demo/stack/init.py", "import os\nif __name__ == '__main__':\n    print(os.environ)"),
        ("cli/worker.py", "def worker():\n    from worker.main import main\n    import os\n    main(os.environ)"),
    ],
)
def test_allowed_line_passes(path, source):
    """The checks above do not complain about what is allowed."""
    assert violations(path, source) == []


def test_no_file_is_a_drawer():
    """No utils.py, helpers.py, common.py or misc.py: a module is named after what is in it."""
    assert [path for path in sources() if Path(path).name in FORBIDDEN_NAMES] == []


def test_no_packages_under_tests():
    """An __init__.py under tests would hide the room of the same name."""
    assert [str(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


CHILD = """
import importlib, pkgutil, socket, sys
for name in {blocked!r}:
    sys.modules[name] = None

def refuse(*_):
    raise AssertionError("importing connects to something")

socket.socket.connect = refuse
for name in {modules!r}:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
"""


@pytest.mark.parametrize(
    ("modules", "blocked"),
    [
        (["label_config"], (*MODEL_LIBRARIES, *SERVICE_LIBRARIES, "osprey_model", "worker", "backend")),
        (["worker.contracts", "worker.errors", "worker.mask_codec"], (*MODEL_LIBRARIES, "osprey_model", "redis")),
        (["worker.queue", "worker.settings"], (*MODEL_LIBRARIES, "osprey_model", "label_studio_sdk")),
        (["backend"], (*MODEL_LIBRARIES, "osprey_model", "worker.jobs", "worker.runtime", "worker.sam.segmenter")),
        (["worker.main", "worker.learning.jobs", "worker.learning.schedule"], MODEL_LIBRARIES),
        (["cli.main"], (*MODEL_LIBRARIES, "osprey_model", "worker", "backend", "label_config", "demo", "redis")),
    ],
    ids=lambda value: value[0],
)
def test_imports_without(modules, blocked):
    """Each imports in a fresh process in which what it must do without is not there and nothing can connect."""
    code = CHILD.format(blocked=list(blocked), modules=modules)
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert child.returncode == 0, child.stderr
